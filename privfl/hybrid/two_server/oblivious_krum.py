"""Krum on shares: distances, ranks and scores that nobody reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privfl.hybrid.two_server.judge import max_byzantine
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.ring_codec import U64
from privfl.hybrid.two_server.steps import Multiply, Negative, ToNumbers

TWO = np.uint64(2)


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
        """Fill "apart" [v, v - 1] and "pairs".

        Raises:
            StageAbort: too few rows, or too many failed the checks.
        """
        max_byzantine(machine, self.f, self.m)
        valid, v = list(machine.valid), len(machine.valid)
        inner = machine.shares["inner"][np.ix_(valid, valid)]
        norms = np.diagonal(inner)
        apart = (norms[:, None] + norms - TWO * inner)[~np.eye(v, dtype=bool)].reshape(v, v - 1)
        j, l = np.triu_indices(v - 1, 1)
        machine.shares["apart"], machine.shares["pairs"] = (
            apart,
            (apart[:, l] - apart[:, j]).reshape(-1),
        )


@dataclass(frozen=True, slots=True)
class Nearest:
    """Which distances are among a row's n - f - 2 smallest, as margins."""

    f: int
    m: int

    def act(self, machine: Machine) -> None:
        """Fill "margin"."""
        v = len(machine.valid)
        near = max(v - max_byzantine(machine, self.f, self.m) - 2, 0)
        rank = ranks(machine, machine.shares["ahead"].reshape(v, -1), v - 1)
        machine.shares["margin"] = (rank - machine.constant(near)).reshape(-1)


@dataclass(frozen=True, slots=True)
class KrumScores:
    """Each row's sum of its nearest distances, and the differences of these sums, pair by pair."""

    def act(self, machine: Machine) -> None:
        """Fill "pairs"."""
        scores = machine.shares["near"].reshape(len(machine.valid), -1).sum(axis=1, dtype=np.uint64)
        j, l = np.triu_indices(len(scores), 1)
        machine.shares["pairs"] = scores[l] - scores[j]


@dataclass(frozen=True, slots=True)
class Best:
    """Which rows are among the m of the smallest scores, as margins."""

    m: int

    def act(self, machine: Machine) -> None:
        """Fill "margin"."""
        rank = ranks(machine, machine.shares["ahead"][None], len(machine.valid))[0]
        machine.shares["margin"] = rank - machine.constant(self.m)


def krum(f: int, m: int) -> tuple[Step, ...]:
    """Steps to shares of 0 or 1 for each valid row: whether Krum chooses it."""
    return (
        Apart(f, m),
        *(Negative("pairs", "bit"), ToNumbers("bit", "ahead")),
        Nearest(f, m),
        *(Negative("margin", "bit"), ToNumbers("bit", "is near")),
        Multiply("is near", "apart", "near"),
        KrumScores(),
        *(Negative("pairs", "bit"), ToNumbers("bit", "ahead")),
        Best(m),
        *(Negative("margin", "bit"), ToNumbers("bit", "chosen")),
    )


def krum_comparisons(n: int) -> int:
    """How many comparisons hidden Krum takes of n rows."""
    return n * (n - 1) * (n - 2) // 2 + n * (n - 1) + n * (n - 1) // 2 + n
