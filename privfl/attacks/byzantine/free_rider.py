"""Free riders: clients that do not train and want the model all the same (Lin et al. 2019; Fraboni
et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import Knows, RoundKnowledge, UpdatePoison, require


@dataclass(frozen=True, slots=True)
class FreeRider(UpdatePoison):
    """Send nothing new: no change at all, or the model's last change (Lin, Du, Liu 2019:
    Free-riders in federated learning, section 3).

    ``noise`` disguises it by GaussianUpdate noise of standard deviation noise * t^-decay in round t
    = 1, 2, ... (Fraboni, Vidal, Lorenzi 2021: Free-rider attacks on model aggregation, section 4).
    ``sends="last"`` sends the last global change, and no change in the first round.

    Seat: updates. Knows nothing but the broadcasts.

    >>> from privfl.core import RoundPlan
    >>> known = RoundKnowledge(
    ...     RoundPlan(0, (1,), d=2, l2=1.0), torch.zeros(2), last=torch.tensor([0.5, 0.5])
    ... )
    >>> FreeRider(sends="last").poison_updates(torch.ones(1, 2), known, torch.Generator())
    tensor([[0.5000, 0.5000]])
    """

    sends: Literal["zero", "last"] = "zero"
    noise: float = 0.0
    decay: float = 1.0

    def __post_init__(self) -> None:
        require.at_least(0, noise=self.noise, decay=self.decay)

    @property
    def knows(self) -> Knows:
        """Nothing."""
        return "nothing"

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """What the free riders hand in [f, d]."""
        sent = torch.zeros_like(own)
        if self.sends == "last" and knowledge.last is not None:
            sent += knowledge.last * knowledge.rate
        if self.noise:
            sent += (
                torch.randn(own.shape, generator=rng)
                * (self.noise * (knowledge.plan.number + 1) ** -self.decay)
            ).to(own)
        return sent
