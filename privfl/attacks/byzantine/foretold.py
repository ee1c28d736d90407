"""A lie that changes from round to round exactly as a detector foretells."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import Knows, RememberingPoison, RoundKnowledge, Vector, require
from privfl.core.curvature import hessian_product


@dataclass(frozen=True, slots=True)
class Foresight:
    """What the attackers remember: the last model [d], how it had come there [d], the aggregate [d]
    of the round before it, pairs of the model's and the gradient's changes ([d] each, newest last),
    and the row [d] that they sent last.
    """

    model: Vector | None = None
    step: Vector | None = None
    aggregate: Vector | None = None
    pairs: tuple[tuple[Vector, Vector], ...] = ()
    row: Vector | None = None


@dataclass(frozen=True, slots=True)
class Foretold(RememberingPoison[Foresight]):
    """At first the honest mean turned around ``scale`` times; after that what FLDetector predicts
    of the last row.

    The prediction, last row + H v, hangs on nothing secret: the models and aggregates of the last
    ``window`` rounds are everybody's. So the attackers' rows miss it by rounding alone. They fall
    in the lower of the two clusters, and where the gap statistic sees two, every honest client is
    in the upper one and is banned for good. `Steady`, which moves as the honest mean does, is near
    the prediction and not on it. No outside paper.

    Seat: updates, in collusion, with memory. Knows all honest updates (in its first round alone).

    >>> from privfl.core import RoundPlan, Rows
    >>> plan = RoundPlan(0, (0, 1, 2), d=1, l2=9.0)
    >>> known = RoundKnowledge(plan, torch.zeros(1), benign=Rows.of([[1.0], [3.0]]))
    >>> attack, rng = Foretold(), torch.Generator()
    >>> attack.poison_and_remember(torch.ones(1, 1), known, attack.init(), rng)[0]
    tensor([[-4.]])
    """

    scale: float = 2.0
    window: int = 10

    def __post_init__(self) -> None:
        require.positive(scale=self.scale)
        require.at_least(1, window=self.window)

    @property
    def knows(self) -> Knows:
        """All honest updates."""
        return "benign"

    def init(self) -> Foresight:
        """Nothing is known yet."""
        return Foresight()

    def poison_and_remember(
        self,
        own: Float[Tensor, "f d"],
        knowledge: RoundKnowledge,
        memory: Foresight,
        rng: torch.Generator,
    ) -> tuple[Float[Tensor, "f d"], Foresight]:
        """The same row for each attacker [f, d], and what is remembered."""
        seen = self._seen(knowledge, memory)
        if memory.row is None:
            row = -self.scale * knowledge.honest("Foretold").values.mean(dim=0)
        elif seen.step is None:
            row = memory.row
        else:
            row = memory.row - hessian_product(seen.pairs, seen.step).to(memory.row)
        return row.expand(own.shape).clone(), replace(seen, row=row)

    def _seen(self, knowledge: RoundKnowledge, memory: Foresight) -> Foresight:
        """The memory with this round's model and the aggregate that led to it."""
        last, pairs = knowledge.last, memory.pairs
        if memory.step is not None and memory.aggregate is not None and last is not None:
            pairs = (*pairs, (memory.step, memory.aggregate - last))  # gradients go the other way
        step = None if memory.model is None else knowledge.before - memory.model
        now = knowledge.before.clone()
        return Foresight(now, step, last, pairs[-self.window :], memory.row)
