"""Membership from the updates themselves: whether a candidate's gradient points along what was
sent, round after round.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.attacks.inference import (
    Family,
    Target,
    Targeted,
    auxiliary,
    candidates,
    finite,
    recipe,
    summed,
)
from privfl.attacks.inversion.simulate import Simulator, standing
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.membership.gradients import per_sample
from privfl.attacks.result import ClientScores, Scores
from privfl.attacks.rows import contributors, readable, told_apart
from privfl.core import ClientId, Dataset, View

Statistic: TypeAlias = Literal["whitened", "cosine"]


@dataclass(frozen=True, slots=True)
class UpdateMembership(Targeted):
    """Whether candidates were trained on, from the stream of updates: per client, or from the sum
    that secure aggregation opens.

    ``statistic="cosine"`` is the mean cosine of a candidate's gradient g and minus the update u
    (after Li, Li, Ribeiro 2023, who count how nearly gradients of strangers are orthogonal).
    ``"whitened"`` is a matched filter, the best linear detector of g in the noise of other samples'
    gradients and of what was added: -u = w sum g_i + e with n samples of weight w and noise e of
    deviation s a value, so that u has covariance w^2 n (C + r I), with C the second moment of
    auxiliary gradients and r = s^2 / (w^2 n), and the score of rounds t is

        sum_t (w / w^2 n) g' (C + r)^-1 u  /  sqrt(sum_t (w^2 / w^2 n) g' (C + r)^-1 g).

    w^2 n is measured from the power of the updates, which absorbs clips; w is known up to a factor.
    r is at least ``ridge``, because C is estimated. It wants more parameters than samples in the
    update, and auxiliary samples of the same distribution. Gradients are taken half-way between the
    broadcast and the mean of what came back, and at the broadcast where noise moved what came back.
    Rounds in which a candidate would show weigh more; a client that is absent in a round has no
    part in it.

    Where rows are means of groups and it is disclosed who is in which, a client's score is summed
    over its group's row in every round. Of rows that nobody can name, the best one of each round
    counts, for no client in particular.

    Args:
        ridge: least r, as a fraction of the mean eigenvalue of C in the span of the auxiliary
            gradients.

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
        pool = candidates(knowledge, type(self).__name__)
        return self.together(views, knowledge, torch.arange(pool.n))

    def together(
        self, views: tuple[View, ...], knowledge: Knowledge, groups: Int[Tensor, " n"]
    ) -> ClientScores | Scores:
        """The same for groups of candidates, numbered from 0, each asked as one: whether all of its
        samples were trained on, by their mean gradient.

        Raises:
            NotVisible, Lacking: as `infer`.
        """
        forward = recipe(views[0], knowledge)
        pool = candidates(knowledge, type(self).__name__)
        asked = int(groups.max()) + 1
        held = (
            auxiliary(knowledge, type(self).__name__, 50) if self.statistic == "whitened" else None
        )
        power: dict[ClientId, Tensor] = {}
        sums: dict[ClientId, Tensor] = {}
        best = torch.zeros(asked)
        for view in views:
            seen = _seen(view, self.target, forward)
            finite(seen.updates, "an update that it looks at", view)
            finite(view.before, "the model", view)
            cross, own = self._round(view, forward, pool, held, seen, groups)
            if seen.whose is None:
                best += (cross / own.clamp(min=1e-30).sqrt()).max(dim=0).values
                continue
            for row, clients in enumerate(seen.whose):
                for client in clients:
                    sums[client] = sums.get(client, torch.zeros(asked)) + cross[row]
                    power[client] = power.get(client, torch.zeros(asked)) + own[row]
        notes = {"rounds": len(views), "statistic": self.statistic}
        if not sums:
            return Scores(type(self).__name__, views[0].adversary, best, notes=notes)
        clients = tuple(sorted(sums))
        table = torch.stack(
            [sums[client] / power[client].clamp(min=1e-30).sqrt() for client in clients]
        )
        if self.target == "sum":
            return Scores(type(self).__name__, views[0].adversary, table[0], notes=notes)
        return ClientScores(type(self).__name__, views[0].adversary, table, clients, notes=notes)

    def _round(
        self,
        view: View,
        forward: Forward,
        pool: Dataset,
        held: Dataset | None,
        seen: _Seen,
        groups: Int[Tensor, " n"],
    ) -> tuple[Float[Tensor, "k q"], Float[Tensor, "k q"]]:
        """The statistic's numerator for each update and group of candidates, and its power, to be
        summed over rounds.
        """
        moved = seen.updates.mean(dim=0)
        noisy = bool((seen.noise > 0).any())
        middle = view.before if noisy and held is not None else view.before + moved / 2
        fixed = standing(view, forward, middle, pool.x)
        simulator = Simulator(forward, middle, round=view.plan.number, statistics=fixed)
        G, U = averaged(per_sample(simulator, pool), groups), -seen.updates
        if held is None:
            U = U / U.norm(dim=1, keepdim=True).clamp(min=1e-30)
            cosines: Tensor = U @ (G / G.norm(dim=1, keepdim=True).clamp(min=1e-30)).T
            return cosines, torch.ones_like(cosines)
        return whitened(G, U, per_sample(simulator, held), seen, self.ridge)


def averaged(G: Float[Tensor, "n d"], groups: Int[Tensor, " n"]) -> Float[Tensor, "q d"]:
    """The mean of each group's rows; the rows themselves where each is a group of its own.

    >>> averaged(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1]))
    tensor([[2.],
            [5.]])
    """
    count = torch.bincount(groups)
    if len(count) == len(G):
        return G
    mean: Tensor = torch.zeros(len(count), G.shape[1]).index_add(0, groups, G) / count[:, None]
    return mean


@dataclass(frozen=True, slots=True)
class _Seen:
    """Updates [k, d] of a round, who may be in each (None: nobody can say), the noise's deviation
    in a value of each, and the weight of one sample in each up to a factor of all rounds.
    """

    updates: Float[Tensor, "k d"]
    whose: tuple[tuple[ClientId, ...], ...] | None
    noise: Float[Tensor, " k"]
    weight: Float[Tensor, " k"]


def whitened(
    G: Float[Tensor, "n d"],
    U: Float[Tensor, "k d"],
    A: Float[Tensor, "m d"],
    seen: _Seen,
    ridge: float,
) -> tuple[Float[Tensor, "k n"], Float[Tensor, "k n"]]:
    """Numerators and powers of the matched filter for one round's minus updates U, with C of the
    auxiliary gradients A.
    """
    K = (A @ A.T).double() / len(A)
    trace = max(float(K.diagonal().sum()), 1e-30)
    power = U.square().sum(dim=1).double().mean()
    noise, w = seen.noise.double().square(), seen.weight.double()
    clean = (power - U.shape[1] * noise).clamp(min=0)
    spread = torch.maximum(clean, 1e-3 * power).clamp(min=1e-30) / trace
    r = torch.clamp(noise / spread, min=ridge * trace / len(A) + 1e-30)
    cross = torch.empty(len(U), len(G), dtype=torch.float64)
    own = torch.empty_like(cross)
    for value in r.unique().tolist():  # type: ignore[no-untyped-call]
        rows = r == value
        cross[rows], own[rows] = matched_filter(G, U[rows], A, K, value)
    return ((w / spread)[:, None] * cross).float(), ((w.square() / spread)[:, None] * own).float()


def matched_filter(
    G: Float[Tensor, "n d"],
    U: Float[Tensor, "k d"],
    A: Float[Tensor, "m d"],
    K: Float[Tensor, "m m"],
    r: float,
) -> tuple[Float[Tensor, "k n"], Float[Tensor, " n"]]:
    """G' (C + r)^-1 u and g' (C + r)^-1 g with C = A'A / m, by the Woodbury identity and K = AA' /
    m: nothing of size d x d is made.

    >>> A = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    >>> G = torch.eye(3)
    >>> cross, own = matched_filter(G, G[:1], A, (A @ A.T).double() / 8, 1.0)
    >>> (cross / own.sqrt()).argmax()
    tensor(0)
    """
    m = len(A)
    factor = torch.linalg.cholesky(K + r * torch.eye(m, dtype=torch.float64))
    inner = torch.linalg.solve_triangular(factor, (A @ G.T).double(), upper=False)
    other = torch.linalg.solve_triangular(factor, (A @ U.T).double(), upper=False)
    cross = ((U @ G.T).double() - other.T @ inner / m) / r
    own = (G.square().sum(dim=1).double() - inner.square().sum(dim=0) / m) / r
    return cross, own.clamp(min=0)


def _seen(view: View, target: Target, forward: Forward) -> _Seen:
    rate = forward.rate(view.plan.number)
    if target == "sum":
        total = summed(view)
        n = max(total.count, 1)
        released = forward.central_noise if "delta" not in view.opened else 0.0
        noise = (forward.local_noise**2 / n + released**2) ** 0.5
        return _Seen(total.mean()[None], ((-1,),), torch.tensor([noise]), torch.tensor([rate / n]))
    rows = readable(view)
    shown = replace(view, opened={**view.opened, "delta": rows})
    whose = contributors(shown) if rows.ids is not None or told_apart(shown) else None
    among = torch.tensor([1.0] * rows.n if whose is None else [max(1, len(c)) for c in whose])
    return _Seen(rows.values, whose, forward.local_noise / among.sqrt(), rate / among)
