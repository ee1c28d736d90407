"""How far clients' models w + x_i are apart, right although they lie so close together that their
own inner products would blur it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core.geometry import BLOCK, centred_gram, gram

_LOST = 1e-4
"""Of what is left of two close numbers' difference, the share that may be rounding."""
_LONGER = 16
"""A row so many times as far as two models are long blurs what is between them."""
_PARALLEL = 4e-15
"""Cosine distances under it are rounding of float64."""


def cosine_distances_of_models(
    values: Float[Tensor, "n d"],
    parameters: Float[Tensor, " d"],
    lengths: tuple[Float[Tensor, " n"], Float[Tensor, "n n"]] | None = None,
) -> Float[Tensor, "n n"]:
    """1 - cos(w + x_i, w + x_j) in float64, from distances of updates; ``lengths`` is what
    `norms_of_models` says of them, where that is known. From the models themselves, in float64,
    where distances have not the digits: of models that are parallel, or of very different length.
    """
    inner = centred_gram(values).cpu()
    squares = inner.diagonal()
    apart = (squares[:, None] + squares - 2 * inner).clamp(min=0)
    norms, difference = lengths or norms_of_models(values, parameters)
    product = 2 * norms[:, None] * norms
    left = (apart - difference**2).clamp(min=0)
    cosine_distance = left / product.clamp(min=1e-300)
    rounding = 1e-15 if values.dtype == torch.float64 else 1e-7
    blurred = (rounding * apart > _LOST * left) | (apart > _LONGER * product)
    blurred &= (apart > 0) & (product > 0)
    if bool(blurred.any()):
        models = gram(values, -parameters, exact=True).cpu()
        told = (1 - 2 * models / product.clamp(min=1e-300)).clamp(min=0)
        told = torch.where(told > _PARALLEL, told, torch.zeros(()).to(told))
        cosine_distance = torch.where(blurred, told, cosine_distance)
    return (
        torch.where(product > 0, cosine_distance, torch.ones(()).to(product))
        .clamp(max=2)
        .fill_diagonal_(0)
    )


def norms_of_models(
    values: Float[Tensor, "n d"], parameters: Float[Tensor, " d"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    """||w + x_i|| in float64, and the differences of all pairs of these."""
    excess = torch.zeros(len(values), dtype=torch.float64)  # ||w + x||^2 - ||w||^2
    base = 0.0
    for start in range(0, values.shape[1], BLOCK):
        w = parameters[start : start + BLOCK].to(torch.float64)
        part = values[:, start : start + BLOCK].to(torch.float64)
        base += float(w @ w)
        excess += (2 * (part @ w) + part.square().sum(dim=1)).cpu()
    norms = (base + excess).clamp(min=0).sqrt()
    total = norms[:, None] + norms
    difference = (excess[:, None] - excess) / total.clamp(min=1e-300)
    short = base + excess < 1e-6 * base  # next to nothing is left of w: the sums have no digits
    for i in short.nonzero().flatten().tolist():
        norms[i] = (values[i].double() + parameters).norm().cpu()
        difference[i] = norms[i] - norms
        difference[:, i] = -difference[i]
    return norms, difference
