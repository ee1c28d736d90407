"""Poison points by reversing the learner's gradient descent (Munoz-Gonzalez et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.attacks.poisoning import linear_model
from privfl.attacks.poisoning.bilevel import Bilevel
from privfl.core import require


@dataclass(frozen=True, slots=True)
class BackGradient(Bilevel):
    """Ascend the validation loss after ``steps`` of gradient descent (Munoz-Gonzalez, Biggio,
    Demontis, Paudice et al. 2017, algorithm 2).

    The descent is walked back from its end, theta_{t-1} = theta_t + rate dL/dtheta(theta_t), while
    dx -= rate (d^2 L / dx dtheta) dtheta and dtheta -= rate H dtheta accumulate: no trajectory is
    stored and the model need not be at an optimum. Its learner is softmax regression from zero
    weights.

    Seat: data. Knows its own data; takes the model to be linear.

    >>> rng = torch.Generator().manual_seed(0)
    >>> from privfl.core import Dataset
    >>> data = Dataset(torch.randn(30, 2, generator=rng), torch.arange(30) % 2, classes=2)
    >>> BackGradient(fraction=0.1, ascents=2, steps=10).poison_data(data, rng).n
    30
    """

    steps: int = 60
    rate: float = 0.1

    def __post_init__(self) -> None:
        Bilevel.__post_init__(self)
        require.at_least(1, steps=self.steps)
        require.positive(rate=self.rate)

    def _slope(
        self,
        points: Float[Tensor, "b d"],
        labels: Int[Tensor, " b"],
        clean: tuple[Float[Tensor, "n d"], Int[Tensor, " n"]],
        valid: tuple[Float[Tensor, "v d"], Int[Tensor, " v"]],
        classes: int,
    ) -> Float[Tensor, "b d"]:
        x, y = torch.cat([points, clean[0]]), torch.cat([labels, clean[1]])
        theta = torch.zeros((x.shape[1] + 1) * classes, dtype=x.dtype)
        for _ in range(self.steps):
            theta = theta - self.rate * linear_model.gradient(theta, x, y, classes, self.decay)
        outer = linear_model.gradient(theta, *valid, classes, 0.0)
        slope = torch.zeros_like(points)
        for _ in range(self.steps):
            theta = theta + self.rate * linear_model.gradient(theta, x, y, classes, self.decay)
            hessian, mixed = linear_model.products(theta, x, y, classes, self.decay, outer)
            slope -= self.rate * mixed[: len(points)]
            outer = outer - self.rate * hessian
        return slope
