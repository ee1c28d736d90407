"""The curvature that changes of points and gradients tell of, by L-BFGS."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core.geometry import BLOCK
from privfl.core.types import Vector


def hessian_product(pairs: Sequence[tuple[Vector, Vector]], v: Vector) -> Float[Tensor, " d"]:
    """H v in float64 with H from pairs (s, y) of changes of point and gradient [d], newest last, by
    the compact form of L-BFGS (Byrd, Nocedal, Schnabel 1994); 0 where no pair has s'y > 0.

    H v = sigma v - [sigma S, Y] [[sigma S'S, L], [L', -D]]^-1 [sigma S'v; Y'v], sigma = y's / s's
    of the newest pair, L the part of S'Y under its diagonal D.

    >>> pairs = [(torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0]))]
    >>> hessian_product(pairs, torch.tensor([2.0, 0.0]))
    tensor([6., 0.], dtype=torch.float64)
    """
    bent = torch.zeros_like(v, dtype=torch.float64)
    if not pairs:
        return bent
    k, own = len(pairs), 2 * len(pairs)
    vectors = [*(y for _, y in pairs), *(s for s, _ in pairs), v]
    inner = torch.zeros(k + 1, len(vectors), dtype=torch.float64)  # Y'Y is not needed
    for _, block in _blocks(vectors):
        inner += _products(block[k:], block).cpu()
    good = (inner[:k, :k].diagonal() > 0).nonzero().flatten()
    if not len(good):
        return bent
    Y, S = good, good + k
    products = inner[good][:, Y]
    lower, diagonal = products.tril(-1), torch.diag(products.diagonal())
    sigma = float(products[-1, -1] / inner[good[-1], S[-1]])
    middle = torch.cat(
        [
            torch.cat([sigma * inner[good][:, S], lower], dim=1),
            torch.cat([lower.T, -diagonal], dim=1),
        ]
    )
    right = torch.cat([sigma * inner[k, S], inner[k, Y]])
    solved = torch.linalg.lstsq(middle, right[:, None], driver="gelsd").solution[:, 0]
    weights = torch.zeros(len(vectors), dtype=torch.float64)
    weights[S], weights[Y], weights[own] = -sigma * solved[: len(S)], -solved[len(S) :], sigma
    for where, block in _blocks(vectors):
        torch.mv(block.T, weights.to(block), out=bent[where])
    return bent


def _products(some: Float[Tensor, "k b"], every: Float[Tensor, "m b"]) -> Float[Tensor, "k m"]:
    """Inner products: numpy's, which for a few rows are much faster than torch's on a CPU."""
    if every.device.type != "cpu":
        return some @ every.T
    with np.errstate(over="ignore", invalid="ignore"):
        return torch.from_numpy(some.numpy() @ every.numpy().T)


def _blocks(vectors: Sequence[Vector]) -> Iterator[tuple[slice, Float[Tensor, "m b"]]]:
    """Blocks of vectors side by side in float64, in room that the next one takes."""
    d, (dtype, device) = len(vectors[0]), (vectors[0].dtype, vectors[0].device)
    if any(vector.dtype != dtype for vector in vectors):
        vectors, dtype = [vector.double() for vector in vectors], torch.float64
    size = len(vectors) * min(BLOCK, d)
    narrow = torch.empty(size, dtype=dtype, device=device)
    wide = torch.empty(size, dtype=torch.float64, device=device)
    for start in range(0, d, BLOCK):
        where = slice(start, min(start + BLOCK, d))
        shape = len(vectors), where.stop - start
        taken = narrow[: math.prod(shape)].view(shape)
        block = wide[: math.prod(shape)].view(shape)
        torch.stack([vector[where] for vector in vectors], out=taken)
        yield where, block.copy_(taken)
