"""What clients send again and again, solved from sums over clients who change from round to round:
who was trained on, and in a run of as many rounds whose clients hold few samples, what these are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from privfl.attacks import Inference, Knowledge, mixed
from privfl.audit.games.membership import attack_stream
from privfl.audit.games.notes import AuditNotes, tell, undone
from privfl.audit.games.reconstruction import Truth, attack_probe, metric_of
from privfl.audit.rehearsal import Ground, rehearse, views_of
from privfl.core import ClientId, RoundFailed
from privfl.federation import Federation, Run


def who_solves(run: Run, adversaries: Sequence[str]) -> list[str]:
    """Who sees sums over different clients in a run."""
    every = ((adversary, views_of(run, adversary)) for adversary in adversaries)
    return [who for who, views in every if not isinstance(views, str) and mixed(views)]


def doubt_proofs(notes: AuditNotes, layer: str, solves: Sequence[str]) -> None:
    """Take back what was proved of one round for those who see sums over different clients in
    others: that nothing of single updates is in one sum does not hold of all of them.
    """
    for at, one in enumerate(notes.findings):
        if one.layer == layer and one.adversary in solves and one.theorem:
            reason = f"{one.reason} That is proved of one round; sums of others are over others."
            notes.findings[at] = replace(one, verdict="not found", theorem="", reason=reason)


def attack_rounds(
    notes: AuditNotes,
    layer: str,
    federation: Federation,
    run: Run,
    small: Mapping[ClientId, Tensor],
    adversaries: Sequence[str],
    attacks: Sequence[Inference],
    pool: Knowledge,
    truth: Truth,
    progress: Callable[[str], None] | None,
    *,
    all_asked: bool,
) -> None:
    """Attack the views of ``run``, and those of a run of as many rounds in which each client holds
    the few samples ``small``. Who sees no sums over different clients has nothing to solve, and is
    asked only where ``all_asked``. Where the second run cannot be played its attacks are undone.
    """
    ground: Ground = truth.ground
    solves = list(adversaries) if all_asked else who_solves(run, adversaries)
    if not solves:
        return
    told = [one for one in attacks if one.family == "membership"]
    attack_stream(notes, layer, run, solves, told, pool, ground, progress)
    pictured = [one for one in attacks if one.family == "inversion"]
    if not pictured:
        return
    if notes.late:
        _not_played(notes, layer, solves, pictured, "the budget was used up before it began.")
        return
    tell(progress, f"{layer}: probe of {federation.scenario.rounds} rounds")
    model = federation.scenario.workload.model
    start = model.read()
    try:
        longer = rehearse(federation, small, federation.scenario.rounds)
    except RoundFailed as fault:  # the run itself was played: its own findings stand
        _not_played(notes, layer, solves, pictured, f"its run of small clients failed: {fault}")
        return
    finally:
        model.write(start)
    notes.told.clear()
    attack_probe(notes, layer, longer, solves, pictured, pool, truth, progress)


def _not_played(
    notes: AuditNotes,
    layer: str,
    adversaries: Sequence[str],
    attacks: Sequence[Inference],
    why: str,
) -> None:
    for adversary in adversaries:
        for attack in attacks:
            undone(notes, layer, adversary, attack, metric_of(attack), why)
