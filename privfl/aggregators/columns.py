"""Sorted columns: the coordinate-wise rules look at one coordinate of all rows at a time, in blocks
that fit in a cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = 4096


def sorted_columns(
    values: Float[Tensor, "n d"], chosen: Tensor | None = None
) -> Iterator[tuple[slice, Float[Tensor, "b n"]]]:
    """Blocks of coordinates, each as [b, n] with the n values of a coordinate in ascending order;
    of the chosen rows only, if given.

    Sorting short contiguous runs with numpy's vectorised sort measured 20 times faster than
    ``torch.sort`` down the columns.
    """
    wide = values.dtype if values.dtype in (torch.float32, torch.float64) else torch.float32
    for start in range(0, values.shape[1], BLOCK):
        part = (
            values[:, start : start + BLOCK]
            if chosen is None
            else values[chosen, start : start + BLOCK]
        )
        columns = part.detach().to(wide).T.clone(memory_format=torch.contiguous_format)
        if columns.device.type == "cpu":
            columns.numpy().sort(axis=1)
        else:
            columns = columns.sort(dim=1).values
        yield slice(start, start + columns.shape[0]), columns


def middle(columns: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """The median of each sorted column: the midpoint of the two middle values where n is even."""
    n = columns.shape[1]
    low, high = columns[:, (n - 1) // 2], columns[:, n // 2]
    return low + (high - low) / 2


def nearest_middle_mean(columns: Float[Tensor, "b n"], keep: int) -> Float[Tensor, " b"]:
    """The mean of the ``keep`` values nearest the median of each sorted column; of equally near
    ones the lower.

    They lie side by side, so there are n - keep + 1 windows to compare; the one whose farther end
    is nearest wins.
    """
    n = columns.shape[1]
    centre = middle(columns)
    best = torch.zeros_like(centre, dtype=torch.int64)
    least = torch.full_like(centre, torch.inf)
    for start in range(n - keep + 1):
        reach = torch.maximum(centre - columns[:, start], columns[:, start + keep - 1] - centre)
        nearer = reach < least
        best[nearer] = start
        least = torch.minimum(least, reach)
    window = best[:, None] + torch.arange(keep, device=columns.device)
    return columns.gather(1, window).mean(dim=1)


def midpoint(values: Float[Tensor, " n"]) -> float:
    """The median: the midpoint of the two middle values for even n."""
    ordered = values.sort().values
    return float((ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2)
