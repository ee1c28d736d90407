"""An active server: gradient ascent through the real parties, beside the same server that only
looks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from privfl.attacks import (
    Family,
    GradientAscent,
    Inference,
    Knowledge,
    Lacking,
    NotApplicable,
    Scores,
    rehearsed_gamma,
)
from privfl.attacks.rows import readable
from privfl.audit.games.membership import scored
from privfl.audit.games.notes import AuditNotes, attacked, tell, undone
from privfl.audit.intervals import Figure
from privfl.audit.own_models import OwnModels
from privfl.audit.rehearsal import Ground, rehearse, views_of
from privfl.core import (
    Attack,
    AttackSeat,
    Broadcast,
    ClientId,
    NotVisible,
    Transcript,
    View,
)
from privfl.engine import Attacker
from privfl.federation import Federation, Run

ROUNDS = 2
"""How many rounds are played at most, actively and passively alike."""
_FAILURES = ("train", "bound")
"""Stages in which a client comes to nothing that it could send."""
_EACH, _ALL = "each client a model of its own", "all clients the same other model"


@dataclass(frozen=True, slots=True, eq=False)
class GradientAscents(Inference):
    """Gradient ascent on several clients at once, each with targets of its own; key None is one
    push for everybody, read off the sum. ``places`` [t] of each are its targets in the pool.
    """

    family: ClassVar[Family] = "membership"
    attacks: Mapping[ClientId | None, GradientAscent] = field(repr=False)
    places: Mapping[ClientId | None, Tensor] = field(repr=False)
    active: bool = True

    @property
    def variant(self) -> tuple[str, ...]:
        """Active or passive, and what the server sends or reads."""
        together = None in self.attacks
        if self.active:
            return "active", _ALL if together else _EACH
        return "passive", "the sum" if together else "each client"

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Scores:
        """Scores of the whole pool, of rounds in which the client that is asked about was read; of
        clients who never were, zeros.

        Raises:
            NotVisible, Lacking: none of the clients was read.
        """
        pool = knowledge.candidates
        if pool is None:
            raise Lacking("there are no candidates whose loss could be pushed.")
        scores, found = torch.zeros(pool.n), False
        for client, attack in self.attacks.items():
            shown = tuple(view for view in views if client is None or _shows(view, client))
            if shown:
                scores[self.places[client]] = attack.infer(shown, knowledge).scores
                found = True
        if not found:
            readable(views[0])
            raise Lacking(f"{views[0].adversary} cannot tell whose row is whose.")
        return Scores(type(self).__name__, views[0].adversary, scores)


def _shows(view: View, client: ClientId) -> bool:
    try:
        ids = readable(view).ids
    except NotVisible:
        return False
    return ids is not None and client in ids


@dataclass(frozen=True, slots=True, eq=False)
class _Sends(Attack):
    """The server's half: what it sends each client in place of the round's model."""

    seats: ClassVar[frozenset[AttackSeat]] = frozenset({"broadcast"})
    how: GradientAscents = field(repr=False)

    def poison_broadcast(
        self, broadcast: Broadcast, client: ClientId, rng: torch.Generator
    ) -> Broadcast:
        """The model pushed for this client, or for all."""
        attack = self.how.attacks.get(client, self.how.attacks.get(None))
        return broadcast if attack is None else attack.poison_broadcast(broadcast, client, rng)


def attack_actively(
    notes: AuditNotes,
    layer: str,
    federation: Federation,
    looked: Run,
    knows: Knowledge,
    ground: Ground,
    progress: Callable[[str], None] | None,
) -> list[OwnModels]:
    """Play a server that pushes models, and note what it gets beside the server that only looks:
    ``looked`` is the honest run, whose first rounds are as many.

    First each client is sent a model of its own, pushed on the samples that it is asked about: a
    channel that adds up what clients send about ONE model refuses them by name. Then all are sent
    the same pushed model, which no plan tells from an honest one, and the sum is asked.
    """
    scenario = federation.scenario
    rounds = min(ROUNDS, scenario.rounds)
    start = scenario.workload.model.read()
    if knows.forward is None:
        return []
    size = supposed_size(ground)
    why = ""
    try:
        gamma = rehearsed_gamma(start.to("cpu"), knows, size)
    except Exception as fault:  # a push that cannot be made must not end an audit
        gamma, why = 1.0, _said(fault)
    alone: dict[ClientId | None, Tensor] = {
        client: (ground.owner == client).nonzero().squeeze(1) for client in ground.members
    }
    together: dict[ClientId | None, Tensor] = {None: torch.arange(ground.pool.n)}
    told: list[OwnModels] = []
    for places in (alone, together):
        attacks = {
            client: GradientAscent(
                ground.pool.take(at), knows.forward, gamma, groups=1, client=client
            )
            for client, at in places.items()
        }
        active = GradientAscents(attacks, places)
        passive = GradientAscents(
            {client: replace(attack, active=False) for client, attack in attacks.items()},
            places,
            active=False,
        )
        tell(progress, f"{layer}: server: gradient ascent")
        sends, n = active.variant[1], len(ground.members)
        looks = _figure(notes, layer, passive, looked, knows, ground, rounds)
        if why or notes.late:
            late = why or "the budget was used up before it began."
            undone(notes, layer, "server", active, "AUC", late)
            told.append(OwnModels(layer, sends, n, passive=looks, undone=late))
            continue
        scenario.workload.model.write(start)
        sending = Attacker("the audit's server", _Sends(active), frozenset(ground.members))
        pushed = federation.with_scenario(
            replace(scenario, attackers=(*scenario.attackers, sending))
        )
        try:
            run = rehearse(pushed, ground.members, rounds)
        except Exception as fault:
            undone(notes, layer, "server", active, "AUC", _said(fault))
            told.append(OwnModels(layer, sends, n, passive=looks, undone=_said(fault)))
            continue
        finally:
            scenario.workload.model.write(start)
        missing = _missing(run, looked)
        reason, refused = missing.why, missing.refused
        why_not = reason if refused else ""
        gets = _figure(notes, layer, active, run, knows, ground, rounds, why_not)
        told.append(
            OwnModels(
                layer, sends, missing.sent, refused, reason, gets, looks, anyway=missing.anyway
            )
        )
    return told


def supposed_size(ground: Ground) -> int:
    """How many samples a client trains on, as the adversary takes it: half of those that it is
    asked about. How many they are is the clients' secret where they are not weighed by it.
    """
    return max(1, round(ground.pool.n / (2 * len(torch.unique(ground.owner)))))


def _said(fault: Exception) -> str:
    words = (str(fault).strip() or "no further words").splitlines()[0]
    return f"it failed with {type(fault).__name__}: {words}"


def _figure(
    notes: AuditNotes,
    layer: str,
    attack: GradientAscents,
    run: Run,
    knows: Knowledge,
    ground: Ground,
    rounds: int,
    why: str = "",
) -> Figure | None:
    """Note what the server gets from the first rounds of a run; the area, where there is one."""
    views = views_of(run, "server")
    seen = views if isinstance(views, str) else views[:rounds]
    result, finding = attacked(notes, layer, "server", attack, seen, knows, "AUC")
    finding = replace(finding, active=attack.active)
    if isinstance(result, NotApplicable):
        noted = replace(notes.findings.pop(), active=attack.active)
        if why:  # that it was stopped proves nothing of what is in a view that is not stopped
            noted = replace(noted, reason=why, theorem="", verdict="not found")
        notes.findings.append(noted)
        return None
    numbers = sorted(run.transcripts)[:rounds]
    took_part = {client for number in numbers for client in run.transcript(number).clients_seen()}
    count = len(notes.findings)
    scored(notes, finding, result, ground, took_part, knows.seed)
    return notes.findings[-1].value if len(notes.findings) > count else None


@dataclass(frozen=True, slots=True)
class _Missing:
    """Who was in nothing that was opened in some round: ``refused`` because of the models that they
    were sent, ``anyway`` for another cause; how many clients were ``sent`` a model; and the first
    reason that the run gave for the former, else for the latter.
    """

    refused: tuple[ClientId, ...]
    anyway: tuple[ClientId, ...]
    sent: int
    why: str


def _missing(run: Run, looked: Run) -> _Missing:
    """Who is missing from a run with a lying server, beside the honest run of the same coins.

    Whoever is missing from the same round of that one (of another one of its rounds, where its
    cohorts are drawn anew) drops out whatever it is sent, and whoever had nothing to send failed
    in training. Neither refused anything.
    """
    refused, anyway, sent = set[ClientId](), set[ClientId](), set[ClientId]()
    whys: dict[bool, str] = {}
    for number in sorted(run.transcripts):
        kept, honest = run.transcripts[number], looked.transcripts.get(number)
        sent |= set(kept.plan.cohort)
        gone = set(kept.plan.cohort) - _opened(kept)
        out = {
            client for client in gone if _came(looked, number, client) and not _failed(kept, client)
        }
        refused |= out
        anyway |= gone - out
        told = set() if honest is None else {one.what for one in honest.incidents}
        news = [one for one in kept.incidents if one.what not in told]
        named = [one for one in news if one.stage not in _FAILURES]
        if out and named:
            first = next((one for one in named if one.client in out), named[0])
            whys.setdefault(True, first.what)
        elif gone and kept.incidents:
            whys.setdefault(False, kept.incidents[0].what)
    why = whys.get(True, "") if refused else whys.get(False, "")
    return _Missing(tuple(sorted(refused)), tuple(sorted(anyway - refused)), len(sent), why)


def _opened(kept: Transcript) -> set[ClientId]:
    opened = kept.carried.opened.get("delta")
    return set() if opened is None else set(opened.survivors)


def _failed(kept: Transcript, client: ClientId) -> bool:
    return any(one.client == client and one.stage in _FAILURES for one in kept.incidents)


def _came(looked: Run, number: int, client: ClientId) -> bool:
    """Whether a client got through in a round of the honest run; where it was not asked in that
    one, in all in which it was.
    """
    same = looked.transcripts.get(number)
    if same is not None and client in same.plan.cohort:
        return client in _opened(same)
    asked = [kept for kept in looked.transcripts.values() if client in kept.plan.cohort]
    return all(client in _opened(kept) for kept in asked)
