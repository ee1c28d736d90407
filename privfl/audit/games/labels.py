"""How many labels of each row claims have right, and whether they are right of their own row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from privfl.attacks import Counts, Knowledge, Result
from privfl.audit import score
from privfl.audit.findings import Finding
from privfl.audit.games.luck import RARE
from privfl.audit.intervals import Floats, Ints, clustered_share
from privfl.core import Dataset

DEALS = 4000
"""Deals of claims to rows in a permutation test, and draws of other labels."""
FEW_ROWS = 6
"""Of so few rows hardly a deal is rare: of four there are 24, of six that hold two equal labels
360, and the best of several looks must be rarer still.
"""


def label_finding(
    finding: Finding,
    rows: Sequence[tuple[Sequence[Result], Dataset]],
    classes: int,
    knows: Knowledge,
) -> Finding:
    """The finding of claims [rows] beside what each row really held; where no claim is, the prior.

    It leaks where claims are right of their own rows more than of rows dealt to them at random: by
    the rank of the true deal, because counts of few rows have no normal distribution. Of
    `FEW_ROWS` or fewer no rank is rare; there claims must be right of labels that are drawn from
    the adversary's own samples as seldom, and no less of their own rows than of the others.
    """
    share = torch.ones(classes) / classes
    if knows.auxiliary is not None:
        share = torch.bincount(knows.auxiliary.y, minlength=classes) / knows.auxiliary.n
    claimed: list[Tensor] = []
    for told, true in rows:
        counted = [answer.counts.float() for answer in told if isinstance(answer, Counts)]
        claimed.append(torch.stack(counted).sum(dim=0) if counted else share * true.n)
    guesses = torch.stack(claimed).double().numpy()
    held = np.stack([np.bincount(true.y.numpy(), minlength=classes) for _, true in rows])
    size = held.sum(axis=1).astype(np.float64)
    table = np.array([[_overlap(guess, labels) for labels in held] for guess in guesses])
    right, prior = (
        table.diagonal(),
        np.array([_overlap(share.double().numpy(), one) for one in held]),
    )
    value, blind = (clustered_share(part, size, int(size.sum())) for part in (right, prior))
    gap, luck = _above_others(table, size, knows.seed)
    above = gap.value > 0 or len(rows) == 1
    if len(rows) <= FEW_ROWS:
        luck = _drawn_luck(guesses, held, share.double().numpy(), knows.seed) if above else 1.0
    return replace(
        finding,
        value=value,
        baseline=score.Figure(blind.value),
        control=score.Figure(value.value - gap.value),
        rates={"gap to other rows": gap} if len(rows) > 1 else {},
        units=int(size.sum()),
        unit="labels",
        clusters=len(rows),
        luck=luck,
        verdict="leaks" if luck < RARE else "not found",
    )


def _above_others(table: Floats, weights: Floats, seed: int) -> tuple[score.Figure, float]:
    """By how much more claims have right of their own rows than of rows dealt to them at random,
    and how likely a deal is as good: every deal where there are few, and of more rows many.
    """
    rng, k = np.random.default_rng(seed), len(table)
    if k <= FEW_ROWS:
        deals: Ints = np.array(list(permutations(range(k))))
    else:
        drawn = rng.permuted(np.tile(np.arange(k), (DEALS, 1)), axis=1)
        deals = np.concatenate([np.arange(k)[None], drawn])
    dealt = table[deals, np.arange(k)] @ (weights / weights.sum())
    own = float((weights / weights.sum()) @ table.diagonal())
    luck = float((dealt >= own - 1e-9).mean())
    # counts come in steps: quantiles of the mid-distribution (Ma, Genton, Parzen 2011, section 2)
    steps, times = np.unique(dealt.round(9), return_counts=True)
    middle = (np.cumsum(times) - times / 2) / len(dealt)
    least, most = np.interp([RARE, 1 - RARE], middle, steps)
    gap = own - float(dealt.mean())
    low, high = own - float(most), own - float(least)
    return score.Figure(gap, min(low, gap), max(high, gap)), luck


def _drawn_luck(guesses: Floats, held: Ints, share: Floats, seed: int) -> float:
    """How likely claims [rows, classes] are as right of as many labels that are drawn at random,
    each class as often as the adversary's own samples say.
    """
    rng, size = np.random.default_rng(seed + 1), held.sum(axis=1)
    own = sum(_overlap(one, true) * n for one, true, n in zip(guesses, held, size, strict=True))
    right = np.zeros(DEALS)
    for one, n in zip(guesses, size, strict=True):
        drawn = rng.multinomial(n, share / share.sum(), size=DEALS)
        right += np.minimum(one * (n / max(float(one.sum()), 1e-12)), drawn).sum(axis=1)
    return float((1 + int((right >= own - 1e-9).sum())) / (1 + DEALS))


def _overlap(guess: Floats, labels: Ints) -> float:
    """The share of a row's labels that a guess at their histogram has right, at the row's size."""
    n = float(labels.sum())
    scaled = guess * (n / max(float(guess.sum()), 1e-12))
    return float(np.minimum(scaled, labels).sum()) / n
