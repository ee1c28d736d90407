"""Cosines of rows, right for zero rows and for long ones."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core.geometry import squared_norms


def cosines_to(values: Float[Tensor, "n d"], reference: Float[Tensor, " d"]) -> Float[Tensor, " n"]:
    """Cosines [n] with the reference in float64; 0 where either is the zero vector."""
    reference = reference.to(values.device)
    norms = squared_norms(values).sqrt() * squared_norms(reference[None]).sqrt()
    length = squared_norms(reference[None]).sqrt().clamp(min=1e-300)
    along = (values @ (reference / length.to(reference)).to(values)).to(torch.float64) * length
    return (
        torch.where(norms > 0, along / norms.clamp(min=1e-300), torch.zeros(()).to(norms))
        .clamp(-1, 1)
        .cpu()
    )
