"""An attack that breaks off, or answers with what is no number, has found nothing: neither a leak
nor that there is none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from privfl.attacks import (
    ByRow,
    ClientScores,
    Counts,
    NotApplicable,
    PropertyScores,
    Reconstruction,
    Representatives,
    Result,
    Scores,
)


@dataclass(frozen=True, slots=True)
class Undone(NotApplicable):
    """The attack did not come to an end, as ``reason`` says."""

    def claim(self) -> str:
        """What came between."""
        return f"undone: {self.reason}"

    __str__ = Result.__str__


def guarded(
    run: Callable[[], Result], attack: str, adversary: str, deadline: float | None
) -> Result:
    """What an attack answers, or that it did not come to an end: it failed, the time was up
    (``deadline``, as `time.perf_counter` counts) before it began, or its answer holds numbers that
    are none.
    """
    if deadline is not None and time.perf_counter() > deadline:
        return Undone(attack, adversary, "the budget was used up before it began.")
    try:
        result = run()
    except Exception as fault:  # one attack that fails must not end an audit, nor look like safety
        words = str(fault).strip() or "no further words"
        return Undone(attack, adversary, f"it failed with {type(fault).__name__}: {words}")
    values = torch.cat([torch.zeros(0), *(part.flatten().float() for part in _numbers(result))])
    broken = int((~torch.isfinite(values)).sum())
    if not broken:
        return result
    return Undone(
        attack, adversary, f"{broken:,} of the {len(values):,} numbers that it answers are none."
    )


def _numbers(result: Result) -> list[Tensor]:
    if isinstance(result, ByRow):
        return [part for _, answer in result.answers for part in _numbers(answer)]
    if isinstance(result, Scores | ClientScores | PropertyScores):
        return [result.scores]
    if isinstance(result, Counts):
        return [result.counts]
    return [result.samples] if isinstance(result, Reconstruction | Representatives) else []
