"""Property inference: whose images are mirrored, a fact that nobody meant to train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privfl.attacks import Inference, Knowledge, NotApplicable, PropertyScores
from privfl.audit import score
from privfl.audit.findings import Finding
from privfl.audit.games.notes import AuditNotes, answered, attacked, judged, unasked
from privfl.audit.rehearsal import Ground, rehearse, views_of
from privfl.core import ClientId, Dataset, Seeds, View
from privfl.federation import Federation, Run

MIRRORED = 0.3
"""The share of its images that every second client mirrors."""
ROUNDS = 3
"""How many rounds are played at most where single clients are asked about."""
RUNS = 10
"""So many one-round runs with mirrored images, and as many without, where the sum is asked: looks
at one run are no several runs.
"""


def attack_property(
    notes: AuditNotes,
    layer: str,
    federation: Federation,
    adversaries: Sequence[str],
    attacks: Sequence[Inference],
    knows: Knowledge,
    ground: Ground,
    seed: int,
    share: float = MIRRORED,
) -> None:
    """Whose images are mirrored: a fact that has nothing to do with the task.

    Clients are asked in one run, in which half of them, drawn at random, mirror a ``share`` of
    their images; scores of one client in several rounds count as one. The sum is asked in runs of
    one round, with and without such clients, each with other samples and another seed; each run
    counts as one.
    """
    held = ground.auxiliary
    half = torch.arange(held.n) % 2
    known = Dataset(
        torch.where(half.view(-1, 1, 1, 1) == 1, held.x.flip(-1), held.x),
        held.y,
        held.classes,
        {"mirrored": half},
    )
    informed = replace(knows, auxiliary=known, attribute="mirrored", seed=seed)
    rounds = min(ROUNDS, federation.scenario.rounds)
    single = [attack for attack in attacks if not attack.takes_sum]
    if single:
        marked = _marked(ground, seed)
        run = _played(federation, ground.members, marked, share, rounds)
        for adversary in adversaries:
            views = views_of(run, adversary)
            for attack in single:
                _asked_by_client(notes, layer, adversary, attack, views, informed, marked)
    summed = [attack for attack in attacks if attack.takes_sum]
    if summed:
        runs = _runs(federation, ground, share, seed)
        for adversary in adversaries:
            seen = [views_of(run, adversary) for run, _ in runs]
            truth = torch.tensor([with_it for _, with_it in runs])
            for attack in summed:
                _asked_by_run(notes, layer, adversary, attack, seen, informed, truth)


def _marked(ground: Ground, seed: int) -> frozenset[ClientId]:
    clients = sorted(ground.members)
    rng = Seeds(seed).generator("audit mirrored")
    order = torch.randperm(len(clients), generator=rng).tolist()
    return frozenset(clients[at] for at in order[: len(clients) // 2])


def _played(
    federation: Federation,
    members: Mapping[ClientId, Tensor],
    marked: frozenset[ClientId],
    share: float,
    rounds: int,
    seed: int | None = None,
) -> Run:
    """A run in which marked clients mirrored the first of their images, from the model of now."""
    data, model = federation.scenario.workload.data, federation.scenario.workload.model
    x, start = data.x.clone(), model.read()
    for client in marked:
        some = members[client][: round(share * len(members[client]))]
        x[some] = x[some].flip(-1)
    run = rehearse(federation, members, rounds, replace(data, x=x), seed=seed)
    model.write(start)
    return run


def _runs(
    federation: Federation, ground: Ground, share: float, seed: int
) -> list[tuple[Run, bool]]:
    """Runs of one round, each on other halves of the members' samples, every second one with
    mirrored images.
    """
    played = []
    for number in range(2 * RUNS):
        rng = Seeds(seed).generator("audit property", number)
        halves = {
            client: index[torch.randperm(len(index), generator=rng)[: -(-len(index) // 2)]]
            for client, index in ground.members.items()
        }
        marked = _marked(ground, 1009 * seed + number) if number % 2 else frozenset()
        told = 1 + federation.scenario.seed + number
        played.append((_played(federation, halves, marked, share, 1, seed=told), bool(number % 2)))
    return played


def _asked_by_client(
    notes: AuditNotes,
    layer: str,
    adversary: str,
    attack: Inference,
    views: list[View] | str,
    knows: Knowledge,
    marked: frozenset[ClientId],
) -> None:
    result, finding = attacked(notes, layer, adversary, attack, views, knows, "AUC")
    if isinstance(result, NotApplicable):
        return
    if not isinstance(result, PropertyScores) or result.scores.shape[1] != len(result.clients):
        why = f"its answer is {answered(result)}, and a score for each client was asked for."
        unasked(notes, finding, why)
        return
    clients = [-1 if client is None else client for client in result.clients]
    truth = torch.tensor([client in marked for client in clients])
    if not bool(truth.any()) or bool(truth.all()):
        unasked(
            notes,
            finding,
            f"of the {len(truth)} clients that it tells of, {int(truth.sum())} mirrored images, and"
            " it takes some of both kinds.",
        )
        return
    _note(notes, finding, result.scores.mean(dim=0), truth, knows.seed, "clients")


def _asked_by_run(
    notes: AuditNotes,
    layer: str,
    adversary: str,
    attack: Inference,
    seen: Sequence[list[View] | str],
    knows: Knowledge,
    truth: Bool[Tensor, " runs"],
) -> None:
    views: list[View] | str = [view for each in seen if not isinstance(each, str) for view in each]
    reasons = [each for each in seen if isinstance(each, str)]
    result, finding = attacked(
        notes, layer, adversary, attack, reasons[0] if reasons else views, knows, "AUC"
    )
    if isinstance(result, NotApplicable):
        return
    if not isinstance(result, PropertyScores) or len(result.scores) != len(truth):
        why = f"its answer is {answered(result)}, and {len(truth)} runs of one round were asked."
        unasked(notes, finding, why)
        return
    _note(notes, finding, result.scores.mean(dim=1), truth, knows.seed, "runs")


def _note(
    notes: AuditNotes,
    finding: Finding,
    scores: Float[Tensor, " n"],
    truth: Bool[Tensor, " n"],
    seed: int,
    units: str,
) -> None:
    told = score.membership(scores, truth, seed=seed)
    control = score.null_membership(scores, truth, seed=seed)
    found = replace(
        finding,
        value=told.auc,
        control=control.auc,
        baseline=score.Figure(0.5),
        units=len(scores),
        unit=units,
        clusters=len(scores),
        more=f"{len(scores)} {units}",
    )
    notes.findings.append(judged(found))
