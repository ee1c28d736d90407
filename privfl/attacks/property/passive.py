"""Passive property inference: shadow updates with and without the property, and a linear classifier
between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.inference import Family, Lacking, Target, Targeted, auxiliary, recipe, summed
from privfl.attacks.knowledge import Knowledge, Trainer
from privfl.attacks.result import PropertyScores
from privfl.core import ClientId, Dataset, View


@dataclass(frozen=True, slots=True)
class PropertyInference(Targeted):
    """Whether a client's samples have a property in a round (Melis, Song, De Cristofaro, Shmatikov
    2019, section 4.5, passive).

    At each round's broadcast model the adversary trains shadow clients on its own samples, half of
    them with a share of samples that have the property (``Knowledge.attribute``, 0 or 1 by
    auxiliary sample), and separates the two kinds of updates by a ridge classifier in the span of
    the shadows. The classifier's margin on the observed update, in units of its spread over
    shadows, is the score: above zero says yes. Scores come by round, so a property that appears and
    disappears is seen to.

    Args:
        share: of the samples of a shadow with the property that have it; ``contrast`` of one
            without (a ratio of the sexes is told from another one); ``shadows`` are trained of each
            kind.
        contributors: on a sum, each shadow sum has one client in question among so many; None is
            the size of the cohort.

    >>> PropertyInference(share=0.3).shadows
    40
    """

    family: ClassVar[Family] = "property"
    share: float = 0.3
    contrast: float = 0.0
    shadows: int = 40
    target: Target = "client"
    ridge: float = 0.1

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> PropertyScores:
        """Scores of every round and client, or of every round's sum.

        Raises:
            NotVisible: a view shows no such contribution.
            Lacking: no shadow training, no attribute, or too few auxiliary samples of either kind.
        """
        forward = recipe(views[0], knowledge)
        held = auxiliary(knowledge, type(self).__name__, 40)
        if (
            knowledge.trainer is None
            or knowledge.attribute is None
            or knowledge.attribute not in held.attributes
        ):
            raise Lacking(
                "shadow clients must be trained: give Knowledge(trainer=..., attribute=...) and"
                " samples with it."
            )
        has = held.attributes[knowledge.attribute] == 1
        if int(has.sum()) < 20 or int((~has).sum()) < 20:
            raise Lacking(
                f"of the auxiliary samples {int(has.sum())} have the property and"
                f" {int((~has).sum())} do not: 20 of each are needed."
            )
        table: list[Tensor] = []
        clients: tuple[ClientId | None, ...] = ()
        for view in views:
            size, observed, now = self._observed(view, forward.weighted, knowledge)
            if clients and now != clients:
                raise Lacking(
                    "clients come and go between these rounds: attack each round's view by itself."
                )
            clients = now
            table.append(
                self._score(view, held, has, size, observed, knowledge.trainer, knowledge.seed)
            )
        rounds = tuple(view.plan.number for view in views)
        return PropertyScores(
            type(self).__name__, views[0].adversary, torch.stack(table), clients, rounds
        )

    def _observed(
        self, view: View, weighted: bool, knowledge: Knowledge
    ) -> tuple[int, Tensor, tuple[ClientId | None, ...]]:
        if self.target == "sum":
            total = summed(view)
            size = knowledge.samples or (
                round(total.weight / total.count) if weighted and "delta" in view.opened else 20
            )
            return size, total.mean()[None], (None,)
        rows = view.rows
        size = knowledge.samples or (round(float(rows.weights.mean())) if weighted else 20)
        return size, rows.values, rows.ids if rows.ids is not None else tuple(range(rows.n))

    def _score(
        self,
        view: View,
        held: Dataset,
        has: Tensor,
        size: int,
        observed: Float[Tensor, "k d"],
        trainer: Trainer,
        seed: int,
    ) -> Float[Tensor, " k"]:
        rng = torch.Generator().manual_seed(seed * 1009 + view.plan.number)
        others = view.plan.n - 1 if self.target == "sum" else 0
        subsets = [_draw(has, size, self.share, rng) for _ in range(self.shadows)]
        subsets += [_draw(has, size, self.contrast, rng) for _ in range(self.shadows)]
        crowd = [
            _draw(has, size, self.contrast, rng) for _ in range(4 * self.shadows if others else 0)
        ]
        updates = trainer(view.before, held, subsets + crowd, seed=seed)
        X = updates[: 2 * self.shadows]
        if others:  # a shadow sum: the client in question among others drawn from the crowd
            rest = updates[2 * self.shadows :]
            picks = torch.randint(len(rest), (len(X), others), generator=rng)
            X = (X + rest[picks].sum(dim=1)) / (others + 1)
        y = torch.cat([torch.ones(self.shadows), -torch.ones(self.shadows)])
        return _margins(
            X / X.norm(dim=1, keepdim=True),
            y,
            observed / observed.norm(dim=1, keepdim=True).clamp(min=1e-30),
            self.ridge,
        )


def _draw(has: Tensor, size: int, share: float, rng: torch.Generator) -> Tensor:
    """Positions of one shadow's samples, the given share of them with the property."""
    marked = round(size * share)
    pieces = []
    for kind, count in ((has, marked), (~has, size - marked)):
        at = kind.nonzero().squeeze(1)
        pieces.append(at[torch.randint(len(at), (count,), generator=rng)])
    return torch.cat(pieces)


def _margins(
    X: Float[Tensor, "n d"], y: Float[Tensor, " n"], Z: Float[Tensor, "k d"], ridge: float
) -> Float[Tensor, " k"]:
    """Ridge classification in the span of X; margins over the spread of left-out ones."""
    centre = X.mean(dim=0)
    X, Z = X - centre, Z - centre
    K = (X @ X.T).double()
    solved = torch.linalg.solve(
        K + ridge * K.diagonal().mean() * torch.eye(len(K), dtype=K.dtype),
        torch.eye(len(K), dtype=K.dtype),
    )
    alpha = solved @ y.double()
    left_out = y.double() - alpha / solved.diagonal()
    margins: Tensor = ((Z @ X.T).double() @ alpha / left_out.std().clamp(min=1e-12)).float()
    return margins
