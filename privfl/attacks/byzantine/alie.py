"""A Little Is Enough: hide inside the spread of the honest updates (Baruch et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.byzantine.honest_estimate import Sees, cohort, honest_estimate
from privfl.core import ConfigError, CountsItself, Knows, RoundKnowledge, UpdatePoison, require


@dataclass(frozen=True, slots=True)
class ALIE(UpdatePoison, CountsItself):
    """Send mu - z sigma, coordinate by coordinate (Baruch, Baruch, Goldberg 2019, algorithm 3).

    z is the largest shift that s = floor(n / 2) + 1 - f honest updates are still expected to lie
    beyond, so that a majority backs it: z = Phi^-1((n - f - s) / (n - f)). It is negative where f
    is small ((10, 1): -0.14), and then the attack does nothing: the paper also tries 1 to 1.5,
    which ``z`` sets. sigma is the population's, to the ``power`` of 1: code of other papers that
    calls itself LIE takes its square root, which is far larger than sigma where sigma is small, and
    Phi for Phi^-1 (FLANDERS; its z for 20 of 100 is 0.73).

    Seat: updates, in collusion. Knows the attackers' own honest updates (``sees="own"``, the
    paper's case) or all honest ones.

    >>> [round(ALIE.largest(n, f), 2) for n, f in ((50, 10), (20, 8), (25, 11), (50, 24))]
    [0.25, 0.67, 1.07, 1.43]
    """

    z: float | None = None
    sees: Sees = "benign"
    power: float = 1.0

    def __post_init__(self) -> None:
        require.positive(power=self.power)

    @property
    def knows(self) -> Knows:
        """The attackers' own honest updates, or all."""
        return self.sees

    @staticmethod
    def largest(n: int, f: int) -> float:
        """The paper's z for f attackers among n.

        Raises:
            ConfigError: the attackers are half of the cohort or more, so that any shift has a
                majority.
        """
        supporters = n // 2 + 1 - f
        if supporters < 1 or supporters >= n - f:
            raise ConfigError(f"ALIE has no z of its own for {f} attackers among {n}: set z.")
        return NormalDist().inv_cdf((n - f - supporters) / (n - f))

    def among(self, n: int, f: int) -> None:
        """Refuse f attackers among n for which there is no z.

        Raises:
            ConfigError: they are half of the cohort or more, and z is not set.
        """
        if self.z is None:
            self.largest(n, f)

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """Mu - z sigma^power, the same for every attacker [f, d]."""
        honest = honest_estimate("ALIE", self.sees, own, knowledge)
        z = self.largest(cohort(self.sees, own, knowledge), len(own)) if self.z is None else self.z
        sigma, mu = torch.std_mean(honest, dim=0, correction=0)
        return (mu - z * sigma**self.power).expand(own.shape).clone()
