"""Membership: attacks on the views of all rounds, which score every candidate of a pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from privfl.attacks import ClientScores, Inference, Knowledge, NotApplicable, Scores
from privfl.audit import score
from privfl.audit.games.notes import AuditNotes, attacked, name_of, tell
from privfl.audit.rehearsal import Ground, views_of
from privfl.core import ClientId, Dataset
from privfl.federation import Run


def attack_stream(
    notes: AuditNotes,
    layer: str,
    run: Run,
    adversaries: Sequence[str],
    attacks: Sequence[Inference],
    knows: Knowledge,
    ground: Ground,
    own: Mapping[ClientId, Dataset],
    progress: Callable[[str], None] | None,
) -> None:
    """Who of the pool was trained on: every attack through every adversary's views of all rounds.

    Attacks that name clients are asked for each client's samples (``own``) against those of nobody,
    and how often they name the right one.
    """
    whose = _owners(ground, own)
    for adversary in adversaries:
        views = views_of(run, adversary)
        for attack in attacks:
            tell(progress, f"{layer}: {adversary}: {name_of(attack)}")
            result, finding = attacked(notes, layer, adversary, attack, views, knows, "AUC")
            if isinstance(result, NotApplicable):
                continue
            if isinstance(result, ClientScores):
                mine = torch.stack([whose == client for client in result.clients])
                asked = mine | ~ground.inside  # a client's own samples against those of nobody
                scores, truth = result.scores[asked], mine[asked]
                source = (
                    torch.tensor(result.clients)[result.scores[:, ground.inside].argmax(dim=0)]
                    == whose[ground.inside]
                ).float()
                named = score.proportion(int(source.sum()), len(source))
                more = f"; source named {named} (chance {1 / len(result.clients):.3f})"
            elif isinstance(result, Scores):
                scores, truth, more = result.scores, ground.inside, ""
            else:
                continue
            told = score.membership(scores, truth, seed=knows.seed)
            control = score.null_membership(scores, truth, seed=knows.seed)
            more = (
                f"TPR at 1 % FPR {told.at_hundredth}, at .1 % {told.at_thousandth}; balanced"
                f" accuracy {told.balanced:.3f}{more}"
            )
            notes.curves[layer, adversary, finding.attack] = told
            notes.findings.append(
                replace(
                    finding,
                    value=told.auc,
                    control=control.auc,
                    baseline=score.Figure(0.5),
                    more=more,
                )
            )


def _owners(ground: Ground, own: Mapping[ClientId, Dataset]) -> Tensor:
    """By pool position: which client trained on it, -1 for nobody's."""
    owners = torch.full((ground.pool.n,), -1, dtype=torch.int64)
    flat = ground.pool.x.flatten(1).double()
    for client, data in own.items():
        near = torch.cdist(data.x.flatten(1).double(), flat)
        near[:, ~ground.inside] = float("inf")
        owners[near.argmin(dim=1)] = client
    return owners
