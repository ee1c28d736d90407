"""What a function holds from one call to the next, so that somebody can see whether a call changed
it.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from types import BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_KNOWN = {"privfl", "torch", "numpy", "jaxtyping", *sys.stdlib_module_names}
"""Of these packages, classes and functions keep nothing themselves."""


class KeptState(NamedTuple):
    """What was found, and the objects themselves, without which another could have their place."""

    found: list[Any]
    objects: list[Any]

    def is_as(self, other: KeptState) -> bool:
        """Whether nothing changed in between."""
        return self.found == other.found


def foreign(module: str | None) -> bool:
    """Whether a module is neither ours nor of torch, numpy or Python (of whose named tuples each
    has a module of its own).
    """
    name = (module or "").partition(".")[0]
    return name not in _KNOWN and not name.startswith("namedtuple_")


def held(function: Any) -> KeptState | None:
    """The objects that a function reaches by its arguments, closure, attributes and, where it is
    not of a library, the globals that it names; and where random numbers of Python and numpy are.
    Tensors are told apart by identity, not by value. None where something is among them that hands
    on another value each time (an iterator), or that cannot be looked into (TorchScript).

    >>> counts = [0]
    >>> before = held(counts.append)
    >>> counts.append(1)
    >>> before.is_as(held(counts.append))
    False
    """
    found: list[Any] = [random.getstate(), repr(np.random.get_state())]  # noqa: NPY002
    objects: list[Any] = []
    seen: set[int] = set()
    left = deque(_parts(function))  # a method is another object each time that it is asked for
    while left:
        one = left.popleft()
        if isinstance(one, _PLAIN):
            found.append((type(one), repr(one)))
            continue
        found.append(id(one))
        if id(one) in seen:
            continue
        seen.add(id(one))
        objects.append(one)
        if isinstance(one, (torch.ScriptFunction, torch.jit.ScriptModule)):
            return None
        if isinstance(one, Iterator):
            return None
        parts = list(_parts(one))
        found.append(len(parts))
        left.extend(parts)
    return KeptState(found, objects)


def _parts(one: Any) -> Iterator[Any]:
    if isinstance(one, (Tensor, ModuleType, torch.dtype, torch.device)):
        return
    if isinstance(one, np.ndarray):
        yield one.tobytes()
    elif isinstance(one, random.Random):
        yield repr(one.getstate())
    elif isinstance(one, (np.random.Generator, np.random.RandomState)):
        bits = one.bit_generator if isinstance(one, np.random.Generator) else one._bit_generator
        yield repr(bits.state)
    elif isinstance(one, torch.Generator):
        yield bytes(one.get_state().tolist())
    elif isinstance(one, FunctionType):
        yield from _of_function(one)
    elif isinstance(one, MethodType):
        yield from (one.__self__, one.__func__)
    elif isinstance(one, BuiltinMethodType):
        yield one.__self__
    elif isinstance(one, partial):
        yield from (one.func, one.args, one.keywords)
    elif isinstance(one, type):
        if foreign(one.__module__):
            yield from _of_mapping(dict(vars(one)))
    else:
        yield from _of_instance(one)


def _of_function(one: FunctionType) -> Iterator[Any]:
    for cell in one.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # nothing was put there yet
            yield None
    yield from _of_mapping(dict(vars(one)))
    if foreign(one.__module__):
        yield from (one.__defaults__, one.__kwdefaults__)
        for name in sorted(_names(one.__code__)):
            if name in one.__globals__:
                yield one.__globals__[name]


def _names(code: CodeType) -> set[str]:
    inner = (_names(part) for part in code.co_consts if isinstance(part, CodeType))
    return set(code.co_names).union(*inner)


def _of_instance(one: Any) -> Iterator[Any]:
    if isinstance(one, Mapping):
        yield from _of_mapping(one)
    elif isinstance(one, (list, tuple, deque)):
        yield from one
    elif isinstance(one, (set, frozenset)):
        yield from sorted(one, key=id)
    if foreign(type(one).__module__):
        yield type(one)
    yield from _of_mapping(getattr(one, "__dict__", {}))
    for kind in type(one).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if not name.startswith("__"):
                yield getattr(one, name, None)


def _of_mapping(given: Mapping[Any, Any]) -> Iterator[Any]:
    for name, value in list(given.items()):
        yield name
        yield value
