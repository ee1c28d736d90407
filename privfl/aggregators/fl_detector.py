"""FLDetector: clients whose updates do not follow from their own earlier ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privfl.aggregators.auror import split_in_two
from privfl.aggregators.base import Before, copied, finite_rows
from privfl.aggregators.verdict import Verdict
from privfl.core import BadUpdate, ClientId, Context, Rows, Vector, require
from privfl.core.curvature import hessian_product
from privfl.core.geometry import BLOCK

Floats: TypeAlias = npt.NDArray[np.float64]
_ROOM = 1 << 16
"""Columns at a time: two vectors of them fit in a second-level cache."""
_LEAST = 1e-12
_LEAST_SQUARE, _MOST_SQUARE = 1e-30, 1e37
"""Squares outside of these may have vanished or overflowed in float32."""


@dataclass(frozen=True, slots=True)
class Consistency:
    """What is known of earlier rounds: the last model [d], how it had come there (``step`` [d]),
    the aggregate [d] of the round before it, pairs of the model's and the gradient's changes ([d]
    each, newest last), each client's last row, the distances of its rows from what was predicted,
    and who is banned.
    """

    model: Vector | None = None
    step: Vector | None = None
    aggregate: Vector | None = None
    pairs: tuple[tuple[Vector, Vector], ...] = ()
    rows: Mapping[ClientId, Vector] = field(default_factory=dict)
    distances: Mapping[ClientId, tuple[float, ...]] = field(default_factory=dict)
    banned: frozenset[ClientId] = frozenset()

    def at(self, model: Vector, last: Vector | None, window: int) -> Consistency:
        """The same in the round of this model [d], before which ``last`` [d] was released."""
        pairs = self.pairs
        if self.step is not None and self.aggregate is not None and last is not None:
            pairs = (*pairs, (self.step, self.aggregate - last))  # gradients go the other way
        step = None if self.model is None else model - self.model
        return replace(self, model=model.clone(), step=step, aggregate=last, pairs=pairs[-window:])


@dataclass(frozen=True, slots=True)
class FLDetector(Before[Consistency]):
    """FLDetector (Zhang, Cao, Jia, Gong 2022, Algorithms 1 to 3): before the rule, ban clients
    whose rows are not what their own last rows predict.

    Client i's update is predicted by the mean value theorem as g_i + H v, with g_i the one of the
    round before, v the model's change since, and H the integrated Hessian by L-BFGS from the last
    ``window`` changes of model and aggregate (those with a positive product; with none, H v = 0).
    Its score is the mean over its last ``window`` rounds of ||prediction - row||, divided by the
    sum over the round's clients. Once scores cover ``window`` rounds, and the gap statistic
    (``references`` draws) of the scores prefers two clusters to one, exact 2-means splits them, the
    clients of the upper cluster are banned for good, and scores begin anew: the paper trains anew
    without them.

    Needs client ids. A client that was not there in the round before has no prediction in this one.
    It presumes that all honest clients take part and take a step of a gradient; the more local
    steps and the less alike their data, the more it confuses them. Liars who send what it predicts
    of them (`attacks.Foretold`) are nearest to it, and honest clients may be banned in their stead.
    Rows that are not finite are handed on, and forgotten. Keeps a row a client and 2 ``window``
    changes of the model.

    >>> from privfl.core import RoundPlan
    >>> seat = FLDetector(window=2)
    >>> context = Context(RoundPlan(0, (0, 1), 1, 1.0), torch.zeros(1), torch.Generator())
    >>> verdict, state = seat.judge_before(Rows.of([[1.0], [2.0]]), seat.init(), context)
    >>> verdict.dropped, sorted(state.rows)
    ((), [0, 1])
    """

    accuses: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    needs_ids: ClassVar[bool] = True

    window: int = 10
    references: int = 20

    def __post_init__(self) -> None:
        require.at_least(1, window=self.window)
        require.at_least(2, references=self.references)

    def init(self) -> Consistency:
        """Nothing is known of anybody."""
        return Consistency()

    def judge_before(
        self, rows: Rows, state: Consistency, context: Context
    ) -> tuple[Verdict[Rows], Consistency]:
        """The rows of clients that are not banned.

        Raises:
            BadUpdate: the rows are anonymous.
        """
        if rows.ids is None:
            raise BadUpdate(
                "FLDetector follows single clients, and these rows are anonymous: use a channel"
                " that names them."
            )
        state = state.at(context.parameters, context.last, self.window)
        finite = finite_rows(rows.values)
        errors = self._errors(rows, finite, state, context)
        total = math.fsum(errors.values()) or 1.0
        distances = {
            client: (*state.distances.get(client, ()), error / total)[-self.window :]
            for client, error in errors.items()
        }
        distances = {**state.distances, **distances}
        guilty = self._guilty(rows.ids, distances, state, context)
        banned = state.banned | guilty
        score = torch.tensor([_mean(distances.get(client, ())) for client in rows.ids]).double()
        out = torch.tensor([client in banned for client in rows.ids], dtype=torch.bool)
        verdict = Verdict(
            rows.take((~out).nonzero().flatten()) if bool(out.any()) else rows,
            kept=~out,
            suspicion=torch.where(finite, score + out, torch.inf),
            scores={"distance": score},
        )
        copies = copied(rows.values)
        seen = {
            client: copies[i]
            for i, client in enumerate(rows.ids)
            if bool(finite[i]) and client not in banned
        }
        scored = {} if guilty else distances
        return verdict, replace(state, rows=seen, distances=scored, banned=banned)

    def _errors(
        self, rows: Rows, finite: Bool[Tensor, " n"], state: Consistency, context: Context
    ) -> dict[ClientId, float]:
        """How far each row is from what its client's last one predicts, where there is one."""
        if state.step is None:
            return {}
        bend = hessian_product(state.pairs, state.step)
        ids = rows.ids or ()
        known = [i for i, client in enumerate(ids) if bool(finite[i]) and client in state.rows]
        if not known:
            return {}
        last = [state.rows[ids[i]] for i in known]
        total = _misses(rows.values, known, last, bend, rows.values.dtype)
        if not bool(((total > _LEAST_SQUARE) & (total < _MOST_SQUARE)).all()):
            total = _misses(rows.values, known, last, bend, torch.float64)
        return {ids[i]: math.sqrt(float(far)) for i, far in zip(known, total, strict=True)}

    def _guilty(
        self,
        ids: tuple[ClientId, ...],
        distances: Mapping[ClientId, tuple[float, ...]],
        state: Consistency,
        context: Context,
    ) -> frozenset[ClientId]:
        judged = [
            client
            for client in ids
            if client not in state.banned and len(distances.get(client, ())) == self.window
        ]
        if len(judged) < 3:
            return frozenset()
        scores = torch.tensor([_mean(distances[client]) for client in judged]).double()
        upper = upper_cluster(scores, self.references, context.rng)
        return frozenset(client for client, up in zip(judged, upper, strict=True) if up)


def _misses(
    values: Float[Tensor, "n d"],
    known: Sequence[int],
    last: Sequence[Vector],
    bend: Vector,
    dtype: torch.dtype,
) -> Float[Tensor, " k"]:
    """Squared distances of the known rows from last - bend, differences in this precision. In each
    block what the vectors have in common stays in the cache while rows pass it one by one.
    """
    d = values.shape[1]
    room = torch.zeros(-(-min(_ROOM, d) // BLOCK), BLOCK, dtype=dtype, device=values.device)
    norms = torch.zeros(len(known), len(room), dtype=dtype, device=values.device)
    total = torch.zeros(len(known), dtype=torch.float64)
    for start in range(0, d, _ROOM):
        where = slice(start, min(start + _ROOM, d))
        missed, turned = room.view(-1)[: where.stop - start], bend[where].to(dtype)
        room.view(-1)[where.stop - start :] = 0
        for i, before, norm in zip(known, last, norms, strict=True):
            torch.sub(before[where].to(dtype), turned, out=missed)
            missed -= values[i, where]
            torch.linalg.vector_norm(room, dim=1, out=norm)
        total += norms.double().square().sum(dim=1).cpu()
    return total


def upper_cluster(
    scores: Float[Tensor, " n"], references: int, rng: torch.Generator
) -> Bool[Tensor, " n"]:
    """Which scores are in the upper of two clusters; none where the gap statistic finds one.

    Scores are stretched to [0, 1]. Gap(k) = log E W*_k - log W_k over uniform references, as the
    authors' code has it; two clusters where Gap(1) - Gap(2) + s_2 < 0.

    >>> upper_cluster(torch.tensor([0.1, 0.11, 0.12, 0.9]), 20, torch.Generator().manual_seed(0))
    tensor([False, False, False,  True])
    """
    low, high = scores.min(), scores.max()
    if not float(high - low) > _LEAST * float(high.abs()):
        return torch.zeros(len(scores), dtype=torch.bool)
    stretched = (scores - low) / (high - low)
    drawn = torch.rand(references, len(scores), generator=rng, dtype=torch.float64)
    (one, two, top), (ones, twos, _) = _within(stretched[None]), _within(drawn)
    gaps = [np.log(ones.mean()) - np.log(one[0]), np.log(twos.mean()) - np.log(two[0])]
    error = np.log(twos).std() * (1 + 1 / references) ** 0.5
    if gaps[0] - gaps[1] + error >= 0:
        return torch.zeros(len(scores), dtype=torch.bool)
    return stretched > float(top[0])


def _within(sets: Float[Tensor, "b n"]) -> tuple[Floats, Floats, Floats]:
    """For each set its sum of squares about the mean, about the two means of its exact 2-means
    split, and the largest value of the lower cluster.
    """
    ordered = sets.sort(dim=1).values
    n = sets.shape[1]
    top, gap, below = split_in_two(ordered)
    whole = (sets - sets.mean(dim=1, keepdim=True)).square().sum(dim=1)
    split = whole - gap.square() * below * (n - below) / n
    least = torch.full_like(whole, _LEAST)
    return torch.maximum(whole, least).numpy(), torch.maximum(split, least).numpy(), top.numpy()


def _mean(values: tuple[float, ...]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
