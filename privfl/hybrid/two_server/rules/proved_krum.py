"""Krum on rows that clients fix, with proofs: distances, ranks and scores that nobody reads, and
comparisons that no server can move.

A distance is a public word plus a mask that the dealer knows, so whether one is smaller than
another comes of a dealt comparison, without a message. Sums of such bits are ranks; a rank is
opened under a dealt word, and whether it is among the nearest comes of one more comparison, opened
xor a dealt bit. A score is then linear in these bits, the masks and their products, all dealt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privfl.crypto.mpc import Authenticated
from privfl.crypto.mpc.authentication import FailedMac, OpenChecked
from privfl.crypto.mpc.words import U64, ring_mask
from privfl.hybrid.two_server.fixed_checks import ANNOUNCED, fixed_of, opened_outcomes
from privfl.hybrid.two_server.fixed_choice import CHOICE
from privfl.hybrid.two_server.fixed_stock import (
    Comparisons,
    Item,
    Joint,
    Known,
    Masks,
    Words,
    outcome_of,
    turned,
)
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.parameters import TwoServerParameters
from privfl.hybrid.two_server.rules.krum_sizes import max_byzantine

MOST_PROVED = 64
"""Rows among which hidden Krum chooses with proofs: what is dealt grows with their cube."""
_RANK = 8
"""Bits in which ranks are compared: a rank less another number is within 7 and a sign."""
_ONE, _TWO = np.uint64(1), np.uint64(2)
_TIES = Authenticated("norms' differences")
"""Of each valid row's product with itself and the norm that its client dealt, the masks [v]."""
_RANKS = Authenticated("masked ranks")
"""Where each distance stands among those of its row, under a dealt word [v (v - 1)]."""
_NEAR = Authenticated("masked nearness")
"""Whether it is among the nearest, xor a dealt bit [v (v - 1)]."""
_SCORES = Authenticated("masked scores")
"""Each row's sum of its nearest distances, under a dealt word [v]."""
_PLACES = Authenticated("masked places")
"""Where each score stands, under a dealt word [v]."""


def _reach(now: TwoServerParameters) -> int:
    """Bits of a difference of two squared distances, the sign too."""
    return min((4 * now.longest**2).bit_length() + 1, now.ring)


def _apart(inner: U64) -> U64:
    """Each row's squared distances to the others [n, n - 1], from all products [n, n]."""
    n, norms = len(inner), np.diagonal(inner)
    apart: U64 = norms[:, None] + norms - _TWO * inner
    return apart[~np.eye(n, dtype=bool)].reshape(n, n - 1)


@dataclass(frozen=True, slots=True)
class Distances:
    """What it takes to compare all distances of each row, then all scores (a `RuleStock`)."""

    @property
    def most(self) -> int:
        """The most rows."""
        return MOST_PROVED

    def items(self, now: TwoServerParameters, n: int) -> Mapping[str, Item]:
        """Comparisons of distances, ranks, scores and places, and what hides these from whoever
        sees them opened; ranks carry one key.
        """
        each = n * (n - 1)
        return {
            "ties": Words(n),
            "nearer": Comparisons(each * (n - 2) // 2, _reach(now) - 1, keys=1),
            "ranks": Words(each, keys=1),
            "near": Comparisons(each, _RANK - 1),
            "distances": Words(3 * each),
            "scores": Words(n),
            "better": Comparisons(each // 2, now.ring - 1, keys=1),
            "places": Words(n, keys=1),
            "best": Comparisons(n, _RANK - 1),
        }

    def known(self, now: TwoServerParameters, n: int, masks: Masks, joint: Joint) -> Known:
        """What the dealer knows of each."""
        ring, reach, each = now.ring, _reach(now), n * (n - 1)
        apart = _apart(masks.pairs) & ring_mask(ring)
        j, l = np.triu_indices(n - 1, 1)
        ranks, places = joint.words("ranks", each), joint.words("places", n)
        scores, bits = joint.words("scores", n), joint.bits("near", each)
        above = joint.words("above ties", n) << np.uint64(ring)
        ties = (np.diagonal(masks.pairs) - masks.norms) & ring_mask(ring)
        first, second = np.triu_indices(n, 1)
        flat = apart.reshape(-1)
        return {
            "ties": ties + above,
            "nearer": outcome_of((apart[:, j] - apart[:, l]).reshape(-1), reach),
            "ranks": ranks,
            "near": outcome_of(ranks, _RANK, bits),
            "distances": np.concatenate([bits, flat, bits * flat]),
            "scores": scores,
            "better": outcome_of(scores[second] - scores[first], ring),
            "places": places,
            "best": outcome_of(places, _RANK),
        }


# ---- the servers


def _public_products(machine: Machine) -> U64:
    """What both know of the products of all rows [n, n]."""
    told = machine.public[ANNOUNCED]
    crossed = told[len(told) - machine.n :]
    public: U64 = crossed + crossed.T - fixed_of(machine).products.fixed
    return public


@dataclass(frozen=True, slots=True)
class GatherTies:
    """How far each valid row's square is from the norm that its client dealt, to be opened."""

    def act(self, machine: Machine) -> None:
        """Fill the masks of the differences."""
        machine.shares[_TIES] = machine.stock.words["ties"][list(machine.valid)]


@dataclass(frozen=True, slots=True)
class SameNorms:
    """A row that passed the checks has the norm that was checked."""

    def act(self, machine: Machine) -> None:
        """Compare.

        Raises:
            FailedMac: a server made another norm pass.
        """
        public = np.diagonal(_public_products(machine)) - fixed_of(machine).last[-1]
        off = public[list(machine.valid)] + machine.public[_TIES]
        if (off & ring_mask(machine.ring)).any():
            raise FailedMac(
                "check",
                f"a row that passed has another norm than was proved: {machine.other} or the dealer"
                " lied",
                who=(machine.other, "dealer"),
            )


def _ranks(ahead: U64, count: int, one: U64, counted: npt.NDArray[np.bool_]) -> U64:
    """Each entry's rank [rows, count, 1 + keys] among the ``counted`` [rows, count], from "the
    later of the pair is ahead" [rows, pairs, 1 + keys].
    """
    j, l = np.triu_indices(count, 1)
    before: U64 = np.zeros((len(ahead), count, count, ahead.shape[-1]), dtype=np.uint64)
    before[:, j, l], before[:, l, j] = ahead, one - ahead
    before *= counted[:, None, :, None]
    ranks: U64 = before.sum(axis=2, dtype=np.uint64)
    return ranks


def _pairs(machine: Machine) -> npt.NDArray[np.bool_]:
    """Which of each row's distances [n, n - 1] are of two valid rows."""
    n = machine.n
    valid = np.zeros(n, dtype=bool)
    valid[list(machine.valid)] = True
    both = valid[:, None] & valid
    return both[~np.eye(n, dtype=bool)].reshape(n, n - 1)


@dataclass(frozen=True, slots=True)
class RankDistances:
    """Where each distance stands among those of its row, to be opened under a dealt word."""

    f: int
    m: int

    def act(self, machine: Machine) -> None:
        """Fill the ranks.

        Raises:
            StageAbort: too few rows, or too many failed the checks.
        """
        max_byzantine(machine, self.f, self.m)
        n, stock, reach = machine.n, machine.stock, _reach(machine.now)
        apart, valid = _apart(_public_products(machine)), _pairs(machine)
        j, l = np.triu_indices(n - 1, 1)
        points = (apart[:, l] - apart[:, j]).reshape(-1)
        told = stock.compare["nearer"].at(machine.now, machine.first, points)
        one = machine.one[: told.shape[1]]
        ahead = turned(told, points, reach, one).reshape(n, len(j), -1)
        ranks = _ranks(ahead, n - 1, one, valid).reshape(n * (n - 1), -1) + stock.words["ranks"]
        machine.shares[_RANKS] = ranks[valid.reshape(-1)]


@dataclass(frozen=True, slots=True)
class NearestProved:
    """Which distances are among a row's n - f - 2 smallest, to be opened xor a dealt bit."""

    f: int
    m: int

    def act(self, machine: Machine) -> None:
        """Fill the bits."""
        near = max(len(machine.valid) - max_byzantine(machine, self.f, self.m) - 2, 0)
        valid = _pairs(machine).reshape(-1)
        points: U64 = np.zeros(len(valid), dtype=np.uint64)
        points[valid] = machine.public[_RANKS] - np.uint64(near)
        told = machine.stock.compare["near"].at(machine.now, machine.first, points)
        machine.shares[_NEAR] = turned(told, points, _RANK, machine.one)[valid]


@dataclass(frozen=True, slots=True)
class SumNearest:
    """Each row's sum of its nearest distances, to be opened under a dealt word."""

    def act(self, machine: Machine) -> None:
        """Fill the scores.

        Raises:
            FailedMac: as `opened_outcomes`.
        """
        c, v = opened_outcomes(machine, _NEAR)[:, None], len(machine.valid)
        stock, valid = machine.stock.words, _pairs(machine).reshape(-1)
        public = _apart(_public_products(machine)).reshape(-1)[valid, None]
        bits, masks, both = stock["distances"].reshape(3, len(valid), -1)[:, valid]
        sign = _ONE - _TWO * c
        near = c * (public * machine.one + masks) + sign * (public * bits + both)
        scores = near.reshape(v, v - 1, -1).sum(axis=1, dtype=np.uint64)
        machine.shares[_SCORES] = scores + stock["scores"][list(machine.valid)]


@dataclass(frozen=True, slots=True)
class RankScores:
    """Where each score stands, to be opened under a dealt word."""

    def act(self, machine: Machine) -> None:
        """Fill the places."""
        n, valid = machine.n, list(machine.valid)
        stock, counted = machine.stock, np.zeros((1, n), dtype=bool)
        counted[0, valid] = True
        scores: U64 = np.zeros(n, dtype=np.uint64)
        scores[valid] = machine.public[_SCORES]
        j, l = np.triu_indices(n, 1)
        points = scores[l] - scores[j]
        told = stock.compare["better"].at(machine.now, machine.first, points)
        one = machine.one[: told.shape[1]]
        ahead = turned(told, points, machine.ring, one)
        places = _ranks(ahead[None], n, one, counted)[0] + stock.words["places"]
        machine.shares[_PLACES] = places[valid]


@dataclass(frozen=True, slots=True)
class BestProved:
    """Which rows are among the m of the smallest scores."""

    m: int

    def act(self, machine: Machine) -> None:
        """Fill the choice."""
        valid = list(machine.valid)
        points: U64 = np.zeros(machine.n, dtype=np.uint64)
        points[valid] = machine.public[_PLACES] - np.uint64(self.m)
        told = machine.stock.compare["best"].at(machine.now, machine.first, points)
        machine.shares[CHOICE] = turned(told, points, _RANK, machine.one)[valid]


def proved_krum(f: int, m: int) -> tuple[Step, ...]:
    """Steps to the authenticated choice of each valid row: whether Krum chooses it."""
    return (
        *(GatherTies(), OpenChecked(_TIES), SameNorms()),
        *(RankDistances(f, m), OpenChecked(_RANKS)),
        *(NearestProved(f, m), OpenChecked(_NEAR)),
        *(SumNearest(), OpenChecked(_SCORES)),
        *(RankScores(), OpenChecked(_PLACES)),
        BestProved(m),
    )
