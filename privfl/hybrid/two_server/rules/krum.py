"""Krum: the m rows that are nearest to their n - f - 2 nearest others, chosen from open inner
products, or on shares: distances, ranks and scores that nobody reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from privfl.core import ConfigError, RoundPlan
from privfl.crypto.mpc import Demand, Shared
from privfl.crypto.mpc.authentication import WORDS, OpenChecked
from privfl.crypto.mpc.operations import Multiply, Negative, Open, ToNumbers
from privfl.crypto.mpc.words import I64, U64, ring_mask, signed
from privfl.hybrid.two_server.checks import CHECKS, checking
from privfl.hybrid.two_server.fixed_checks import (
    ANNOUNCED,
    FIXED_CHECKS,
    SCORE_MASKS,
    fixed_of,
)
from privfl.hybrid.two_server.fixed_choice import hidden_choice, open_choice
from privfl.hybrid.two_server.fixed_stock import Nothing, RuleStock
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.oblivious_selection import Chosen, hidden_sum, unnamed_sum
from privfl.hybrid.two_server.opened_scores import possible, proved
from privfl.hybrid.two_server.parameters import Needs, TwoServerParameters
from privfl.hybrid.two_server.public_sum import accept
from privfl.hybrid.two_server.registers import BIT, CHOSEN, INNER, MARGIN
from privfl.hybrid.two_server.rules.krum_sizes import max_byzantine
from privfl.hybrid.two_server.rules.proved_krum import Distances, proved_krum
from privfl.hybrid.two_server.rules.rule import Reveal, Traits

MOST_HIDDEN = 128
"""Rows among which Krum chooses on shares."""
TWO = np.uint64(2)
GRAM = Shared("gram")
"""Inner products of the valid rows."""
_APART = Shared("apart")
_PAIRS = Shared("pairs")
_AHEAD = Shared("ahead")
_IS_NEAR = Shared("is near")
_NEAR = Shared("near")


@dataclass(frozen=True, slots=True)
class KrumOnShares:
    """Multi-Krum with f Byzantine clients and m chosen rows (a `SharedRule`)."""

    kind: ClassVar[str] = "krum"

    reveal: Reveal
    f: int
    m: int

    @property
    def traits(self) -> Traits:
        """All rows are multiplied with all; sums are of exactly m whole rows."""
        hidden = self.reveal == "aggregate"
        return Traits(
            gram=True,
            hidden=hidden,
            proved=hidden,
            capped=True,
            exact=self.m,
        )

    @property
    def stock(self) -> RuleStock:
        """Where scores stay hidden, what compares distances and scores."""
        return Nothing() if self.reveal == "scores" else Distances()

    @property
    def leaks(self) -> str:
        """The geometry, or the choice."""
        if self.reveal == "scores":
            return "all inner products of the updates, so their whole geometry up to a rotation"
        return "how many clients count" if self.reveal == "aggregate" else "which clients count"

    def needs(self, plan: RoundPlan) -> Needs:
        """Sums of distances.

        Raises:
            ConfigError: more rows than Krum compares on shares.
        """
        closed = self.reveal != "scores"
        if closed and plan.n > MOST_HIDDEN:
            raise ConfigError(
                f"round {plan.number}: Krum on shares compares n^3 / 2 distances, and {plan.n} rows"
                f" are more than {MOST_HIDDEN}: ask fewer clients, or set reveal: scores, which"
                " opens the inner products."
            )
        return Needs(distances=plan.n if closed else 1)

    def preprocessing(self, now: TwoServerParameters, n: int) -> Demand:
        """The checks, and on shares every comparison and the products of distances."""
        if self.reveal == "scores":
            return checking(now, n)
        signs = comparisons(n)
        chosen = Demand(signs=signs, bits=signs, triples=n * (n - 1))
        total = hidden_sum(now, n, proved=True) if self.traits.hidden else Demand()
        return checking(now, n) + chosen + total

    def program(
        self, now: TwoServerParameters, least: int, close: tuple[Step, ...]
    ) -> tuple[Step, ...]:
        """From open products, or on shares with the choice opened or not."""
        if now.malicious and self.reveal != "scores":
            hidden = self.reveal == "aggregate"
            end = hidden_choice(least, self.m) if hidden else (*open_choice(self.m), *close)
            return (*FIXED_CHECKS, *proved_krum(self.f, self.m), *end)
        if now.malicious:
            pairs = (GatherPairs(), OpenChecked(SCORE_MASKS), UnmaskPairs())
            return (*FIXED_CHECKS, *pairs, OpenKrum(self.f, self.m), *close)
        if self.reveal == "scores":
            return (*CHECKS, GatherGram(), Open(GRAM), OpenKrum(self.f, self.m), *close)
        choice = (*CHECKS, *oblivious_krum(self.f, self.m))
        if self.reveal == "selection":
            return (*choice, Open(CHOSEN), Chosen(self.m), *close)
        return (*choice, *unnamed_sum(least, self.m))


# ---- from open inner products


@dataclass(frozen=True, slots=True)
class GatherGram:
    """Inner products of the valid rows, to be opened: one with a row of a liar's choice that was
    refused would tell what it likes.
    """

    def act(self, machine: Machine) -> None:
        """Fill the products."""
        valid = list(machine.valid)
        machine.shares[GRAM] = machine.shares[INNER][np.ix_(valid, valid)]


@dataclass(frozen=True, slots=True)
class OpenKrum:
    """Krum's choice from the open Gram matrix of the valid rows."""

    f: int
    m: int

    def act(self, machine: Machine) -> None:
        """Set the public weights.

        Raises:
            StageAbort: as `max_byzantine`, `proved` and `possible`.
        """
        left, valid = max_byzantine(machine, self.f, self.m), list(machine.valid)
        inner = signed(machine.public[GRAM], machine.now.ring)
        norms = np.diagonal(inner)
        proved(machine, norms)
        v = len(norms)
        possible(machine, inner.reshape(-1), np.repeat(norms, v), np.tile(norms, v))
        apart = norms[:, None] + norms - 2 * inner
        scores = krum_scores(apart, left)
        accept(machine, [valid[i] for i in np.argsort(scores, kind="stable")[: self.m]])
        machine.disclosed["gram"] = torch.from_numpy(inner / machine.now.scale**2)


def krum_scores(apart: I64, f: int) -> I64:
    """Each row's sum of the n - f - 2 smallest squared distances to others."""
    scores: I64 = np.sort(apart, axis=1)[:, 1 : max(len(apart) - f - 1, 1)].sum(axis=1)
    return scores


# ---- from products that are opened with proofs


@dataclass(frozen=True, slots=True)
class GatherPairs:
    """The masks of all products of valid rows."""

    def act(self, machine: Machine) -> None:
        """Collect them: those of rows that failed stay hidden."""
        valid = list(machine.valid)
        masks = fixed_of(machine).pairs[np.ix_(valid, valid)]
        machine.shares[SCORE_MASKS] = masks.reshape(-1, WORDS)


@dataclass(frozen=True, slots=True)
class UnmaskPairs:
    """The products of valid rows, from what was announced and the opened masks."""

    def act(self, machine: Machine) -> None:
        """Fill the opened products."""
        n, valid = machine.n, list(machine.valid)
        told = machine.public[ANNOUNCED]
        crossed = told[len(told) - n :]
        public = crossed + crossed.T - fixed_of(machine).products.fixed
        masks = machine.public[SCORE_MASKS].reshape(len(valid), len(valid))
        machine.public[GRAM] = (public[np.ix_(valid, valid)] + masks) & ring_mask(machine.ring)


# ---- on shares


def ranks(machine: Machine, ahead: U64, count: int) -> U64:
    """Shares of each entry's rank [rows, count] from those of "the later of the pair is ahead"
    [rows, pairs].
    """
    j, l = np.triu_indices(count, 1)
    behind = machine.constant(1) - ahead
    found: U64 = np.zeros((len(ahead), count), dtype=np.uint64)
    for row, later, earlier in zip(found, ahead, behind, strict=True):
        np.add.at(row, j, later)
        np.add.at(row, l, earlier)
    return found


@dataclass(frozen=True, slots=True)
class Apart:
    """Shares of all squared distances of each valid row to the others, and of their differences,
    pair by pair.
    """

    f: int
    m: int

    def act(self, machine: Machine) -> None:
        """Fill the distances [v, v - 1] and the pairs.

        Raises:
            StageAbort: too few rows, or too many failed the checks.
        """
        max_byzantine(machine, self.f, self.m)
        valid, v = list(machine.valid), len(machine.valid)
        inner = machine.shares[INNER][np.ix_(valid, valid)]
        norms = np.diagonal(inner)
        apart = (norms[:, None] + norms - TWO * inner)[~np.eye(v, dtype=bool)].reshape(v, v - 1)
        j, l = np.triu_indices(v - 1, 1)
        machine.shares[_APART], machine.shares[_PAIRS] = (
            apart,
            (apart[:, l] - apart[:, j]).reshape(-1),
        )


@dataclass(frozen=True, slots=True)
class Nearest:
    """Which distances are among a row's n - f - 2 smallest, as margins."""

    f: int
    m: int

    def act(self, machine: Machine) -> None:
        """Fill the margins."""
        v = len(machine.valid)
        near = max(v - max_byzantine(machine, self.f, self.m) - 2, 0)
        rank = ranks(machine, machine.shares[_AHEAD].reshape(v, -1), v - 1)
        machine.shares[MARGIN] = (rank - machine.constant(near)).reshape(-1)


@dataclass(frozen=True, slots=True)
class KrumScores:
    """Each row's sum of its nearest distances, and the differences of these sums, pair by pair."""

    def act(self, machine: Machine) -> None:
        """Fill the pairs."""
        scores = machine.shares[_NEAR].reshape(len(machine.valid), -1).sum(axis=1, dtype=np.uint64)
        j, l = np.triu_indices(len(scores), 1)
        machine.shares[_PAIRS] = scores[l] - scores[j]


@dataclass(frozen=True, slots=True)
class Best:
    """Which rows are among the m of the smallest scores, as margins."""

    m: int

    def act(self, machine: Machine) -> None:
        """Fill the margins."""
        rank = ranks(machine, machine.shares[_AHEAD][None], len(machine.valid))[0]
        machine.shares[MARGIN] = rank - machine.constant(self.m)


def oblivious_krum(f: int, m: int) -> tuple[Step, ...]:
    """Steps to shares of 0 or 1 for each valid row: whether Krum chooses it."""
    return (
        Apart(f, m),
        *(Negative(_PAIRS, BIT), ToNumbers(BIT, _AHEAD)),
        Nearest(f, m),
        *(Negative(MARGIN, BIT), ToNumbers(BIT, _IS_NEAR)),
        Multiply(_IS_NEAR, _APART, _NEAR),
        KrumScores(),
        *(Negative(_PAIRS, BIT), ToNumbers(BIT, _AHEAD)),
        Best(m),
        *(Negative(MARGIN, BIT), ToNumbers(BIT, CHOSEN)),
    )


def comparisons(n: int) -> int:
    """How many comparisons hidden Krum takes of n rows."""
    return n * (n - 1) * (n - 2) // 2 + n * (n - 1) + n * (n - 1) // 2 + n
