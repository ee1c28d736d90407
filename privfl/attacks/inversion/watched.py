"""What a function of tensors does while it runs: every operation, and whether Python looks at
values meanwhile.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from privfl.attacks.inversion.held import foreign

_SHAPES = {
    *(Tensor.size, Tensor.dim, Tensor.ndimension, Tensor.numel, Tensor.nelement, Tensor.stride),
    *(Tensor.storage_offset, Tensor.element_size, Tensor.is_contiguous, Tensor.get_device),
    *(Tensor.is_floating_point, Tensor.is_complex, Tensor.is_signed, Tensor.type, Tensor.__len__),
    *(Tensor.is_conj, Tensor.is_neg, Tensor.is_inference, Tensor.is_pinned, Tensor.__hash__),
    *(Tensor.is_same_size, Tensor.is_shared, Tensor.register_hook, Tensor.dim_order),
    *(torch.numel, torch.is_floating_point, torch.is_complex, torch.is_conj, torch.is_neg),
    *(torch.is_inference, torch.is_same_size, torch.is_tensor, torch.is_storage),
    *(torch.broadcast_shapes, torch.result_type, torch.promote_types, torch.can_cast),
}
"""What tells of tensors what is the same each time: so do their properties."""
_COPIES = {
    *(torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor, Tensor.new),
    *(torch.tensor_split, Tensor.tensor_split),
}
"""What looks at the values of tensors in lists, or at those of a tensor that says where."""
_ELSEWHERE = {Tensor.apply_, Tensor.map_, Tensor.map2_, Tensor.__deepcopy__, Tensor.__setstate__}
"""What computes where nobody sees it."""
_BACKWARD = {torch.autograd.grad, torch.autograd.backward, Tensor.backward}


class MemoryLayout(NamedTuple):
    """Where in memory a tensor is, and how it lies there."""

    place: int
    offset: Any
    shape: torch.Size
    stride: tuple[int, ...]

    @classmethod
    def of(cls, x: Tensor) -> MemoryLayout | None:
        """That of x [...] now: ``data`` can be set, and some operations in place turn a tensor
        around. None where a tensor is not plain.
        """
        if type(x) not in (Tensor, torch.nn.Parameter) or x.layout != torch.strided:
            return None
        return cls(x.untyped_storage()._cdata, x.storage_offset(), x.shape, x.stride())


class Call(NamedTuple):
    """An operation with what it was given and what came of it."""

    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Any


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage is collected meanwhile: who listens to that (as test tools do) would be taken for
    code of a step that is watched, and all that is noted would be looked through each time.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class Eyes(TorchFunctionMode):
    """Notes whether Python looks at a value, runs code in a backward pass that nobody can follow
    there, or, where ``compiling`` counts, has torch compile something: what it compiles while
    operations are noted is of no use afterwards. It is for `uncollected` time.
    """

    def __init__(self, *, compiling: bool = False) -> None:
        super().__init__()
        self._compiling = compiling
        self.read = sys.getprofile() is not None  # whoever profiles cannot be asked to wait
        self._backwards = 0

    def __enter__(self) -> Eyes:
        if not self.read and self._compiling:
            sys.setprofile(self._look)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *given: object) -> None:
        super().__exit__(*given)  # type: ignore[no-untyped-call]
        if sys.getprofile() == self._look:
            sys.setprofile(None)

    def _look(self, frame: FrameType, event: str, _: Any) -> None:
        """At what Python runs, also in backward passes, where function modes see nothing."""
        if event != "call" or self.read:
            return
        module = _module(frame)
        if self._backwards and foreign(module):
            caller = _module(frame.f_back)
            self.read = not (foreign(caller) or caller.startswith("privfl"))
        elif self._compiling and frame.f_code.co_name == "compile_wrapper":
            self.read = module.startswith("torch._dynamo")

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func in _BACKWARD:
            return self._backward(func, args, given)
        inner = func in _COPIES and any(
            _some_tensor(part)
            for part in (*args[1:], *given.values(), *args[:1])
            if not isinstance(part, Tensor) or part is not args[0]
        )
        out = func(*args, **given)
        self.read = self.read or inner or func in _ELSEWHERE or not (_tells(func) or plain(out))
        return out

    def _backward(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        others = sys.getprofile()
        if others is None:
            sys.setprofile(self._look)
        self.read = self.read or (others is not None and others != self._look)
        self._backwards += 1
        try:
            return func(*args, **kwargs)
        finally:
            self._backwards -= 1
            if others is None and sys.getprofile() == self._look:
                sys.setprofile(None)


def _module(frame: FrameType | None) -> str:
    """Whose code runs in a frame."""
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))


def _tells(func: Callable[..., Any]) -> bool:
    return func in _SHAPES or getattr(func, "__name__", "") == "__get__"


def plain(out: Any) -> bool:
    """Whether what came out are tensors."""
    if isinstance(out, (tuple, list)) and not isinstance(out, torch.Size):
        return all(map(plain, out))
    return out is None or isinstance(out, Tensor)


def _some_tensor(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_some_tensor, value))
    return isinstance(value, Tensor)


class Writer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation, those of autograd's passes among them, and whether all can be
    repeated.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self.layouts: dict[int, MemoryLayout] = {}
        self.roots: list[Tensor] = []
        self.turned: set[int] = set()
        self.repeatable = True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):
            self.repeatable = False
        if self.repeatable:
            self._seen((args, given), self.roots)
        out = func(*args, **given)
        if self.repeatable:
            self._turned(out)
            self._seen(out, [])
            self.calls.append(Call(func, args, given, out))
        return out

    def _turned(self, out: Any) -> None:
        """Note how tensors lie now that an operation turned around in place, which it does again
        whenever it is repeated.
        """
        for one in tensors(out):
            was, now = self.layouts.get(id(one)), MemoryLayout.of(one)
            if was is not None and now is not None and now != was and now.place == was.place:
                self.layouts[id(one)] = now
                self.turned.add(id(one))

    def _seen(self, value: Any, new: list[Tensor]) -> None:
        """Note tensors that were not there before."""
        for one in tensors(value):
            layout = MemoryLayout.of(one)
            if layout is None:
                self.repeatable = False
                return
            if id(one) not in self.layouts:
                self.layouts[id(one)] = layout
                new.append(one)
            self.repeatable = self.repeatable and self.layouts[id(one)] == layout


class Doings(NamedTuple):
    """What a call did, with tensors by number in the order in which they were seen; and those that
    were there before.
    """

    told: list[str]
    roots: list[Tensor | None]
    lifted: list[bool]

    @classmethod
    def of(cls, writer: Writer, inputs: tuple[Tensor, ...]) -> Doings:
        """From what was written down; arguments have no tensor, and have others each time."""
        numbers = {at: number for number, at in enumerate(writer.layouts)}
        given = {id(x) for x in inputs}
        roots = [None if id(x) in given else x for x in writer.roots]
        fresh = {
            id(call.args[0])
            for call in writer.calls
            if call.func is torch.ops.aten.lift_fresh.default
        }
        lifted = [id(x) in fresh for x in writer.roots]
        return cls([_told(call, numbers) for call in writer.calls], roots, lifted)

    def is_as(self, other: Doings) -> bool:
        """Whether the other call did the same with the same tensors: what was made by other means
        in between is another each time, and of a list of Python's numbers the values count.
        """
        if self.told != other.told or self.lifted != other.lifted:
            return False
        return all(
            a is b or (fresh and a is not None and b is not None and alike(a, b))
            for a, b, fresh in zip(self.roots, other.roots, self.lifted, strict=True)
        )


def _told(call: Call, numbers: Mapping[int, int]) -> str:
    """An operation and what it was given, in words."""

    def of(value: Any) -> Any:
        if isinstance(value, Tensor):
            return f"x{numbers[id(value)]}"
        if isinstance(value, Mapping):
            return {name: of(part) for name, part in value.items()}
        return [of(part) for part in value] if isinstance(value, (tuple, list)) else value

    return f"{call.func} {of(call.args)!r} {of(call.kwargs)!r} {of(call.out)!r}"


def alike(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors [...] have one shape, type and values (NaN is NaN)."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of a value, as operations take and return them."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors(part)
    elif isinstance(value, Mapping):
        yield from tensors(list(value.values()))
