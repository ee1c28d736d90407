"""A computation that is repeated many times on tensors of one shape, as descents do: written down
once, then run again without the book-keeping of autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import getitem
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule

from privfl.attacks.inversion.held import held
from privfl.attacks.inversion.watched import Call, Doings, Eyes, Writer, alike, plain, tensors

Step: TypeAlias = Callable[..., tuple[Tensor, ...]]

WORTH = 150
"""Writing down takes as long as several calls, which as many calls as this save."""

_aten = torch.ops.aten
_SAME = {_aten.detach.default, _aten.alias.default, _aten.lift_fresh.default}
"""Operations that hand on what they are given, where nobody differentiates."""


class _Unrepeatable(Exception):
    """What was seen cannot be written down: it draws, or Python looks at values."""


class Repeated:
    """A step of tensors that returns tensors and may take gradients inside. It must be a function
    of its arguments, of the same number and shapes each time, and of tensors that nobody else
    changes meanwhile; what it returns has no graph, and is not to be written to.

    The first three calls run the step itself: the first is watched, the second and third write down
    its operations. Later ones run these alone: without those that do not depend on the arguments,
    and without autograd.
    The step itself is run from then on where the second and third did not do the same with the same
    tensors; where a step draws random numbers, changes what it holds (`held`: counters, lists,
    tensors put in the place of others), lets Python look at values (``if``, ``item``, numpy, text),
    compiles, or runs Python in a backward pass that is neither ours nor torch's; where what was
    written down fails, or differs from the step in any bit when both are run, at every call number
    that is a power of four; and where ``times``, how often it will be called, is less than `WORTH`.
    While it is written down, a call keeps every tensor that it makes, which autograd lets go of.

    Not seen are clocks, files, other processes, and attributes of modules and other libraries.

    >>> def slope(x: Tensor) -> tuple[Tensor, ...]:
    ...     free = x.detach().requires_grad_()
    ...     return torch.autograd.grad(free.pow(3).sum(), free)
    >>> step = Repeated(slope)
    >>> [float(step(torch.tensor([x]))[0]) for x in (1.0, 2.0, 3.0, 4.0, 5.0)]
    [3.0, 12.0, 27.0, 48.0, 75.0]
    >>> step.written
    True
    """

    def __init__(self, step: Step, times: int = WORTH) -> None:
        self.step = step
        self.calls = 0
        self._worth = times >= WORTH
        self._notes: Doings | None = None
        self._program: Callable[..., Any] | None = None
        self._constants: list[Tensor] = []

    @property
    def written(self) -> bool:
        """Whether calls run what was written down."""
        return self._program is not None

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What the step returns."""
        self.calls += 1
        if self.calls == 1 and self._worth:
            return self._watch(inputs)
        if self.calls == 2 and self._worth:
            return self._look(inputs)
        if self.calls == 3 and self._notes is not None:
            return self._write(inputs)
        if self._program is None:
            return self.step(*inputs)
        found = self._repeat(inputs)
        if found is None or _power_of_four(self.calls):
            true = self.step(*inputs)
            if found is None or not all(map(_same, found, true)):
                self._program, self._constants = None, []
            return true
        return found

    def _repeat(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """What the program returns; None where it fails (it never writes to its arguments)."""
        if self._program is None:
            return None
        with torch.inference_mode():
            try:
                found: tuple[Tensor, ...] = self._program(*inputs, *self._constants)
            except Exception:
                return None
        return found

    def _watch(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        with Eyes(compiling=True) as eyes:
            found = self.step(*inputs)
        self._worth = not eyes.read
        return found

    def _look(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        found, writer = self._run(inputs)
        if writer is not None:
            self._notes = Doings.of(writer, inputs)
        return found

    def _write(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        found, writer = self._run(inputs)
        before, self._notes = self._notes, None
        if writer is None or before is None or not before.is_as(Doings.of(writer, inputs)):
            return found
        try:
            self._program, self._constants = _program(writer.calls, inputs, found)
        except _Unrepeatable:
            self._program = None
        return found

    def _run(self, inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Writer | None]:
        """What the step returns, and what it did where that can be repeated."""
        kept = [x.clone() for x in inputs]
        before = held(self.step)
        try:
            with Eyes() as eyes, Writer() as writer:
                found = self.step(*inputs)
        except Exception:  # it may be that it does not stand to be watched
            for x, was in zip(inputs, kept, strict=True):
                x.copy_(was)
            return self.step(*inputs), None
        after = None if before is None or eyes.read else held(self.step)
        same = before is not None and after is not None and before.is_as(after)
        return found, writer if same and writer.repeatable else None


def _power_of_four(number: int) -> bool:
    return number & (number - 1) == 0 and number.bit_length() % 2 == 1


def _same(a: Tensor, b: Tensor) -> bool:
    return alike(a, b) and bool((a.real.signbit() == b.real.signbit()).all())


def _program(
    calls: list[Call], inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]
) -> tuple[Callable[..., Any], list[Tensor]]:
    """What was written down as a function of the inputs and of constants, and these.

    Raises:
        _Unrepeatable: an operation draws, reads a value, writes to what was there before, or is of
            tensors that are not plain.
    """
    own: set[int] = set()
    for call in calls:
        reads = call.func is _aten._local_scalar_dense.default
        if reads or torch.Tag.nondeterministic_seeded in call.func.tags or not plain(call.out):
            raise _Unrepeatable
        if not _overwritten(call) <= own:
            raise _Unrepeatable
        own |= _places(call.out) - _places((call.args, call.kwargs))
    kept = _depending(calls, inputs)
    if any(map(_open, kept)):
        raise _Unrepeatable
    made = {id(one) for call in kept for one in tensors(call.out)} | {id(x) for x in inputs}
    used = [one for call in kept for one in tensors((call.args, call.kwargs))]
    constants = {id(one): one for one in (*used, *outputs) if id(one) not in made}
    graph = Graph()
    nodes = {id(x): graph.placeholder(f"x{k}") for k, x in enumerate(inputs)}
    nodes |= {at: graph.placeholder(f"c{k}") for k, at in enumerate(constants)}

    def of(value: Any) -> Any:
        """What stands for a value in the program."""
        if isinstance(value, Tensor):
            return nodes[id(value)]
        return [of(part) for part in value] if isinstance(value, (tuple, list)) else value

    for call in kept:
        if call.func in _SAME:
            nodes[id(call.out)] = of(call.args[0])
            continue
        given = {name: of(value) for name, value in call.kwargs.items()}
        node = graph.call_function(call.func, tuple(map(of, call.args)), given)
        if isinstance(call.out, Tensor):
            nodes.setdefault(id(call.out), node)  # what is overwritten in place keeps its name
            continue
        for k, part in enumerate(call.out or ()):
            if isinstance(part, Tensor):
                nodes.setdefault(id(part), graph.call_function(getitem, (node, k)))
    graph.output(tuple(map(of, outputs)))
    graph.eliminate_dead_code()
    return GraphModule({}, graph).forward, list(constants.values())


def _open(call: Call) -> bool:
    """Whether the size of what comes out hangs on values."""
    if torch.Tag.dynamic_output_shape not in call.func.tags:
        return False
    by_place = call.func in (_aten.index.Tensor, _aten.index_put.default)
    return not by_place or any(one.dtype == torch.bool for one in tensors(call.args[1]))


def _depending(calls: list[Call], inputs: tuple[Tensor, ...]) -> list[Call]:
    """The operations that depend on the inputs, by way of the memory that they read and write; what
    is made of nothing and then overwritten by such a one depends too.
    """
    read = [_places((call.args, call.kwargs)) for call in calls]
    written = [_places(call.out) | _overwritten(call) for call in calls]
    varying, before = _places(inputs), -1
    while len(varying) != before:
        before = len(varying)
        for takes, makes in zip(read, written, strict=True):
            if not varying.isdisjoint(takes):
                varying |= makes
    return [
        call
        for call, takes, makes in zip(calls, read, written, strict=True)
        if not varying.isdisjoint(takes | makes)
    ]


def _overwritten(call: Call) -> set[int]:
    """Where in memory an operation writes over what it is given."""
    if not call.func._schema.is_mutable:
        return set()
    given = (*zip(call.func._schema.arguments, call.args, strict=False),)
    given += tuple(
        (one, call.kwargs[one.name])
        for one in call.func._schema.arguments
        if one.name in call.kwargs
    )
    return {
        place
        for one, value in given
        if one.alias_info is not None and one.alias_info.is_write
        for place in _places(value)
    }


def _places(value: Any) -> set[int]:
    """Where in memory the tensors of a value are."""
    return {one.untyped_storage()._cdata for one in tensors(value)}
