"""How well an attack took: numbers of a model on test data."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor, nn

from privfl.core import Dataset


def predictions(module: nn.Module, x: Tensor, batch: int = 1024) -> Tensor:
    """The most likely class of each sample [n], or token at each position [n, T]; parameters and
    mode stay as they were.
    """
    training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            found = [module(part).argmax(dim=-1) for part in torch.split(x, batch)]
    finally:
        module.train(training)
    return torch.cat(found)


def success(module: nn.Module, x: Tensor, target: int) -> float:
    """The fraction of inputs that the model takes for ``target``, at the last position where they
    are sequences; 0 of none.

    >>> success(nn.Identity(), torch.tensor([[0.0, 1.0], [1.0, 0.0]]), target=1)
    0.5
    """
    if len(x) == 0:
        return 0.0
    found = predictions(module, x)
    last = found if found.ndim == 1 else found[:, -1]
    return float((last == target).double().mean())


def confusion(module: nn.Module, test: Dataset) -> Int[Tensor, "C C"]:
    """Counts [true class, predicted class].

    >>> confusion(
    ...     nn.Identity(),
    ...     Dataset(torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1]), classes=2),
    ... ).tolist()
    [[1, 0], [1, 0]]
    """
    pairs = test.y * test.classes + predictions(module, test.x)
    return torch.bincount(pairs.flatten(), minlength=test.classes**2).view(
        test.classes, test.classes
    )


def accuracy(module: nn.Module, test: Dataset) -> float:
    """The fraction of labels (or next tokens) that are the most likely class.

    >>> accuracy(
    ...     nn.Identity(),
    ...     Dataset(torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1]), classes=2),
    ... )
    0.5
    """
    return float((predictions(module, test.x) == test.y).double().mean())
