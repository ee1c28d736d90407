"""Poison points by implicit differentiation (Jagielski et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.attacks.poisoning import linear_model
from privfl.attacks.poisoning.bilevel import Bilevel


@dataclass(frozen=True, slots=True)
class OptimalPoints(Bilevel):
    """Ascend the validation loss of a linear model at its optimum (Jagielski, Oprea, Biggio, Liu,
    Nita-Rotaru, Li 2018, equation 7).

    d L_val / d x_p = -(d^2 L / d x_p d theta) H^-1 (d L_val / d theta), from the optimum's
    stationarity; H^-1 by conjugate gradients. The paper's linear regression is here softmax
    regression, for classification.

    Seat: data. Knows its own data; takes the model to be linear.

    >>> rng = torch.Generator().manual_seed(0)
    >>> from privfl.core import Dataset
    >>> data = Dataset(torch.randn(30, 2, generator=rng), torch.arange(30) % 2, classes=2)
    >>> OptimalPoints(fraction=0.1, ascents=2).poison_data(data, rng).n
    30
    """

    def _slope(
        self,
        points: Float[Tensor, "b d"],
        labels: Int[Tensor, " b"],
        clean: tuple[Float[Tensor, "n d"], Int[Tensor, " n"]],
        valid: tuple[Float[Tensor, "v d"], Int[Tensor, " v"]],
        classes: int,
    ) -> Float[Tensor, "b d"]:
        x, y = torch.cat([points, clean[0]]), torch.cat([labels, clean[1]])
        theta = linear_model.fit(x, y, classes, self.decay)
        outer = linear_model.gradient(theta, *valid, classes, 0.0)
        right = linear_model.solve(theta, x, y, classes, self.decay, outer)
        _, mixed = linear_model.products(theta, x, y, classes, self.decay, right)
        return -mixed[: len(points)]
