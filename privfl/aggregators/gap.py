"""How many clusters points form: k-means, and the gap statistic of Tibshirani, Walther and Hastie
(2001).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

Points: TypeAlias = npt.NDArray[np.float64]
_LEAST = 1e-12
"""Within-cluster sums of squares of points in [0, 1] under which nothing is left to tell apart."""
_FLAT = 1e-6
"""The width of a coordinate, relative to the widest, under which it is rounding and not stretched.
"""
_STEPS = 300


def k_means(points: Float[Tensor, "n k"], count: int) -> Int[Tensor, " n"]:
    """Labels of Lloyd's k-means from the points that lie farthest from those before them, the first
    the farthest from the mean: no chance, and no order of the points, decides.

    >>> k_means(torch.tensor([[0.0], [0.1], [5.0]]), 2).tolist()
    [1, 1, 0]
    """
    return torch.from_numpy(_labels(points.double().numpy(), count))


def clusters_by_gap(
    points: Float[Tensor, "n k"], most: int, references: int, rng: torch.Generator
) -> int:
    """The least number of clusters, up to ``most``, whose gap is at least that of one more less its
    standard error.

    Gap(k) = E log W*_k - log W_k, with W_k the sum of squared distances to the centres of points
    stretched to [0, 1] in each coordinate, and W*_k that of as many uniform points, drawn
    ``references`` times.
    """
    seen = points.double().numpy()
    low, width = seen.min(axis=0), np.ptp(seen, axis=0)
    told = width > _FLAT * width.max()
    seen = np.where(told, (seen - low) / np.where(told, width, 1.0), 0.0)
    n, dims = len(seen), points.shape[1]
    drawn = torch.rand(references, n, dims, generator=rng, dtype=torch.float64).numpy()
    before = 0.0
    fewer = max(min(most, n - 1), 1)
    for count in range(1, fewer + 2):
        expected = np.log([_within(one, min(count, n)) for one in drawn])
        gap = float(expected.mean()) - float(np.log(_within(seen, min(count, n))))
        error = float(expected.std()) * (1 + 1 / references) ** 0.5
        if count > 1 and before >= gap - error:
            return count - 1
        before = gap
    return fewer


def _within(points: Points, count: int) -> float:
    labels = _labels(points, count)
    total = 0.0
    for label in range(count):
        inside = points[labels == label]
        total += float(((inside - inside.mean(axis=0)) ** 2).sum()) if len(inside) else 0.0
    return max(total, _LEAST)


def _labels(points: Points, count: int) -> npt.NDArray[np.int64]:
    away = ((points - points.mean(axis=0)) ** 2).sum(axis=1)
    chosen = [int(away.argmax())]
    least = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < count:
        chosen.append(int(least.argmax()))
        least = np.minimum(least, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    centres = points[chosen]
    labels = np.full(len(points), -1)
    for _ in range(_STEPS):
        now = ((points[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
        if (now == labels).all():
            break
        labels = now
        for label in range(count):
            if (labels == label).any():
                centres[label] = points[labels == label].mean(axis=0)
    return labels
