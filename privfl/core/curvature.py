"""The curvature that changes of points and gradients tell of, by L-BFGS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core.geometry import gram
from privfl.core.types import Vector

_BLOCK = 8192
"""Columns at a time, which are gathered from vectors one by one."""


def hessian_product(pairs: Sequence[tuple[Vector, Vector]], v: Vector) -> Float[Tensor, " d"]:
    """H v in float64 with H from pairs (s, y) of changes of point and gradient [d], newest last, by
    the compact form of L-BFGS (Byrd, Nocedal, Schnabel 1994); 0 where no pair has s'y > 0.

    H v = sigma v - [sigma S, Y] [[sigma S'S, L], [L', -D]]^-1 [sigma S'v; Y'v], sigma = y's / s's
    of the newest pair, L the part of S'Y under its diagonal D.

    >>> pairs = [(torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0]))]
    >>> hessian_product(pairs, torch.tensor([2.0, 0.0]))
    tensor([6., 0.], dtype=torch.float64)
    """
    v = v.double()
    if not pairs:
        return torch.zeros_like(v)
    vectors = [*(s for s, _ in pairs), *(y for _, y in pairs), v]
    inner = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for _, block in _blocks(vectors):
        inner += gram(block)
    k = len(pairs)
    good = (inner[:k, k:-1].diagonal() > 0).nonzero().flatten()
    if not len(good):
        return torch.zeros_like(v)
    S, Y, own = good, good + k, 2 * k
    products = inner[S][:, Y]
    lower, diagonal = products.tril(-1), torch.diag(products.diagonal())
    sigma = float(products[-1, -1] / inner[S[-1], S[-1]])
    middle = torch.cat(
        [
            torch.cat([sigma * inner[S][:, S], lower], dim=1),
            torch.cat([lower.T, -diagonal], dim=1),
        ]
    )
    right = torch.cat([sigma * inner[S, own], inner[Y, own]])
    solved = torch.linalg.lstsq(middle, right[:, None], driver="gelsd").solution[:, 0]
    weights = torch.zeros(len(vectors), dtype=torch.float64)
    weights[S], weights[Y], weights[own] = -sigma * solved[: len(S)], -solved[len(S) :], sigma
    bent = torch.empty_like(v)
    for where, block in _blocks(vectors):
        torch.mv(block.T, weights, out=bent[where])
    return bent


def _blocks(vectors: Sequence[Vector]) -> Iterator[tuple[slice, Float[Tensor, "m b"]]]:
    """Blocks of vectors side by side in float64, in room that the next one takes."""
    d = len(vectors[0])
    room = torch.empty(len(vectors), min(_BLOCK, d), dtype=torch.float64, device=vectors[0].device)
    for start in range(0, d, _BLOCK):
        where = slice(start, min(start + _BLOCK, d))
        block = room[:, : where.stop - start]
        for i, vector in enumerate(vectors):
            block[i] = vector[where]
        yield where, block
