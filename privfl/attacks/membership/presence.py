"""Whether a client's data took part at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.attacks.inference import Family, Lacking, Target, Targeted, candidates, recipe
from privfl.attacks.inversion.simulate import Simulator
from privfl.attacks.knowledge import Knowledge
from privfl.attacks.membership.gradients import losses
from privfl.attacks.membership.update_stream import UpdateMembership
from privfl.attacks.result import ClientScores, Scores
from privfl.core import ClientId, Examples, View


@dataclass(frozen=True, slots=True)
class ClientPresence(Targeted):
    """Whether the data of a client are in the model: candidates carry whose they are (the attribute
    ``by``), and all of one client's are asked as one (membership of a whole data set; after Suri,
    Kanani, Marathe, Peterson 2022, who ask about subjects).

    ``update`` is the matched filter of `UpdateMembership` with the mean gradient of the client's
    candidates in place of one sample's: -u = w sum g_i + e is nearest to it where they are what was
    trained on. The row that is asked is that of the client of this number, or of its group; of
    numbers that no row has, the row that fits best; with ``target="sum"`` the sum. ``loss`` is the
    mean loss that training took off them, from the model before the first view to the one after the
    last, which everybody has who sees releases.

    >>> ClientPresence("loss").variant
    ('loss',)
    """

    examples: ClassVar[Examples] = {"": {"by": "writer"}}
    family: ClassVar[Family] = "membership"
    statistic: Literal["update", "loss"] = "update"
    target: Target = "client"
    by: str = "client"

    @property
    def variant(self) -> tuple[str, ...]:
        """``statistic``, and ``target`` where updates are read."""
        return (self.statistic,) if self.statistic == "loss" else (self.statistic, self.target)

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Scores:
        """One score for each client among the candidates, in ascending order of its number.

        Raises:
            NotVisible: a view shows no such contribution.
            Lacking: candidates that do not say whose they are, or too few auxiliary samples.
        """
        pool = candidates(knowledge, type(self).__name__)
        if self.by not in pool.attributes:
            raise Lacking(f"the candidates have no attribute '{self.by}' that says whose they are.")
        clients, groups = torch.unique(pool.attributes[self.by], return_inverse=True)
        if self.statistic == "loss":
            scores = self._taken_off(views, knowledge, groups)
        else:
            told = UpdateMembership(target=self.target).together(views, knowledge, groups)
            scores = told.scores if isinstance(told, Scores) else _own(told, clients)
        notes = {"rounds": len(views), "subjects": len(clients)}
        return Scores(type(self).__name__, views[0].adversary, scores, notes=notes)

    def _taken_off(
        self, views: tuple[View, ...], knowledge: Knowledge, groups: Int[Tensor, " n"]
    ) -> Float[Tensor, " k"]:
        forward = recipe(views[0], knowledge)
        pool = candidates(knowledge, type(self).__name__)
        first, last = (
            losses(Simulator(forward, model), pool) for model in (views[0].before, views[-1].after)
        )
        count = torch.bincount(groups)
        return torch.zeros(len(count)).index_add(0, groups, first - last) / count


def _own(told: ClientScores, clients: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
    """Each client's score at its own row, or at the best one."""
    row: dict[ClientId, int] = {client: at for at, client in enumerate(told.clients)}
    return torch.stack(
        [
            told.scores[row[client], at] if client in row else told.scores[:, at].max()
            for at, client in enumerate(clients.tolist())
        ]
    )
