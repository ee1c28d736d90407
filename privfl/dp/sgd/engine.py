"""What every gradient engine returns, and what all of them refuse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from privfl.core import Loss, UnsupportedModel
from privfl.dp.sgd.per_sample_gradients import squares

Factors: TypeAlias = Callable[[Tensor], Tensor]
"""Norms [b] -> factors [b]: what each sample's gradient is multiplied by."""


@dataclass(frozen=True, slots=True)
class ClippedSum:
    """The norm of every sample's gradient [b], before any factor, and the batch's mean loss."""

    norms: Float[Tensor, " b"]
    mean_loss: float


Engine: TypeAlias = Callable[[nn.Module, Loss, Tensor, Tensor, Factors, Tensor], ClippedSum]
"""(module, loss whose value is a mean over samples, x [b, ...], y [b, ...], factors, total [d]):
adds the sum of per-sample gradients, each times its factor, to ``total``, in the order of the
trainable parameters. Gradients that are not finite leave it useless.
"""


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters by name.

    Raises:
        UnsupportedModel: a BatchNorm, which mixes the samples of a batch: no sample has a gradient
            of its own.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, _BatchNorm):
            raise UnsupportedModel(
                f"layer '{name}' is a {type(layer).__name__}, which mixes the samples of a batch:"
                " use GroupNorm."
            )
    return {
        name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad
    }


@torch.no_grad()
def add_rows(
    rows: Sequence[Tensor], factors: Factors, total: Float[Tensor, " d"]
) -> Float[Tensor, " b"]:
    """Norms of per-sample gradients that are held as they are, one [b, p] a parameter; their
    weighted sum is added to ``total``.
    """
    norms: Tensor = torch.stack([squares(row) for row in rows]).sum(dim=0).sqrt()
    weights = factors(norms)
    for slot, row in zip(torch.split(total, [row.shape[1] for row in rows]), rows, strict=True):
        slot.addmv_(row.T, weights)
    return norms
