"""How good a model is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from privfl.core import ConfigError, Dataset


class Evaluation(NamedTuple):
    """Fraction of labels (or next tokens) that are the most likely class, and mean
    cross-entropy.
    """

    accuracy: float
    loss: float


def evaluate(module: nn.Module, dataset: Dataset, batch: int = 1024) -> Evaluation:
    """Accuracy and loss on labels [n], or on next tokens [n, T]; the module's parameters and mode
    stay as they were.

    Raises:
        ConfigError: the data set is empty.

    >>> evaluate(
    ...     nn.Identity(),
    ...     Dataset(torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 0]), classes=2),
    ... ).accuracy
    0.5
    """
    if dataset.n == 0:
        raise ConfigError("an empty data set has no accuracy.")
    right, loss, training = 0, 0.0, module.training
    module.eval()
    try:
        with torch.inference_mode():
            for x, y in zip(
                torch.split(dataset.x, batch), torch.split(dataset.y, batch), strict=True
            ):
                logits = module(x).flatten(0, -2)
                right += int((logits.argmax(dim=1) == y.flatten()).sum())
                loss += float(functional.cross_entropy(logits, y.flatten(), reduction="sum"))
    finally:
        module.train(training)
    return Evaluation(right / dataset.y.numel(), loss / dataset.y.numel())
