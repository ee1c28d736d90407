"""Randomised response: local DP for answers out of a few."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import (
    BadUpdate,
    DpEvent,
    Guarantee,
    Mechanism,
    NoiseSource,
    Sensitivity,
    Vector,
    require,
)
from privfl.dp.guarantee import local
from privfl.dp.noise import uniforms


@dataclass(frozen=True, slots=True)
class RandomisedResponse(Mechanism):
    """Each answer in 0..k-1 is told truly with probability e^eps / (e^eps + k - 1), and else
    replaced by another (Warner 1965; k-ary).

    Guarantee: ``epsilon`` local DP for EACH entry of a client's vector, against everybody; d
    entries add up.

    Raises:
        ConfigError: epsilon is not above 0, or fewer than two answers.

    >>> RandomisedResponse(epsilon=math.log(3)).truth
    0.75
    """

    local: ClassVar[bool] = True

    epsilon: int | float
    k: int = 2

    def __post_init__(self) -> None:
        require.positive(epsilon=self.epsilon)
        require.at_least(2, k=self.k)

    @property
    def guarantee(self) -> Guarantee[Mechanism]:
        """Who sees what without noise, and what leaving noise out does."""
        return local()

    @property
    def truth(self) -> float:
        """How likely an answer is told as it is."""
        return round(1 / (1 + (self.k - 1) * math.exp(-self.epsilon)), 15)

    def event(self, d: int) -> DpEvent:
        """What accounts for a client's d answers."""
        return DpEvent("randomised_response", {"epsilon": self.epsilon, "k": self.k, "count": d})

    def share(
        self, values: Vector, sensitivity: Sensitivity, among: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        """A client's answers [d], each randomised, and the event of all of them.

        Raises:
            BadUpdate: an entry is no whole number of 0..k-1.
        """
        told = values.detach().cpu().numpy()
        if not bool(((told >= 0) & (told < self.k) & (told == np.floor(told))).all()):
            raise BadUpdate(f"randomised response takes whole numbers from 0 to {self.k - 1}.")
        lie = uniforms(told.size, noise) > self.truth
        shift = np.minimum(np.ceil(uniforms(told.size, noise) * (self.k - 1)), self.k - 1)
        answers = np.where(lie, (told + shift) % self.k, told)
        return torch.from_numpy(answers).to(values.device, values.dtype), self.event(told.size)

    def release(
        self, vector: Vector, sensitivity: Sensitivity, survivors: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        """Nothing more at the server; `estimate` removes the bias of counts."""
        return vector, None

    def estimate(self, counts: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        """Unbiased counts of the true answers from counts of the told ones."""
        lie = (1 - self.truth) / (self.k - 1)
        return (counts - counts.sum() * lie) / (self.truth - lie)
