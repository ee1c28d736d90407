"""Updates of the caller's kind, numpy or torch, as vectors and back."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from privfl.core import BadUpdate, ClientId, Vector
from privfl.dp import PrivacyWarning

Array = npt.NDArray[np.floating[Any]]
V = TypeVar("V", Vector, Array)


def flat_vector(client: ClientId, update: Vector | Array, d: int) -> Vector:
    """An update [d] as float32 on the CPU.

    Raises:
        BadUpdate: it has another shape, its values are no real numbers, or the client's name is no
            whole number.
    """
    require_named(client)
    require_real(f"client {client}", update)
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
    """Refuse a client whose name is no whole number from 0 on: parties have no others.

    Raises:
        BadUpdate: it is not.
    """
    if not isinstance(client, Integral) or int(client) < 0:
        raise BadUpdate(f"client {client!r}: a client is named by a whole number from 0 on.")


def require_real(whose: str, update: Vector | Array) -> None:
    """Refuse what float32 cannot stand for: complex values, whose imaginary part would be lost, and
    values that are no numbers.

    Raises:
        BadUpdate: they are.
    """
    if isinstance(update, torch.Tensor):
        real = not update.is_complex()
    else:
        real = update.dtype.kind in "fiub"
    if not real:
        raise BadUpdate(
            f"{whose}: values of type {update.dtype} are no real numbers: send the real and the"
            " imaginary part of complex values as two vectors, and others as floats."
        )


def finite(client: ClientId, delta: Vector, private: bool) -> Vector:
    """An update [d] to be sent: zero in the place of NaN or infinite values in a ``private`` round.
    Were it refused, that no round is released would tell of this client.
    """
    if not private or bool(torch.isfinite(delta).all()):
        return delta
    warnings.warn(
        f"client {client}: the update holds NaN or infinite values, and counts as zero.",
        PrivacyWarning,
        stacklevel=3,
    )
    return torch.zeros_like(delta)


def like(first: V, mean: Vector) -> V:
    """A mean [d] of the kind, device and type of an update; float32 where that is of whole numbers,
    whose mean is none.
    """
    if isinstance(first, torch.Tensor):
        return mean.to(first.device, first.dtype if first.is_floating_point() else mean.dtype)
    values = mean.numpy()
    return values.astype(first.dtype) if first.dtype.kind == "f" else values
