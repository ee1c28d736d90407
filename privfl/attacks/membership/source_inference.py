"""Whose sample it is, and whether a person is in it at all: source inference and subject-level
membership.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privfl.attacks.inference import Family, Inference, Lacking, candidates, recipe
from privfl.attacks.inversion.simulate import Simulator, standing
from privfl.attacks.knowledge import Knowledge
from privfl.attacks.membership.gradients import losses
from privfl.attacks.membership.update_stream import UpdateMembership
from privfl.attacks.result import ClientScores, Scores
from privfl.core import ClientId, Vector, View


@dataclass(frozen=True, slots=True)
class SourceInference(Inference):
    """Which client trained on a sample (Hu, Salcic, Sun, Dobbie, Zhang 2021, section IV): the one
    whose local model has the least loss.

    Losses are averaged over rounds. `UpdateMembership` answers the same question from gradients,
    mostly better: its greatest score in a column names the client.

    >>> SourceInference().family
    'membership'
    """

    family: ClassVar[Family] = "membership"

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> ClientScores:
        """Minus the mean loss of every candidate on every client's model.

        Raises:
            NotVisible: single updates are hidden.
            Lacking: no candidates, or clients that come and go.
        """
        forward = recipe(views[0], knowledge)
        pool = candidates(knowledge, type(self).__name__)
        table = None
        clients: tuple[int, ...] = ()
        for view in views:
            rows = view.rows
            ids = rows.ids if rows.ids is not None else tuple(range(rows.n))
            if clients and ids != clients:
                raise Lacking(
                    "clients come and go between these rounds: attack each round's view by itself."
                )
            clients = ids
            fixed, number = standing(view, forward, view.before, pool.x), view.plan.number
            now = torch.stack(
                [
                    -losses(Simulator(forward, model, round=number, statistics=fixed), pool)
                    for model in _models(view, ids)
                ]
            )
            table = now if table is None else table + now
        if table is None:
            raise Lacking("there are no views.")
        return ClientScores(
            type(self).__name__,
            views[0].adversary,
            table / len(views),
            clients,
            notes={"rounds": len(views)},
        )


@dataclass(frozen=True, slots=True)
class SubjectMembership(Inference):
    """Whether any data of a person was trained on (subject-level membership: Suri, Kanani, Marathe,
    Peterson 2022).

    Candidates carry a subject (the attribute ``subject``: who wrote a digit). The scores of a
    subject's candidates, which need not be the very samples that were trained on, are averaged: a
    person with a hand of its own pulls the model its way. Where single updates are seen, the client
    that fits a person best counts.

    >>> SubjectMembership(subject="writer").base.statistic
    'whitened'
    """

    family: ClassVar[Family] = "membership"
    subject: str = "writer"
    base: UpdateMembership = UpdateMembership()

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Scores:
        """One score for each subject, in ascending order of its number in the attribute.

        Raises:
            NotVisible: a view hides what the base attack reads.
            Lacking: candidates without subjects, or what the base attack lacks.
        """
        pool = candidates(knowledge, type(self).__name__)
        if self.subject not in pool.attributes:
            raise Lacking(
                f"the candidates have no attribute '{self.subject}' that says whose they are."
            )
        told = self.base.infer(views, knowledge)
        each = told.scores[None] if isinstance(told, Scores) else told.scores
        subjects, which = torch.unique(pool.attributes[self.subject], return_inverse=True)
        count = torch.bincount(which, minlength=len(subjects)).clamp(min=1)
        by_subject = torch.zeros(len(each), len(subjects)).index_add(1, which, each) / count
        mean = by_subject.max(dim=0).values  # of the client that fits the person best
        return Scores(
            type(self).__name__, views[0].adversary, mean, notes={"subjects": len(subjects)}
        )


def _models(view: View, ids: tuple[ClientId, ...]) -> list[Vector]:
    """Where each client took the model that it was sent."""
    return [
        view.base(client) + row / view.scale(client)
        for client, row in zip(ids, view.rows.values, strict=True)
    ]
