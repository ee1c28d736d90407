"""How well scores tell two classes apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def auc(scores: Float[Tensor, " m"], positive: Bool[Tensor, " m"]) -> float:
    """The chance that a positive's score is above a negative's, ties half; .5 where a class is
    missing.

    >>> auc(torch.tensor([0.1, 0.4, 0.4, 0.9]), torch.tensor([False, False, True, True]))
    0.875
    """
    ones = int(positive.sum())
    zeros = len(positive) - ones
    if not ones or not zeros:
        return 0.5
    _, place, count = torch.unique(scores, return_inverse=True, return_counts=True)
    last = count.cumsum(0).double()
    ranks = (last - (count - 1) / 2)[place]
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def grouped(numbers: Int[Tensor, " m"]) -> Sequence[Int[Tensor, " _"]]:
    """The positions of each number.

    >>> [group.tolist() for group in grouped(torch.tensor([4, 2, 4]))]
    [[1], [0, 2]]
    """
    _, place, counts = torch.unique(numbers, return_inverse=True, return_counts=True)
    return torch.split(place.argsort(stable=True), counts.tolist())


@dataclass(frozen=True, slots=True)
class BatchAUC:
    """How well scores tell positives in a batch: the mean AUC of the batches that have both
    classes, and the mean of the better of both signs, which somebody chooses who knows the
    truth. The second is above .5 for any scores: on B samples by about .46 / sqrt(B) or more.
    """

    auc: float
    better_sign: float


def told_by_batch(
    scores: Float[Tensor, " m"],
    positive: Bool[Tensor, " m"],
    batches: Int[Tensor, " m"],
    *,
    without: Int[Tensor, " k"] | None = None,
) -> BatchAUC:
    """Both figures; ``without``: positions that do not count: the attack was told their labels.

    >>> both = torch.tensor([True, False, True, False])
    >>> told_by_batch(torch.tensor([1.0, 0, 0, 1]), both, torch.tensor([0, 0, 1, 1]))
    BatchAUC(auc=0.5, better_sign=1.0)
    """
    counts = torch.ones_like(positive)
    if without is not None:
        counts[without] = False
    found = []
    for group in grouped(batches):
        here = group[counts[group]]
        ones = int(positive[here].sum())
        if 0 < ones < len(here):
            found.append(auc(scores[here], positive[here]))
    if not found:
        return BatchAUC(0.5, 0.5)
    return BatchAUC(sum(found) / len(found), sum(max(one, 1 - one) for one in found) / len(found))
