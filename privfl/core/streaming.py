"""Rounds that keep no rows: letters that are added up as they are written, updates that are made
when they are sent.

A sum needs no rows. In a round that one process plays (`core.drive_all`), a client's update is made
when its party speaks, and a server whose protocol needs no more of a letter than a sum takes it in
before the next client speaks. What comes of it is the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from privfl.core.opened import Total
from privfl.core.protocol import Opener, Party
from privfl.core.types import Buffer, PartyId, Vector
from privfl.core.update import Bounded, RoundPlan

_BLOCK = 1 << 17
"""So many values at a time stay in cache, and are worth a call."""


@runtime_checkable
class Folds(Party, Protocol):
    """A party that adds letters up as they are written, so that they need not lie side by side."""

    def fold(self, sender: PartyId, body: Buffer) -> Buffer | None:
        """Take in a letter that was written to this party and will be delivered in the next
        exchange; what is delivered then in its place, or None: all of it, as it is.

        Whoever calls it promises that each letter comes once, in time, and from whom it says, so
        that what is taken in need not be taken out again. Nothing is decided here: of a letter that
        cannot be used, None. The letter is its writer's, and may be written over afterwards.
        """
        ...


@runtime_checkable
class EntersLater(Protocol):
    """A client's member whose party speaks before it needs the update."""

    def enter_later(self, plan: RoundPlan, update: Callable[[], Bounded | None]) -> Party:
        """Its part in one round; ``update`` makes its bounded update once it is due, or None, and
        then the client falls silent.
        """
        ...


@runtime_checkable
class SumsRows(Protocol):
    """The member of a server that reads rows and can add them up as they come instead."""

    def enter_summing(self, plan: RoundPlan, *, weighted: bool) -> Opener[Total]:
        """Its part in a round of which nothing but the sum of the rows is wanted; each row times
        its weight, or times 1. What it opens says how many rows there are and what they weigh.
        """
        ...


@runtime_checkable
class ReadsSum(Protocol):
    """A rule to which rows are no more than their weighted sum."""

    @property
    def weighted(self) -> bool:
        """Whether rows count by their weights; each by 1 where they do not."""
        ...

    def streams(self, d: int) -> bool:
        """Whether it makes of rows of this length what it makes of their sum by `add_row`, bit for
        bit.
        """
        ...


def add_row(total: Vector, row: Vector, weight: float) -> None:
    """Add a row [d] times its weight to a total [d] in place: a product, rounded, then a sum,
    rounded, whatever the processor and however many threads.

    >>> total = torch.zeros(2)
    >>> add_row(total, torch.tensor([1.0, 2.0]), 3.0)
    >>> total
    tensor([3., 6.])
    """
    out, values = total.numpy(), row.detach().numpy()
    scratch = np.empty(min(_BLOCK, len(out)), dtype=out.dtype)
    factor = out.dtype.type(weight)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(out), _BLOCK):
            block, row_block = out[start : start + _BLOCK], values[start : start + _BLOCK]
            _add_block(block, row_block, factor, scratch)


def sum_of_rows(values: torch.Tensor, weights: torch.Tensor) -> Vector:
    """The weighted sum [d] of rows [n, d], bit for bit what `add_row` makes of one after the other,
    block by block.

    >>> sum_of_rows(torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 0.5]))
    tensor([2.])
    """
    total = torch.zeros(values.shape[1], dtype=values.dtype)
    out, rows = total.numpy(), values.detach().numpy()
    scratch = np.empty(min(_BLOCK, len(out)), dtype=out.dtype)
    factors = weights.to(torch.float64).numpy().astype(out.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(out), _BLOCK):
            block = out[start : start + _BLOCK]
            for row, factor in zip(rows, factors, strict=True):
                _add_block(block, row[start : start + _BLOCK], factor, scratch)
    return total


def _add_block(
    block: npt.NDArray[np.floating],
    row: npt.NDArray[np.floating],
    factor: np.floating,
    scratch: npt.NDArray[np.floating],
) -> None:
    if factor == 1:  # what a product with 1 gives
        np.add(block, row, out=block)
        return
    part = scratch[: len(block)]
    np.multiply(row, factor, out=part)
    np.add(block, part, out=block)
