"""Lower bounds on epsilon beside the claimed one, from scores of canaries alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from privfl.audit.dp.bounds import (
    Scores,
    clopper_pearson,
    gaussian_trade_off,
    one_run,
    one_run_f_dp,
)
from privfl.core import ConfigError, require, unknown

Method: TypeAlias = Literal["clopper_pearson", "one_run", "gaussian", "one_run_f_dp"]
METHODS: Mapping[str, Callable[[Scores, Scores, float, float], float]] = {
    "clopper_pearson": clopper_pearson,
    "one_run": one_run,
    "gaussian": gaussian_trade_off,
    "one_run_f_dp": one_run_f_dp,
}


@dataclass(frozen=True, slots=True)
class Audited:
    """What an audit found. ``lower`` holds with the stated confidence: a true claim is above it
    that often.

    >>> Audited(claim=1.0, lower=2.5, by={"one_run": 2.5}, delta=1e-5, confidence=0.95).verdict
    'refuted'
    """

    claim: float
    lower: float
    by: Mapping[str, float]
    delta: float
    confidence: float

    @property
    def verdict(self) -> Literal["refuted", "not refuted"]:
        """Refuted, with the stated confidence, where the lower bound is above the claim."""
        return "refuted" if self.lower > self.claim else "not refuted"

    def __str__(self) -> str:
        bounds = ", ".join(f"{name} {value:.2f}" for name, value in self.by.items())
        return (
            f"{self.verdict}: epsilon is at least {self.lower:.2f} ({bounds};"
            f" {self.confidence:.0%}), claimed {self.claim:.2f}"
        )


def audit_scores(
    inside: Scores,
    outside: Scores,
    *,
    claim: float,
    delta: float,
    confidence: float = 0.95,
    methods: Sequence[Method] = ("clopper_pearson", "one_run"),
) -> Audited:
    """Bound epsilon from below by every method, the doubt shared between them, and hold the largest
    against the claim.

    Add ``"gaussian"`` or ``"one_run_f_dp"`` where the release is unsampled Gaussian noise: they are
    sharper there, and no bounds elsewhere.

    Raises:
        ConfigError: an unknown method, or a number out of range.
    """
    require.within(0.5, 1 - 1e-9, confidence=confidence)
    require.positive(delta=delta)
    if not methods:
        raise ConfigError("an audit needs at least one method.")
    for name in methods:
        if name not in METHODS:
            raise ConfigError(unknown("audit method", name, METHODS))
    doubt = (1 - confidence) / len(methods)
    by: dict[str, float] = {name: METHODS[name](inside, outside, delta, doubt) for name in methods}
    return Audited(claim, max(by.values()), by, delta, confidence)
