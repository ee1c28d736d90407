"""A cheap form of MetaPoison: poisons by differentiating through a few steps of training (after
Huang et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from privfl.attacks.poisoning import surrogate
from privfl.attacks.poisoning.clean_label import CleanLabel, box_of
from privfl.attacks.poisoning.surrogate import Surrogate
from privfl.core import Dataset, Examples, require


@dataclass(frozen=True, kw_only=True)
class CheapMetaPoison(CleanLabel):
    """Descend, in the poisons, the loss of victim to base class after ``unrolled`` steps of
    training on poisons and a clean batch, from ``surrogates`` networks at different epochs of their
    training (after Huang, Geiping, Fowl, Taylor, Goldstein 2020: MetaPoison, equations 3 to 5).

    It is cheap, and less than the paper, because it leaves out: the recolouring of images (here a
    bound on every pixel alone), the 24 networks that are trained on and begun anew while poisons
    are crafted (here 4, at fixed epochs), their architecture (one hidden layer here), and restarts.

    Seat: data. Knows its own data. Sees no model.

    >>> CheapMetaPoison(source=7, base=1).unrolled
    2
    """

    examples: ClassVar[Examples] = {"": {"source": 1, "base": 0, "steps": 3}}

    surrogates: int = 4
    unrolled: int = 2
    rate: float = 0.2
    step: float = 0.1
    batch: int = 64

    def __post_init__(self) -> None:
        CleanLabel.__post_init__(self)
        require.at_least(1, unrolled=self.unrolled, batch=self.batch)
        require.positive(rate=self.rate, step=self.step)

    def trained(self, rest: Dataset, rng: torch.Generator) -> list[Surrogate]:
        """Networks that were trained for 1, 2, ... epochs, spread over 20."""
        epochs = [1 + 20 * i // self.surrogates for i in range(self.surrogates)]
        return [surrogate.fit(rest, self.width, rng, epochs=many) for many in epochs]

    def craft(
        self,
        victim: Float[Tensor, "1 ..."],
        rest: Dataset,
        chosen: Int[Tensor, " k"],
        nets: list[Surrogate],
        rng: torch.Generator,
    ) -> Float[Tensor, "k ..."]:
        """All poisons together, by sign steps."""
        box, begun = box_of(rest, self.epsilon), rest.x[chosen]
        others = torch.ones(rest.n, dtype=torch.bool)
        others[chosen] = False
        clean = rest.take(others.nonzero().flatten())
        poison, width = begun.clone(), self.step * self.epsilon * (box.high - box.low)
        for _ in range(self.steps):
            drawn = clean.take(torch.randperm(clean.n, generator=rng)[: self.batch])
            poison.requires_grad_(True)
            each = [self.after_training(net, poison, drawn, victim) for net in nets]
            (slope,) = torch.autograd.grad(torch.stack(each).mean(), poison)
            poison = box.cut(poison.detach() - width * slope.sign(), begun)
        return poison

    def after_training(
        self,
        net: Surrogate,
        poison: Float[Tensor, "k ..."],
        clean: Dataset,
        victim: Float[Tensor, "1 ..."],
    ) -> Float[Tensor, ""]:
        """The loss of the victim to the base class, of a network that was trained on poisons and
        clean samples; with a graph to the poisons.
        """
        labels = torch.full((len(poison),), self.base)
        x, y = torch.cat([poison, clean.x]), torch.cat([labels, clean.y])
        for _ in range(self.unrolled):
            net = net.stepped(x, y, self.rate, graph=True)
        return functional.cross_entropy(net.logits(victim), labels[:1])
