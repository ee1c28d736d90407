"""Sparsification: the largest entries only, the rest later."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators.base import After
from privfl.aggregators.verdict import Verdict
from privfl.core import (
    Context,
    DefenceSeat,
    Released,
    Update,
    Vector,
    require,
)


@dataclass(frozen=True, slots=True)
class Residual:
    """What earlier rounds did not send [d], None for nothing."""

    vector: Vector | None = None


def largest(vector: Float[Tensor, " d"], count: int) -> Float[Tensor, " d"]:
    """The ``count`` entries of largest magnitude; the others zero."""
    out = torch.zeros_like(vector)
    chosen = vector.abs().topk(count).indices
    out[chosen] = vector[chosen]
    return out


@dataclass(frozen=True, slots=True)
class Sparsify(After[Residual]):
    """Send or apply only the share ``keep`` of entries with the largest magnitude, and carry the
    rest over to the next round.

    Top-k with error feedback (Stich, Cordonnier, Jaggi 2018); as a defence it starves small,
    spread-out perturbations; no paper is canonical for that use. Fills two seats, at the client and
    after the rule, unless ``at`` names the one. Moves along with a scale.

    >>> context = Context(None, torch.zeros(4), torch.Generator())
    >>> sent, left = Sparsify(keep=0.25).after(
    ...     Released(torch.tensor([1.0, -3.0, 2.0, 0.5])), Residual(), context
    ... )
    >>> sent, left.vector
    (tensor([ 0., -3.,  0.,  0.]), tensor([1.0000, 0.0000, 2.0000, 0.5000]))
    """

    seats: ClassVar[frozenset[DefenceSeat]] = frozenset({"client", "after"})

    keep: float = 0.1
    at: Literal["client", "server", "both"] = "both"

    def __post_init__(self) -> None:
        require.positive(keep=self.keep)
        require.within(0, 1, keep=self.keep)

    def init(self) -> Residual:
        """Nothing is left over."""
        return Residual()

    def init_client(self) -> Residual:
        """Nothing is left over."""
        return Residual()

    def judge_after(
        self, released: Released, state: Residual, context: Context
    ) -> tuple[Verdict[Vector], Residual]:
        """The largest entries of the vector and what was left over."""
        vector = released.vector
        return (Verdict(vector), state) if self.at == "client" else self._largest(vector, state)

    def at_client(
        self, update: Update, state: Residual, context: Context
    ) -> tuple[Update, Residual]:
        """The update's largest entries."""
        if self.at == "server":
            return update, state
        verdict, left = self._largest(update.delta, state)
        return replace(update, delta=verdict.out), left

    def _largest(self, vector: Vector, state: Residual) -> tuple[Verdict[Vector], Residual]:
        whole = vector if state.vector is None else vector + state.vector
        sent = largest(whole, max(round(self.keep * len(whole)), 1))
        return Verdict(sent, touched=int((sent != vector).sum())), Residual(whole - sent)
