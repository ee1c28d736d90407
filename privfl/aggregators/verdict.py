"""What a defence did, as data: `Verdict`, and the four seats' protocols that hand one out beside
the result.

Every rule and seat of this package computes through one of these methods, and its plain face
(``rule(rows)``, ``step``, ``before``, ``after``) is the verdict's ``out`` alone. An engine that
wants to show that the defence fired calls the method below instead and pays nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, Protocol, TypeGuard, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privfl.core import (
    AfterSeat,
    BeforeSeat,
    ClientId,
    Context,
    Released,
    Rows,
    Rule,
    RuleWithMemory,
    Vector,
)

Out_co = TypeVar("Out_co", covariant=True)
S = TypeVar("S")
SHOWN = 12


@dataclass(frozen=True, slots=True)
class Verdict(Generic[Out_co]):
    """The result ``out``, and what was done to each of the n rows that went in.

    ``kept`` [n]: False where a row was dropped. ``scale`` [n]: what a row was multiplied by or
    trusted with, relative to an untouched one (1). ``touched`` counts coordinates of the result
    that the defence changed on their own (trimmed, flipped, pruned, noised). ``suspicion`` [n]: how
    bad a row looked to it, higher is worse. ``scores`` are the numbers it judged by, by name; those
    with one for each row go into the record of the round. ``members``: of which rows that went in
    each row that comes out is made, where that is not one each. ``refused`` says why it threw the
    whole aggregate away.

    >>> Verdict(torch.zeros(2), kept=torch.tensor([True, False, True])).words((7, 8, 9))
    'dropped 1 of 3: 8'
    """

    out: Out_co
    kept: Bool[Tensor, " n"] | None = None
    scale: Float[Tensor, " n"] | None = None
    touched: int = 0
    suspicion: Float[Tensor, " n"] | None = None
    scores: Mapping[str, Tensor] = field(default_factory=dict)
    members: tuple[tuple[int, ...], ...] | None = None
    refused: str = ""

    @property
    def dropped(self) -> tuple[int, ...]:
        """Positions of the rows that were dropped."""
        return () if self.kept is None else tuple(int(i) for i in (~self.kept).nonzero())

    @property
    def scaled(self) -> tuple[int, ...]:
        """Positions of the rows that were kept and scaled, up or down."""
        if self.scale is None:
            return ()
        changed = self.scale != 1
        return tuple(
            int(i) for i in (changed if self.kept is None else changed & self.kept).nonzero()
        )

    @property
    def fired(self) -> bool:
        """Whether the defence did anything at all."""
        return bool(self.dropped or self.scaled or self.touched or self.refused)

    def words(self, ids: Sequence[ClientId] | None = None) -> str:
        """One line for a transcript, naming clients where ids are given; 'nothing' where the
        defence did not fire.
        """
        parts = [f"refused the aggregate: {self.refused}"] if self.refused else []
        for verb, rows, of in (
            ("dropped", self.dropped, self.kept),
            ("scaled", self.scaled, self.scale),
        ):
            if rows and of is not None:
                names = [str(row if ids is None else ids[row]) for row in rows[:SHOWN]]
                parts.append(
                    f"{verb} {len(rows)} of {len(of)}:"
                    f" {', '.join(names)}{', ...' if len(rows) > SHOWN else ''}"
                )
        if self.touched:
            parts.append(f"changed {self.touched} coordinates")
        return "; ".join(parts) or "nothing"

    def among(self, finite: Bool[Tensor, " n"]) -> Verdict[Out_co]:
        """The same verdict told of all n rows, where it was reached on the finite ones: the others
        count as dropped and as suspicious as can be, and have no scores.
        """
        if bool(finite.all()):
            return self
        kept = finite.clone()
        if self.kept is not None:
            kept[finite] = self.kept
        there = int(finite.sum())
        scores = {
            name: _spread(one.double(), finite, torch.nan) if one.shape == (there,) else one
            for name, one in self.scores.items()
        }
        scale, suspicion = self.scale, self.suspicion
        return replace(
            self,
            kept=kept,
            scale=None if scale is None else _spread(scale, finite, 0.0),
            suspicion=None if suspicion is None else _spread(suspicion, finite, torch.inf),
            scores=scores,
        )


def _spread(values: Tensor, over: Tensor, otherwise: float) -> Tensor:
    wide = torch.full((len(over),), otherwise, dtype=values.dtype)
    wide[over] = values.cpu()
    return wide


class Accuses(Protocol):
    """What every seat that tells what it did declares on its class.

    ``accuses``: whether it drops as many rows as look bad to it, and so accuses those whose rows
    they are; a seat that selects a fixed number accuses nobody. ``told_f``: whether it is told how
    many lie. ``suspects``: whether its verdicts say how bad each row looked (`Verdict.suspicion`).
    """

    accuses: ClassVar[bool]
    told_f: ClassVar[bool]
    suspects: ClassVar[bool]


@runtime_checkable
class Judges(Accuses, Protocol):
    """A rule without memory that can tell what it did."""

    def judge(self, opened: Rows) -> Verdict[Vector]:
        """The result [d] and what was done to the rows."""
        ...


@runtime_checkable
class JudgesWithMemory(Accuses, Protocol[S]):
    """A rule with memory that can tell what it did."""

    def judge_step(self, opened: Rows, state: S, context: Context) -> tuple[Verdict[Vector], S]:
        """The result [d], what was done to the rows, and the state after it."""
        ...


@runtime_checkable
class JudgesBefore(Accuses, Protocol[S]):
    """A seat before the rule that can tell what it did."""

    def judge_before(self, rows: Rows, state: S, context: Context) -> tuple[Verdict[Rows], S]:
        """The rows that the rule sees, what was done to those that went in, and the state after
        it.
        """
        ...


@runtime_checkable
class JudgesAfter(Protocol[S]):
    """A seat after the rule that can tell what it did."""

    def judge_after(
        self, released: Released, state: S, context: Context
    ) -> tuple[Verdict[Vector], S]:
        """The change [d] that the server applies, what was done to it, and the state after it."""
        ...


def judges(rule: Rule[Any]) -> TypeGuard[Judges]:
    """Whether a rule without memory declares that it tells what it did."""
    return rule.judges


def judges_with_memory(rule: RuleWithMemory[Any, Any]) -> TypeGuard[JudgesWithMemory[Any]]:
    """Whether a rule with memory declares that it tells what it did."""
    return rule.judges


def judges_before(seat: BeforeSeat[Any]) -> TypeGuard[JudgesBefore[Any]]:
    """Whether a seat before the rule declares that it tells what it did."""
    return seat.judges


def judges_after(seat: AfterSeat[Any]) -> TypeGuard[JudgesAfter[Any]]:
    """Whether a seat after the rule declares that it tells what it did."""
    return seat.judges
