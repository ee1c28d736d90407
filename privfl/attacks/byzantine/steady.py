"""A lie that changes from round to round as honest updates do."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import Knows, RememberingPoison, RoundKnowledge, Vector, require


@dataclass(frozen=True, slots=True)
class Offset:
    """What the attackers' rows differ by from the honest mean [d]; None before their first."""

    by: Vector | None = None


@dataclass(frozen=True, slots=True)
class Steady(RememberingPoison[Offset]):
    """The honest mean less a constant: (1 + ``scale``) times the mean of the first round of the
    attack.

    Made against detectors that predict a client's row from its last one (FLDetector, FLANDERS): the
    first row is the mean turned around ``scale`` times, and after that the rows change exactly as
    the mean does, which is nearer to the prediction than any single honest client is. The model
    drifts along one direction until honest updates balance it. No outside paper.

    Seat: updates, in collusion, with memory. Knows all honest updates.

    >>> from privfl.core import RoundPlan, Rows
    >>> plan = RoundPlan(0, (0, 1, 2), d=1, l2=9.0)
    >>> known = RoundKnowledge(plan, torch.zeros(1), benign=Rows.of([[1.0], [3.0]]))
    >>> attack, rng = Steady(scale=1.0), torch.Generator()
    >>> attack.poison_and_remember(torch.ones(1, 1), known, attack.init(), rng)[0]
    tensor([[-2.]])
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        require.positive(scale=self.scale)

    @property
    def knows(self) -> Knows:
        """All honest updates."""
        return "benign"

    def init(self) -> Offset:
        """No offset yet."""
        return Offset()

    def poison_and_remember(
        self,
        own: Float[Tensor, "f d"],
        knowledge: RoundKnowledge,
        memory: Offset,
        rng: torch.Generator,
    ) -> tuple[Float[Tensor, "f d"], Offset]:
        """The same row for each attacker [f, d], and the offset."""
        mean = knowledge.honest("Steady").values.mean(dim=0)
        by = (1 + self.scale) * mean if memory.by is None else memory.by
        return (mean - by).expand(own.shape).clone(), Offset(by)
