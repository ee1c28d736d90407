"""Every annotation of privfl, shapes included, is checked while tests run; small nets run on one
thread.

`jaxtyping.install_import_hook` checks the same, but binds the signature and checks the parameters
twice at each call, which doubled the time of the whole suite. Here a call is checked once, by
beartype, and only functions that speak of arrays get a scope of their own for their shapes.
"""

import ast
import builtins
import contextlib
import functools
import gc
import importlib.machinery
import inspect
import itertools
import os
import random
import re
import sys
import types
import typing
import weakref
import zlib
from abc import ABCMeta
from dataclasses import is_dataclass
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from beartype import BeartypeConf, beartype
from beartype._decor._nontype import decornontype
from beartype.roar import BeartypeDecorHintException
from jaxtyping import AbstractArray, TypeCheckError
from jaxtyping._array_types import _anonymous_dim, _FixedDim, _NamedDim
from jaxtyping._storage import _shape_storage, push_shape_memo

PACKAGE, MARK = "privfl", "__checked__"
CHECK = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeCheckError))


def of_arrays(hint):
    """Whether a shape stands anywhere in a hint."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    inner = hint if isinstance(hint, list) else typing.get_args(hint)
    return any(of_arrays(each) for each in inner)


QUOTED, NAMED = re.compile(r"""(["']).*?\1"""), re.compile(r"(?<![\w.])[^\W\d]\w*")


@functools.cache
def names_in(hint):
    """The names that a hint speaks of, where it is written in words."""
    return frozenset(NAMED.findall(QUOTED.sub("", hint)))


def unknown(fn):
    """What has a hint of a function that names a class which does not exist yet."""
    at_hand, builtin = fn.__globals__.keys(), vars(builtins).keys()
    return frozenset(
        name
        for name, hint in fn.__annotations__.items()
        if isinstance(hint, str) and not names_in(hint) <= at_hand | builtin
    )


def resolved(fn, unasked=frozenset()):
    """The hints of a function, of which some are not asked for; what names a class that does not
    exist is not checked either.
    """

    def one(hint):
        def probe(value: hint): ...

        try:
            return typing.get_type_hints(probe, fn.__globals__, include_extras=True)["value"]
        except Exception:
            return typing.Any

    return {
        name: typing.Any if name in unasked else one(hint)
        for name, hint in fn.__annotations__.items()
    }


def hollow(fn, hints):
    """The same signature over cells that hold nothing: what beartype compiles its check from. A
    generator's is one of a function that returns it, or its check would wait for the first step.
    """
    code = fn.__code__.replace(co_flags=fn.__code__.co_flags & ~inspect.CO_GENERATOR)
    cells = tuple(types.CellType() for _ in fn.__code__.co_freevars)
    copy = types.FunctionType(code, fn.__globals__, fn.__name__, fn.__defaults__, cells)
    copy.__kwdefaults__, copy.__annotations__ = fn.__kwdefaults__, hints
    copy.__qualname__, copy.__module__ = fn.__qualname__, fn.__module__
    return copy


def strict(empty):
    """The check of a signature; nothing of a hint that beartype refuses, such as a variable that is
    bound to a class by its name.
    """
    try:
        return CHECK(empty)
    except BeartypeDecorHintException:
        hints = empty.__annotations__
        for name, hint in hints.items():
            empty.__annotations__ = {name: hint}
            try:
                CHECK(empty)
            except BeartypeDecorHintException:
                hints = {**hints, name: typing.Any}
        empty.__annotations__ = hints
        return CHECK(empty)


COINS = random.Random(0).getrandbits
"""Say which item of a list is looked at: Python's own stay as they are."""


@functools.cache
def ours():
    """What checks are made of, as a module of the package's: whoever looks from where a function is
    called sees the package alone.
    """
    return globals() | {"__name__": PACKAGE}


KNOWN: dict[int, tuple[types.CodeType, list]] = {}
"""By the address of a piece of code, which is kept with it: the code, and the checks compiled so
far for it. A function inside another is defined anew at each call of that one, and shares them.
"""
CHECKS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
"""Every check that is alive with its code, so that `unchecked` finds it and gives it back."""


def unguarded(*args, __beartype_func, **kwargs):
    """The code of a check while nothing is to be checked, and of one that asks for nothing."""
    return __beartype_func(*args, **kwargs)


PITH = re.compile(
    r"""(?:\(\s*args\[\d+\] if __beartype_args_len > \d+ else\s*)?"""
    r"""kwargs\.get\('(\w+)', __beartype_get_violation\)(?:\n {4}\))?"""
    r"""(\s+(?:\#.*\s+)*if )__beartype_pith_0 is not __beartype_get_violation:"""
)
"""Where beartype looks for an argument of any name among positional and named ones."""
OF_KIND = re.compile(r"isinstance\((__beartype_pith_\d+), (__beartype_object_\d+)\)")
PLAIN = (type(None), bool, int, float, str, bytes, tuple, frozenset)
MAKE, NUMBERS = decornontype.make_func, itertools.count()
ABSTRACT = (ABCMeta, type(typing.Protocol))
WORDS = re.compile(r"#.*|'[^'\n]*'|(\b[A-Za-z_]\w*)")
"""The names in the source of a check, and what is none: comments and strings."""
ADDED = {"is_of_kind", "push_shape_memo", "_shape_storage"}
"""Names that `direct` adds to a check."""
ODD = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | inspect.CO_COROUTINE


def is_of_kind(value, kind, seen):
    """Whether a value is of an abstract kind, or of one of several; a type of which that holds
    whatever its instances hold is noted, for asking costs several times as much as a look there.
    """
    if not isinstance(value, kind):
        return False
    own = type(value)
    if not any(
        type(one) is not type
        and (type(one) not in ABSTRACT or (is_protocol(one) and asked_of_instances(one, own)))
        for one in (kind if type(kind) is tuple else (kind,))
    ):
        seen.add(own)
    return True


def is_protocol(kind):
    return getattr(kind, "_is_protocol", False)


def made(*, func_code, func_locals, **rest):
    """What beartype makes of the source of a check, with the parameters of the checked function in
    place of any: packing them, looking for each by its name and unpacking them took most of the
    time of a check.
    """
    return direct(func_code, func_locals) or MAKE(
        func_code=func_code, func_locals=func_locals, **rest
    )


def direct(source, hidden):
    """A check by that source with parameters of its own, or nothing where it has unusual ones."""
    fn = hidden["__beartype_func"]
    code = fn.__code__
    every = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    spoken = ADDED.union(match[1] for match in WORDS.finditer(source))  # no parameter may be one
    if code.co_flags & ODD or code.co_posonlyargcount or not spoken.isdisjoint(every):
        return None
    places, named = every[: code.co_argcount], every[code.co_argcount :]
    by_default = dict(zip(reversed(places), reversed(fn.__defaults__ or ()), strict=False))
    by_default |= fn.__kwdefaults__ or {}
    scope = ours()
    number = next(NUMBERS)
    names = {"__beartype_call_curr": f"__beartype_call_{number}"}
    for name, value in {**hidden, "__beartype_getrandbits": COINS}.items():
        used = name in source and name != "__beartype_func"
        if used and scope.setdefault(names.get(name, name), value) is not value:
            return None

    def given(match):
        name, asked = match[1], "True"
        if name in by_default and not isinstance(by_default[name], PLAIN):
            # such as what stands for a dataclass's factory until it is called
            asked = f"__beartype_pith_0 is not default_{number}_{name}"
            scope[f"default_{number}_{name}"] = by_default[name]
        return f"{name}{match[2]}{asked}:"

    def of_kind(match):
        kind = hidden[match[2]]
        if not any(type(one) in ABSTRACT for one in (kind if type(kind) is tuple else (kind,))):
            return match[0]
        seen = f"seen_{match[2]}"
        scope.setdefault(seen, set())
        return f"(type({match[1]}) in {seen} or is_of_kind({match[1]}, {match[2]}, {seen}))"

    _, body = source.split("**kwargs\n):\n", 1)
    body = body.replace("    __beartype_args_len = len(args)\n", "", 1)
    body = OF_KIND.sub(of_kind, PITH.sub(given, body))
    passed = ", ".join([*places, *(f"{name}={name}" for name in named)])
    body = body.replace("__beartype_func(*args, **kwargs)", f"__beartype_func({passed})")
    body = body.replace("__beartype_call_curr", names["__beartype_call_curr"])
    if re.search(r"\b(?:kw)?args\b", body):
        return None
    if getattr(fn, "__scoped__", False):  # shapes hold for one call alone
        lines = ["    try:", "        _shape_storage.memo_stack.append(({}, {}, {}, {}))"]
        lines += ["    except AttributeError:", "        push_shape_memo({})", "    try:"]
        lines += [f"    {line}" for line in body.splitlines()]
        body = "\n".join([*lines, "    finally:", "        _shape_storage.memo_stack.pop()", ""])
    head = ", ".join([*places, "*", *named, "__beartype_func"])
    space = {}
    where = f"<check {number} of {fn.__module__}.{fn.__qualname__}>"
    source = f"def {fn.__name__}({head}):\n{body}"
    exec(compile(source, where, "exec"), scope, space)  # noqa: S102
    check = space[fn.__name__]
    check.__defaults__ = fn.__defaults__
    check.__kwdefaults__ = {**(fn.__kwdefaults__ or {}), "__beartype_func": fn}
    check.__direct__ = True
    return check


def scoped(*args, __check, **kwargs):
    """The code of a check of unusual parameters whose shapes hold for one call alone."""
    push_shape_memo({})
    try:
        return __check(*args, **kwargs)
    finally:
        _shape_storage.memo_stack.pop()


def first(*args, __beartype_func, __own, __unasked, **kwargs):
    """The code of a check before its first call, which compiles it: most functions are called by
    the tests of one process alone, or by none.
    """
    own = __own()
    compiled(own, known_or_made(__beartype_func, __unasked))
    return own(*args, **kwargs)


def known_or_made(fn, unasked):
    """A check compiled for a function's code and hints."""
    _, known = KNOWN.setdefault(id(fn.__code__), (fn.__code__, []))
    found = next((each for each in known if each[0] == fn.__annotations__), None)
    if found is None:
        hints = resolved(fn, unasked)
        empty = hollow(fn, hints)
        empty.__scoped__ = any(map(of_arrays, hints.values()))
        check = strict(empty)
        found = (fn.__annotations__, None if check is empty else check, empty.__scoped__)
        known.append(found)
    return found


def compiled(own, found):
    """Puts a compiled check in the place of a function that stands for it."""
    _, check, arrays = found
    fn = own.__kwdefaults__["__beartype_func"]
    code, defaults = unguarded.__code__, {"__beartype_func": fn}
    if check is not None:
        code, defaults = check.__code__, {**check.__kwdefaults__, "__beartype_func": fn}
        if hasattr(check, "__direct__"):
            own.__defaults__, defaults = fn.__defaults__, defaults | (fn.__kwdefaults__ or {})
        else:
            if "__beartype_getrandbits" in defaults:
                defaults["__beartype_getrandbits"] = COINS
            if arrays:
                inner = types.FunctionType(code, ours(), fn.__name__)
                inner.__kwdefaults__ = defaults
                code, defaults = scoped.__code__, {"__check": inner, "__beartype_func": fn}
    # a thread that calls between two of these lines finds what either code asks for
    own.__kwdefaults__ = own.__kwdefaults__ | defaults
    CHECKS[own] = code
    own.__code__ = unguarded.__code__ if jaxtyping.config.jaxtyping_disable else code


def likened(check, fn):
    """What `functools.update_wrapper` does, where the names of one function change."""
    check.__module__, check.__name__, check.__qualname__ = (
        fn.__module__,
        fn.__name__,
        fn.__qualname__,
    )
    check.__doc__, check.__annotations__ = fn.__doc__, fn.__annotations__
    if fn.__dict__:
        check.__dict__.update(fn.__dict__)
    check.__wrapped__ = fn
    return check


def checked(fn):
    """A function, or the constructor of a dataclass, whose arguments and result are checked."""
    if isinstance(fn, type):
        if is_dataclass(fn) and isinstance(fn.__init__, types.FunctionType):
            fn.__init__ = checked(fn.__init__)
        return fn
    if hasattr(fn, "__wrapped__"):
        return fn
    if not fn.__annotations__:
        return fn
    own = types.FunctionType(first.__code__, ours(), fn.__name__)
    own.__kwdefaults__ = {"__beartype_func": fn}
    _, known = KNOWN.get(id(fn.__code__), (None, ()))
    found = next((each for each in known if each[0] == fn.__annotations__), None)
    if found is not None:
        compiled(own, found)
    else:
        own.__kwdefaults__ |= {"__own": weakref.ref(own), "__unasked": unknown(fn)}
        CHECKS[own] = first.__code__
        if jaxtyping.config.jaxtyping_disable:  # what is loaded now is checked when this is over
            own.__code__ = unguarded.__code__
    return likened(own, fn)


class Marked(ast.NodeTransformer):
    """Puts the mark next to every function (but coroutines) and above every class."""

    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        node.decorator_list.append(ast.copy_location(ast.Name(MARK, ast.Load()), node))
        return node

    def visit_ClassDef(self, node):
        self.generic_visit(node)
        node.decorator_list.insert(0, ast.copy_location(ast.Name(MARK, ast.Load()), node))
        return node


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a module with its functions marked, and keeps its bytecode under a name of its own."""

    ending = f".checked-{zlib.crc32(Path(__file__).read_bytes()):08x}.pyc"

    def source_to_code(self, data, path, *, _optimize=-1):
        tree = Marked().visit(ast.parse(data, path))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def get_data(self, path):
        return super().get_data(path.replace(".pyc", self.ending))

    def set_data(self, path, data, **mode):
        super().set_data(path.replace(".pyc", self.ending), data, **mode)

    def exec_module(self, module):
        vars(module)[MARK] = checked
        super().exec_module(module)


class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target) if name.split(".")[0] == PACKAGE else None
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "needs(*names): data sets without which the test is skipped, by their names"
    )


@contextlib.contextmanager
def paused():
    """Nothing is checked in here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        for check in list(CHECKS):
            check.__code__ = unguarded.__code__
        try:
            yield
        finally:
            for check, code in list(CHECKS.items()):
                check.__code__ = code


@pytest.fixture
def unchecked():
    """Nothing is checked while a test runs that asks what happens outside of tests."""
    with paused():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    """What is loaded here stays: looking for garbage meanwhile took a quarter of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish(session):
    """What is loaded by now stays: collections of garbage do not look through it again."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item):
    from privfl.data import present

    for mark in item.iter_markers("needs"):
        for name in mark.args:
            if not present(name):
                pytest.skip(f"data set {name} is not on this machine")


@functools.cache
def asked_of_instances(protocol, kind):
    """What a protocol asks for that a class does not hold itself, so that its instances must, each
    with whether it has to be more than None.
    """
    asked = []
    for name in typing._get_protocol_attrs(protocol):
        method = callable(getattr(protocol, name, None))
        held = [vars(base)[name] for base in kind.__mro__ if name in vars(base)]
        if not held or (held[0] is None and method):
            asked.append((name, method))
    return tuple(asked)


def conforms(protocol, value, nominal=type(typing.Protocol).__instancecheck__):
    """Whether a value is of a protocol, by the rule of Python from 3.12 on: what a class holds is
    not computed to see that it is there, which took a sixth of the time of a round.
    """
    if not protocol._is_protocol:
        return ABCMeta.__instancecheck__(protocol, value)
    if not getattr(protocol, "_is_runtime_protocol", False):
        return nominal(protocol, value)
    for name, method in asked_of_instances(protocol, type(value)):
        if not hasattr(value, name) or (method and getattr(value, name) is None):
            return ABCMeta.__instancecheck__(protocol, value)
    return True


@functools.cache
def axes(kind):
    """Of a hint the lengths and names of its axes, a nameless one as None, for `fits`; nothing
    where other kinds of axes are in it, arrays of another library are asked for, or a hint within
    the hint takes fewer dtypes than it says itself.
    """
    known = kind.array_type in (torch.Tensor, np.ndarray) and kind.dtypes == kind.dtype.dtypes
    dims, plain = [], known and kind.index_variadic is None
    plain = plain and not kind._skip_instancecheck
    for dim in kind.dims if plain else ():
        if dim is _anonymous_dim:
            dims.append(None)
        elif type(dim) is _FixedDim and not dim.broadcastable:
            dims.append(dim.size)
        elif type(dim) is _NamedDim and not dim.broadcastable and not dim.treepath:
            dims.append(dim.name)
        else:
            plain = False
    return tuple(dims) if plain else None


@functools.cache
def of_dtype(kind, dtype):
    """Whether a hint takes arrays of a dtype, as jaxtyping itself answers."""
    of = torch if isinstance(dtype, torch.dtype) else np
    empty = of.empty(0, dtype=dtype)
    return isinstance(empty, kind[type(empty), "..."])


def fits(kind, value, thorough=type(AbstractArray).__instancecheck__):
    """Whether an array has the dtype and the shape of a hint. What is no array, or of a hint with
    axes beyond names and lengths, or does not fit, jaxtyping looks at by itself; this knows its
    answer to the rest, which copying what names are bound to and spelling a dtype made slow.
    """
    dims = axes(kind)
    if dims is None or type(value) is not kind.array_type or not of_dtype(kind.dtype, value.dtype):
        return thorough(kind, value)
    shape = value.shape
    if len(shape) != len(dims):
        return thorough(kind, value)
    scopes = getattr(_shape_storage, "memo_stack", None)
    bound, new = scopes[-1][0] if scopes else {}, {}
    for dim, size in zip(dims, shape, strict=True):
        if dim is None:
            continue
        if type(dim) is int:
            known = dim
        else:
            known = bound.get(dim)
            if known is None:
                known = new.setdefault(dim, size)
        if known != size:
            return thorough(kind, value)
    bound.update(new)
    return True


if sys.version_info < (3, 12):
    typing._get_protocol_attrs = functools.cache(typing._get_protocol_attrs)
    type(typing.Protocol).__instancecheck__ = conforms
type(AbstractArray).__instancecheck__ = fits
decornontype.make_func = made
os.environ.setdefault("MPLBACKEND", "Agg")
os.fsync = os.fstat
"""What tests write outlives no loss of power, and waiting for the disk took a twelfth of the time
of runs with a folder. What is asked of a descriptor stays: that it is an open one.
"""
torch.set_num_threads(1)
sys.meta_path.insert(0, Finder)
