"""What an audit notes while it plays: findings, pictures, curves."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from privfl.attacks import (
    ClientScores,
    Counts,
    Inference,
    Knowledge,
    NotApplicable,
    PropertyScores,
    Reconstruction,
    Result,
    Scores,
    Targeted,
)
from privfl.audit import score
from privfl.audit.findings import LUCK, Finding
from privfl.audit.games.guarded import Undone, guarded
from privfl.core import Rows, View


@dataclass(slots=True)
class AuditNotes:
    """What was found so far. ``told`` are a stage's answers by attack and by what it saw: who has
    the same eyes is told the same. ``deadline`` is when no further attack begins, as
    `time.perf_counter` counts.
    """

    findings: list[Finding]
    galleries: dict[tuple[str, str, str], score.Pictures]
    curves: dict[tuple[str, str, str], score.Membership]
    told: dict[tuple[int, bytes], Result] = field(default_factory=dict)
    deadline: float | None = None

    @property
    def late(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.perf_counter() > self.deadline


def tell(progress: Callable[[str], None] | None, what: str) -> None:
    """Say what is going on, to whoever asked."""
    if progress is not None:
        progress(what)


def attacked(
    notes: AuditNotes,
    layer: str,
    adversary: str,
    attack: Inference,
    views: list[View] | str,
    knows: Knowledge,
    metric: str,
    *,
    rows: int = 0,
) -> tuple[Result, Finding]:
    """What an attack made of an adversary's views (or of the reason why it has none), and a finding
    that waits for its value; where the attack does not apply the finding is noted with the reason.
    With ``rows``, an attack on single updates is run on so many rows of the first view, each by
    itself.
    """
    began = time.perf_counter()
    name = name_of(attack)
    if isinstance(views, str):
        result: Result = NotApplicable(name, adversary, views, theorem=views)
    else:
        seen = (id(attack), _eyes(views))
        result = (
            replace(notes.told[seen], adversary=adversary)
            if seen in notes.told
            else guarded(lambda: _run(attack, views, knows, rows), name, adversary, notes.deadline)
        )
        if not isinstance(result, NotApplicable):  # whose reason names its adversary
            notes.told[seen] = result
    finding = Finding(
        layer,
        adversary,
        attack.family,
        name,
        metric,
        knows=knows.told(),
        seconds=time.perf_counter() - began,
        over=attack.takes_rounds,
    )
    if isinstance(result, NotApplicable):
        absent = isinstance(views, str)  # there is no such party, and so no view of its own
        theorem = result.reason if absent else result.theorem
        notes.findings.append(
            replace(
                finding,
                reason=result.reason,
                undone=result.reason if isinstance(result, Undone) else "",
                verdict="not applicable" if theorem else "not found",
                theorem=theorem,
            )
        )
    return result, finding


def undone(
    notes: AuditNotes, layer: str, adversary: str, attack: Inference, metric: str, why: str
) -> None:
    """Note that an attack did not come to an end, because what it looks at could not be played."""
    notes.findings.append(
        Finding(
            layer,
            adversary,
            attack.family,
            name_of(attack),
            metric,
            reason=why,
            undone=why,
            verdict="not found",
        )
    )


def answered(result: Result) -> str:
    """What an answer is made of, in words."""
    if isinstance(result, Scores | ClientScores | PropertyScores):
        return f"{type(result).__name__} of {' x '.join(map(str, result.scores.shape))}"
    if isinstance(result, Counts | Reconstruction):
        told = result.counts if isinstance(result, Counts) else result.samples
        return f"{type(result).__name__} of {' x '.join(map(str, told.shape))}"
    return type(result).__name__


def unasked(notes: AuditNotes, finding: Finding, why: str) -> None:
    """Note that an attack's answer was none to the game's question: neither a leak nor safety."""
    notes.findings.append(replace(finding, reason=why, undone=why, verdict="not found"))


def judged(finding: Finding) -> Finding:
    """The finding with its verdict: "leaks" where its interval lies above the baseline, or where it
    could hardly be so high by luck (`LUCK`).
    """
    value, blind = finding.value, finding.baseline
    if finding.verdict or value is None or blind is None:
        return finding
    clear = value.low > blind.value or finding.luck < LUCK
    return replace(finding, verdict="leaks" if clear else "not found")


def _run(attack: Inference, views: list[View], knows: Knowledge, rows: int) -> Result:
    if rows and isinstance(attack, Targeted) and not (attack.takes_sum or attack.takes_rounds):
        return attack.run_rows(views[0], knows, most=rows)
    return attack.run(views, knows)


def _eyes(views: list[View]) -> bytes:
    """A digest of all that views show of updates and models: adversaries who see the same are told
    the same.
    """
    digest = hashlib.sha256()
    for view in views:
        shown: list[Tensor] = [view.before, view.after, *view.disclosed.values()]
        for part in view.opened.values():
            shown += (
                [part.values, part.weights]
                if isinstance(part, Rows)
                else [part.value, torch.tensor([part.weight, part.count])]
            )
            digest.update(str(part.ids if isinstance(part, Rows) else "total").encode())
        shown += [update.delta for update in view.own.values()]
        digest.update(
            f"{view.plan.number} {sorted(view.opened)} "
            f"{sorted(view.disclosed)} {sorted(view.own)}".encode()
        )
        for tensor in shown:
            digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.digest()


def name_of(attack: Inference) -> str:
    """An attack's name in tables: its class, and which of its variants."""
    return type(attack).__name__ + (f" ({', '.join(attack.variant)})" if attack.variant else "")
