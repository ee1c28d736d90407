"""Confident-GNMax: which queries are answered by a noisy vote, with which label, and at what
cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from privfl.core import (
    ConfigError,
    DpEvent,
    Examples,
    Neighbours,
    NoiseSource,
    NoisySteps,
    Sampling,
    require,
)
from privfl.dp.accounting.rdp_account import BEYOND, ORDERS, require_delta, to_epsilon
from privfl.dp.accounting.sentence import above
from privfl.dp.noise import normals
from privfl.dp.pate.loss import Array, confident_rdp, likely_rdp, log_wrong

UNANSWERED = -1
"""The label of a query that got no answer."""


@dataclass(frozen=True, slots=True, repr=False)
class DataDependent:
    """An epsilon that was computed from the votes: PRIVATE, as they are, because it differs between
    neighbours. It is for who may see the votes, and no claim; what may be published is the one that
    does not depend on them. ``independent`` is that of the same queries alone, whatever the votes
    are; what votes before them cost, and whether a claim can be made at all, a ledger says. It
    bounds how far what these votes release lies from what neighbours' would, and not the way back.
    However it is printed, it says that it is private.

    >>> print(DataDependent(1.97, 1e-5, order=20.0, independent=3.2))
    PRIVATE, computed from the votes of these queries: epsilon 1.97 at delta 1e-05, beside 3.2 \
whatever the votes are (publish what the ledger says)
    """

    epsilon: float
    delta: float
    order: float
    independent: float

    def __str__(self) -> str:
        return (
            f"PRIVATE, computed from the votes of these queries: epsilon {above(self.epsilon)} at"
            f" delta {self.delta:g}, beside {above(self.independent)} whatever the votes are"
            " (publish what the ledger says)"
        )

    __repr__ = __str__


@dataclass(frozen=True, slots=True)
class ConfidentGNMax:
    """A query is answered where the largest count of votes plus N(0, check^2) reaches
    ``threshold``, with the class whose count plus N(0, deviation^2) is the largest (Papernot et al.
    2018, algorithm 1). ``threshold=None`` answers every query (GNMax).

    At most ``most_answers`` queries are answered, and no query is looked at after that: how many
    teachers agree is private, so how many answers there will be is too, and only a number that was
    fixed before can be charged (adaptive composition up to a budget: Feldman, Zrnic 2021 for RDP,
    Smith, Thakurta 2022 for Gaussians). None:
    every query may be answered, and all are charged.

    Guarantee: for one teacher, and so for all the data that it was trained on, central DP against
    whoever sees labels, with an opener of the counts that is trusted to add the noise. One
    teacher's vote moves two counts by one where it is another's (``replace_one``), one count where
    it votes for nothing (``zero_out``), and the largest count by one at most. Which queries are
    asked must not depend on private data.

    Raises:
        ConfigError: a deviation, or a number of answers, that is not above 0.

    >>> vote = ConfidentGNMax(threshold=6.0, check=1.0, deviation=0.5, most_answers=5)
    >>> from privfl.core import OsNoise
    >>> vote.answer(torch.tensor([[40, 2, 0], [1, 0, 0]]), OsNoise()).tolist()
    [0, -1]
    """

    examples: ClassVar[Examples] = {"": {"deviation": 4.0}}

    deviation: int | float
    threshold: int | float | None = None
    check: int | float = 1.0
    most_answers: int | None = None

    def __post_init__(self) -> None:
        require.positive(deviation=self.deviation, check=self.check)
        require.finite(deviation=self.deviation, check=self.check)
        if self.threshold is not None:
            require.finite(threshold=self.threshold)
        if self.most_answers is not None:
            require.at_least(1, most_answers=self.most_answers)

    def answer(self, counts: Int[Tensor, "q m"], noise: NoiseSource) -> Int[Tensor, " q"]:
        """A label for each query, in order; `UNANSWERED` where the vote was not clear enough, or
        the answers were used up.

        Args:
            counts: how many teachers voted for each of m classes, by query.

        Raises:
            ConfigError: fewer than two classes.
        """
        q, m = counts.shape
        if m < 2:
            raise ConfigError(f"a vote is between two classes at least, and there are {m}.")
        labels = torch.full((q,), UNANSWERED, dtype=torch.int64)
        left = q if self.most_answers is None else self.most_answers
        votes = counts.double()
        for i in range(q):
            if not left:
                break
            if self.threshold is not None:
                reached = votes[i].max() + self.check * normals(1, noise)[0]
                if not float(reached) >= self.threshold:
                    continue
            labels[i] = int((votes[i] + self.deviation * normals(m, noise)).argmax())
            left -= 1
        return labels

    def steps(
        self, queries: int, teachers: int, neighbours: Neighbours, *, repeatable: bool = False
    ) -> tuple[NoisySteps, ...]:
        """What so many queries cost at most, whatever the votes are: noise multipliers are
        deviations over how far one neighbour moves the counts.

        Raises:
            ConfigError: neighbours of another unit than the teacher, or of different number.
        """
        self._require(neighbours)
        require.at_least(1, queries=queries, teachers=teachers)
        everybody = Sampling("all", 1.0, teachers)
        answers = min(queries, self.most_answers or queries)
        far = math.sqrt(neighbours.ends)
        asked = NoisySteps(_gaussian(self.deviation / far), everybody, answers, repeatable)
        if self.threshold is None:
            return (asked,)
        return NoisySteps(_gaussian(self.check), everybody, queries, repeatable), asked

    def data_dependent(
        self, counts: Int[Tensor, "q m"], delta: float, neighbours: Neighbours
    ) -> DataDependent:
        """The epsilon of these very votes (`likely_rdp`, `confident_rdp`), summed over all queries,
        whether they came to be answered or not; never above the independent one by RDP. It counts
        no votes but these.

        Raises:
            ConfigError: as `steps`; delta is not in (0, 1).
        """
        require_delta(delta)
        orders = np.array(sorted({*ORDERS, *BEYOND}))
        independent = np.zeros(len(orders))
        for step in self.steps(len(counts), 1, neighbours):
            z = float(step.event.parameters["noise_multiplier"])
            independent += step.count * orders / (2 * z * z)
        spent = np.minimum(self._rdp(counts.numpy(), orders, neighbours).sum(axis=0), independent)
        each = to_epsilon(orders, spent, delta)
        best = int(np.argmin(each))
        most = float(to_epsilon(orders, independent, delta).min())
        return DataDependent(float(each[best]), delta, float(orders[best]), most)

    def _rdp(self, counts: Int[np.ndarray, "q m"], orders: Array, neighbours: Neighbours) -> Array:
        log_q = log_wrong(counts, self.deviation)
        answer = likely_rdp(log_q, self.deviation * math.sqrt(2 / neighbours.ends), orders)
        if self.threshold is None:
            return answer
        return confident_rdp(
            counts.max(axis=1).astype(np.float64), self.threshold, self.check, answer, orders
        )

    def _require(self, neighbours: Neighbours) -> None:
        if neighbours.unit != "client":
            raise ConfigError(
                f"votes are private for whole teachers, and the unit is '{neighbours.unit}': claim"
                " unit client. A sample is in one teacher only, so it is covered by that."
            )
        if neighbours.relation == "add_remove":
            raise ConfigError(
                "a vote that opens tells how many teachers there are, so nothing is claimed of one"
                " that comes or goes: claim replace_one, or zero_out (it is there and votes for"
                " nothing)."
            )


def _gaussian(noise_multiplier: float) -> DpEvent:
    return DpEvent("gaussian", {"noise_multiplier": noise_multiplier})
