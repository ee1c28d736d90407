"""Membership of one client by comparison with all others: who is no client of a sample's says what
updates without it look like.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.inference import Family, Inference, Lacking, candidates, recipe
from privfl.attacks.inversion.simulate import Simulator
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.membership.gradients import losses, per_sample
from privfl.attacks.result import ClientScores, Scores
from privfl.attacks.rows import contributors, readable, told_apart
from privfl.core import ClientId, Dataset, Rows, View

Signal: TypeAlias = Literal["cosine", "loss"]


@dataclass(frozen=True, slots=True)
class FedMIA(Inference):
    """Whether candidates were trained on by a client, by the trajectory of its updates against all
    others' ("all for one": Zhu et al. 2024).

    In a round let s_k be a candidate's signal at client k: the cosine of its gradient at the
    broadcast model and minus k's update (``cosine``), or minus its loss at k's model (``loss``).
    Only one client holds the candidate, if any, so the signals at all others are what it looks like
    without: with their mean mu_-k and deviation sigma_-k, z_k = (s_k - mu_-k) / sigma_-k, and the
    score is the mean of Phi(z_k) over the rounds in which k took part.

    It needs no samples of its own. What holds for a sample at every client (an easy sample has a
    small loss anywhere) falls out; that a client has more samples of its kind does not, so ask it
    against other samples of the same client. Of three contributions or more, which may be means of
    groups; a client then has the score of its group's row. Of rows that nobody can name the best
    one of each round counts.

    >>> FedMIA().signal
    'cosine'
    """

    family: ClassVar[Family] = "membership"
    signal: Signal = "cosine"

    @property
    def variant(self) -> tuple[str, ...]:
        """``signal``."""
        return (self.signal,)

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> ClientScores | Scores:
        """The mean of Phi(z) of every candidate against every client seen.

        Raises:
            NotVisible: single updates are hidden.
            Lacking: there are no candidates, or fewer than three contributions in a round.
        """
        forward = recipe(views[0], knowledge)
        pool = candidates(knowledge, type(self).__name__)
        sums: dict[ClientId, Tensor] = {}
        rounds: Counter[ClientId] = Counter()
        best = torch.zeros(pool.n)
        for view in views:
            rows = readable(view)
            if rows.n < 3:
                raise Lacking(
                    "a client is compared with what others send, two of them at least, and round"
                    f" {view.plan.number} shows {rows.n} of all contributions."
                )
            likely = above_others(self._signals(view, rows, forward, pool))
            shown = replace(view, opened={**view.opened, "delta": rows})
            if not told_apart(shown):
                best += likely.max(dim=0).values
                continue
            for at, clients in enumerate(contributors(shown)):
                for client in clients:
                    sums[client] = sums.get(client, torch.zeros(pool.n)) + likely[at]
                    rounds[client] += 1
        name, who, notes = type(self).__name__, views[0].adversary, {"rounds": len(views)}
        if not sums:
            return Scores(name, who, best / len(views), notes=notes)
        clients = tuple(sorted(sums))
        table = torch.stack([sums[client] / rounds[client] for client in clients])
        return ClientScores(name, who, table, clients, notes=notes)

    def _signals(
        self, view: View, rows: Rows, forward: Forward, pool: Dataset
    ) -> Float[Tensor, "k n"]:
        number = view.plan.number
        if self.signal == "loss":
            models = (Simulator(forward, view.before + row, round=number) for row in rows.values)
            return -torch.stack([losses(model, pool) for model in models])
        G = per_sample(Simulator(forward, view.before, round=number), pool)
        G = G / G.norm(dim=1, keepdim=True).clamp(min=1e-30)
        U = -rows.values / rows.values.norm(dim=1, keepdim=True).clamp(min=1e-30)
        cosines: Tensor = U @ G.T
        return cosines


def above_others(signals: Float[Tensor, "k n"]) -> Float[Tensor, "k n"]:
    """Phi((s_k - mu_-k) / sigma_-k) of signals at k clients, k >= 3, with mean and deviation over
    the others.

    >>> above_others(torch.tensor([[5.0], [1.0], [-1.0]]))[0]
    tensor([0.9998])
    """
    k = len(signals)
    s = signals.double() - signals.double().mean(dim=0)
    mean = (s.sum(dim=0) - s) / (k - 1)
    square = (s.square().sum(dim=0) - s.square()) / (k - 1)
    spread = ((square - mean.square()).clamp(min=0) * (k - 1) / (k - 2)).sqrt()
    likely: Tensor = torch.special.ndtr((s - mean) / spread.clamp(min=1e-12))
    return likely.float()
