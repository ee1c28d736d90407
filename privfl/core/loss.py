"""The loss of classification, of samples and of tokens."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def cross_entropy(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy of logits [B, C] with labels [B], or of logits [B, T, V] with tokens [B,
    T], or of logits [B, C] with shares of the classes [B, C] ("soft labels").

    >>> import torch
    >>> cross_entropy(nn.Identity(), torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64))
    tensor(1.3863)
    """
    logits: Tensor = module(x)
    if y.is_floating_point():
        return functional.cross_entropy(logits, y)
    return functional.cross_entropy(logits.flatten(0, -2), y.flatten())
