"""GradInversion: gradient matching with what the model remembers of its batches, by several seeds
that agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from privfl.attacks.inference import Family, Lacking, Observed, Target, Targeted, observe, recipe
from privfl.attacks.inversion.batch_size import tried
from privfl.attacks.inversion.labels import labels
from privfl.attacks.inversion.matching import Problem, _start, problem, total_variation
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.result import Reconstruction
from privfl.core import ClientId, Examples, View


@dataclass(frozen=True, slots=True)
class GradInversion(Targeted):
    """See through gradients (Yin, Mallya, Vahdat, Alvarez, Kautz, Molchanov 2021).

    Gradient matching (by cosine, which stands scales) plus total variation, L2 and, where the model
    has batch normalisation with running statistics, the distance of the guesses' statistics to them
    (equation 11); ``seeds`` descents share a group penalty towards their mean (equation 12, with
    the pixelwise mean in place of registered images). Labels by the most negative column of the
    last layer's gradient (equation 8), each class once, where they are not known; `LabelCounts`
    counts repeated classes better.

    >>> GradInversion(seeds=2).group
    0.01
    """

    family: ClassVar[Family] = "inversion"
    examples: ClassVar[Examples] = {"": {"iterations": 30}}
    iterations: int = 1000
    lr: float = 0.03
    tv: float = 1e-3
    l2: float = 1e-6
    statistics: float = 1e-3
    group: float = 0.01
    seeds: int = 3
    target: Target = "client"
    client: ClientId | None = None

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Reconstruction:
        """Samples from the first view; see `GradientInversion.infer` for what it raises."""
        view = views[0]
        forward = recipe(view, knowledge)
        observed = observe(view, knowledge, self.target, self.client)
        if self.seeds < 1:
            raise Lacking("GradInversion needs seeds of at least 1.")
        return tried(
            observed, forward, knowledge, lambda sized: self._solve(sized, forward, knowledge)
        )

    def _solve(self, observed: Observed, forward: Forward, knowledge: Knowledge) -> Reconstruction:
        y = (
            knowledge.labels
            if knowledge.labels is not None
            else _labels(observed, forward, knowledge)
        )
        posed = problem(
            observed, forward, replace(knowledge, labels=y), adaptive=True, scale_free=True
        )
        rng = knowledge.generator(6)
        xs = [_start(posed, rng).requires_grad_() for _ in range(self.seeds)]
        reach = float((posed.high - posed.low).mean())
        adam = torch.optim.Adam(xs, lr=self.lr * reach)
        remembered = _Remembered(posed.simulator.module)
        best, least = xs[0].detach().clone(), float("inf")
        for i in range(self.iterations):
            if i in (3 * self.iterations // 8, 5 * self.iterations // 8, 7 * self.iterations // 8):
                adam.param_groups[0]["lr"] /= 10
            middle = torch.stack([x.detach() for x in xs]).mean(dim=0)
            for x in xs:
                value = self._objective(
                    posed, x, middle if len(xs) > 1 else None, reach, remembered
                )
                (slope,) = torch.autograd.grad(value, x)
                x.grad = slope.sign_()
                if value.item() < least:
                    best, least = x.detach().clone(), value.item()
            adam.step()
            with torch.no_grad():
                for x in xs:
                    x.copy_(x.clamp(posed.low, posed.high))
        remembered.forget()
        notes = {"seeds": self.seeds, "layers with statistics": len(remembered.layers)}
        return Reconstruction(
            type(self).__name__,
            observed.view.adversary,
            best,
            posed.labels,
            least,
            notes=notes,
        )

    def _objective(
        self,
        posed: Problem,
        x: Tensor,
        middle: Tensor | None,
        reach: float,
        remembered: _Remembered,
    ) -> Tensor:
        remembered.distance = x.new_zeros(())
        value = (
            posed.mismatch(x, "cosine")
            + self.tv / reach * total_variation(x)
            + self.l2 * x.square().mean()
        )
        if remembered.layers:
            remembered.listen(posed.simulator.module, x)
            value = value + self.statistics * remembered.distance
        if middle is not None:
            value = value + self.group * (x - middle).square().mean() / reach**2
        return value


class _Remembered:
    """How far the batch's statistics at layers of batch normalisation are from those that the
    layers remember.
    """

    def __init__(self, module: nn.Module) -> None:
        self.layers = [
            layer
            for layer in module.modules()
            if isinstance(layer, _NormBase) and layer.running_mean is not None
        ]
        self.distance = torch.zeros(())
        self.listening = False
        self.hooks = [layer.register_forward_pre_hook(self._compare) for layer in self.layers]

    def listen(self, module: nn.Module, x: Tensor) -> None:
        """One pass of a guess, which fills ``distance``."""
        self.listening = True
        module(x)
        self.listening = False

    def forget(self) -> None:
        """Take the hooks off."""
        for hook in self.hooks:
            hook.remove()

    def _compare(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if (
            not self.listening
            or not isinstance(layer, _NormBase)
            or layer.running_mean is None
            or layer.running_var is None
        ):
            return
        z = inputs[0].transpose(0, 1).flatten(1)
        self.distance = (
            self.distance
            + (z.mean(dim=1) - layer.running_mean).norm()
            + (z.var(dim=1) - layer.running_var).norm()
        )


def _labels(observed: Observed, forward: Forward, knowledge: Knowledge) -> Int[Tensor, " n"]:
    """Yin et al.'s rule where no class repeats; counts where there are more samples than
    classes.
    """
    weights = [p for p in forward.module.parameters() if p.requires_grad and p.ndim == 2]
    if (
        observed.samples is None
        or observed.samples > forward.classes
        or not weights
        or weights[-1].shape[0] != forward.classes
    ):
        return labels(observed, forward, knowledge)
    size = weights[-1].numel()
    tail = forward.classes if list(forward.module.parameters())[-1].ndim == 1 else 0
    gradient = -observed.delta[len(observed.delta) - tail - size : len(observed.delta) - tail].view(
        forward.classes, -1
    )
    return gradient.amin(dim=1).argsort()[: observed.samples].sort().values
