"""Membership from the updates themselves: whether a candidate's gradient points along what was
sent, round after round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.inference import Family, Target, Targeted, auxiliary, candidates, recipe, summed
from privfl.attacks.inversion.simulate import Simulator
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.membership.gradients import per_sample
from privfl.attacks.result import ClientScores, Scores
from privfl.core import ClientId, Dataset, View

Statistic: TypeAlias = Literal["whitened", "cosine"]


@dataclass(frozen=True, slots=True)
class UpdateMembership(Targeted):
    """Whether candidates were trained on, from the stream of updates: per client, or from the sum
    that secure aggregation opens.

    ``statistic="cosine"`` is the mean cosine of a candidate's gradient g and minus the update u
    (after Li, Li, Ribeiro 2023, who count how nearly gradients of strangers are orthogonal).
    ``"whitened"`` is the matched filter g' S^-1 u / sqrt(g' S^-1 g), the best linear detector of g
    in the noise of other samples' gradients, whose covariance S is estimated from auxiliary
    samples; what the channel adds (``noise`` deviations) is part of S. It wants more parameters
    than samples in the update, and auxiliary samples of the same distribution. Over rounds,
    numerators and powers are summed before they are divided, so that rounds in which a candidate
    would show weigh more; a client that is absent in a round has no part in it.

    Args:
        ridge: added to the spectrum of S, as a fraction of its mean eigenvalue in the span of the
            auxiliary gradients.

    >>> UpdateMembership(target="sum").statistic
    'whitened'
    """

    family: ClassVar[Family] = "membership"
    statistic: Statistic = "whitened"
    target: Target = "client"
    ridge: float = 0.001

    @property
    def variant(self) -> tuple[str, ...]:
        """``statistic`` and ``target``."""
        return self.statistic, self.target

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> ClientScores | Scores:
        """Scores of every candidate against every client seen, or against the sum.

        Raises:
            NotVisible: a view shows no such contribution.
            Lacking: there are no candidates, or fewer than 50 auxiliary samples for the whitened
                filter.
        """
        forward = recipe(views[0], knowledge)
        pool = candidates(knowledge, type(self).__name__)
        held = (
            auxiliary(knowledge, type(self).__name__, 50) if self.statistic == "whitened" else None
        )
        sums: dict[ClientId, Tensor] = {}
        power: dict[ClientId, Tensor] = {}
        for view in views:
            updates, ids = _updates(view, self.target)
            cross, own = self._round(view, forward, pool, held, -updates)
            for row, client in enumerate(ids):
                sums[client] = sums.get(client, torch.zeros(pool.n)) + cross[row]
                power[client] = power.get(client, torch.zeros(pool.n)) + own
        clients = tuple(sorted(sums))
        table = torch.stack(
            [sums[client] / power[client].clamp(min=1e-30).sqrt() for client in clients]
        )
        notes = {"rounds": len(views), "statistic": self.statistic}
        if self.target == "sum":
            return Scores(type(self).__name__, views[0].adversary, table[0], notes=notes)
        return ClientScores(type(self).__name__, views[0].adversary, table, clients, notes=notes)

    def _round(
        self, view: View, forward: Forward, pool: Dataset, held: Dataset | None, updates: Tensor
    ) -> tuple[Float[Tensor, "k n"], Float[Tensor, " n"]]:
        """The statistic's numerator for each update and candidate, and its power, to be summed over
        rounds.
        """
        middle = (
            view.before - updates.mean(dim=0) / 2
        )  # local steps walk on from the broadcast: half-way is nearer to all of them
        simulator = Simulator(forward, middle, round=view.plan.number)
        G = per_sample(simulator, pool)
        if held is None:
            U = updates / updates.norm(dim=1, keepdim=True).clamp(min=1e-30)
            cosines: Tensor = U @ (G / G.norm(dim=1, keepdim=True).clamp(min=1e-30)).T
            return cosines, torch.ones(pool.n)
        return matched_filter(G, updates, per_sample(simulator, held), self.ridge)


def matched_filter(
    G: Float[Tensor, "n d"], U: Float[Tensor, "k d"], A: Float[Tensor, "m d"], ridge: float
) -> tuple[Float[Tensor, "k n"], Float[Tensor, " n"]]:
    """G' S^-1 u and g' S^-1 g with S = A'A / m + ridge, by the Woodbury identity: nothing of size d
    x d is made.

    >>> cross, own = matched_filter(
    ...     torch.eye(3),
    ...     torch.eye(3)[:1],
    ...     torch.randn(8, 3, generator=torch.Generator().manual_seed(0)),
    ...     1.0,
    ... )
    >>> (cross / own.sqrt()).argmax()
    tensor(0)
    """
    m = len(A)
    K = (A @ A.T).double() / m
    r = ridge * float(K.diagonal().sum()) / m + 1e-30
    factor = torch.linalg.cholesky(K + r * torch.eye(m, dtype=torch.float64))
    inner = torch.linalg.solve_triangular(factor, (A @ G.T).double(), upper=False)
    other = torch.linalg.solve_triangular(factor, (A @ U.T).double(), upper=False)
    cross = ((U @ G.T).double() - other.T @ inner / m) / r
    own = (G.square().sum(dim=1).double() - inner.square().sum(dim=0) / m) / r
    return cross.float(), own.clamp(min=0).float()


def _updates(view: View, target: Target) -> tuple[Tensor, tuple[ClientId, ...]]:
    if target == "sum":
        return summed(view).mean()[None], (-1,)
    rows = view.rows
    return rows.values, rows.ids if rows.ids is not None else tuple(range(rows.n))
