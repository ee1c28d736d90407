"""Reconstruction: attacks on one round whose clients hold few samples, for their labels and their
features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from privfl.attacks import (
    Counts,
    Forward,
    Inference,
    Knowledge,
    LabelCounts,
    NotApplicable,
    Reconstruction,
)
from privfl.audit import score
from privfl.audit.games.notes import AuditNotes, attacked, name_of, tell
from privfl.audit.rehearsal import views_of
from privfl.core import ClientId, Dataset
from privfl.federation import Run


def attack_probe(
    notes: AuditNotes,
    layer: str,
    run: Run,
    adversaries: Sequence[str],
    attacks: Sequence[Inference],
    knows: Knowledge,
    data: Dataset,
    held: Mapping[ClientId, Tensor],
    progress: Callable[[str], None] | None,
) -> None:
    """How many labels are right, and how close pictures come, from one round in which each client
    held the samples ``held``; beside what somebody guesses who saw nothing.
    """
    forward = knows.forward
    for adversary in adversaries:
        views = views_of(run, adversary)
        for attack in attacks:
            tell(progress, f"{layer}: {adversary}: {name_of(attack)}")
            metric = "share of labels" if isinstance(attack, LabelCounts) else "PSNR, dB"
            result, finding = attacked(notes, layer, adversary, attack, views, knows, metric)
            if isinstance(result, NotApplicable) or isinstance(views, str) or forward is None:
                continue
            rows = None if attack.takes_sum else views[0].rows.ids
            clients = (
                tuple(run.transcript(views[0].plan.number).clients_seen())
                if rows is None
                else rows[:1]
            )
            true = data.take(torch.cat([held[client] for client in clients]))
            if isinstance(result, Counts):
                right = torch.minimum(
                    result.counts, torch.bincount(true.y, minlength=data.classes)
                ).sum()
                blind = (
                    torch.bincount(knows.auxiliary.y, minlength=data.classes)
                    if knows.auxiliary is not None
                    else right
                )
                guess = (
                    torch.minimum(
                        blind / blind.sum() * true.n, torch.bincount(true.y, minlength=data.classes)
                    ).sum()
                    / true.n
                )
                value = score.proportion(int(right), true.n)
                notes.findings.append(
                    replace(finding, value=value, baseline=score.Figure(float(guess)))
                )
            elif isinstance(result, Reconstruction):
                found, original = _unit(result.samples, forward), _unit(true.x, forward)
                told = score.pictures(found, original)
                blind_guess = (
                    score.prior(_unit(knows.auxiliary.x, forward), original)
                    if knows.auxiliary is not None
                    else told
                )
                more = (
                    f"best {float(told.psnr.max()):.1f} dB; SSIM {float(told.ssim.mean()):.3f};"
                    f" over 20 dB {told.over_20}"
                )
                notes.galleries[layer, adversary, finding.attack] = told
                value = score.Figure(float(told.psnr.mean()))
                notes.findings.append(
                    replace(
                        finding,
                        value=value,
                        baseline=score.Figure(float(blind_guess.psnr.mean())),
                        more=more,
                    )
                )


def _unit(x: Tensor, forward: Forward) -> Tensor:
    """Features in [0, 1], as the recipe's range says."""
    low, high = forward.span(x)
    return (x - low) / (high - low).clamp(min=1e-9)
