"""Updates of the caller's kind, numpy or torch, as vectors and back."""

from __future__ import annotations

from numbers import Integral
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from privfl.core import BadUpdate, ClientId, Vector

Array = npt.NDArray[np.floating[Any]]
V = TypeVar("V", Vector, Array)


def flat_vector(client: ClientId, update: Vector | Array, d: int) -> Vector:
    """An update [d] as float32 on the CPU.

    Raises:
        BadUpdate: it has another shape, or the client's name is no whole number.
    """
    require_named(client)
    if update.ndim != 1 or len(update) != d:
        raise BadUpdate(
            f"client {client}: a flat vector of {d} values was expected, and this has shape"
            f" {tuple(update.shape)}."
        )
    vector = (
        update
        if isinstance(update, torch.Tensor)
        else torch.from_numpy(np.ascontiguousarray(update))
    )
    return vector.detach().to("cpu", torch.float32)


def require_named(client: object) -> None:
    """Refuse a client whose name is no whole number.

    Raises:
        BadUpdate: it is not.
    """
    if not isinstance(client, Integral):
        raise BadUpdate(f"client {client!r}: a client is named by a whole number.")


def like(first: V, mean: Vector) -> V:
    """A mean [d] of the kind, device and type of an update."""
    if isinstance(first, torch.Tensor):
        return mean.to(first.device, first.dtype)
    return mean.numpy().astype(first.dtype)
