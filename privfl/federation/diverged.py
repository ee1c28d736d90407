"""Whether a run's training diverged: its model, or its loss, is no finite number any more."""

from __future__ import annotations

import math
from collections.abc import Sequence

from privfl.core import Vector
from privfl.engine import RoundRecord

_LESS = "lower training.lr or server_optimizer.lr, or set a bound, as in bound: {name: clip, l2: 1}"


def not_finite(parameters: Vector, played: int, rounds: int) -> str:
    """That a run ends because its model [d] is not finite after so many rounds; "" where it is."""
    if bool(parameters.isfinite().all()):
        return ""
    return (
        f"Training diverged: after round {played} of {rounds} the model holds NaN or infinite"
        f" values, and the run ended there; {_LESS}."
    )


def diverged(
    parameters: Vector, records: Sequence[RoundRecord], loss: float | None, rounds: int
) -> str:
    """In one sentence that a run diverged: its model [d] is not finite, its ``loss`` is not, or in
    its last round training left no client with an update that is. "" where none of it is so.
    """
    ended = not_finite(parameters, len(records), rounds)
    if ended:
        return ended
    if loss is not None and not math.isfinite(loss):
        return f"Training diverged: the last model's loss is {loss:g}; {_LESS}."
    last = records[-1] if records else None
    if last is None or not last.train_losses or last.survivors:
        return ""
    if any(map(math.isfinite, last.train_losses)):
        return ""
    return (
        f"Training diverged: in round {last.round + 1}, the last, no client's training left an"
        f" update of finite values, so the model stayed as it was; {_LESS}."
    )
