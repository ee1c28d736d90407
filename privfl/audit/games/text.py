"""Text: which tokens a client typed, from one round in which each client held few samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from privfl.attacks import ByRow, Inference, Knowledge, NotApplicable, Tokens
from privfl.audit import score
from privfl.audit.games.notes import AuditNotes, attacked, name_of, tell
from privfl.audit.games.reconstruction import ROWS, Truth
from privfl.audit.intervals import Floats, clustered_mean
from privfl.audit.rehearsal import views_of
from privfl.core import Dataset
from privfl.federation import Run


def attack_text(
    notes: AuditNotes,
    layer: str,
    run: Run,
    adversaries: Sequence[str],
    attacks: Sequence[Inference],
    knows: Knowledge,
    truth: Truth,
    progress: Callable[[str], None] | None,
) -> None:
    """How well the claimed tokens agree with those that were held (the size of what both share by
    that of both together), beside a guess of as many tokens as there are, the commonest among the
    auxiliary samples, and beside the same claims held against other samples of the same clients.
    """
    for adversary in adversaries:
        views = views_of(run, adversary)
        for attack in attacks:
            tell(progress, f"{layer}: {adversary}: {name_of(attack)}")
            result, finding = attacked(
                notes, layer, adversary, attack, views, knows, "share of tokens", rows=ROWS
            )
            if isinstance(result, NotApplicable) or isinstance(views, str):
                continue
            everybody = tuple(run.transcript(views[0].plan.number).clients_seen())
            answers = result.answers if isinstance(result, ByRow) else ((everybody, result),)
            shares: list[tuple[float, float, float]] = []
            tokens = 0
            for clients, answer in answers:
                there = tuple(client for client in clients if client in everybody)
                if there:
                    found = answer.tokens if isinstance(answer, Tokens) else torch.zeros(0)
                    held = truth.of(there)
                    shares.append(_agreement(found, held, truth.decoys(there), knows))
                    tokens += len(_tokens(held) | set(found.tolist()))
            if not shares:
                continue
            right, blind, other = (np.array(part) for part in zip(*shares, strict=True))
            value, guess, control = (
                _share(part, tokens, knows.seed) for part in (right, blind, other)
            )
            gap = clustered_mean(right - blind, np.ones(len(shares)), seed=knows.seed)
            clear = gap.low > 0 if len(shares) > 1 else value.low > guess.value
            notes.findings.append(
                replace(
                    finding,
                    value=value,
                    baseline=score.Figure(guess.value),
                    control=control,
                    rates={"gap to blind": gap},
                    units=tokens,
                    clusters=len(shares),
                    verdict="leaks" if clear else "not found",
                    effort=f"{len(answers)} rows attacked",
                )
            )


def _agreement(
    found: Tensor, held: Dataset, decoys: Dataset, knows: Knowledge
) -> tuple[float, float, float]:
    """How far the claim, a blind guess, and the claim held against decoys agree."""
    true = _tokens(held)
    guess: set[int] = set()
    if knows.auxiliary is not None:
        order = torch.bincount(knows.auxiliary.x.flatten()).argsort(descending=True)
        guess = set(order[: len(true)].tolist())
    claimed = set(found.tolist())
    return _shared(claimed, true), _shared(guess, true), _shared(claimed, _tokens(decoys))


def _tokens(data: Dataset) -> set[int]:
    return set(data.x.flatten().tolist())


def _shared(a: set[int], b: set[int]) -> float:
    return len(a & b) / max(len(a | b), 1)


def _share(values: Floats, tokens: int, seed: int) -> score.Figure:
    """A mean share with rows as clusters; of one row alone, tokens count as independent."""
    if len(values) == 1:
        return score.proportion(round(float(values[0]) * tokens), tokens)
    told = clustered_mean(values, np.ones(len(values)), seed=seed)
    return score.Figure(told.value, max(0.0, told.low), min(1.0, told.high))
