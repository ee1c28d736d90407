"""What a robust rule's selection gives away: clients that are picked often hold ordinary data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privfl.attacks.inference import Family, Inference
from privfl.attacks.knowledge import Knowledge
from privfl.attacks.result import PropertyScores
from privfl.core import NotVisible, View

_NAMES = (("clients", "selected"), ("client", "weight"))


@dataclass(frozen=True, slots=True)
class SelectionProfile(Inference):
    """How ordinary each client's data is, from who was selected (or how much each counted) round
    after round.

    Property inference (Melis, Song, De Cristofaro, Shmatikov 2019) from one number a client and
    round in place of its update. A rule on hidden updates may still tell its servers whom it picked
    (`disclosed`: ``clients`` and ``selected``, or ``client`` and ``weight``). The score of a client
    is its mean share of the picks so far: high for data like everybody's, low for the unusual.
    Needs no auxiliary data. A mode that opens the result alone leaves nothing to score.

    >>> from privfl.core import RoundPlan
    >>> plan = RoundPlan(0, (4, 7), d=1, l2=1.0)
    >>> told = {"clients": torch.tensor([4, 7]), "selected": torch.tensor([True, False])}
    >>> SelectionProfile().run(
    ...     View("server", plan, torch.zeros(1), torch.zeros(1), {}, told)
    ... ).scores.tolist()
    [[1.0, 0.0]]
    """

    family: ClassVar[Family] = "property"

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> PropertyScores:
        """The mean over the rounds up to each.

        Raises:
            NotVisible: nothing of the selection was told.
        """
        clients = sorted({client for view in views for client in view.plan.cohort})
        place = {client: i for i, client in enumerate(clients)}
        picked, seen = torch.zeros(len(clients)), torch.zeros(len(clients))
        by_round: list[torch.Tensor] = []
        for view in views:
            names = next(
                (
                    (ids, counts)
                    for ids, counts in _NAMES
                    if ids in view.disclosed and counts in view.disclosed
                ),
                None,
            )
            if names is None:
                raise NotVisible(
                    f"{view.adversary} is told nothing of who counted in round {view.plan.number}."
                )
            counted = view.disclosed[names[1]].to(torch.float32)
            counted = counted / counted.max().clamp(min=1e-12)
            for client, share in zip(
                view.disclosed[names[0]].tolist(), counted.tolist(), strict=True
            ):
                picked[place[client]] += share
                seen[place[client]] += 1
            by_round.append(picked / seen.clamp(min=1))
        rounds = tuple(view.plan.number for view in views)
        return PropertyScores(
            type(self).__name__, views[0].adversary, torch.stack(by_round), tuple(clients), rounds
        )
