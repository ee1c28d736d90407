"""What groups that change every round give away: the lasting part of single clients' updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.inference import Family, Inference, Lacking
from privfl.attacks.knowledge import Knowledge
from privfl.attacks.result import Result
from privfl.core import ClientId, NotVisible, View, require


@dataclass(frozen=True, slots=True)
class ClientUpdates(Result):
    """What each of ``clients`` sends again and again: updates [n, d], relative to the mean of
    all.
    """

    clients: tuple[ClientId, ...]
    updates: Float[Tensor, "n d"]

    def claim(self) -> str:
        """How many."""
        return f"the lasting updates of {len(self.clients)} clients"

    __str__ = Result.__str__


@dataclass(frozen=True, slots=True)
class GradientDisaggregation(Inference):
    """Single clients' lasting updates from sums over groups that are drawn anew every round (Lam,
    Wei, Cormode, Riedel, Mittal 2021).

    Every group mean is a linear equation in its members' updates. Where a client's update is much
    the same from round to round, the equations of all rounds together are solved by ridge
    regression, each round's mean of all taken off first. Needs rows that are group means and the
    groups (`disclosed`: ``membership``, ``groups``); one sum over everybody has no equations to
    solve.

    >>> import torch
    >>> from privfl.core import RoundPlan, Rows
    >>> def seen(number, a, b, rows):
    ...     plan = RoundPlan(number, (0, 1, 2, 3), d=1, l2=9.0)
    ...     groups = {
    ...         "membership": torch.tensor([0 if c in a else 1 for c in range(4)]),
    ...         "groups": torch.tensor([0, 1]),
    ...     }
    ...     return View(
    ...         "server",
    ...         plan,
    ...         torch.zeros(1),
    ...         torch.zeros(1),
    ...         {"delta": Rows(torch.tensor(rows), torch.full((2,), 2.0))},
    ...         groups,
    ...     )
    >>> views = [seen(0, (0, 1), (2, 3), [[0.5], [-0.5]]), seen(1, (0, 2), (1, 3), [[0.5], [-0.5]])]
    >>> views += [seen(2, (0, 3), (1, 2), [[0.0], [0.0]])]
    >>> found = GradientDisaggregation(ridge=1e-6).run(views).updates.flatten()
    >>> [round(x) for x in found.tolist()]
    [1, 0, 0, -1]
    """

    family: ClassVar[Family] = "inversion"

    ridge: float = 0.3

    def __post_init__(self) -> None:
        require.positive(ridge=self.ridge)

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> ClientUpdates:
        """The regression over all rounds.

        Raises:
            NotVisible: there are no groups.
            Lacking: one round has fewer equations than clients.
        """
        clients = sorted({client for view in views for client in view.plan.cohort})
        place = {client: i for i, client in enumerate(clients)}
        equations: list[Tensor] = []
        means: list[Tensor] = []
        for view in views:
            if "membership" not in view.disclosed:
                raise NotVisible(
                    f"{view.adversary} reads no means of groups in round {view.plan.number}."
                )
            rows, membership = view.rows, view.disclosed["membership"].tolist()
            overall = rows.weights @ rows.values / rows.weights.sum()
            for group, row in zip(view.disclosed["groups"].tolist(), rows.values, strict=True):
                members = [
                    client
                    for client, home in zip(view.plan.cohort, membership, strict=True)
                    if home == group
                ]
                equation = torch.zeros(len(clients))
                equation[[place[client] for client in members]] = 1.0 / len(members)
                equations.append(equation)
                means.append(row - overall)
        if len(views) < 2:
            raise Lacking(
                "one round has fewer group means than clients: give the views of several rounds."
            )
        a, y = torch.stack(equations), torch.stack(means)
        gram = a @ a.T + self.ridge * torch.eye(len(a)) / len(a)
        solved = a.T @ torch.linalg.solve(gram, y)
        return ClientUpdates(
            type(self).__name__,
            views[0].adversary,
            tuple(clients),
            solved,
            notes={"rounds": len(views)},
        )
