"""Model replacement and its stealthier forms (Bagdasaryan, Veit, Hua, Estrin, Shmatikov 2020: How
to backdoor federated learning).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.backdoor.backdoor import Backdoor
from privfl.attacks.backdoor.training import Anomaly, Crafting
from privfl.core import RoundKnowledge, require


@dataclass(frozen=True)
class ModelReplacement(Backdoor):
    """Send gamma (X - G) + G so that averaging yields X itself (Bagdasaryan et al. 2020, equation
    3).

    gamma = n / eta there: eta / n is what one row moves the model by. Under federated averaging of
    a cohort of m that is gamma = m, and with weights p_k and a server rate, 1 / (rate p_k), which
    is the default. Works because near convergence the honest rows nearly cancel. Where clients send
    more than a change (SCAFFOLD, FedNova), the attacker hands out what the recipe's steps would
    have left of X - G, not scaled: under FedNova X lands as far as its claimed number of steps is
    the cohort's mean.

    Seats: training and update. Knows its own data, the cohort's total weight and the server's rate
    (unless gamma is given).

    >>> from privfl.attacks.backdoor.pixel_pattern import PixelPattern
    >>> from privfl.core import RoundPlan
    >>> known = RoundKnowledge(RoundPlan(0, (1, 2, 3, 4), d=1, l2=9.0), torch.zeros(1))
    >>> ModelReplacement(PixelPattern(target=0)).poison_updates(
    ...     torch.ones(1, 1), known, torch.Generator()
    ... )
    tensor([[4.]])
    """

    gamma: float | None = None


@dataclass(frozen=True)
class ConstrainAndScale(ModelReplacement):
    """Model replacement whose training also keeps X inconspicuous: alpha L_class + (1 - alpha)
    L_ano (same paper, equation 4).

    L_ano is ``distance``, ||X - G||_2 (not squared); ``cosine``, 1 - cos(gamma (X - G) + G, G); or
    any function of X and G. ``cosine`` takes ``gamma``, or the cohort's size where it is None.

    Seats: training and update. Knows what `ModelReplacement` does.

    >>> from privfl.attacks.backdoor.pixel_pattern import PixelPattern
    >>> ConstrainAndScale(PixelPattern(target=0), alpha=0.7).alpha
    0.7
    """

    alpha: float = 0.7
    anomaly: Literal["distance", "cosine"] | Anomaly = "distance"

    def __post_init__(self) -> None:
        Backdoor.__post_init__(self)
        require.within(0, 1, alpha=self.alpha)

    def poison_training(self, knowledge: RoundKnowledge) -> Crafting:
        """Training with the anomaly loss."""
        anomaly: Anomaly
        if self.anomaly == "distance":
            anomaly = Distance()
        elif self.anomaly == "cosine":
            anomaly = Cosine(float(knowledge.plan.n) if self.gamma is None else self.gamma)
        else:
            anomaly = self.anomaly
        return Crafting(self.backdoor, self.training, alpha=self.alpha, anomaly=anomaly)


@dataclass(frozen=True)
class TrainAndScale(Backdoor):
    """Train without constraint, then scale up only to the bound S that the detector lets through:
    gamma = S / ||X - G|| (equation 5).

    Seats: training and update. Knows its own data, and S.

    >>> from privfl.attacks.backdoor.pixel_pattern import PixelPattern
    >>> from privfl.core import RoundPlan
    >>> known = RoundKnowledge(RoundPlan(0, (1, 2), d=2, l2=9.0), torch.zeros(2))
    >>> TrainAndScale(PixelPattern(target=0), bound=10.0).poison_updates(
    ...     torch.tensor([[3.0, 4.0]]), known, torch.Generator()
    ... )
    tensor([[6., 8.]])
    """

    bound: float = 1.0

    def __post_init__(self) -> None:
        Backdoor.__post_init__(self)
        require.positive(bound=self.bound)

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """Every row at norm S [f, d]."""
        scale: Tensor = self.bound / own.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return own * scale


@dataclass(frozen=True, slots=True)
class Distance:
    """||X - G||_2.

    >>> Distance()(torch.tensor([3.0, 4.0]), torch.zeros(2))
    tensor(5.)
    """

    def __call__(self, x: Float[Tensor, " d"], g: Float[Tensor, " d"]) -> Float[Tensor, ""]:
        """The distance."""
        distance: Tensor = (x - g).norm()
        return distance


@dataclass(frozen=True, slots=True)
class Cosine:
    """1 - cos(gamma (X - G) + G, G): the angle that the submitted model makes with the broadcast.

    >>> Cosine(gamma=2.0)(torch.tensor([1.0, 0.5]), torch.tensor([1.0, 0.0]))
    tensor(0.2929)
    """

    gamma: float = 1.0

    def __call__(self, x: Float[Tensor, " d"], g: Float[Tensor, " d"]) -> Float[Tensor, ""]:
        """One less the cosine."""
        apart: Tensor = 1 - torch.nn.functional.cosine_similarity(
            self.gamma * (x - g) + g, g, dim=0
        )
        return apart
