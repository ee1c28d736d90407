"""What a gradient spans: the row space of a linear layer's update holds all states that the layer
read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from privfl.attacks.inference import Lacking
from privfl.attacks.inversion.simulate import Simulator
from privfl.core import Vector

_CHUNK = 16_384
"""So many tokens go through the model at once."""


class _Reached(Exception):
    """The states that were asked for are there: the rest of the model need not run."""


@dataclass(frozen=True, slots=True)
class Attention:
    """The linear layers that read one tensor of states together, as the queries, keys and values
    of an attention layer do, those of them that are trained, and where their weights lie in the
    flat vector.
    """

    module: nn.Module
    gate: nn.Linear
    layers: tuple[nn.Linear, ...]
    places: tuple[slice, ...]

    @property
    def width(self) -> int:
        """The width d of the states."""
        return self.gate.in_features

    def states(self, tokens: Int[Tensor, "n T"], at: int | None = None) -> Tensor:
        """The states that these layers read for sequences of tokens, [n, T, d]; at one position
        [n, d].
        """
        step = max(1, _CHUNK // tokens.shape[1])
        parts = []
        for some in torch.split(tokens, step):  # of no sequence at all, one empty part
            read = self._read(some)
            parts.append(read if at is None else read[:, at])
        return torch.cat(parts)

    def _read(self, tokens: Tensor) -> Tensor:
        seen: list[Tensor] = []

        def stop(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            seen.append(inputs[0])
            raise _Reached

        hook = self.gate.register_forward_pre_hook(stop)
        try:
            with torch.no_grad():
                self.module(tokens)
        except _Reached:
            pass
        finally:
            hook.remove()
        return seen[0]

    def span(self, delta: Vector, blur: float = 0.0, rng: torch.Generator | None = None) -> Span:
        """What the layers' changes in an update span together, each layer's at length 1: a position
        that one of them does not show another one does. Noise of deviation ``blur`` is added to
        each entry of these.

        In a causal model the first position has one key, so that its query does not matter and its
        state is not in the queries' gradient (it is in that of the values).

        Raises:
            Lacking: these layers did not change.
        """
        changes = [
            delta[place].view(layer.weight.shape).double()
            for layer, place in zip(self.layers, self.places, strict=True)
        ]
        told = [change / change.norm() for change in changes if bool(change.any())]
        if not told:
            raise Lacking("the update holds no change of an attention layer.")
        stacked = torch.cat(told)
        if blur:
            stacked = stacked + blur * torch.randn(stacked.shape, generator=rng).double()
        _, values, rows = torch.linalg.svd(stacked, full_matrices=False)
        return Span(values, rows, float(values[-1]) / (len(stacked) ** 0.5 - self.width**0.5 + 1))


@dataclass(frozen=True, slots=True)
class Span:
    """Singular values [k] and the directions [k, d] that they belong to; ``floor`` is the deviation
    of the noise that the least value is of, where there are fewer states than directions.
    """

    values: Float[Tensor, " k"]
    rows: Float[Tensor, "k d"]
    floor: float

    def rank(self, cut: float) -> int:
        """How many values are over ``cut`` times the greatest."""
        return int((self.values > cut * self.values[0]).sum())

    def gap(self) -> int:
        """How many values are before the greatest fall from one to the next."""
        least = float(self.values[0]) * 1e-12
        return int((self.values[:-1] / self.values[1:].clamp(min=least)).argmax()) + 1

    def distance(self, states: Float[Tensor, "*n d"], rank: int) -> Float[Tensor, "*n"]:
        """How far each state is from the first ``rank`` directions, relative to its length."""
        unit = states.double()
        unit = unit / unit.norm(dim=-1, keepdim=True).clamp(min=1e-300)
        inside = unit @ self.rows[:rank].T
        far: Tensor = (1 - inside.square().sum(dim=-1)).clamp(min=0).sqrt()
        return far


def attention_layers(simulator: Simulator, tokens: Int[Tensor, "1 T"]) -> tuple[Attention, ...]:
    """The attention layers of the model, first to last, as a run on some tokens shows them: two
    linear layers or more that read the very same tensor.
    """
    module = simulator.module
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    calls: list[tuple[nn.Linear, Tensor]] = []

    def noting(layer: nn.Linear) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, inputs: calls.append((layer, inputs[0]))

    hooks = [layer.register_forward_pre_hook(noting(layer)) for layer in linear]
    try:
        with torch.no_grad():
            module(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    groups: list[tuple[Tensor, list[nn.Linear]]] = []
    for layer, read in calls:
        same = [group for seen, group in groups if seen is read]
        if same:
            same[0].append(layer)
        else:
            groups.append((read, [layer]))
    return tuple(
        _attention(module, group, simulator.leaves) for _, group in groups if len(group) > 1
    )


def _attention(
    module: nn.Module, group: Sequence[nn.Linear], leaves: Sequence[Tensor]
) -> Attention:
    layers: list[nn.Linear] = []
    places: list[slice] = []
    start = 0
    for leaf in leaves:
        stop = start + leaf.numel()
        for layer in group:
            if layer.weight is leaf:
                layers.append(layer)
                places.append(slice(start, stop))
        start = stop
    return Attention(module, group[0], tuple(layers), tuple(places))


def vocabulary_of(module: nn.Module) -> int:
    """How many tokens the model's first embedding knows.

    Raises:
        Lacking: it has none.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Embedding):
            return layer.num_embeddings
    raise Lacking("samples are no tokens: this model has no embedding.")
