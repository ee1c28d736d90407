"""Quantisation at the client: few levels for each entry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from privfl.core import Context, DefenceSeat, Needs, Update, require


@dataclass(frozen=True, slots=True)
class Quantise:
    """Round every entry of an update to one of 2^bits - 1 levels between plus and minus the
    largest, at random and without bias.

    QSGD (Alistarh, Grubic, Li, Tomioka, Vojnovic 2017, section 3.1) with the largest magnitude for
    the norm. A practical defence against reconstruction, without a guarantee; ``bits=1`` is three
    levels.

    >>> from privfl.core import RoundPlan
    >>> context = Context(
    ...     RoundPlan(0, (0,), d=3, l2=1.0), torch.zeros(3), torch.Generator().manual_seed(0)
    ... )
    >>> Quantise(bits=2).at_client(Update(0, torch.tensor([1.0, -0.5, 0.0])), None, context)[
    ...     0
    ... ].delta.abs().max()
    tensor(1.)
    """

    seats: ClassVar[frozenset[DefenceSeat]] = frozenset({"client"})
    needs: ClassVar[Needs] = {}
    judges: ClassVar[bool] = False

    bits: int = 8

    def __post_init__(self) -> None:
        require.within(1, 24, bits=self.bits)

    def init_client(self) -> None:
        """No memory."""
        return

    def at_client(self, update: Update, state: None, context: Context) -> tuple[Update, None]:
        """The rounded update; a zero one stays."""
        largest = float(update.delta.abs().max())
        if not 0 < largest < float("inf"):
            return update, None
        step = largest / max(2 ** (self.bits - 1) - 1, 1)
        scaled = update.delta / step
        floor = scaled.floor()
        coins = torch.rand(scaled.shape, generator=context.rng).to(scaled.device)
        up = coins < scaled - floor
        return replace(update, delta=(floor + up) * step), None
