"""Clients' updates as the vectors that their parties send."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from privfl.core import BadUpdate, Vector
from privfl.dp import PrivacyWarning


def finite(client: Any, delta: Vector, private: bool) -> Vector:
    """An update [d] to be sent: zero in the place of NaN or infinite values in a ``private`` round.
    Were it refused, that no round is released would tell of this client.

    Raises:
        BadUpdate: it holds such values, in a round that claims nothing.
    """
    if bool(torch.isfinite(delta).all()):
        return delta
    if not private:
        raise BadUpdate(f"client {client!r}: the update holds NaN or infinite values.")
    warnings.warn(
        f"client {client!r}: the update holds NaN or infinite values, and counts as zero.",
        PrivacyWarning,
        stacklevel=4,
    )
    return torch.zeros_like(delta)
