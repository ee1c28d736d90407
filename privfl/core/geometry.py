"""Geometry of rows that many rules and attacks share."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def squared_distances(values: Float[Tensor, "n d"], block: int = 1 << 16) -> Float[Tensor, "n n"]:
    """Pairwise squared L2 distances [n, n] in float64, right even where the rows lie close together and far from zero.

    One Gram matrix, centred block by block: O(n^2 d) flops in matrix products, O(n^2 + n block) extra memory.
    ``torch.cdist`` on rows of norm 100 that differ by 0.1 is off by a tenth; this is not.

    >>> squared_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))[0, 1]
    tensor(25., dtype=torch.float64)
    """
    squared = _from_centre(values, values.mean(dim=0), block)
    reach = squared.median(dim=1).values  # how far a row must look to meet half of the others
    if squared.max() > 16 * reach.min():  # far rows drag the mean out of the crowd and blur it: centre on a row of the crowd
        squared = _from_centre(values, values[reach.argmin()], block)
    return squared


def _from_centre(values: Float[Tensor, "n d"], centre: Float[Tensor, " d"], block: int) -> Float[Tensor, "n n"]:
    gram = torch.zeros(len(values), len(values), dtype=torch.float64, device=values.device)
    for part, middle in zip(torch.split(values, block, dim=1), torch.split(centre, block), strict=True):
        centred = part - middle
        gram += centred @ centred.T
    norms = gram.diagonal()
    return (norms[:, None] + norms - 2 * gram).clamp_(min=0).fill_diagonal_(0)
