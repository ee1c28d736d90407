"""Whole batches out of a linear layer and its ReLU, claimed only where they explain the update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from privfl.attacks.inference import Family, Lacking, Observed, Target, Targeted, observe, recipe
from privfl.attacks.inversion.cone import slopes
from privfl.attacks.inversion.simulate import Simulator
from privfl.attacks.inversion.sparse_factors import WORK, Factors, batch_of, factor
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.result import Reconstruction
from privfl.core import ClientId, Examples, View, require

_ROUNDING, _COARSE = 1e-3, 0.1
"""What is reproduced up to so small a share of its length is explained where nothing but rounding
is between; and never is what is farther off than the second.
"""
_NOISE = 10.0
"""Under noise it may be so many times the share that no b samples explain: inverting the samples
amplifies it.
"""


@dataclass(frozen=True, slots=True)
class SPEAR(Targeted):
    """A batch, exactly or not at all (Dimitrov, Baader, Müller, Vechev 2024): inputs of a linear
    first layer that a ReLU follows.

    Directions that make the factor of the layer's update sparse are found as `LinearLeakage` finds
    them, with more draws. What they come to is then checked, as the paper checks its candidates by
    the ReLU's pattern: run through the model, each sample has to cause the slopes at the layer's
    outputs that were attributed to it, with one label; over several local steps all samples
    together have to cause the update. Signs of ReLUs are part of the slopes. Only a batch that
    passes is claimed, with the labels by which it does; else nothing is, and the reason has the
    number of directions found. That is no proof that others find nothing: a batch that holds a
    sample twice has fewer directions than samples, and is not found.

    What all of that costs grows with the cube of b, which is whatever an update says: after about
    ``work`` multiplications it ends, and answers with how far it came.

    Rank and zeros are decided in float64, with the rounding or noise of the update as the limit.

    Raises:
        ConfigError: ``work`` is no finite number, and so no limit.

    >>> SPEAR().starts > SPEAR(starts=64).starts
    True
    """

    family: ClassVar[Family] = "inversion"
    examples: ClassVar[Examples] = {"": {"starts": 64, "tries": 16}}
    target: Target = "client"
    client: ClientId | None = None
    starts: int = 256
    tries: int = 64
    work: float = WORK

    def __post_init__(self) -> None:
        require.finite(work=self.work)

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Reconstruction:
        """The batch in the first view; ``mismatch`` is how far it is from explaining the update,
        relative to its length.

        Raises:
            NotVisible: the view shows no such contribution.
            Lacking: see `batch_of` and `factor`; or not all directions were found, or what they
                come to does not explain the update.
        """
        view = views[0]
        forward = recipe(view, knowledge)
        observed = observe(view, knowledge, self.target, self.client)
        if self.starts < 1 or self.tries < 1:
            raise Lacking("SPEAR needs starts and tries of at least 1.")
        weight, bias, b = batch_of(observed, forward, self.work)
        signed = slopes(observed, forward, knowledge) if b > 1 else None

        def told(found: Factors) -> tuple[Tensor, Tensor, float, float]:
            samples = found.X.float().reshape(b, *forward.shape)
            limit = min(_COARSE, max(_ROUNDING, _NOISE * found.floor))
            return samples, *explained(samples, found, observed, forward), limit

        def accepted(found: Factors) -> bool:
            _, _, off, limit = told(found)
            return off <= limit

        found = factor(
            weight.double(),
            bias.double(),
            b,
            signed,
            knowledge.generator(71),
            self.starts,
            self.tries,
            accepted,
            self.work,
        )
        m, effort = len(weight), f"{found.drawn:,} draws"
        if found.cut:
            effort += f" (all that {self.work:.1g} multiplications allow)"
        if found.sure < b:
            raise Lacking(
                f"{found.sure} of the {b} directions of a batch of {b} at a layer of {m} neurons"
                f" were found in {effort}, and no sample is sure before all are."
            )
        samples, y, off, limit = told(found)
        if not off <= limit:
            raise Lacking(
                f"{b} sparse directions at a layer of {m} neurons were found in {effort}, and the"
                f" samples that they come to cause another update: {off:.2g} of its length is left,"
                f" and {limit:.2g} may be."
            )
        if forward.low:
            samples = samples.clamp(*forward.span(weight))
        return Reconstruction(
            type(self).__name__,
            view.adversary,
            samples,
            y,
            off,
            notes={"draws": found.drawn, "explained up to": off, "limit": limit},
        )


def explained(
    samples: Float[Tensor, "b *shape"], found: Factors, observed: Observed, forward: Forward
) -> tuple[Int[Tensor, " b"], float]:
    """The labels [b] with which samples come closest to the slopes attributed to them, and how far
    the worst of them stays away, as a share of its length; over several local steps of one client,
    how far the update of all of them is from the one seen.
    """
    simulator = Simulator(
        forward, observed.base, round=observed.view.plan.number, clients=observed.clients
    )
    slope = _slopes(samples, simulator)[:, :, found.live]
    lengths = slope.norm(dim=2).clamp(min=1e-300)
    caused = -slope / lengths[:, :, None]
    seen = found.D / found.D.norm(dim=1, keepdim=True).clamp(min=1e-300)
    apart = (caused - seen).norm(dim=2)
    off, y = apart.min(dim=0)
    if simulator.single_step(len(samples)) or observed.clients > 1:
        return y, float(off.max())
    made = simulator.update(samples, y).detach()
    return y, float((made - observed.delta).norm() / observed.delta.norm())


def _slopes(samples: Float[Tensor, "b *shape"], simulator: Simulator) -> Float[Tensor, "C b m"]:
    """The slope of each sample's loss at the first layer's outputs, for each label that it could
    have.
    """
    first = next(layer for layer in simulator.module.modules() if isinstance(layer, nn.Linear))
    outputs: list[Tensor] = []

    def cut(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        outputs.append(output.detach().requires_grad_())
        return outputs[-1]

    hook = first.register_forward_hook(cut)
    told = []
    try:
        for label in range(simulator.forward.classes):
            y = torch.full((len(samples),), label)
            loss = simulator.forward.loss(simulator.module, samples, y)
            told.append(torch.autograd.grad(loss, outputs[-1])[0].double())
    finally:
        hook.remove()
    return torch.stack(told)
