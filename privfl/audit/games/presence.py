"""Presence: whether the data of a client took part at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from privfl.attacks import Inference, Knowledge, NotApplicable, Scores
from privfl.audit import score
from privfl.audit.games.notes import (
    AuditNotes,
    answered,
    attacked,
    judged,
    name_of,
    tell,
    unasked,
    undone,
)
from privfl.audit.rehearsal import Ground, rehearse, views_of
from privfl.core import Adversary, ClientId, Dataset, PrivflError, Seeds, client_of
from privfl.federation import Federation, Run

ROUNDS = 3
"""How many rounds of each run are played at most."""
PAIRS = (2, 6)
"""So many pairs of runs at least and at most: whoever's data take part in one run of a pair, do not
in the other.
"""
DEALS = 1000
"""So many ways there should be to say whose data take part: with fewer, who is right of everybody
may as well have been lucky.
"""


@dataclass(frozen=True, slots=True)
class _Played:
    """A run, and whose data took part in it."""

    run: Run
    present: frozenset[ClientId]


def attack_presence(
    notes: AuditNotes,
    layer: str,
    federation: Federation,
    adversaries: Sequence[str],
    attacks: Sequence[Inference],
    knows: Knowledge,
    ground: Ground,
    seed: int,
    progress: Callable[[str], None] | None,
    *,
    planted: bool = True,
) -> None:
    """Whose data are in the model: in each run half of the clients, drawn at random, train on their
    own samples, and the others on as many samples of strangers, so that cohort, sizes and protocol
    are the same either way (the plan names its cohort: that a client of this name takes part is no
    secret). In the second run of a pair it is the other half.

    The adversary has every client's samples, and others of the same sources that nobody trained on.
    A client's scores in runs with its data are held against its scores in runs without, each less
    the mean of its run where it asks about several; an adversary's own clients are not asked about.

    Args:
        planted: False trains strangers' samples everywhere, where there is nothing to find.
    """
    if not attacks or federation.scenario.users is not None:
        return
    clients = sorted(ground.members)
    spare = ground.auxiliary.n // 2
    absent = len(clients) if not planted else len(clients) - len(clients) // 2
    most = spare // max(absent, 1)
    why = "the budget was used up before it began." if notes.late else ""
    if most < 1:
        why = (
            f"{absent} of {len(clients)} clients train on strangers' samples, and there are"
            f" {spare}: hold out more samples."
        )
    if why:
        _unplayed(notes, layer, adversaries, attacks, why)
        return
    own = {client: ground.members[client][:most] for client in clients}
    rest = ground.auxiliary.take(range(spare, ground.auxiliary.n))
    tell(progress, f"{layer}: presence")
    try:
        played = _runs(federation, ground, own, spare, seed, planted)
    except PrivflError as fault:  # with these data at its clients it cannot be played
        _unplayed(notes, layer, adversaries, attacks, str(fault))
        return
    data = federation.scenario.workload.data.to("cpu")
    asked = data.take(torch.cat(list(own.values())))
    whose = torch.cat([torch.full((len(index),), client) for client, index in own.items()])
    pool = Dataset(asked.x, asked.y, asked.classes, {"client": whose})
    informed = replace(knows, auxiliary=rest, candidates=pool, seed=seed)
    for adversary in adversaries:
        mine = {client_of(party) for party in Adversary.parse(adversary).parties}
        if mine.issuperset(clients):  # there is nobody else to ask about
            continue
        for attack in attacks:
            tell(progress, f"{layer}: {adversary}: {name_of(attack)}")
            _asked(notes, layer, adversary, attack, played, informed, clients, mine)


def pairs_of(clients: int) -> int:
    """How many pairs of runs so many clients need: of few, who took part is guessed too easily.

    >>> [pairs_of(clients) for clients in (2, 4, 6, 12)]
    [6, 4, 3, 2]
    """
    least, most = PAIRS
    halves = max(math.comb(clients, clients // 2), 2)
    return next((pairs for pairs in range(least, most) if halves**pairs >= DEALS), most)


def _unplayed(
    notes: AuditNotes,
    layer: str,
    adversaries: Sequence[str],
    attacks: Sequence[Inference],
    why: str,
) -> None:
    for adversary in adversaries:
        for attack in attacks:
            undone(notes, layer, adversary, attack, "AUC of clients", why)


def _runs(
    federation: Federation,
    ground: Ground,
    own: Mapping[ClientId, Tensor],
    spare: int,
    seed: int,
    planted: bool,
) -> list[_Played]:
    scenario = federation.scenario
    work = scenario.workload
    rounds, start = min(ROUNDS, scenario.rounds), work.model.read()
    held = ground.auxiliary.take(range(spare)).to(work.data.x.device)
    both = Dataset(
        torch.cat([work.data.x, held.x]),
        torch.cat([work.data.y, held.y]),
        work.data.classes,
        span=work.data.span,
    )
    clients, played = sorted(own), []
    for pair in range(pairs_of(len(clients))):
        rng = Seeds(seed).generator("audit presence", pair)
        order = torch.randperm(len(clients), generator=rng).tolist()
        half = frozenset(clients[at] for at in order[: len(clients) // 2])
        for number, present in enumerate((half, frozenset(clients) - half)):
            strangers = iter(
                work.data.n + torch.randperm(spare, generator=rng)  # nobody shares a stranger
            )
            trained = {
                client: index
                if planted and client in present
                else torch.stack([next(strangers) for _ in index])
                for client, index in own.items()
            }
            work.model.write(start)
            told = 1 + scenario.seed + 2 * pair + number
            run = rehearse(federation, trained, rounds, both, seed=told)
            played.append(_Played(run, present))
    work.model.write(start)
    return played


def _asked(
    notes: AuditNotes,
    layer: str,
    adversary: str,
    attack: Inference,
    played: Sequence[_Played],
    knows: Knowledge,
    clients: Sequence[ClientId],
    mine: set[ClientId | None],
) -> None:
    """Ask every run, and note the area over all of them."""
    scores: list[Tensor] = []
    truth: list[bool] = []
    whose: list[ClientId] = []
    for one in played:
        views = views_of(one.run, adversary)
        result, finding = attacked(notes, layer, adversary, attack, views, knows, "AUC of clients")
        if isinstance(result, NotApplicable):
            return
        if not isinstance(result, Scores) or len(result.scores) != len(clients):
            unasked(
                notes,
                finding,
                f"its answer is {answered(result)}, and {len(clients)} clients were asked about, a"
                " score each.",
            )
            return
        seen = {
            c for number in one.run.transcripts for c in one.run.transcript(number).clients_seen()
        }
        at = [k for k, client in enumerate(clients) if client in seen and client not in mine]
        if not at:
            continue
        told = result.scores[torch.tensor(at)]
        scores.append(told - told.mean() if len(at) > 1 else told)
        truth += [clients[k] in one.present for k in at]
        whose += [clients[k] for k in at]
    if not any(truth) or all(truth):
        unasked(
            notes,
            finding,
            f"of {len(truth)} clients asked about that were seen, {sum(truth)} had their data in"
            " the run, and it takes some of both kinds.",
        )
        return
    values, present, of = torch.cat(scores), torch.tensor(truth), torch.tensor(whose)
    found = score.membership(values, present, clusters=of, tied=True, seed=knows.seed)
    control = score.null_membership(values, present, clusters=of, tied=True, seed=knows.seed)
    notes.findings.append(
        judged(
            replace(
                finding,
                value=found.auc,
                control=control.auc,
                baseline=score.Figure(0.5),
                units=found.units,
                unit="scores of clients",
                clusters=found.clusters,
                luck=found.luck,
                more=f"{found.clusters} clients in {len(played)} runs",
            )
        )
    )
