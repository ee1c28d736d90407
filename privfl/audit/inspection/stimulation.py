"""What one lifted unit does to one logit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from privfl.audit.inspection.neural_cleanse import MOST_AT_ONCE, evaluating, frozen
from privfl.core import require


@dataclass(frozen=True, slots=True)
class Stimulated:
    """The unit that lifts a class most: unit ``unit`` of layer ``layer``, by how much it raises the
    class's logit more than any other one's (``elevation``, a mean over images), and the share of
    images of other classes that it takes there (``turned``).
    """

    target: int
    layer: str
    unit: int
    elevation: float
    turned: float


@dataclass(frozen=True, slots=True)
class Stimulation:
    """Stimulation analysis like that of Liu, Lee, Tao, Ma, Aafer, Zhang 2019 (ABS, section 4).

    A unit is one feature of a fully connected layer's result, or one channel of a convolution's,
    before the activation; the layer of the logits is left out. It is set to ``levels`` values up to
    ``lift`` times the greatest that any unit of its layer has on the clean images, with all other
    units as they are, and the logits are watched: the paper's neuron stimulation function. A
    unit that raises one logit far above all others, whatever the image, is what a backdoor
    may hang on.

    Left out, so that it is *like* ABS and not ABS: triggers are not reverse-engineered from the
    candidate units, so there is no attack success rate (REASR) to decide on, and nothing is flagged
    by it; only single units are lifted, and none of the logits' layer. A class on top is a
    candidate and no finding: clean models have one as well.

    Raises:
        ConfigError: a number out of range.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> found = Stimulation()(model, torch.rand(8, 1, 2, 2), torch.arange(8) % 2, 2)
    >>> [one.layer for one in found]
    ['1', '1']
    """

    levels: int = 4
    lift: float = 3.0
    images: int = 16

    def __post_init__(self) -> None:
        require.at_least(1, levels=self.levels, images=self.images)
        require.positive(lift=self.lift)

    def __call__(
        self, module: nn.Module, x: Float[Tensor, "n ..."], y: Tensor, classes: int
    ) -> tuple[Stimulated, ...]:
        """The unit that lifts each class most, for images x [n, ...] of classes y [n]; nothing
        where a model has no layer before that of its logits. Parameters and mode stay as they were.
        """
        x, y = x[: self.images], y[: self.images]
        named = [(name, layer) for name, layer in module.named_modules() if _weighs(layer)]
        parameters = frozen(module)
        best: dict[int, Stimulated] = {}
        with evaluating(module), torch.no_grad():
            seen, order = self._seen(module, parameters, named, x)
            plain = functional_call(module, parameters, (x,))
            for name, layer in [(name, dict(named)[name]) for name in order[:-1]]:
                lifted = self._lifted(module, parameters, layer, x, seen[name])
                for one in _of_layer(name, lifted, plain, y, classes):
                    if one.target not in best or one.elevation > best[one.target].elevation:
                        best[one.target] = one
        return tuple(best[target] for target in sorted(best))

    def _seen(
        self, module: nn.Module, parameters: dict[str, Tensor], named: Any, x: Tensor
    ) -> tuple[dict[str, Tensor], list[str]]:
        """What every layer gives on the clean images, and the layers in the order in which they
        are computed.
        """
        seen: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            return lambda _module, _inputs, out: seen.__setitem__(name, out)

        handles = [layer.register_forward_hook(keep(name)) for name, layer in named]
        try:
            functional_call(module, parameters, (x,))
        finally:
            for handle in handles:
                handle.remove()
        return seen, list(seen)

    def _lifted(
        self,
        module: nn.Module,
        parameters: dict[str, Tensor],
        layer: nn.Module,
        x: Tensor,
        seen: Tensor,
    ) -> Float[Tensor, "u v n C"]:
        """Logits of each image with each unit at each level."""
        top = float(seen.amax().clamp(min=1e-6)) * self.lift
        values = torch.linspace(top / self.levels, top, self.levels).to(x)
        jobs = torch.cartesian_prod(
            torch.arange(seen.shape[1], device=x.device), torch.arange(self.levels, device=x.device)
        ).view(-1, 2)
        found = []
        for part in torch.split(jobs, max(MOST_AT_ONCE // len(x), 1)):
            units, levels = (part[:, i].repeat_interleave(len(x)) for i in range(2))
            images = x.repeat(len(part), *[1] * (x.ndim - 1))
            with _held(layer, units, values[levels]):
                found.append(functional_call(module, parameters, (images,)))
        return torch.cat(found).view(seen.shape[1], self.levels, len(x), -1)


def _of_layer(
    name: str,
    lifted: Float[Tensor, "u v n C"],
    plain: Float[Tensor, "n C"],
    y: Tensor,
    classes: int,
) -> Iterator[Stimulated]:
    """The best unit of a layer for each class."""
    for target in range(classes):
        other = y != target
        if not bool(other.any()):
            continue
        raised = (lifted - plain)[:, :, other]
        rest = raised.clone()
        rest[..., target] = -torch.inf
        gap = (raised[..., target] - rest.amax(dim=-1)).mean(dim=2)
        gap, level = gap.max(dim=1)
        unit = int(gap.argmax())
        turned = lifted[unit, level[unit]][other].argmax(dim=-1) == target
        yield Stimulated(target, name, unit, float(gap[unit]), float(turned.float().mean()))


@contextmanager
def _held(layer: nn.Module, units: Tensor, values: Tensor) -> Iterator[None]:
    """A layer that gives ``values`` [b] at ``units`` [b], for a block."""

    def hold(_module: nn.Module, _inputs: Any, out: Tensor) -> Tensor:
        held = out.clone()
        rows = torch.arange(len(out), device=out.device)
        held[rows, units] = values.view(-1, *[1] * (out.ndim - 2)).expand_as(held[rows, units])
        return held

    handle = layer.register_forward_hook(hold)
    try:
        yield
    finally:
        handle.remove()


def _weighs(layer: nn.Module) -> bool:
    """Whether a layer has weights of its own and gives features or channels."""
    return isinstance(layer, nn.Linear | nn.Conv2d | nn.GroupNorm)
