"""Poisons whose features gather around those of a victim (Shafahi et al. 2018; Zhu et al. 2019;
Aghakhani et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.attacks.poisoning.clean_label import CleanLabel, box_of
from privfl.attacks.poisoning.surrogate import Surrogate
from privfl.core import Dataset, Examples, require


@dataclass(frozen=True, kw_only=True)
class FeatureCollision(CleanLabel):
    """Every poison p minimises ||phi(p) - phi(t)||^2 + beta ||p - b||^2 for the victim t and its
    own base b (Shafahi, Huang, Najibi, Suciu, Studer, Dumitras, Goldstein 2018: Poison frogs,
    equation 1 and algorithm 1).

    Steps are forward-backward: down the first term by ``rate``, then (p + rate beta b) / (1 + rate
    beta). ``watermark`` blends that much of the victim into every base first (section 4.2). beta is
    the paper's beta_0 times its correction for sizes, (features / inputs)^2. The paper bounds no
    pixel; ``epsilon: 1`` is that.

    Seat: data. Knows its own data. Sees no model: phi is that of its own surrogates, their mean.

    >>> FeatureCollision(source=7, base=1).beta
    0.25
    """

    examples: ClassVar[Examples] = {"": {"source": 1, "base": 0, "steps": 5}}

    beta: float = 0.25
    rate: float = 0.05
    watermark: float = 0.0

    def __post_init__(self) -> None:
        CleanLabel.__post_init__(self)
        require.at_least(0, beta=self.beta)
        require.positive(rate=self.rate)
        require.within(0, 1, watermark=self.watermark)

    def craft(
        self,
        victim: Float[Tensor, "1 ..."],
        rest: Dataset,
        chosen: Int[Tensor, " k"],
        nets: list[Surrogate],
        rng: torch.Generator,
    ) -> Float[Tensor, "k ..."]:
        """Poisons, each for itself, that collide with the victim in these networks."""
        box, begun = box_of(rest, self.epsilon), rest.x[chosen]
        base = (1 - self.watermark) * begun + self.watermark * victim
        pull = self.rate * self.beta * (self.width / victim[0].numel()) ** 2
        poison = base.clone()
        for _ in range(self.steps):
            poison.requires_grad_(True)
            apart = torch.stack(
                [(net.features(poison) - net.features(victim)).square().sum() for net in nets]
            )
            (slope,) = torch.autograd.grad(apart.mean(), poison)
            forward = poison.detach() - self.rate * slope
            poison = box.cut((forward + pull * base) / (1 + pull), begun)
        return poison


@dataclass(frozen=True, kw_only=True)
class ConvexPolytope(CleanLabel):
    """The victim's features lie in the polytope of the poisons': minimise the mean over networks of
    ||phi(t) - sum_j c_j phi(p_j)||^2 / (2 ||phi(t)||^2) with c >= 0, sum c = 1 (Zhu, Huang, Li,
    Taylor, Studer, Goldstein 2019: Transferable clean-label poisoning attacks on deep neural nets,
    equation 3).

    In turns: the coefficients of each network by projected gradient on the simplex, then the
    poisons by sign steps of ``step`` times epsilon (the paper: Adam). The paper's dropout in the
    substitutes and its several layers are left out.

    Seat: data. Knows its own data. Sees no model: phi is that of its own surrogates.

    >>> ConvexPolytope(source=7, base=1).surrogates
    2
    """

    examples: ClassVar[Examples] = {"": {"source": 1, "base": 0, "steps": 5}}

    step: float = 0.1

    def __post_init__(self) -> None:
        CleanLabel.__post_init__(self)
        require.positive(step=self.step)

    def craft(
        self,
        victim: Float[Tensor, "1 ..."],
        rest: Dataset,
        chosen: Int[Tensor, " k"],
        nets: list[Surrogate],
        rng: torch.Generator,
    ) -> Float[Tensor, "k ..."]:
        """Poisons, all together, around the victim in these networks; the best that were seen."""
        box, begun = box_of(rest, self.epsilon), rest.x[chosen]
        aims = [net.features(victim)[0] for net in nets]
        shares = [torch.full((len(chosen),), 1 / len(chosen)) for _ in nets]
        poison = best = begun.clone()
        least, width = float("inf"), self.step * self.epsilon * (box.high - box.low)
        for _ in range(self.steps):
            poison.requires_grad_(True)
            found = [net.features(poison) for net in nets]
            shares = [
                self.coefficients(one.detach(), aim, share)
                for one, aim, share in zip(found, aims, shares, strict=True)
            ]
            apart = torch.stack(
                [
                    (aim - share @ one).square().sum() / (2 * aim.square().sum().clamp(min=1e-12))
                    for one, aim, share in zip(found, aims, shares, strict=True)
                ]
            ).mean()
            if float(apart.detach()) < least:
                least, best = float(apart.detach()), poison.detach().clone()
            (slope,) = torch.autograd.grad(apart, poison)
            poison = box.cut(poison.detach() - width * slope.sign(), begun)
        return best

    def coefficients(
        self, found: Float[Tensor, "k h"], aim: Float[Tensor, " h"], share: Float[Tensor, " k"]
    ) -> Float[Tensor, " k"]:
        """The mixture of the poisons' features that comes nearest to the victim's, from where it
        was.
        """
        rate = 1 / float(torch.linalg.matrix_norm(found, ord=2).square().clamp(min=1e-12))
        for _ in range(20):
            share = on_simplex(share - rate * (found @ (share @ found - aim)))
        return share


@dataclass(frozen=True, kw_only=True)
class BullseyePolytope(ConvexPolytope):
    """`ConvexPolytope` whose coefficients stay at 1/k: the victim lies in the middle, so that it
    still does once the network is trained on (Aghakhani, Meng, Wang, Kruegel, Vigna 2021: Bullseye
    polytope, equation 3).

    The paper's several views of one victim are left out.

    Seat: data. Knows its own data. Sees no model: phi is that of its own surrogates.

    >>> BullseyePolytope(source=7, base=1).epsilon
    0.1
    """

    def coefficients(
        self, found: Float[Tensor, "k h"], aim: Float[Tensor, " h"], share: Float[Tensor, " k"]
    ) -> Float[Tensor, " k"]:
        """The mean."""
        return share


def on_simplex(point: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """The nearest point with entries >= 0 that sum to 1 (Duchi et al. 2008).

    >>> on_simplex(torch.tensor([1.0, 1.0, -5.0]))
    tensor([0.5000, 0.5000, 0.0000])
    """
    order = point.sort(descending=True).values
    over = (order.cumsum(dim=0) - 1) / torch.arange(1, len(point) + 1)
    last = int((order > over).nonzero()[-1])
    return (point - over[last]).clamp(min=0)
