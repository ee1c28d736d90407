"""Annotations are checked at every call while tests run, shapes included (`tests/conftest.py`)."""

import importlib.util
from importlib.machinery import SourceFileLoader
from itertools import product

import numpy as np
import pytest
import torch
from jaxtyping import AbstractArray, Bool, Float, Float32, Int, Shaped, TypeCheckError, jaxtyped
from jaxtyping._storage import get_shape_memo
from torch import Tensor

import privfl.core
from privfl.aggregators.spectral import about
from privfl.core import Rows

SOURCE = """
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


def half(x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    return x[: len(x) // 2]


def steps(n: int) -> Iterator[int]:
    yield n


def same(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> Iterator[Float[Tensor, " n"]]:
    yield a + b


def adder(k: int) -> Callable[[int], int]:
    def add(x: int) -> int:
        return x + k

    return add


class Box:
    def __init__(self, x: int) -> None:
        self.x = x

    @property
    def word(self) -> str:
        return self.x

    def same(self, other: "Box") -> bool:
        return self.x == other.x


@dataclass(frozen=True)
class Pair:
    a: Float[Tensor, " n"]
    b: Float[Tensor, " n"]
"""


@pytest.fixture
def module(tmp_path):
    """A module that is loaded as those of privfl are."""
    return loaded(tmp_path)


def loaded(folder):
    path = folder / "annotated.py"
    path.write_text(SOURCE)
    loader = type(privfl.core.__spec__.loader)("annotated", str(path))
    made = importlib.util.module_from_spec(
        importlib.util.spec_from_loader("annotated", loader, origin=str(path))
    )
    loader.exec_module(made)
    return made


def test_one_name_of_a_shape_is_one_length_within_a_call_and_another_in_the_next():
    for n in (2, 3):
        assert about(torch.eye(n), torch.ones(n)).shape == (n, n)
        assert Rows(torch.eye(n), torch.ones(n)).n == n
    with pytest.raises(TypeCheckError):
        about(torch.eye(2), torch.ones(3))
    with pytest.raises(TypeCheckError):
        Rows(torch.eye(2), torch.ones(3))


def test_arguments_results_and_fields_of_every_kind_of_function_are_checked(module):
    three, two = torch.zeros(3), torch.zeros(2)
    assert module.Pair(three, three).a is three
    assert list(module.steps(1)) == [1]
    assert len(list(module.same(three, three))) == len(list(module.same(two, two))) == 1
    assert module.Box(1).same(module.Box(1))
    wrong = (
        lambda: module.half(three),
        lambda: module.half(torch.zeros(3, 3)),
        lambda: module.steps("1"),
        lambda: module.same(three, two),
        lambda: module.Box("1"),
        lambda: module.Box(1).word,
        lambda: module.Pair(three, two),
    )
    for call in wrong:
        with pytest.raises(TypeCheckError):
            call()


def test_a_function_within_another_is_checked_each_time_and_keeps_its_own_cells(module):
    one, two = module.adder(1), module.adder(2)
    assert (one(5), two(5)) == (6, 7)
    for add in (one, two):
        with pytest.raises(TypeCheckError):
            add("5")


SHAPES = ((), (1,), (2,), (3,), (1, 2), (2, 2), (2, 3), (3, 2), (2, 3, 1))
VALUES = (
    *(
        torch.zeros(shape, dtype=dtype)
        for shape in SHAPES
        for dtype in (torch.float32, torch.int64)
    ),
    torch.zeros(2, 3, dtype=torch.bool),
    torch.zeros(2, 3, dtype=torch.float64),
    torch.zeros(2, 3, dtype=torch.bfloat16),
    torch.zeros(2, dtype=torch.uint8),
    torch.nn.Parameter(torch.zeros(2, 3)),
    np.zeros((2, 3)),
    np.zeros((2, 3), dtype=np.float32),
    np.zeros(2, dtype=np.int32),
    np.zeros(2, dtype=bool),
    np.zeros(2, dtype=[("a", float)]),
    [0.0, 0.0],
    None,
)
AXES = (
    "",
    " n",
    " d",
    "n d",
    "d n",
    "n n",
    "m m",
    "_ n",
    "2 n",
    "1 d",
    "#n d",
    "n ...",
    "*s n",
    "*s",
)


@pytest.mark.parametrize("kind", [Float, Int, Bool, Shaped])
def test_hints_of_arrays_take_what_jaxtyping_takes_and_bind_what_it_binds(kind):
    """The checks of a run look at a tensor by a shorter way (`fits` of tests/conftest.py)."""
    short = type(AbstractArray).__instancecheck__
    (whole,) = short.__defaults__
    answers = []
    for of, axes, value in product((Tensor, np.ndarray), AXES, VALUES):
        seen = []
        for look in (short, whole):
            with jaxtyped("context"):
                look(Float[Tensor, "n d"], torch.zeros(2, 3))
                seen.append((look(kind[of, axes], value), get_shape_memo()))
        assert seen[0] == seen[1], (of, axes, value)
        answers.append(seen[0][0])
    assert answers.count(True) > 3
    assert answers.count(False) > 99


def test_a_hint_within_a_hint_takes_no_dtype_that_either_of_them_does_not():
    for hint, wrong in (
        (Shaped[Float[Tensor, " n"], "b"], torch.int64),
        (Float[Float32[Tensor, " n"], "b"], torch.float64),
    ):
        assert isinstance(torch.zeros(2, 3), hint)
        assert not isinstance(torch.zeros(2, 3, dtype=wrong), hint)
        assert not isinstance(torch.zeros(2), hint)


def test_what_is_unchecked_is_unchecked_at_every_depth_and_checked_again_after_it(request, module):
    add = module.adder(1)
    request.getfixturevalue("unchecked")
    assert module.half(torch.zeros(3)).shape == (1,)
    assert module.Box("1").word == "1"
    assert module.Pair(torch.zeros(3), torch.zeros(2)).b.shape == (2,)
    assert module.adder(1)(0.5) == add(0.5) == 1.5
    assert list(module.steps("1")) == ["1"]


def test_what_was_loaded_while_nothing_was_checked_is_checked_afterwards(tmp_path):
    """As by an import within a function that a test without checks is the first to call."""
    paused = type(privfl.core.__spec__.loader).exec_module.__globals__["paused"]
    with paused():
        module = loaded(tmp_path)
        assert module.half(torch.zeros(3)).shape == (1,)
        assert module.Pair(torch.zeros(3), torch.zeros(2)).b.shape == (2,)
    with pytest.raises(TypeCheckError):
        module.half(torch.zeros(3))
    with pytest.raises(TypeCheckError):
        module.Pair(torch.zeros(3), torch.zeros(2))
    with pytest.raises(TypeCheckError):
        module.adder(1)("5")


def test_what_was_unchecked_before_is_checked(module):
    with pytest.raises(TypeCheckError):
        module.half(torch.zeros(3))
    with pytest.raises(TypeCheckError):
        about(torch.eye(2), torch.ones(3))


EVERY_KIND = """
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


def plain(a: int, b: str = "b", *, c: float = 0.5, d: bytes) -> tuple:
    return a, b, c, d


def rest(a: int, *more: int, **named: str) -> tuple:
    return a, more, named


def shadows(len: int, type: str = "t") -> tuple:
    return len, type


def also_shadows(m: Mapping[str, int], is_of_kind: int, isinstance: int) -> tuple:
    return m, is_of_kind, isinstance


def first(a: int, /, b: int = 2) -> tuple:
    return a, b


@dataclass
class Filled:
    a: int
    held: list[int] = field(default_factory=list)


def of(m: Mapping[str, int], s: "Sequence[int] | None" = None) -> int:
    return len(m)


@runtime_checkable
class Named(Protocol):
    name: str


def called(who: Named) -> None: ...
"""


@pytest.fixture
def kinds(tmp_path):
    """Functions with every kind of parameter, and the same ones unchecked."""
    path = tmp_path / "annotated.py"
    path.write_text(EVERY_KIND)
    spaces = []
    for kind in (type(privfl.core.__spec__.loader), SourceFileLoader):
        spec = importlib.util.spec_from_loader("annotated", kind("annotated", str(path)))
        spaces.append(importlib.util.module_from_spec(spec))
        spec.loader.exec_module(spaces[-1])
    return spaces


CALLS = (
    ("plain", (1,), {"d": b""}),
    ("plain", (1, "x"), {"c": 1, "d": b"d"}),
    ("plain", (), {"d": b"", "b": "x", "a": 7}),
    ("rest", (1, 2, 3), {"x": "y"}),
    ("rest", (), {"a": 1}),
    ("shadows", (3,), {}),
    ("shadows", (), {"type": "x", "len": 4}),
    ("also_shadows", ({"a": 1}, 2, 3), {}),
    ("first", (1,), {}),
    ("first", (1, 3), {}),
    ("of", ({},), {}),
    ("of", ({"a": 1}, (1, 2)), {}),
)
WRONG_TYPES = (
    ("plain", ("1",), {"d": b""}),
    ("plain", (1, 2), {"d": b""}),
    ("plain", (1,), {"d": ""}),
    ("plain", (1,), {"c": "1", "d": b""}),
    ("plain", (), {"a": None, "d": b""}),
    ("rest", (1, "2"), {}),
    ("rest", (1,), {"x": 2}),
    ("shadows", ("3",), {}),
    ("shadows", (3,), {"type": 3}),
    ("also_shadows", ([], 2, 3), {}),
    ("also_shadows", ({}, "2", 3), {}),
    ("first", ("1",), {}),
    ("first", (1,), {"b": "3"}),
    ("Filled", (1, (2,)), {}),
    ("Filled", (1,), {"held": ["2"]}),
    ("of", ({"a": "1"},), {}),
    ("of", ([],), {}),
    ("of", ({}, {}), {}),
)
WRONG_CALLS = (
    ("plain", (), {}),
    ("plain", (1, "b", 0.5, b""), {}),
    ("plain", (1,), {"a": 1, "d": b""}),
    ("plain", (1,), {"d": b"", "e": 1}),
    ("first", (), {"a": 1}),
    ("Filled", (), {}),
)


@pytest.mark.parametrize("again", [1, 3])
def test_a_check_takes_arguments_as_the_function_itself_does_however_they_come(kinds, again):
    checked, plain = kinds
    for name, arguments, named in CALLS * again:
        own = getattr(plain, name)(*arguments, **named)
        assert getattr(checked, name)(*arguments, **named) == own
    for name, arguments, named in WRONG_CALLS * again:
        said = []
        for space in kinds:
            with pytest.raises(TypeError) as refused:
                getattr(space, name)(*arguments, **named)
            said.append(str(refused.value))
        assert said[0] == said[1]
    one, two = checked.Filled(1), checked.Filled(2)
    assert one.held == two.held == []
    assert one.held is not two.held


def test_a_wrong_argument_is_refused_wherever_it_stands_and_after_right_ones_too(kinds):
    checked, plain = kinds
    for name, arguments, named in WRONG_TYPES + CALLS + WRONG_TYPES:
        if (name, arguments, named) in CALLS:
            getattr(checked, name)(*arguments, **named)
            continue
        getattr(plain, name)(*arguments, **named)
        with pytest.raises(TypeCheckError):
            getattr(checked, name)(*arguments, **named)


def test_a_type_whose_instances_differ_is_asked_anew_at_each(kinds):
    class Thing: ...

    with_name, without = Thing(), Thing()
    with_name.name = "a"
    for _ in range(2):
        assert kinds[0].called(with_name) is None
        with pytest.raises(TypeCheckError):
            kinds[0].called(without)
