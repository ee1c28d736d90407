"""A server that silences all samples but those of one class, and all clients but one (Fishing for
User Data).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.inference import Family, Inference, Lacking, observe, recipe
from privfl.attacks.inversion.first_layer import first_layer
from privfl.attacks.inversion.matching import GradientInversion, problem
from privfl.attacks.knowledge import Knowledge
from privfl.attacks.result import Reconstruction
from privfl.core import (
    AttackSeat,
    Broadcast,
    ClientId,
    ConfigError,
    Examples,
    Rows,
    Vector,
    View,
    require,
)


@dataclass(frozen=True, slots=True)
class Fishing(Inference):
    """Class fishing (Wen, Geiping, Fowl, Goldblum, Goldstein 2022, section 3.1).

    The active server sends a last layer in which every class but ``wanted`` has no weights and a
    large bias: samples of other classes then are sure of themselves and have no gradient under the
    last layer. With ``victim`` set, all other clients are sent a last layer without any weights, so
    that no gradient of theirs reaches the layers below (Pasquini, Francati, Ateniese 2022): what a
    sum holds there is the victim's. That defeats secure aggregation whose clients do not compare
    models. Here a plan names the model and protocols bind what clients send to their plans
    (`engine.ClientSide.agreed`), so the victim is in no sum with the others: it is caught over
    channels that open its row. A class with one sample is as easy to invert as
    a batch of one: in closed form where the first layer is linear, else by `GradientInversion` on
    the layers under the last.

    Args:
        features, classes: size of the last linear layer. ``samples`` is how many the victim's batch
            has of the class.
        margin: the bias of the other classes.

    >>> sent = Fishing(features=2, classes=2, wanted=1).sent(torch.ones(6), client=0)
    >>> sent
    tensor([ 0.,  0.,  1.,  1., 40.,  0.])
    """

    examples: ClassVar[Examples] = {"": {"features": 8, "classes": 4}}
    seats: ClassVar[frozenset[AttackSeat]] = frozenset({"broadcast"})

    family: ClassVar[Family] = "inversion"
    features: int
    classes: int
    wanted: int = 0
    victim: ClientId | None = None
    samples: int = 1
    margin: float = 40.0
    iterations: int = 1000

    def __post_init__(self) -> None:
        require.at_least(1, features=self.features, samples=self.samples)
        require.within(0, self.classes - 1, wanted=self.wanted)
        require.positive(margin=self.margin)

    def poison_broadcast(
        self, broadcast: Broadcast, client: ClientId, rng: torch.Generator
    ) -> Broadcast:
        """The bait for the victim (for everybody where there is none), a model without gradients
        for the others.
        """
        return replace(broadcast, parameters=self.sent(broadcast.parameters, client))

    def sent(self, parameters: Vector, client: ClientId | None) -> Vector:
        """What a client is sent [d].

        Raises:
            ConfigError: the parameters do not end with such a layer.
        """
        size = self.classes * self.features
        if len(parameters) < size + self.classes:
            raise ConfigError(
                f"a last layer of {self.features} x {self.classes} does not fit a model of"
                f" {len(parameters)} parameters."
            )
        sent = parameters.clone()
        W, b = (
            sent[-size - self.classes : -self.classes].view(self.classes, self.features),
            sent[-self.classes :],
        )
        kept = W[self.wanted].clone()
        W.zero_()
        b.fill_(self.margin)
        b[self.wanted] = 0.0
        if self.victim is None or client == self.victim:
            W[self.wanted] = kept
        return sent

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Reconstruction:
        """The samples of the wanted class, from the first view.

        Raises:
            NotVisible: the view shows no updates.
            Lacking: nothing was caught; or several samples of the class and no picture of the
                layers to tell them apart.
        """
        view = views[0]
        forward = recipe(view, knowledge)
        single = isinstance(view.opened.get("delta"), Rows) and self.victim is not None
        observed = observe(
            view, knowledge, "client" if single else "sum", self.victim if single else None
        )
        below = len(observed.delta) - self.classes * (self.features + 1)
        caught = observed.delta[:below]
        if float(caught.abs().max()) <= max(1e-12, 5 * observed.noise):
            raise Lacking(
                f"no sample of class {self.wanted} was caught: nobody has one, or nobody was sent"
                " the bait."
            )
        y = torch.full((self.samples,), self.wanted)
        try:
            exact = (
                self._divided(*first_layer(observed, forward)[:2]) if self.samples == 1 else None
            )
        except Lacking:
            exact = None
        low, high = forward.span(caught)
        if exact is not None:
            x = exact.view(1, *forward.shape).clamp(low, high)
            return Reconstruction(
                type(self).__name__, view.adversary, x, y, 0.0, notes={"how": "closed form"}
            )
        sent = self.sent(view.base(observed.client), self.victim)
        alone = replace(
            observed,
            view=replace(view, before=sent, bases={}),
            clients=1,
            samples=self.samples,
        )
        posed = problem(
            alone,
            replace(forward, l2=float("inf")),
            replace(knowledge, labels=y),
            adaptive=True,
            scale_free=True,
        )
        mask = torch.arange(below)
        goal = observed.delta[:below] / float(caught.norm())
        posed = replace(posed, mask=mask, goal=-goal if posed.as_gradient else goal)
        found, mismatch = GradientInversion(iterations=self.iterations).descend(
            posed, knowledge.generator(5)
        )
        return Reconstruction(
            type(self).__name__,
            view.adversary,
            found,
            y,
            mismatch,
            notes={"how": "gradient matching"},
        )

    def _divided(self, weight: Float[Tensor, "m inputs"], bias: Float[Tensor, " m"]) -> Tensor:
        surest = int(bias.abs().argmax())
        return weight[surest] / bias[surest]
