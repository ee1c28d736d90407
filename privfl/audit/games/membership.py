"""Membership: attacks on the views of all rounds, which score every candidate of a pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from privfl.attacks import ClientScores, Inference, Knowledge, NotApplicable, Result, Scores
from privfl.audit import score
from privfl.audit.findings import Finding
from privfl.audit.games.notes import (
    AuditNotes,
    answered,
    attacked,
    judged,
    name_of,
    tell,
    unasked,
)
from privfl.audit.rehearsal import Ground, views_of
from privfl.core import ClientId
from privfl.federation import Run


@dataclass(frozen=True, slots=True)
class Questions:
    """The questions of the game: scores [q], the truth [q], whose sample each is about [q], and its
    label [q].
    """

    scores: Float[Tensor, " q"]
    truth: Bool[Tensor, " q"]
    client: Int[Tensor, " q"]
    label: Int[Tensor, " q"]


def attack_stream(
    notes: AuditNotes,
    layer: str,
    run: Run,
    adversaries: Sequence[str],
    attacks: Sequence[Inference],
    knows: Knowledge,
    ground: Ground,
    progress: Callable[[str], None] | None,
) -> None:
    """Who of the pool was trained on: every attack through every adversary's views of all rounds.

    Each client's members are held against other samples of the same client, which nobody trained
    on: what a client's data are like decides nothing. Attacks that name clients are asked about
    each client's own samples, and how often they name the right one. Clients that took part in no
    round have no members.
    """
    took_part = {c for number in run.transcripts for c in run.transcript(number).clients_seen()}
    for adversary in adversaries:
        views = views_of(run, adversary)
        for attack in attacks:
            tell(progress, f"{layer}: {adversary}: {name_of(attack)}")
            result, finding = attacked(notes, layer, adversary, attack, views, knows, "AUC")
            if not isinstance(result, NotApplicable):
                scored(notes, finding, result, ground, took_part, knows.seed)


def scored(
    notes: AuditNotes,
    finding: Finding,
    result: Result,
    ground: Ground,
    took_part: set[ClientId],
    seed: int,
) -> None:
    """Note what scores are worth: beside a control, and beside blind scores of the labels."""
    asked = questions(result, ground, took_part)
    if asked is None:
        unasked(
            notes,
            finding,
            f"its answer is {answered(result)}, and {ground.pool.n} candidates were asked about; or"
            " no client that took part has members and others among them.",
        )
        return
    told = score.membership(asked.scores, asked.truth, clusters=asked.client, seed=seed)
    control = score.null_membership(asked.scores, asked.truth, clusters=asked.client, seed=seed)
    blind = {
        name: score.membership(guess, asked.truth, clusters=asked.client, seed=seed).auc
        for name, guess in label_guesses(asked).items()
    }
    rates = {"tpr_at_.01": told.at_hundredth, "tpr_at_.001": told.at_thousandth}
    more = (
        f"TPR at 1 % FPR {told.at_hundredth}, at .1 % {told.at_thousandth}; balanced accuracy"
        f" {told.balanced:.3f}; label histogram {blind['label histogram'].value:.3f}"
    )
    if isinstance(result, ClientScores):
        named, among = _named(result, ground, took_part)
        rates["source named"] = named
        more += f"; source named {named} (chance {1 / among:.3f})"
    notes.curves[finding.layer, finding.adversary, finding.attack] = told
    found = replace(
        finding,
        value=told.auc,
        control=control.auc,
        baseline=score.Figure(0.5),
        baselines=blind,
        rates=rates,
        units=told.units,
        clusters=told.clusters,
        luck=told.luck,
        more=more,
    )
    notes.findings.append(judged(found))


def questions(result: Result, ground: Ground, took_part: set[ClientId]) -> Questions | None:
    """What a result is asked: of each client that took part, its own members and its own others;
    None where the result does not score these candidates, or no client has both.
    """
    if isinstance(result, Scores | ClientScores) and result.scores.shape[-1] != ground.pool.n:
        return None
    if isinstance(result, ClientScores):
        rows = {client: row for row, client in enumerate(result.clients) if client in took_part}
        at = torch.tensor([rows.get(int(client), -1) for client in ground.owner])
        here = at >= 0
        scores = result.scores[at.clamp(min=0), torch.arange(len(at))]
    elif isinstance(result, Scores):
        here = torch.isin(ground.owner, torch.tensor(sorted(took_part)))
        scores = result.scores
    else:
        return None
    both = set(ground.owner[here & ground.inside].tolist())
    both &= set(ground.owner[here & ~ground.inside].tolist())
    here = here & torch.isin(ground.owner, torch.tensor(sorted(both), dtype=torch.int64))
    if not bool(here.any()):
        return None
    labels = ground.pool.y if ground.pool.y.ndim == 1 else ground.pool.y[:, -1]
    return Questions(scores[here], ground.inside[here], ground.owner[here], labels[here])


def label_guesses(asked: Questions) -> dict[str, Float[Tensor, " q"]]:
    """Scores from labels alone, by client: "label prior", how common a label is among all of the
    client's candidates, which knows nothing of who is a member; "label histogram", the share of
    members among the client's candidates of that label, which is what exact label counts
    (`LabelCounts`) would give away.
    """
    classes = int(asked.label.max()) + 1
    cell = torch.unique(asked.client, return_inverse=True)[1] * classes + asked.label
    every = torch.bincount(cell).float()
    members = torch.bincount(cell, weights=asked.truth.float())
    return {"label prior": every[cell], "label histogram": (members / every.clamp(min=1))[cell]}


def _named(
    result: ClientScores, ground: Ground, took_part: set[ClientId]
) -> tuple[score.Figure, int]:
    """How often the client whose score of a member is greatest is the one that trained on it, and
    among how many clients.
    """
    mine = ground.inside & torch.isin(ground.owner, torch.tensor(sorted(took_part)))
    best = torch.tensor(result.clients)[result.scores[:, mine].argmax(dim=0)]
    right = best == ground.owner[mine]
    return score.proportion(int(right.sum()), len(right)), len(result.clients)
