"""One claim of a run, held against the scores of its canaries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from privfl.audit.dp.bounds import Scores
from privfl.audit.dp.verdict import Audited, Method, audit_scores
from privfl.core import Charge, Ledger
from privfl.dp import Spent, spend


@dataclass(frozen=True, slots=True)
class Claim:
    """One unit's claim, audited. ``found`` is None where there is no claim to audit; ``why`` then
    says so.
    """

    unit: str
    subject: str
    releases: int
    canaries: int
    found: Audited | None = None
    why: str = ""

    @property
    def verdict(self) -> str:
        """PASS, FAIL or no claim."""
        return "no claim" if self.found is None else self.found.verdict

    def row(self) -> dict[str, Any]:
        """One row of a table."""
        found = self.found
        return {
            "unit": self.unit,
            "who pays": self.subject,
            "claimed epsilon": (
                None if found is None else found.claim if math.isfinite(found.claim) else "infinite"
            ),
            "at least": None if found is None else found.lower,
            "verdict": self.verdict,
            "by": (
                ""
                if found is None
                else ", ".join(f"{name} {value:.2f}" for name, value in found.by.items())
            ),
            "delta": None if found is None else found.delta,
            "confidence": None if found is None else found.confidence,
            "releases": self.releases,
            "canaries": self.canaries,
            "why": self.why,
        }


@dataclass(slots=True)
class Scored:
    """Scores of all plays, of canaries that were there and of those that were not."""

    inside: list[Scores] = field(default_factory=list)
    outside: list[Scores] = field(default_factory=list)

    def add(self, scores: Tensor, coins: Tensor) -> None:
        """One play's scores [n], by who was there [n]."""
        self.inside.append(scores[coins].double().numpy())
        self.outside.append(scores[~coins].double().numpy())

    @property
    def both(self) -> tuple[Scores, Scores]:
        """Inside and outside, over all plays."""
        return np.concatenate(self.inside), np.concatenate(self.outside)


def audited(
    unit: str,
    made: Ledger,
    played: Ledger,
    scores: tuple[Scores, Scores],
    delta: float,
    confidence: float,
) -> Claim:
    """The claim of a ledger against scores of what really happened."""
    claims = [spent for spent in spend(made, delta) if spent.unit == unit]
    total = len(scores[0]) + len(scores[1])
    if not claims:
        return Claim(unit, unit, 0, total, why=f"the ledger charges nothing at {unit} level.")
    dearest: Spent = max(
        claims, key=lambda spent: (spent.refused is not None, spent.epsilon or 0.0)
    )
    if dearest.refused is not None:
        return Claim(unit, dearest.subject, dearest.releases, total, why=dearest.refused)
    told = audit_scores(
        *scores,
        claim=dearest.claim(),
        delta=delta,
        confidence=confidence,
        methods=_methods(played.charges),
    )
    return Claim(unit, dearest.subject, dearest.releases, total, told)


def _methods(charges: Sequence[Charge]) -> tuple[Method, ...]:
    """The bounds that hold for these releases: a Gaussian trade-off without sampling only,
    independent scores without fixed sizes.
    """
    if all(
        c.event.mechanism == "gaussian" and (c.sampling.rate >= 1 or not c.cohort_hidden)
        for c in charges
    ):
        return ("clopper_pearson", "one_run", "gaussian", "one_run_f_dp")
    return (
        ("one_run",)
        if any(c.sampling.scheme == "fixed_size" for c in charges)
        else ("clopper_pearson", "one_run")
    )
