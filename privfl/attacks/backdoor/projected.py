"""Projected gradient: a backdoored model that stays near the broadcast (Wang, Sreenivasan et al.
2020: Attack of the tails).
"""

from __future__ import annotations

from dataclasses import dataclass

from privfl.attacks.backdoor.backdoor import Backdoor
from privfl.attacks.backdoor.training import Crafting
from privfl.core import RoundKnowledge, require


@dataclass(frozen=True)
class ProjectedGradient(Backdoor):
    """Train with ||X - G|| <= radius, projected every ``project_every`` steps and at the end (Wang
    et al. 2020, section 3, PGD attack).

    Passes norm clipping at that radius unscathed. ``gamma=None`` makes it PGD with replacement:
    then choose radius = bound / gamma.

    Seats: training and update. Knows its own data, and the bound that it must pass.

    >>> from privfl.attacks.backdoor.pixel_pattern import PixelPattern
    >>> ProjectedGradient(PixelPattern(target=0), radius=2.0).radius
    2.0
    """

    radius: float = 1.0
    project_every: int = 10

    def __post_init__(self) -> None:
        Backdoor.__post_init__(self)
        require.positive(radius=self.radius)
        require.at_least(1, project_every=self.project_every)

    def poison_training(self, knowledge: RoundKnowledge) -> Crafting:
        """Training inside of the ball."""
        return Crafting(
            self.backdoor, self.training, radius=self.radius, project_every=self.project_every
        )
