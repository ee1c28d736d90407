"""Bases of rules and seats: rows that are not finite are met in one way, and every class says how
many Byzantine clients it stands.

A row with NaN or infinity in it is certainly a liar's (or broken). Rules drop such rows first and
count them in f; more of them than the rule stands are refused with the clients' names. Seats before
the rule hand them through as they are, so that the rule after them does that.

Row weights are the clients' own claims about themselves, so robust rules give every row the weight
1; the few that use weights say so.

What a client can move a result by (``sensitivity``), or rows (a seat's ``stability``), is infinite
unless a class proves better; what a class remembers is private unless it says otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privfl.aggregators.verdict import Verdict
from privfl.core import (
    BadUpdate,
    ClientId,
    Context,
    DefenceSeat,
    Memory,
    Moves,
    Needs,
    Neighbours,
    Reads,
    Released,
    Rows,
    TooManyByzantine,
    Vector,
)
from privfl.core.geometry import BLOCK

S = TypeVar("S")


def finite_rows(values: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
    """Which rows hold only finite values.

    >>> finite_rows(torch.tensor([[1.0, 2.0], [torch.nan, 0.0], [3e38, 3e38]]))
    tensor([ True, False,  True])
    """
    finite = torch.isfinite(values.sum(dim=1))
    for row in (~finite).nonzero().flatten():  # a sum can overflow although every entry is finite
        finite[row] = torch.isfinite(values[row]).all()
    return finite.cpu()


def cleaned(name: str, opened: Rows, max_byzantine: int) -> tuple[Rows, Bool[Tensor, " n"]]:
    """The finite rows, and which they were.

    Raises:
        BadUpdate: there are no rows, or one is not finite where none may be.
        TooManyByzantine: more rows are not finite than the rule stands.
    """
    if opened.n == 0:
        raise BadUpdate(f"{name} got no rows at all.")
    finite = finite_rows(opened.values)
    if bool(finite.all()):
        return opened, finite
    lost = [int(i) for i in (~finite).nonzero()]
    who = ", ".join(str(i if opened.ids is None else opened.ids[i]) for i in lost)
    if max_byzantine == 0:
        raise BadUpdate(
            f"{name} tolerates no bad row, and these hold NaN or infinite values: {who}."
        )
    if len(lost) > max_byzantine or len(lost) == opened.n:
        raise TooManyByzantine(
            f"{name} tolerates {max_byzantine} bad rows of {opened.n}, and {len(lost)} hold NaN or"
            f" infinite values: {who}."
        )
    return opened.take(finite.nonzero().flatten()), finite


class ToleratesByzantine(ABC):
    """How many of n rows may be arbitrary, and which symmetries the rule has."""

    __slots__ = ()
    seats: ClassVar[frozenset[DefenceSeat]] = frozenset({"rule"})
    reads: ClassVar[Reads] = "rows"
    needs_ids: ClassVar[bool] = False
    needs: ClassVar[Needs] = {}
    judges: ClassVar[bool] = True
    accuses: ClassVar[bool] = False
    told_f: ClassVar[bool] = False
    suspects: ClassVar[bool] = False
    """What it drops by, and whether its verdicts say how bad a row looked (`verdict.Accuses`)."""
    symmetries: ClassVar[str] = "PTSR"
    """The result does not depend on the order of rows (P), moves along with a translation (T), a
    positive scale (S), a rotation (R).
    """

    @property
    def public_denominator(self) -> float | None:
        """None: it divides by what is there."""
        return None

    @abstractmethod
    def max_byzantine(self, n: int) -> int:
        """How many of n rows may be arbitrary.

        Raises:
            TooManyByzantine: the rule's ``f`` is more than its proof allows for n rows, so that an
                engine can refuse before training.
        """

    @property
    def breaks(self) -> str:
        """Why as many Byzantine rows as it lets pass can move the result without bound, as the rule
        is set; empty where they cannot. `privfl.testing` searches for such rows and holds it to
        either.
        """
        return ""

    def admit(self, clients: Collection[ClientId]) -> None:
        """Refuse clients among whom the rule cannot work, as where it trusts one that is not there;
        so that an engine can before training.

        Raises:
            ConfigError: one that the rule names is missing.
        """
        return

    def sensitivity(self, moves: Moves, neighbours: Neighbours) -> float:
        """Infinite: nothing better is proved."""
        return float("inf")


class InHull:
    """The result is a convex combination of the rows (or shorter)."""

    __slots__ = ()

    def sensitivity(self, moves: Moves, neighbours: Neighbours) -> float:
        """Twice the longest row, under every relation.

        The result lies in the ball that the rows lie in, in both worlds and however many rows there
        are, and no two points of the ball lie farther apart. Attained by rules that select rows.
        """
        return 2 * moves.longest


class RowRule(ToleratesByzantine):
    """A rule without memory. Subclasses write `_decide` on finite rows, or `_at_once` beside it."""

    __slots__ = ()
    remembers: ClassVar[Literal[False]] = False

    def __call__(self, opened: Rows) -> Vector:
        """The aggregate [d]; the rows stay as they were."""
        return self.judge(opened).out

    def judge(self, opened: Rows) -> Verdict[Vector]:
        """The aggregate [d] and what was done to the rows.

        Raises:
            TooManyByzantine: too few rows for ``f``, or too many that are not finite.
        """
        most = self.max_byzantine(opened.n)
        whole = self._at_once(opened) if opened.n else None
        if whole is not None:
            return whole
        rows, finite = cleaned(type(self).__name__, opened, most)
        return self._decide(rows, opened.n - rows.n).among(finite)

    def _at_once(self, rows: Rows) -> Verdict[Vector] | None:
        """The verdict by a kernel that sees for itself whether all rows are finite, with the bits
        of `_decide`; None where there is none, or one row is not.
        """
        return None

    @abstractmethod
    def _decide(self, rows: Rows, lost: int) -> Verdict[Vector]:
        """The verdict on finite rows, ``lost`` others of which were dropped already and count in
        f.
        """


class MemoryRule(ToleratesByzantine, Generic[S]):
    """A rule that remembers, draws chance or looks at the model. Subclasses write `_decide` on
    finite rows.
    """

    __slots__ = ()
    remembers: ClassVar[Literal[True]] = True
    memory: ClassVar[Memory] = "private"

    @abstractmethod
    def init(self) -> S:
        """The state before the first round."""

    def step(self, opened: Rows, state: S, context: Context) -> tuple[Vector, S]:
        """The aggregate [d] and the state after it; rows and state stay as they were."""
        verdict, state = self.judge_step(opened, state, context)
        return verdict.out, state

    def judge_step(self, opened: Rows, state: S, context: Context) -> tuple[Verdict[Vector], S]:
        """The aggregate [d], what was done to the rows, and the state after it.

        Raises:
            TooManyByzantine: too few rows for ``f``, or too many that are not finite.
        """
        rows, finite = cleaned(type(self).__name__, opened, self.max_byzantine(opened.n))
        verdict, state = self._decide(rows, opened.n - rows.n, state, context)
        return verdict.among(finite), state

    @abstractmethod
    def _decide(
        self, rows: Rows, lost: int, state: S, context: Context
    ) -> tuple[Verdict[Vector], S]:
        """The verdict on finite rows, and the state after it."""


class Memoryless(MemoryRule[None]):
    """A rule that draws chance or looks at the model, and remembers nothing."""

    __slots__ = ()
    memory: ClassVar[Memory] = "none"

    def init(self) -> None:
        """Nothing is remembered."""
        return


class Before(ABC, Generic[S]):
    """A seat between the channel and the rule. Subclasses write `judge_before`."""

    __slots__ = ()
    seats: ClassVar[frozenset[DefenceSeat]] = frozenset({"before"})
    needs: ClassVar[Needs] = {}
    judges: ClassVar[bool] = True
    accuses: ClassVar[bool] = False
    told_f: ClassVar[bool] = False
    suspects: ClassVar[bool] = False
    keeps_ids: ClassVar[bool] = True
    """Whether the rows that come out still belong to one client each."""
    needs_ids: ClassVar[bool] = False
    """Whether it must know whose row is whose."""
    memory: ClassVar[Memory] = "private"

    @abstractmethod
    def init(self) -> S:
        """The state before the first round."""

    def passes(self, n: int) -> int:
        """How many rows it hands on of n, at most.

        Raises:
            TooManyByzantine: it cannot work on n rows, so that an engine can refuse before
                training.
        """
        return n

    def before(self, rows: Rows, state: S, context: Context) -> tuple[Rows, S]:
        """The rows that the rule sees, and the state after them; the rows that went in stay as they
        were.
        """
        verdict, state = self.judge_before(rows, state, context)
        return verdict.out, state

    @abstractmethod
    def judge_before(self, rows: Rows, state: S, context: Context) -> tuple[Verdict[Rows], S]:
        """The rows that the rule sees, what was done to those that went in, and the state after
        it.
        """


class After(ABC, Generic[S]):
    """A seat on what was released. Subclasses write `judge_after`."""

    __slots__ = ()
    seats: ClassVar[frozenset[DefenceSeat]] = frozenset({"after"})
    needs: ClassVar[Needs] = {}
    judges: ClassVar[bool] = True

    @abstractmethod
    def init(self) -> S:
        """The state before the first round."""

    def after(self, released: Released, state: S, context: Context) -> tuple[Vector, S]:
        """The change [d] that the server applies, and the state after it; the vector that went in
        stays as it was.
        """
        verdict, state = self.judge_after(released, state, context)
        return verdict.out, state

    @abstractmethod
    def judge_after(
        self, released: Released, state: S, context: Context
    ) -> tuple[Verdict[Vector], S]:
        """The change [d] that the server applies, what was done to it, and the state after it."""


def combine(values: Float[Tensor, "n d"], weights: Float[Tensor, " n"]) -> Float[Tensor, " d"]:
    """The rows' linear combination in one pass, in the rows' precision."""
    return weights.to(values) @ values


def products(weights: Float[Tensor, "m n"], values: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
    """Several linear combinations of the rows, in the rows' precision.

    On a CPU they are numpy's, block by block: its memory has huge pages, where fresh small ones
    cost as much as the product itself. Combinations that are the same are computed once.
    """
    if values.device.type != "cpu" or values.dtype not in (torch.float32, torch.float64):
        return weights.to(values) @ values
    distinct, which = torch.unique(weights.to(values).detach(), dim=0, return_inverse=True)
    by, rows, repeated = distinct.numpy(), values.detach().numpy(), which.tolist()
    out = np.empty((len(weights), rows.shape[1]), dtype=rows.dtype)
    for start in range(0, rows.shape[1], BLOCK):
        where = slice(start, start + BLOCK)
        with np.errstate(over="ignore", invalid="ignore"):
            made = by @ rows[:, where]
        for i, one in enumerate(repeated):
            out[i, where] = made[one]
    return torch.from_numpy(out)


def copied(values: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """The rows in memory of their own, on a CPU in huge pages (`products`)."""
    if values.device.type != "cpu" or values.dtype not in (torch.float32, torch.float64):
        return values.clone()
    return torch.from_numpy(values.detach().numpy().copy())


def mean_of(values: Float[Tensor, "n d"], chosen: Tensor) -> Float[Tensor, " d"]:
    """The mean of the rows that are chosen, by position [k] or by mask [n], without copying them;
    the zero vector where none is.
    """
    weights = torch.zeros(len(values), dtype=torch.float64)
    weights[chosen] = 1.0
    return combine(values, weights / weights.sum().clamp(min=1))


def mask(n: int, chosen: Tensor) -> Bool[Tensor, " n"]:
    """True [n] at the chosen positions [k]."""
    kept = torch.zeros(n, dtype=torch.bool)
    kept[chosen] = True
    return kept


def majority(n: int) -> int:
    """The most rows that may be arbitrary while the others are a majority, ceil(n / 2) - 1.

    >>> majority(5), majority(6), majority(1)
    (2, 2, 0)
    """
    return max((n - 1) // 2, 0)
