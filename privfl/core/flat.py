"""Any torch module as one flat parameter vector, without copying it about."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from privfl.core.errors import BadUpdate, UnsupportedModel
from privfl.core.types import Vector


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one parameter lies in the flat vector."""

    name: str
    shape: torch.Size
    start: int
    stop: int


class FlatModel:
    """A module whose parameters are views of one vector ``flat`` [d], and whose gradients are views
    of one vector ``grad`` [d].

    Reading or writing the whole model is one copy. Buffers are not part of it, so layers that train
    through buffers are refused.

    A copy, a pickle and what `torch.save` wrote are flat models of their own, with a gradient of
    zero. Views do not outlive copying or pickling, so the module travels, as large as it is, and is
    made flat again. Who pickles the module beside it gets that twice; in a deep copy the two stay
    one.

    Raises:
        UnsupportedModel: no trainable parameters, or BatchNorm-like running statistics, which
            averaging parameters leaves behind and which leak through every sample of a batch;
            GroupNorm is the usual replacement.

    >>> model = FlatModel(nn.Linear(3, 2))
    >>> model.d
    8
    >>> model.write(torch.zeros(8))
    >>> model.module.weight[0]
    tensor([0., 0., 0.], grad_fn=<SelectBackward0>)
    """

    def __init__(self, module: nn.Module, device: torch.device | str = "cpu") -> None:
        refuse_running_statistics(module)
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        if not named:
            raise UnsupportedModel("the model has no trainable parameters.")
        self.module = module.to(device)
        self.d = sum(p.numel() for _, p in named)
        self.flat = torch.empty(self.d, device=device)
        self.grad = torch.zeros(self.d, device=device)
        slots: list[Slot] = []
        start = 0
        for name, p in named:
            stop = start + p.numel()
            self.flat[start:stop] = p.detach().reshape(-1)
            p.data = self.flat[start:stop].view(p.shape)
            p.grad = self.grad[start:stop].view(p.shape)
            slots.append(Slot(name, p.shape, start, stop))
            start = stop
        self.slots = tuple(slots)

    def __reduce__(self) -> tuple[Any, ...]:
        return _flat_again, (type(self), copy.deepcopy(self.module))

    def __deepcopy__(self, memo: dict[int, Any]) -> FlatModel:
        return _flat_again(type(self), copy.deepcopy(self.module, memo))

    def read(self) -> Vector:
        """A copy of the parameters."""
        return self.flat.clone()

    def write(self, parameters: Vector) -> None:
        """Replace the parameters.

        Raises:
            BadUpdate: the vector has another length.
        """
        if parameters.shape != self.flat.shape:
            raise BadUpdate(
                f"the model has {self.d} parameters, and got a vector of shape"
                f" {tuple(parameters.shape)}."
            )
        self.flat.copy_(parameters)

    def parts(self, vector: Vector) -> dict[str, Tensor]:
        """Views of a flat vector, by parameter name, in the parameters' shapes."""
        return {slot.name: vector[slot.start : slot.stop].view(slot.shape) for slot in self.slots}


def _flat_again(kind: type[FlatModel], module: nn.Module) -> FlatModel:
    """The flat model of a module that was copied, on the device where the copy's parameters are."""
    return kind(module, next(p for p in module.parameters() if p.requires_grad).device)


def refuse_running_statistics(module: nn.Module) -> None:
    """Refuse layers that train through buffers, by name.

    Raises:
        UnsupportedModel: there is one.

    >>> refuse_running_statistics(nn.Sequential(nn.Linear(2, 2), nn.GroupNorm(1, 2)))
    """
    for name, layer in module.named_modules():
        if isinstance(layer, _NormBase) and layer.track_running_stats:
            raise UnsupportedModel(
                f"layer '{name}' is a {type(layer).__name__}: its running statistics are no"
                " parameters, so federated averaging loses them, and it mixes the samples of a"
                " batch, so per-sample privacy is impossible. Use GroupNorm."
            )
