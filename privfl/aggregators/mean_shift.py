"""Mean shift with a flat kernel (Comaniciu, Meer 2002): how SignGuard groups a few features of each
row.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from torch import Tensor

Points: TypeAlias = npt.NDArray[np.float64]
_TIES = 1 + 1e-9
"""Features are shares of a few coordinates, so that distances tie with the bandwidth: rounding must
not decide these.
"""
_STOP = 1e-3
_MOST = 300


def largest_cluster(features: Float[Tensor, "n k"]) -> Bool[Tensor, " n"]:
    """The rows of the largest cluster; where at least half of the rows look exactly alike, those.

    The bandwidth is the mean distance to the (n / 2)-th nearest row, itself the first; seeds are
    the cells of a grid of that width that hold a row; centres nearer than it are one; a row farther
    than it from every centre is in no cluster.

    >>> largest_cluster(torch.tensor([[0.0], [0.1], [0.2], [9.0]]))
    tensor([ True,  True,  True, False])
    """
    points = features.numpy().astype(np.float64)
    near = np.sort(_distances(points, points), axis=1)[:, max(len(points) // 2, 1) - 1]
    width = float(near.mean()) * _TIES
    if not width > 0:
        alike = (features[:, None] == features).all(dim=2)
        return alike[int(alike.sum(dim=1).argmax())]
    centres = _centres(points, width)
    apart = _distances(points, centres)
    least = apart.min(axis=1)
    nearest = (apart <= least[:, None] * _TIES).argmax(
        axis=1
    )  # of equally near centres the more crowded
    nearest[least > width] = -1
    return torch.from_numpy(nearest == np.bincount(nearest[nearest >= 0]).argmax())


def _centres(points: Points, width: float) -> Points:
    """Where the seeds come to rest, the most crowded first, without those nearer than ``width`` to
    a more crowded one.
    """
    cells = np.unique(np.round(points / width), axis=0) * width
    at = points.copy() if len(cells) == len(points) else cells
    crowd = np.zeros(len(at), dtype=np.int64)
    moving = np.arange(len(at))
    for _ in range(_MOST + 1):
        within = _distances(at[moving], points) <= width
        crowd[moving] = within.sum(axis=1)
        moving, within = (
            moving[crowd[moving] > 0],
            within[crowd[moving] > 0],
        )  # a seed without a row around it stays where it is
        shifted = within @ points / crowd[moving, None]
        far = np.linalg.norm(shifted - at[moving], axis=1) > _STOP * width
        at[moving] = shifted
        moving = moving[far]
        if not len(moving):
            break
    order = np.lexsort((*at.T[::-1], crowd))[::-1]
    kept: list[int] = []
    for i in order[crowd[order] > 0].tolist():
        if not kept or float(_distances(at[i][None], at[kept]).min()) > width:
            kept.append(i)
    found: Points = at[kept]
    return found


def _distances(one: Points, other: Points) -> Points:
    apart: Points = np.linalg.norm(one[:, None] - other, axis=2)
    return apart
