"""Any torch module as one flat parameter vector, without copying it about."""

from __future__ import annotations

import copy
from collections.abc import Iterator
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

    Reading or writing the whole model is one copy. The running means and variances of its layers
    (BatchNorm's and their like) are views of a second vector ``state`` [s], in the same way, and
    their counts of batches of a third, ``counts`` [c], of whole numbers; what becomes of these in a
    federation is `privfl.training.WithStatistics`'s to say. Frozen parameters and other buffers are
    constants, which no training changes.

    A copy, a pickle and what `torch.save` wrote are flat models of their own, with a gradient of
    zero. Views do not outlive copying or pickling, so the module travels, as large as it is, and is
    made flat again. Who pickles the module beside it gets that twice; in a deep copy the two stay
    one.

    Several flat models may have one module, or modules with layers in common, as federations do
    that are built of one network: each has its own vector and its own copies of constants, whatever
    others train or freeze, and the module computes with those of the one that was written to last
    (not in threads at once).

    Raises:
        UnsupportedModel: no trainable parameters.

    >>> model = FlatModel(nn.Linear(3, 2))
    >>> model.d
    8
    >>> model.write(torch.zeros(8))
    >>> model.module.weight[0]
    tensor([0., 0., 0.], grad_fn=<SelectBackward0>)
    """

    def __init__(self, module: nn.Module, device: torch.device | str = "cpu") -> None:
        if not any(p.requires_grad for p in module.parameters()):
            raise UnsupportedModel("the model has no trainable parameters.")
        self.module = module.to(device)  # which may replace parameters by others
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self.d = sum(p.numel() for _, p in named)
        self.flat = torch.empty(self.d, device=device)
        self.grad = torch.zeros(self.d, device=device)
        slots: list[Slot] = []
        start = 0
        for name, p in named:
            stop = start + p.numel()
            self.flat[start:stop] = p.detach().reshape(-1)
            slots.append(Slot(name, p.shape, start, stop))
            start = stop
        self.slots = tuple(slots)
        self._parameters = [p for _, p in named]
        frozen = [p for p in self.module.parameters() if not p.requires_grad]
        self._frozen = [(p, p.detach().clone()) for p in frozen]
        kept = list(_buffers(self.module))
        floating = [one for one in kept if one[2].is_floating_point()]
        whole = [one for one in kept if not one[2].is_floating_point()]
        self.state, self.state_slots = _as_one(floating, torch.float32, device)
        self.counts, self._count_slots = _as_one(whole, torch.int64, device)
        self._constants = _constants(self.module, {name for _, name, _ in kept})
        self._named = dict(self.module.named_parameters())
        self._modes = [(layer, layer.training) for layer in self.module.modules()]
        self._take()

    def _take(self) -> None:
        """Make the module's parameters, gradients and statistics views of these vectors, and its
        constants what they were.
        """
        for p, slot in zip(self._parameters, self.slots, strict=True):
            p.data = self.flat[slot.start : slot.stop].view(slot.shape)
            p.grad = self.grad[slot.start : slot.stop].view(slot.shape)
            p.requires_grad_(True)
        for p, value in self._frozen:
            p.data = value
            p.requires_grad_(False)
        for layer, name, value in self._constants:
            setattr(layer, name, value)
        for whole, slots in ((self.state, self.state_slots), (self.counts, self._count_slots)):
            for slot in slots:
                above, _, name = slot.name.rpartition(".")
                view = whole[slot.start : slot.stop].view(slot.shape)
                self.module.get_submodule(above).register_buffer(name, view)

    def _hold(self) -> None:
        """Take the module back, where another flat model has it, or somebody let go of gradients
        or froze what is trained.
        """
        if not self._has():
            self._take()

    def _has(self) -> bool:
        flat, grad, size = self.flat.data_ptr(), self.grad.data_ptr(), self.flat.element_size()
        for p, slot in zip(self._parameters, self.slots, strict=True):
            at = size * slot.start
            if p.data_ptr() != flat + at or not p.requires_grad:
                return False
            if p.grad is None or p.grad.data_ptr() != grad + at:
                return False
        return all(
            p.data_ptr() == value.data_ptr() and not p.requires_grad for p, value in self._frozen
        )

    def renew(self) -> None:
        """Begin another run: the module computes with these vectors, in the modes (of dropout and
        its like) that it had when this was made.

        Raises:
            UnsupportedModel: it has other parameters than then.

        >>> layers = nn.Sequential(nn.Linear(3, 2))
        >>> model = FlatModel(layers)
        >>> layers[0] = nn.Linear(3, 2)
        >>> model.renew()
        Traceback (most recent call last):
        ...
        privfl.core.errors.UnsupportedModel: the model's parameter '0.weight' is another one than...
        """
        now = dict(self.module.named_parameters())
        for name in [*self._named, *now]:
            if now.get(name) is not self._named.get(name):
                raise UnsupportedModel(
                    f"the model's parameter '{name}' is another one than when this was made of it:"
                    " replace layers in a copy (copy.deepcopy), or make this anew."
                )
        self._hold()
        for layer, mode in self._modes:
            layer.training = mode

    @property
    def s(self) -> int:
        """How many running means and variances there are."""
        return len(self.state)

    def __reduce__(self) -> tuple[Any, ...]:
        self._hold()
        module = copy.deepcopy(self.module)
        for layer, name, buffer in _buffers(module):  # a view would take the whole vector along
            layer.register_buffer(name.rpartition(".")[2], buffer.clone())
        return _flat_again, (type(self), module)

    def __deepcopy__(self, memo: dict[int, Any]) -> FlatModel:
        self._hold()
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
        self._hold()
        self.flat.copy_(parameters)

    def write_state(self, state: Vector) -> None:
        """Replace the running means and variances.

        Raises:
            BadUpdate: the vector has another length.

        >>> model = FlatModel(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
        >>> model.state
        tensor([0., 0., 1., 1.])
        >>> model.write_state(torch.arange(4.0))
        >>> model.module[1].running_var
        tensor([2., 3.])
        """
        if state.shape != self.state.shape:
            raise BadUpdate(
                f"the model has {self.s} running means and variances, and got a vector of shape"
                f" {tuple(state.shape)}."
            )
        self._hold()
        self.state.copy_(state)

    def parts(self, vector: Vector) -> dict[str, Tensor]:
        """Views of a flat vector, by parameter name, in the parameters' shapes."""
        return {slot.name: vector[slot.start : slot.stop].view(slot.shape) for slot in self.slots}

    def state_parts(self, state: Vector) -> dict[str, Tensor]:
        """Views of a vector of running means and variances [s], by buffer name."""
        return {
            slot.name: state[slot.start : slot.stop].view(slot.shape) for slot in self.state_slots
        }


def _flat_again(kind: type[FlatModel], module: nn.Module) -> FlatModel:
    """The flat model of a module that was copied, on the device where the copy's parameters are."""
    return kind(module, next(p for p in module.parameters() if p.requires_grad).device)


def running_layers(module: nn.Module) -> list[tuple[str, _NormBase]]:
    """The layers that keep running means and variances, by name, in the module's order.

    >>> [name for name, _ in running_layers(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))]
    ['1']
    """
    return [
        (name, layer)
        for name, layer in module.named_modules()
        if isinstance(layer, _NormBase) and layer.track_running_stats
    ]


def refuse_running_statistics(module: nn.Module) -> None:
    """Refuse layers that train through buffers, by name, where nothing says what becomes of them.

    Raises:
        UnsupportedModel: there is one.

    >>> refuse_running_statistics(nn.Sequential(nn.Linear(2, 2), nn.GroupNorm(1, 2)))
    """
    for name, layer in running_layers(module):
        raise UnsupportedModel(
            f"layer '{name}' is a {type(layer).__name__}: its running statistics are no parameters,"
            " so federated averaging loses them, and it mixes the samples of a batch, so per-sample"
            " privacy is impossible. Use GroupNorm."
        )


def _buffers(module: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """The buffers that training changes: their layer, their whole name, themselves."""
    for above, layer in running_layers(module):
        for name, buffer in layer.named_buffers(above, recurse=False):
            yield layer, name, buffer


def _constants(module: nn.Module, kept: set[str]) -> list[tuple[nn.Module, str, Tensor]]:
    """Copies of all other buffers: their layer, their own name, themselves. What is one tensor
    under several names stays one.
    """
    copies: dict[int, Tensor] = {}
    found = []
    for name, buffer in module.named_buffers(remove_duplicate=False):
        if name not in kept:
            above, _, own = name.rpartition(".")
            value = copies.setdefault(id(buffer), buffer.detach().clone())
            found.append((module.get_submodule(above), own, value))
    return found


def _as_one(
    buffers: list[tuple[nn.Module, str, Tensor]], dtype: torch.dtype, device: torch.device | str
) -> tuple[Tensor, tuple[Slot, ...]]:
    """One vector with all values of these buffers, and where each lies."""
    whole = torch.empty(sum(one.numel() for *_, one in buffers), dtype=dtype, device=device)
    slots: list[Slot] = []
    start = 0
    for _, name, buffer in buffers:
        stop = start + buffer.numel()
        whole[start:stop] = buffer.detach().reshape(-1)
        slots.append(Slot(name, buffer.shape, start, stop))
        start = stop
    return whole, tuple(slots)
