"""One claim of a run, what an audit found of it, and beside that what a black box shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from privfl.audit.dp.bounds import Scores
from privfl.audit.dp.evidence import Test, TestResult, holm, verdict_of
from privfl.audit.dp.privacy_loss import loss_tests
from privfl.audit.dp.settings import Settings
from privfl.audit.dp.verdict import Audited, Method, audit_scores
from privfl.core import Charge, Ledger, Sampling, Unit
from privfl.dp import Spent, above, spend


@dataclass(frozen=True, slots=True)
class Claim:
    """One unit's claim, audited at ``level``: what each test found, and beside that ``black_box``,
    a lower bound on epsilon from what canaries score alone (None: not asked for, or there is
    none). ``claimed`` is None where no claim is made, or where its noise is of a kind that this
    audit cannot look at and nothing else refutes it; ``why`` then says so. ``covers`` says which of
    the run's rounds were audited.
    """

    unit: str
    subject: str
    releases: int
    claimed: float | None = None
    findings: tuple[TestResult, ...] = ()
    level: float = 0.0
    black_box: Audited | None = None
    canaries: int = 0
    why: str = ""
    covers: str = ""

    @property
    def verdict(self) -> str:
        """ALARM, not refuted, or no claim."""
        return "no claim" if self.claimed is None else verdict_of(self.findings)

    @property
    def alarms(self) -> tuple[TestResult, ...]:
        """The tests that refute the claim."""
        return tuple(finding for finding in self.findings if finding.alarm)

    def row(self) -> dict[str, Any]:
        """One row of a table; "tests" holds a row for each of them."""
        box = self.black_box
        return {
            "unit": self.unit,
            "who pays": self.subject,
            "claimed epsilon": (
                "infinite"
                if self.claimed is not None and math.isinf(self.claimed)
                else self.claimed
            ),
            "releases": self.releases,
            "covers": self.covers,
            "verdict": self.verdict,
            "alarms": "; ".join(f"{one.name}: {one.seen}" for one in self.alarms),
            "would have seen": "; ".join(one.least for one in self.findings if one.least),
            "level": self.level,
            "at least": None if box is None else box.lower,
            "of a claim of": None if box is None else box.claim,
            "by": (
                ""
                if box is None
                else ", ".join(f"{name} {value:.2f}" for name, value in box.by.items())
            ),
            "delta": None if box is None else box.delta,
            "confidence": None if box is None else box.confidence,
            "canaries": self.canaries,
            "why": self.why,
            "tests": [finding.row() for finding in self.findings],
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
        nothing = np.zeros(0)
        return np.concatenate([nothing, *self.inside]), np.concatenate([nothing, *self.outside])


def refusal_of(unit: Unit, made: Ledger, delta: float) -> Claim | None:
    """What is said where a ledger makes no claim for a unit; None where it makes one."""
    spent = dearest(unit, made, delta)
    if spent is None:
        return Claim(unit, unit, 0, why=f"the ledger charges nothing at {unit} level.")
    if spent.refused is not None:
        return Claim(unit, spent.subject, spent.releases, why=spent.refused)
    return None


def claim_of(
    unit: Unit,
    made: Ledger,
    played: Ledger,
    tests: Sequence[Test],
    settings: Settings,
    delta: float,
    *,
    scored: Scored | None = None,
    scored_on: Ledger | None = None,
    independent: bool = True,
    seed: int = 0,
    why: str = "",
    unseen: str = "",
) -> Claim:
    """The claim of the ledger ``made`` with all that was found of it: ``tests``, its accountant,
    and whether it charges what playing the same rounds does. ``scored`` are scores of canaries,
    ``independent`` or not, made by the releases ``scored_on``; ``seed`` draws privacy losses.
    ``unseen`` names noise that was not looked at: nothing is then said to be "not refuted".
    """
    refused = refusal_of(unit, made, delta)
    spent = dearest(unit, made, delta)
    if refused is not None or spent is None:
        return refused or Claim(unit, unit, 0)
    evidence = [*tests, *loss_tests(made, unit, seed, delta), *_charged(unit, made, played, delta)]
    box = None
    inside, outside = Scored().both if scored is None else scored.both
    if scored_on is not None and min(len(inside), len(outside)) >= 4:
        on = dearest(unit, scored_on, delta)
        if on is not None and on.epsilon is not None:
            box = audit_scores(
                inside,
                outside,
                claim=on.epsilon,
                delta=delta,
                confidence=settings.confidence,
                methods=_methods(scored_on.charges) if independent else ("one_run",),
            )
    findings = holm(evidence, settings.level)
    if unseen and not any(finding.alarm for finding in findings):
        words = f"not audited: {unseen}"
        return Claim(unit, spent.subject, spent.releases, None, findings, why=words)
    return Claim(
        unit,
        spent.subject,
        spent.releases,
        spent.claim(),
        findings,
        settings.level,
        box,
        len(inside) + len(outside),
        why,
    )


def dearest(unit: str, ledger: Ledger, delta: float) -> Spent | None:
    """Whoever of a unit has spent most, first of all whose claim is refused."""
    claims = [spent for spent in spend(ledger, delta) if spent.unit == unit]
    return max(claims, key=lambda s: (s.refused is not None, s.epsilon or 0.0), default=None)


def _charged(unit: str, made: Ledger, played: Ledger, delta: float) -> list[Test]:
    """Whether a recorded ledger charges less than the same rounds of its config do."""
    if made is played:
        return []
    rounds = {charge.round for charge in made.charges} & {charge.round for charge in played.charges}
    ours, theirs = (
        dearest(unit, Ledger(tuple(c for c in one.charges if c.round in rounds)), delta)
        for one in (made, played)
    )
    if ours is None or theirs is None or ours.epsilon is None or theirs.epsilon is None:
        return []
    if ours.relation != theirs.relation:
        seen = f"relation {ours.relation}, and that of its config is {theirs.relation}"
        return [Test("ledger", unit, seen, 0.0)]
    less = ours.epsilon < theirs.epsilon * (1 - 1e-6)
    seen = (
        f"epsilon {ours.epsilon:.4g} where the same rounds of its config cost {theirs.epsilon:.4g}"
    )
    return [Test("ledger", unit, seen, 0.0 if less else None)]


def covers(rounds: int, recorded: Ledger | None, played: int, delta: float) -> str:
    """Which of a run's rounds were played and, where that is not all of them, whose epsilon is held
    against them.
    """
    words = f"audits {played} of {rounds} rounds"
    if played == rounds:
        return words
    words += f": the claimed epsilon here is that of the first {played}"
    whole = None if recorded is None else dearest("client", recorded, delta)
    if whole is None or whole.epsilon is None:
        return words
    return f"{words}, and not the {above(whole.claim())} that the whole run's ledger comes to"


def missing_test(unit: Unit, recorded: Ledger, sampling: Sampling, *, hidden: bool) -> list[Test]:
    """Whether a recorded ledger leaves out a round that lies before its last one. Where cohorts are
    drawn and seen a round of too few is honestly free, so nothing is looked for.
    """
    mine = [charge for charge in recorded.charges if charge.unit == unit and charge.round >= 0]
    if not mine or (sampling.scheme == "poisson" and not hidden):
        return []
    charged: set[int] = set()
    for one in mine:
        charged.update(range(one.round, (one.round if one.last is None else one.last) + 1))
    absent = sorted(set(range(max(charged) + 1)) - charged)
    if not absent:
        return [Test("ledger, whole", unit, f"rounds 0 to {max(charged)} are all charged")]
    named = ", ".join(map(str, absent[:5])) + (" and others" if len(absent) > 5 else "")
    seen = f"charges rounds to {max(charged)}, and leaves out {named}"
    return [Test("ledger, whole", unit, seen, 0.0)]


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
