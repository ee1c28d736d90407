"""Text: which tokens a client typed, and in which order, from one round in which each client held
few samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from privfl.attacks import (
    ByRow,
    Inference,
    Knowledge,
    NotApplicable,
    Result,
    Sequences,
    Tokens,
)
from privfl.audit import score
from privfl.audit.findings import Finding
from privfl.audit.games.notes import AuditNotes, attacked, name_of, tell
from privfl.audit.games.reconstruction import ROWS, Truth
from privfl.audit.intervals import Floats, clustered_mean, clustered_share
from privfl.audit.rehearsal import views_of
from privfl.core import Dataset
from privfl.federation import Run

DECOYS = 40
"""So many sets of decoys are held against an audit's claims: as good as the truth by chance is none
of them in one of 41 cases.
"""


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
    """How well the claims agree with what was held, beside what is guessed from the auxiliary
    samples alone, and beside the same claims held against other samples of the same clients.

    Of a set of tokens: the size of what both share by that of both together; blind is a set of as
    many tokens as there are, the commonest ones. Of sequences: the share of positions with the
    right token, after matching sequences to each other; blind is the commonest token everywhere,
    which also stands where a claim says nothing. Where the claims agree better with what was not
    held than these guesses do, that is what is blind: text of such clients is like that, and they
    may claim more sequences than one. No claim leaks that agrees as well with 1 of `DECOYS` other
    draws.
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
            rows = [
                (there, answer)
                for clients, answer in answers
                if (there := tuple(client for client in clients if client in everybody))
            ]
            if not rows:
                continue
            finding = replace(finding, effort=f"{len(answers)} rows attacked")
            silent = [answer for _, answer in rows if isinstance(answer, NotApplicable)]
            if len(silent) == len(rows):
                why = silent[0].reason
                notes.findings.append(replace(finding, reason=why, verdict="not found"))
                continue
            ordered = any(isinstance(answer, Sequences) for _, answer in rows)
            told = [
                one
                for clients, answer in rows
                for one in (_in_order if ordered else _as_sets)(
                    answer,
                    truth.of(clients),
                    [truth.decoys(clients, draw) for draw in range(DECOYS)],
                    knows,
                    len(rows) == 1,
                )
            ]
            notes.findings.append(_found(finding, told, ordered))


@dataclass(frozen=True, slots=True)
class _Told:
    """What one row's claims share with the truth, as much as a blind guess does, and as they do
    with each draw of decoys; of how many tokens and sequences, and how many of these are whole.
    """

    right: float
    blind: float
    other: Floats
    tokens: int
    sequences: int = 0
    whole: int = 0
    whole_decoys: int = 0


def _found(finding: Finding, told: Sequence[_Told], ordered: bool) -> Finding:
    tokens = sum(one.tokens for one in told)
    right, blind, other = (
        np.array(part)
        for part in zip(*((one.right, one.blind, one.other) for one in told), strict=True)
    )
    value, guess, control = (
        clustered_share(part, np.ones(len(told)), tokens)
        for part in (right, blind, other.mean(axis=1))
    )
    gap, apart = (
        clustered_mean(right - part, np.ones(len(told)), units=tokens, within=(-1.0, 1.0))
        for part in (blind, other.mean(axis=1))
    )
    chances = other.mean(axis=0)
    luck = (1 + int((chances >= right.mean()).sum())) / (1 + len(chances))
    clear = luck < 0.025 and (gap.low > 0 if len(told) > 1 else value.low > guess.value)
    rates = {"gap to blind": gap, "gap to decoys": apart}
    if ordered:
        n = sum(one.sequences for one in told)
        rates["whole"] = score.proportion(sum(one.whole for one in told), n)
        rates["whole, decoys"] = score.proportion(sum(one.whole_decoys for one in told), n * DECOYS)
    return replace(
        finding,
        value=value,
        baseline=score.Figure(max(guess.value, control.value)),
        control=control,
        luck=luck,
        rates=rates,
        units=tokens,
        unit="tokens" if ordered else "different tokens",
        clusters=len(told),
        verdict="leaks" if clear else "not found",
        more=f"{rates['whole']} of sequences whole" if ordered else "",
    )


def _in_order(
    answer: Result, held: Dataset, decoys: Sequence[Dataset], knows: Knowledge, alone: bool
) -> list[_Told]:
    """One for the row; one for each sequence, where there is one row only."""
    common = _guess(knows, 1)
    found = answer.sequences if isinstance(answer, Sequences) else held.x[:0]
    right = _matched(found, held.x, common)
    other = torch.stack([_matched(found, draw.x, common) for draw in decoys])
    blind = (held.x == common).double().mean(dim=1)
    parts = [slice(i, i + 1) for i in range(held.n)] if alone else [slice(0, held.n)]
    return [
        _Told(
            float(right[part].mean()),
            float(blind[part].mean()),
            other[:, part].mean(dim=1).numpy(),
            held.x[part].numel(),
            len(right[part]),
            int((right[part] == 1).sum()),
            int((other[:, part] == 1).sum()),
        )
        for part in parts
    ]


def _matched(found: Tensor, true: Tensor, common: Tensor) -> Tensor:
    """The share of right tokens in each true sequence [n], each claim held against one of them."""
    from scipy.optimize import linear_sum_assignment

    found = torch.where(found < 0, common, found)
    more = common.expand(max(len(true) - len(found), 0), true.shape[1])
    same = (true[:, None] == torch.cat([found, more])[None]).double().mean(dim=2)
    rows, columns = linear_sum_assignment(-same.numpy())
    return same[torch.from_numpy(rows), torch.from_numpy(columns)]


def _as_sets(
    answer: Result, held: Dataset, decoys: Sequence[Dataset], knows: Knowledge, alone: bool
) -> list[_Told]:
    true, claimed = _tokens(held), set[int]()
    if isinstance(answer, Tokens):
        claimed = set(answer.tokens.tolist())
    guess = set(_guess(knows, len(true)).tolist())
    return [
        _Told(
            _shared(claimed, true),
            _shared(guess, true),
            np.array([_shared(claimed, _tokens(draw)) for draw in decoys]),
            len(true | claimed),
        )
    ]


def _guess(knows: Knowledge, count: int) -> Tensor:
    """The commonest tokens among the auxiliary samples; where there are none, one of no text."""
    if knows.auxiliary is None:
        return torch.full((1,), -1)
    return torch.bincount(knows.auxiliary.x.flatten()).argsort(descending=True)[:count]


def _tokens(data: Dataset) -> set[int]:
    return set(data.x.flatten().tolist())


def _shared(a: set[int], b: set[int]) -> float:
    return len(a & b) / max(len(a | b), 1)
