"""What was noted of a computation, as a function that does it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from privfl.attacks.inversion.watched import Call, Writer, plain, tensors

_aten = torch.ops.aten
_SAME = {_aten.detach.default, _aten.alias.default, _aten.lift_fresh.default}
"""Operations that hand on what they are given, where nobody differentiates."""
_UNSAID = {
    *(_aten.native_batch_norm.default, _aten.cudnn_batch_norm.default),
    _aten.miopen_batch_norm.default,
}
"""Operations that, in training, write to their running statistics without saying so."""
_TRAINING, _STATISTICS = 5, slice(3, 5)
"""Where among their arguments that is said, and where those are."""

_ARITHMETIC = {
    *(_aten.add.Tensor, _aten.sub.Tensor, _aten.mul.Tensor, _aten.div.Tensor),
    *(_aten.add_.Tensor, _aten.sub_.Tensor, _aten.mul_.Tensor, _aten.div_.Tensor),
}
"""Operations that make a tensor of a number each time, before they compute with it in the other's
type.
"""

_QUICK = {
    **{_aten.add.Tensor: torch.add, _aten.sub.Tensor: torch.sub, _aten.mul.Tensor: torch.mul},
    **{_aten.div.Tensor: torch.div, _aten.addcmul.default: torch.addcmul},
    **{_aten.add_.Tensor: Tensor.add_, _aten.mul_.Tensor: Tensor.mul_},
    **{_aten.addcmul_.default: Tensor.addcmul_, _aten.view.default: Tensor.view},
    **{_aten.sum.dim_IntList: torch.sum, _aten.select.int: torch.select},
}
"""The same operations by the names that are quicker to call: half of a small one is its call."""


class Unrepeatable(Exception):
    """What was seen cannot be written down: it draws, or Python looks at values."""


def program(
    writer: Writer, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]
) -> tuple[Callable[..., Any], list[Tensor]]:
    """What was noted as a function of the inputs and of constants, and these.

    Raises:
        Unrepeatable: an operation draws, reads a value, writes to what was there before, or is of
            tensors that are not plain.
    """
    own: set[int] = set()
    for call in writer.calls:
        reads = call.func is _aten._local_scalar_dense.default
        if reads or torch.Tag.nondeterministic_seeded in call.func.tags or not plain(call.out):
            raise Unrepeatable
        if not _overwritten(call) <= own:
            raise Unrepeatable
        own |= _places(call.out) - _places((call.args, call.kwargs))
    kept = _depending(writer.calls, inputs)
    if any(map(_open, kept)):
        raise Unrepeatable
    made = {id(one) for call in kept for one in tensors(call.out)} | {id(x) for x in inputs}
    used = [one for call in kept for one in tensors((call.args, call.kwargs))]
    constants = {id(one): one for one in (*used, *outputs) if id(one) not in made}
    arguments = [*map(id, inputs), *constants]
    return _function(kept, writer.turned, arguments, outputs), list(constants.values())


_REST = "*_"


class _Line(NamedTuple):
    """A call in the text of a function: what it reads, and the names of what comes out (none where
    that has a name already, since it was overwritten).
    """

    text: str
    reads: set[str]
    makes: list[str]
    overwrites: bool

    def named(self, wanted: set[str]) -> str:
        """The line, with names for what is wanted alone."""
        if not self.makes:
            return self.text
        names = (one if one in wanted or one == _REST else "_" for one in self.makes)
        return f"{', '.join(names)} = {self.text}"

    def counts(self, wanted: set[str]) -> bool:
        """Whether it is done at all: what makes nothing is there to complain."""
        return self.overwrites or not self.makes or not wanted.isdisjoint(self.makes)


class _Constant(NamedTuple):
    """A number as a tensor."""

    tensor: Tensor


def _function(
    calls: list[Call], turned: set[int], arguments: list[int], outputs: tuple[Tensor, ...]
) -> Callable[..., Any]:
    """A function of these arguments, tensors by identity, that does the calls that count for the
    outputs and returns them; it lets go of every tensor after its last use.
    """
    names = {at: f"a{k}" for k, at in enumerate(arguments)}
    known: dict[str, Any] = {}
    lines = []
    for call in calls:
        first = call.args[0] if call.args else None
        if call.func in _SAME and turned.isdisjoint((id(first), id(call.out))):
            names[id(call.out)] = names[id(first)]
        else:
            lines.append(_line(call, names, known))
    given = ", ".join(f"a{k}" for k in range(len(arguments)))
    returned = [names[id(one)] for one in outputs]
    wanted = set(returned)
    text = [f" return ({''.join(f'{name}, ' for name in returned)})"]
    for line in reversed(lines):
        if not line.counts(wanted):
            continue
        last = line.reads - wanted
        if last:
            text.append(f" del {', '.join(sorted(last))}")
        text.append(f" {line.named(wanted)}")
        wanted |= line.reads
    text.append(f"def repeat({given}):")
    code = compile("\n".join(reversed(text)), "<what was noted of a computation>", "exec")
    exec(code, known)  # noqa: S102  # names and numbers that were made here alone
    repeat: Callable[..., Any] = known["repeat"]
    return repeat


def _line(call: Call, names: dict[int, str], known: dict[str, Any]) -> _Line:
    """A call as text, with names for what it makes; ``known`` takes what is no tensor.

    Raises:
        Unrepeatable: it makes lists within lists.
    """
    reads: set[str] = set()

    def of(value: Any) -> str:
        if isinstance(value, _Constant):
            value = value.tensor
        elif isinstance(value, Tensor):
            reads.add(name := names[id(value)])
            return name
        if isinstance(value, (tuple, list)):
            return f"[{', '.join(map(of, value))}]"
        if value is None or type(value) in (bool, int):
            return repr(value)
        known[name := f"k{len(known)}"] = value
        return name

    parts = [of(value) for value in _ready(call)]
    parts += [f"{name}={of(value)}" for name, value in call.kwargs.items()]
    known[func := f"k{len(known)}"] = _QUICK.get(call.func, call.func._op)
    makes = []
    single = isinstance(call.out, Tensor)
    for part in (call.out,) if single else call.out or ():
        if isinstance(part, (tuple, list)):
            raise Unrepeatable
        fresh = isinstance(part, Tensor) and id(part) not in names
        makes.append(f"v{len(names)}" if fresh else "_")
        if fresh:
            names[id(part)] = makes[-1]
    if all(one == "_" for one in makes):
        makes = []
    elif not single and len(makes) == 1:
        makes.append(_REST)  # one of a tuple
    overwrites = bool(call.func._schema.is_mutable)
    return _Line(f"{func}({', '.join(parts)})", reads, makes, overwrites)


def _ready(call: Call) -> tuple[Any, ...]:
    """The arguments of a call, a number that it would make a tensor of as that tensor."""
    made, dtypes = call.out, (torch.float32, torch.float64)
    if call.func not in _ARITHMETIC or made.dtype not in dtypes:
        return call.args
    first, second, *rest = call.args
    if type(second) not in (int, float) or first.dtype != made.dtype:
        return call.args
    return (first, _Constant(torch.tensor(second, dtype=made.dtype)), *rest)


def _open(call: Call) -> bool:
    """Whether the size of what comes out hangs on values."""
    if call.func is _aten._pack_padded_sequence.default:
        return True  # which torch has not marked
    if torch.Tag.dynamic_output_shape not in call.func.tags:
        return False
    by_place = call.func in (_aten.index.Tensor, _aten.index_put.default)
    masks = (torch.bool, torch.uint8)
    return not by_place or any(one.dtype in masks for one in tensors(call.args[1]))


def _depending(calls: list[Call], inputs: tuple[Tensor, ...]) -> list[Call]:
    """The operations that depend on the inputs, by way of the memory that they read and write; what
    is made of nothing and then overwritten by such a one depends too, and so does what is
    overwritten by whomever after such a one read it: there it has another value than at the end.
    """
    read = [_places((call.args, call.kwargs)) for call in calls]
    changed = [_overwritten(call) for call in calls]
    written = [_places(call.out) | new for call, new in zip(calls, changed, strict=True)]
    varying, before = _places(inputs), -1
    while len(varying) != before:
        before = len(varying)
        shown: set[int] = set()
        for takes, new, makes in zip(read, changed, written, strict=True):
            varying |= shown & new
            if not varying.isdisjoint(takes):
                varying |= makes
                shown |= takes
    return [
        call
        for call, takes, makes in zip(calls, read, written, strict=True)
        if not varying.isdisjoint(takes | makes)
    ]


def _overwritten(call: Call) -> set[int]:
    """Where in memory an operation writes over what it is given."""
    if call.func in _UNSAID and call.args[_TRAINING]:
        return _places(call.args[_STATISTICS])
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
