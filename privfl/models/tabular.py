"""A small MLP for rows of a table."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from privfl.core import UnsupportedModel
from privfl.models.mlp import mlp


def tabular(
    shape: Sequence[int],
    classes: int,
    *,
    hidden: Sequence[int] = (64, 32),
    activation: str = "relu",
) -> nn.Sequential:
    """An MLP on encoded table rows, which are flat vectors.

    Raises:
        UnsupportedModel: samples that are no flat vectors.

    >>> sum(p.numel() for p in tabular((13,), 2).parameters())
    3042
    """
    if len(shape) != 1:
        raise UnsupportedModel(
            f"model 'tabular' reads flat rows, and samples have shape {tuple(shape)}: use mlp."
        )
    return mlp(shape, classes, hidden=hidden, activation=activation)
