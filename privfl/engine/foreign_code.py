"""The code of classes and functions that are not privfl's, as text: with defaults, what it closes
over, and the functions, classes and constants of its own modules that it names.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LIBRARIES = frozenset({"builtins", "numpy", "privfl", "torch"}) | sys.stdlib_module_names
_PLAIN = (bool, int, float, complex, str, bytes, tuple, frozenset, type(None))


def library(module: str) -> bool:
    """Whether the versions of a run stand for the code of a module.

    >>> library("torch.nn"), library("somebodys.rules")
    (True, False)
    """
    package = module.partition(".")[0]
    return package in _LIBRARIES


class Code:
    """Code as text; ``words`` says what a value is, where code closes over one or has it as a
    default. What is met again inside of itself is its name.
    """

    def __init__(self, words: Callable[[Any], str]) -> None:
        self._words = words
        self._met: dict[int, tuple[Any, str]] = {}

    def of_class(self, kind: type) -> str:
        """Of its methods, of whatever kind, and its constants, its bases' included."""
        if id(kind) in self._met:
            return self._met[id(kind)][1]
        self._met[id(kind)] = kind, f"{kind.__module__}:{kind.__qualname__}"
        members = [
            f"{name} {self._member(member)}"
            for one in kind.__mro__
            if not library(one.__module__)
            for name, member in vars(one).items()
        ]
        return self._kept(kind, " ".join(members))

    def _member(self, member: Any) -> str:
        if isinstance(member, staticmethod | classmethod):
            return self._member(member.__func__)
        if isinstance(member, property):
            return " ".join(map(self._member, (member.fget, member.fset, member.fdel)))
        if isinstance(member, functools.cached_property):
            return self._member(member.func)
        if isinstance(member, types.FunctionType):
            return self.of_function(member)
        return _said(member) if isinstance(member, _PLAIN) else ""

    def of_function(self, function: types.FunctionType) -> str:
        """Of a function, and what it computes with."""
        if id(function) in self._met:
            return self._met[id(function)][1]
        said = _of_code(function.__code__)
        if function.__code__.co_filename == "<string>":  # a data class wrote it, of its fields
            return said
        self._met[id(function)] = function, f"{function.__module__}:{function.__qualname__}"
        cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items()]
        held = self._words([*cells, *defaults])
        named = [self._named(value) for value in _globals(function)]
        return self._kept(function, f"{said} {held} {named}")

    def _kept(self, value: Any, text: str) -> str:
        """The hash of its text, held with it, so that nothing else gets its id."""
        self._met[id(value)] = value, hashlib.sha256(text.encode()).hexdigest()
        return self._met[id(value)][1]

    def _named(self, value: Any) -> str:
        """What stands under a name in a function's module."""
        if isinstance(value, types.FunctionType) and _own(value.__module__):
            return self.of_function(value)
        if isinstance(value, type) and _own(value.__module__):
            return self.of_class(value)
        return _said(value) if isinstance(value, _PLAIN) else ""


def _globals(function: types.FunctionType) -> list[Any]:
    """What a function's code names in its module, and in modules of that one."""
    found: list[Any] = []
    names = _names(function.__code__)
    for name in names:
        value = function.__globals__.get(name)
        found.append(value)
        if isinstance(value, types.ModuleType) and _own(value.__name__):
            found += [vars(value).get(inner) for inner in names]
    return found


def _names(code: types.CodeType) -> list[str]:
    inner = [one for one in code.co_consts if isinstance(one, types.CodeType)]
    return [*code.co_names, *(name for one in inner for name in _names(one))]


def _own(module: str | None) -> bool:
    """Whether a module is of the run's own code, and no installed package's."""
    if module is None or library(module):
        return False
    there = sys.modules.get(module)
    file = None if there is None else vars(there).get("__file__")
    return "site-packages" not in Path(file or "").parts


def _filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _of_code(code: types.CodeType) -> str:
    inner = "".join(_of_code(one) for one in code.co_consts if isinstance(one, types.CodeType))
    plain = [_said(one) for one in code.co_consts if not isinstance(one, types.CodeType)]
    return f"{code.co_code.hex()} {code.co_names} {plain} {inner}"


def _said(value: Any) -> str:
    """A constant, the same in every process."""
    if isinstance(value, frozenset):
        return f"{{{', '.join(sorted(map(repr, value)))}}}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_said, value))})"
    return repr(value) if isinstance(value, _PLAIN) else type(value).__qualname__
