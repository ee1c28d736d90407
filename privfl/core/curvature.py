"""The curvature that changes of points and gradients tell of, by L-BFGS."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core.geometry import BLOCK
from privfl.core.types import Vector

Floats: TypeAlias = npt.NDArray[np.float64]
Index: TypeAlias = npt.NDArray[Any]


def hessian_product(pairs: Sequence[tuple[Vector, Vector]], v: Vector) -> Float[Tensor, " d"]:
    """H v in float64 with H from pairs (s, y) of changes of point and gradient [d], newest last, by
    L-BFGS (Nocedal, Wright 2006, section 7.2); 0 where no pair has s'y > 0.

    H is sigma times the identity, sigma = y's / s's of the newest pair, which each pair in its turn
    bends by yy' / y's - Hss'H / s'Hs. Lengths of s do not matter, nor whether they are parallel.
    That is computed on inner products alone; a pair whose s'Hs is lost in rounding is left out.

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
    length = inner[:k, k:own].diagonal()
    good = ((inner[:k, :k].diagonal() > 0) & (length > 0)).nonzero().flatten()
    if not len(good):
        return bent
    weights = torch.zeros(len(vectors), dtype=torch.float64)
    weights[good], weights[good + k], weights[own] = _bent(inner.numpy(), good.numpy())
    for where, block in _blocks(vectors):
        torch.mv(block.T, weights.to(block), out=bent[where])
    return bent


def _bent(inner: Floats, good: Index) -> tuple[Tensor, Tensor, float]:
    """The weights of the good pairs' y and s and of v in H v, from the products [k + 1, 2 k + 1] of
    s and v with y, s and v. Each s, and its y with it, is taken for as long as a unit vector.
    """
    k, m = len(inner) - 1, len(good)
    unit = inner[good, good + k] ** -0.5
    twice = np.tile(unit, 2)
    among = np.concatenate([good, good + k])
    with_s = twice[:, None] * inner[good][:, among].T * unit  # [2 m, m]
    with_v = twice * inner[k, among]
    sigma = float(with_s[m - 1, m - 1])
    ends: list[tuple[float, Floats]] = []  # H's terms: sign, and a vector's weights of y and s
    for j in range(m):
        start = np.zeros(2 * m)
        start[m + j] = sigma
        turned = start + sum(sign * (one @ with_s[:, j]) * one for sign, one in ends)
        along = float(turned @ with_s[:, j])
        if not along > 0:
            continue
        gradient = np.zeros(2 * m)
        gradient[j] = with_s[j, j] ** -0.5
        ends += [(1.0, gradient), (-1.0, turned * along**-0.5)]
    found = twice * sum(sign * (one @ with_v) * one for sign, one in ends)
    return torch.from_numpy(found[:m]), torch.from_numpy(found[m:]), sigma


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
