"""Boosting, with or without stealth (Bhagoji, Chakraborty, Mittal, Calo 2019: Analyzing federated
learning through an adversarial lens).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from privfl.attacks.backdoor.backdoor import Backdoor
from privfl.attacks.backdoor.training import Crafting
from privfl.core import RoundKnowledge, Vector, require


@dataclass(frozen=True)
class Boosting(Backdoor):
    """Train on the malicious objective and send boost times the update (Bhagoji et al. 2019,
    section 3.2, explicit boosting).

    With ``stealth`` the trained loss is boost L_mal + L_train + rho ||delta - delta_benign||_2
    (section 3.3), where delta_benign is the last aggregate, as the attacker saw it from two
    broadcasts, and what is sent is delta itself: the boost is in the loss.

    Seats: training and update. Knows its own data and the broadcasts.

    >>> from privfl.attacks.backdoor.pixel_pattern import PixelPattern
    >>> from privfl.core import RoundPlan
    >>> known = RoundKnowledge(RoundPlan(0, (1, 2), d=1, l2=9.0), torch.zeros(1))
    >>> Boosting(PixelPattern(target=0), boost=10.0).poison_updates(
    ...     torch.ones(1, 1), known, torch.Generator()
    ... )
    tensor([[10.]])
    """

    boost: float = 10.0
    stealth: bool = False
    rho: float = 1e-2

    def __post_init__(self) -> None:
        Backdoor.__post_init__(self)
        require.positive(boost=self.boost)
        require.at_least(0, rho=self.rho)

    def poison_training(self, knowledge: RoundKnowledge) -> Crafting:
        """Training on backdoor samples alone, or on the stealthy objective."""
        if not self.stealth:
            return Crafting(self.backdoor, self.training, weights=(0.0, 1.0))
        last = torch.zeros_like(knowledge.before) if knowledge.last is None else knowledge.last
        doubled = (2.0, 2 * self.boost)  # alpha = 1/2 halves both parts of the loss
        return Crafting(
            self.backdoor,
            self.training,
            weights=doubled,
            alpha=0.5,
            anomaly=Unlike(last, 2 * self.rho),
        )

    def poison_updates(
        self, own: Tensor, knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Tensor:
        """The boosted updates [f, d], or the stealthy ones as they are."""
        return own.clone() if self.stealth else own * self.boost


@dataclass(frozen=True, slots=True, eq=False)
class Unlike:
    """rho times the distance of X - G from what honest updates look like."""

    usual: Vector
    rho: float

    def __call__(self, x: Tensor, g: Tensor) -> Tensor:
        """The distance, weighted."""
        distance: Tensor = self.rho * (x - g - self.usual).norm()
        return distance
