"""Property inference: whose images are mirrored, a fact that nobody meant to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from privfl.attacks import Inference, Knowledge, PropertyScores
from privfl.audit import score
from privfl.audit.games.notes import AuditNotes, attacked
from privfl.audit.rehearsal import Ground, rehearse, views_of
from privfl.core import Dataset
from privfl.federation import Federation

MIRRORED = 0.3
"""The share of its images that every second client mirrors."""
ROUNDS = 3
"""How many rounds are played at most."""


def attack_property(
    notes: AuditNotes,
    layer: str,
    federation: Federation,
    adversaries: Sequence[str],
    attacks: Sequence[Inference],
    knows: Knowledge,
    ground: Ground,
    seed: int,
) -> None:
    """Whose images are mirrored: a fact that has nothing to do with the task. The sum is asked with
    and without such clients.
    """
    data, held = federation.scenario.workload.data, ground.auxiliary
    marked = sorted(ground.members)[1::2] or sorted(ground.members)
    some = torch.cat(
        [ground.members[c][: max(1, round(MIRRORED * len(ground.members[c])))] for c in marked]
    )
    x = data.x.clone()
    x[some] = x[some].flip(-1)
    half = torch.arange(held.n) % 2
    known = Dataset(
        torch.where(half.view(-1, 1, 1, 1) == 1, held.x.flip(-1), held.x),
        held.y,
        held.classes,
        {"mirrored": half},
    )
    informed = replace(knows, auxiliary=known, attribute="mirrored", seed=seed)
    start = federation.scenario.workload.model.read()
    run = rehearse(
        federation,
        ground.members,
        min(ROUNDS, federation.scenario.rounds),
        Dataset(x, data.y, data.classes),
    )
    federation.scenario.workload.model.write(start)
    without = rehearse(federation, ground.members, min(ROUNDS, federation.scenario.rounds))
    for adversary in adversaries:
        views = views_of(run, adversary)
        for attack in attacks:
            result, finding = attacked(notes, layer, adversary, attack, views, informed, "AUC")
            if not isinstance(result, PropertyScores):
                continue
            if result.clients == (None,) or set(result.clients) <= set(marked):
                other = attack.run(views_of(without, adversary), informed)  # type: ignore[arg-type]
                if not isinstance(other, PropertyScores):
                    continue
                scores = torch.cat([result.scores.flatten(), other.scores.flatten()])
                truth = torch.cat(
                    [torch.ones(result.scores.numel()), torch.zeros(other.scores.numel())]
                ).bool()
            else:
                scores = result.scores.flatten()
                truth = torch.tensor([client in marked for client in result.clients]).repeat(
                    len(result.rounds)
                )
            if not bool(truth.any()) or bool(truth.all()):
                continue
            told = score.membership(scores, truth, seed=seed)
            control = score.null_membership(scores, truth, seed=seed)
            more = f"{len(scores)} updates of {len(result.rounds)} rounds"
            notes.findings.append(
                replace(
                    finding,
                    value=told.auc,
                    control=control.auc,
                    baseline=score.Figure(0.5),
                    more=more,
                )
            )
