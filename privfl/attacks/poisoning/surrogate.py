"""The attacker's own small network: what clean-label poisons are crafted on, since data poisoners
do not see the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from privfl.core import Dataset


@dataclass(frozen=True, slots=True)
class Surrogate:
    """One hidden layer: features relu(x W + b) [n, h] and logits of them."""

    weights: tuple[Tensor, Tensor, Tensor, Tensor]

    def features(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n h"]:
        """Penultimate features, phi in the papers."""
        first, bias, _, _ = self.weights
        return (x.flatten(1) @ first + bias).relu()

    def logits(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n classes"]:
        """The scores of each class."""
        _, _, second, last = self.weights
        return self.features(x) @ second + last

    def stepped(
        self, x: Float[Tensor, "n ..."], y: Int[Tensor, " n"], rate: float, *, graph: bool = False
    ) -> Surrogate:
        """After one step of gradient descent; ``graph`` keeps how it hangs on x."""
        leaves = self.weights if graph else tuple(w.detach() for w in self.weights)
        leaves = tuple(w if w.requires_grad else w.requires_grad_(True) for w in leaves)
        loss = functional.cross_entropy(Surrogate(leaves).logits(x), y)  # type: ignore[arg-type]
        slopes = torch.autograd.grad(loss, leaves, create_graph=graph)
        moved = tuple(w - rate * slope for w, slope in zip(leaves, slopes, strict=True))
        if not graph:
            moved = tuple(w.detach() for w in moved)
        return Surrogate(moved)  # type: ignore[arg-type]


def begun(dataset: Dataset, width: int, rng: torch.Generator) -> Surrogate:
    """Random weights (He et al. 2015) for samples like these."""
    d = dataset.x[0].numel()
    return Surrogate(
        (
            torch.randn(d, width, generator=rng) * math.sqrt(2 / d),
            torch.zeros(width),
            torch.randn(width, dataset.classes, generator=rng) * math.sqrt(1 / width),
            torch.zeros(dataset.classes),
        )
    )


def fit(
    dataset: Dataset,
    width: int,
    rng: torch.Generator,
    *,
    epochs: int = 20,
    rate: float = 0.2,
    batch: int = 32,
    start: Surrogate | None = None,
) -> Surrogate:
    """A surrogate trained on these samples by plain SGD."""
    net = begun(dataset, width, rng) if start is None else start
    for _ in range(epochs):
        for positions in torch.split(torch.randperm(dataset.n, generator=rng), batch):
            net = net.stepped(dataset.x[positions], dataset.y[positions], rate)
    return net
