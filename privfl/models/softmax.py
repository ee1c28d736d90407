"""Softmax regression: one linear layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from privfl.models.shapes import features


def softmax(shape: Sequence[int], classes: int) -> nn.Sequential:
    """Softmax (multinomial logistic) regression on the flattened sample.

    >>> softmax((28, 28), classes=10)[1]
    Linear(in_features=784, out_features=10, bias=True)
    """
    return nn.Sequential(nn.Flatten(), nn.Linear(features(shape, classes), classes))
