"""Neurotoxin: hide the backdoor in coordinates that honest clients hardly touch (Zhang, Panda et
al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from privfl.attacks.backdoor.backdoor import Backdoor
from privfl.attacks.backdoor.training import Crafting
from privfl.core import RoundKnowledge, require


@dataclass(frozen=True)
class Neurotoxin(Backdoor):
    """Keep every gradient off the ``top`` fraction of coordinates in which the last aggregate was
    largest (Zhang et al. 2022, algorithm 1).

    Later honest updates overwrite the backdoor less, so it lasts. The paper's top is 1 to 5 %. In
    the first round nothing is known and nothing is left out.

    Seats: training and update. Knows its own data and the broadcasts.

    >>> from privfl.attacks.backdoor.pixel_pattern import PixelPattern
    >>> from privfl.core import RoundPlan
    >>> known = RoundKnowledge(
    ...     RoundPlan(1, (1, 2), d=4, l2=9.0),
    ...     torch.zeros(4),
    ...     last=torch.tensor([0.1, -0.9, 0.2, 0.3]),
    ... )
    >>> Neurotoxin(PixelPattern(target=0), top=0.25).poison_training(known).frozen
    tensor([False,  True, False, False])
    """

    top: float = 0.05

    def __post_init__(self) -> None:
        Backdoor.__post_init__(self)
        require.within(0, 1, top=self.top)

    def poison_training(self, knowledge: RoundKnowledge) -> Crafting:
        """Training off the coordinates that honest clients change most."""
        if knowledge.last is None:
            return Crafting(self.backdoor, self.training)
        frozen = torch.zeros(len(knowledge.last), dtype=torch.bool)
        frozen[knowledge.last.abs().topk(round(self.top * len(frozen))).indices] = True
        return Crafting(self.backdoor, self.training, frozen=frozen)
