"""The scorer of tables: a field counts, not a column. A category of forty columns is right or wrong
once, and a record that was claimed is held against one record.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

WITHIN = 0.319
"""A number is right that is off by less than so many standard deviations (Vero et al. 2023): a
guess at the mean of a normal distribution is so in a quarter of cases.
"""


def fields_right(
    found: Float[Tensor, "m columns"],
    true: Float[Tensor, "n columns"],
    categories: Sequence[slice],
    deviation: Float[Tensor, " columns"],
) -> tuple[Bool[Tensor, "n fields"], Int[Tensor, " n"]]:
    """Which fields of each true record are right, and which claim it is held against: one to one,
    so that most are (Hungarian). First numbers in their order, then categories, by their greatest
    column. A record without a claim (-1) has none right.

    >>> true = torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 1.0]])
    >>> right, claim = fields_right(true.flip(0), true, [slice(1, 3)], torch.ones(3))
    >>> right.all().item(), claim.tolist()
    (True, [1, 0])
    """
    from scipy.optimize import linear_sum_assignment

    number = ~in_a_category(true.shape[1], categories)
    off = (found[None] - true[:, None]).abs() / deviation
    same = [off[:, :, number] < WITHIN]
    same += [
        (true[:, None, group].argmax(dim=2) == found[None, :, group].argmax(dim=2))[:, :, None]
        for group in categories
    ]
    each = torch.cat(same, dim=2)
    matched = linear_sum_assignment(-each.double().mean(dim=2).numpy())
    rows, columns = (torch.from_numpy(part) for part in matched)
    right = torch.zeros(len(true), each.shape[2], dtype=torch.bool)
    right[rows] = each[rows, columns]
    claim = torch.full((len(true),), -1)
    claim[rows] = columns
    return right, claim


def in_a_category(columns: int, categories: Sequence[slice]) -> Bool[Tensor, " columns"]:
    """Which columns belong to a category.

    >>> in_a_category(4, [slice(1, 3)]).tolist()
    [False, True, True, False]
    """
    inside = torch.zeros(columns, dtype=torch.bool)
    for group in categories:
        inside[group] = True
    return inside


def typical(
    rows: Float[Tensor, "n columns"], categories: Sequence[slice]
) -> Float[Tensor, "1 columns"]:
    """The record to guess by somebody blind: medians, and the commonest categories.

    >>> typical(torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 1.0], [1.0, 0.0, 1.0]]), [slice(1, 3)])
    tensor([[1., 0., 1.]])
    """
    guess = rows.median(dim=0).values.clone()
    for group in categories:
        guess[group] = 0
        guess[group.start + int(rows[:, group].sum(dim=0).argmax())] = 1
    return guess[None]
