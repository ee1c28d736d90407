"""A computation that is repeated many times on tensors of one shape, as descents do: written down
once, then run again without the book-keeping of autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from privfl.attacks.inversion.held import held
from privfl.attacks.inversion.program import Unrepeatable, program
from privfl.attacks.inversion.watched import Doings, Eyes, Writer, alike, uncollected

Step: TypeAlias = Callable[..., tuple[Tensor, ...]]

WORTH = 150
"""Writing down takes as long as several calls, which as many calls as this save."""
_NOTED = 3
"""So many calls run the step itself, and are watched."""


class _Kind(NamedTuple):
    """What operations can see of an argument beside its values."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    marks: tuple[bool, ...]

    @classmethod
    def of(cls, x: Tensor) -> _Kind:
        marks = (x.is_conj(), x.is_neg(), x.requires_grad)
        return cls(x.shape, x.stride(), x.dtype, x.device, marks)


class Repeated:
    """A step of tensors that returns tensors and may take gradients inside. It must be a function
    of its arguments, of the same number each time, and of tensors that nobody else changes
    meanwhile; what it returns has no graph, and is not to be written to.

    The first three calls run the step itself: the first is watched, the second and third write down
    its operations. Later ones run these alone: without those that do not depend on the arguments,
    and without autograd.
    The step itself is run for arguments of another shape, layout or type than the third call's. It
    is run from then on where the second and third did not do the same with the same tensors; where
    two of their arguments were one tensor, or one was a tensor that the step holds; where a step
    draws random numbers, changes what it holds (`held`: counters, lists, tensors put in the place
    of others), lets Python look at values (``if``, ``item``, numpy, text), compiles, or runs Python
    in a backward pass that is neither ours nor torch's; where what was written down fails, or
    differs from the step in any bit when both are run, at every call number that is a power of
    four; and where ``times``, how often it will be called, is less than `WORTH`. While it is
    written down, a call keeps every tensor that it makes, which autograd lets go of.

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
        self._kinds: list[_Kind] = []

    @property
    def written(self) -> bool:
        """Whether calls run what was written down."""
        return self._program is not None

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What the step returns."""
        self.calls += 1
        if self._worth and self.calls <= _NOTED:
            with uncollected():
                return self._noted(inputs)
        if self._program is None or self._kinds != list(map(_Kind.of, inputs)):
            return self.step(*inputs)
        found = self._repeat(inputs)
        if found is None or _power_of_four(self.calls):
            true = self.step(*inputs)
            if found is None or not all(map(_same, found, true)):
                self._program, self._constants = None, []
            return true
        return found

    def _noted(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.calls == 1:
            return self._watch(inputs)
        return self._look(inputs) if self.calls == _NOTED - 1 else self._write(inputs)

    def _repeat(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """What the program returns; None where it fails (it never writes to its arguments)."""
        if self._program is None:
            return None
        # inference_mode would do, but for what comes out, which may not be differentiated by others
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
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
        if self._notes is None:
            return self.step(*inputs)
        found, writer = self._run(inputs)
        before, self._notes = self._notes, None
        if writer is None or before is None or not before.is_as(Doings.of(writer, inputs)):
            return found
        try:
            self._program, self._constants = program(writer, inputs, found)
        except Unrepeatable:
            self._program = None
        self._kinds = list(map(_Kind.of, inputs))
        return found

    def _run(self, inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Writer | None]:
        """What the step returns, and what it did where that can be repeated."""
        kept = [x.clone() for x in inputs]
        before = held(self.step)
        if before is None or _ambiguous(inputs, before.objects):
            return self.step(*inputs), None
        try:
            with Eyes() as eyes, Writer() as writer:
                found = self.step(*inputs)
        except Exception:  # it may be that it does not stand to be watched
            with torch.no_grad():
                for x, was in zip(inputs, kept, strict=True):
                    if not _same(x, was):  # nobody writes to some, such as expanded ones
                        x.copy_(was)
            return self.step(*inputs), None
        after = None if eyes.read else held(self.step)
        same = after is not None and before.is_as(after)
        return found, writer if same and writer.repeatable else None


def _power_of_four(number: int) -> bool:
    return number & (number - 1) == 0 and number.bit_length() % 2 == 1


def _ambiguous(inputs: tuple[Tensor, ...], others: list[object]) -> bool:
    """Whether one tensor is two arguments, or an argument and something else that a step holds:
    nobody can tell of what is done with it which of the two it was.
    """
    given = set(map(id, inputs))
    return len(given) < len(inputs) or not given.isdisjoint(map(id, others))


def _same(a: Tensor, b: Tensor) -> bool:
    if not alike(a, b):
        return False
    if a.is_complex():
        a, b = torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj())
    return bool((a.signbit() == b.signbit()).all())
