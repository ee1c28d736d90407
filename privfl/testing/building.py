"""Objects of a class that nobody here knows: from its defaults, from the examples that it declares,
and with small answers in place of what a run would give it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from privfl.core import Context, Examples, Needs, Oracle, Rows, Vector
from privfl.testing.check import Broken, Check, expect

HONEST = 12
"""Clients with ids below this are honest in the answers of `oracle`; the others vote for liars."""


@dataclass(frozen=True, slots=True)
class Subject:
    """An object to check, the class that it is of, and a name for messages."""

    name: str
    made: Any

    @property
    def kind(self) -> type:
        """Its class."""
        return type(self.made)


def subjects(part: Any, **supplied: Any) -> Iterator[Subject]:
    """Every object that a part stands for.

    A class is built from each of its ``examples`` (`privfl.core.Examples`), or from its defaults
    where it declares none; a function without arguments is called; any other object is itself.

    Raises:
        Broken: a class cannot be built, and what to declare.
    """
    if isinstance(part, FunctionType):
        made = part()
        yield Subject(type(made).__name__, made)
    elif isinstance(part, type):
        for name, settings in (declared_examples(part) or {"": {}}).items():
            yield Subject(
                f"{part.__name__}, {name}" if name else part.__name__,
                build_example(part, name, {**supplied, **settings}),
            )
    else:
        yield Subject(type(part).__name__, part)


def build_example(kind: type, name: str, settings: Mapping[str, Any]) -> Any:
    """An object of a class from the settings of one of its examples, with what it needs of a run.

    Raises:
        Broken: the constructor wants more, or refuses the settings.
    """
    filled = {argument: oracle(it) for argument, it in declared_needs(kind).items()}
    wanted = [
        p.name
        for p in inspect.signature(kind).parameters.values()
        if p.default is p.empty
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and p.name not in {**filled, **settings}
    ]
    expect(
        not wanted,
        f"{kind.__name__} cannot be built: nothing is known of {', '.join(wanted)}",
        f'declare examples: ClassVar[Examples] = {{"": {{"{(wanted or [""])[0]}": ...}}}}, or name'
        " it in needs where a run fills it",
    )
    given = {
        key: build_example(value, "", {}) if isinstance(value, type) else value
        for key, value in settings.items()
    }
    try:
        return kind(**{**filled, **given})
    except Exception as error:
        raise Broken(
            f"{kind.__name__} refuses its example '{name}' {dict(settings)}: {error}",
            "declare examples that its constructor takes",
        ) from error


def declared_examples(kind: type) -> Examples:
    """The examples that a class declares; none where it declares none."""
    return _declared(kind, "examples")


def declared_needs(kind: type) -> Needs:
    """What a class declares that a run fills; nothing where it declares nothing."""
    return _declared(kind, "needs")


def _declared(kind: type, name: str) -> Mapping[str, Any]:
    found: Any = inspect.getattr_static(kind, name, {})
    if isinstance(found, classmethod):
        described: Any = kind
        try:
            found = found.__get__(None, described)()
        except Exception as error:
            raise Broken(
                f"{kind.__name__}.{name}() raised {type(error).__name__}: {error}", "mend it"
            ) from error
    expect(
        isinstance(found, Mapping),
        f"{kind.__name__}.{name} is {found!r}",
        f"declare {name} as a mapping on the class",
    )
    mapping: Mapping[str, Any] = found
    return mapping


def checks_of(
    part: Any, checks: Callable[[Subject], Iterator[Check]], seam: str, **supplied: Any
) -> Iterator[Check]:
    """The checks of every object that a part stands for; of one that cannot be built, that."""
    try:
        made = list(subjects(part, **supplied))
    except Broken as broken:
        problem = broken

        def unbuilt() -> None:
            raise problem

        name = part.__name__ if isinstance(part, type | FunctionType) else type(part).__name__
        yield Check(name, f"a {seam} can be built to be checked", unbuilt)
        return
    for subject in made:
        yield from checks(subject)


def oracle(it: Oracle) -> object:
    """A small answer in place of what a run would give: deterministic, and about a model of any
    length.

    Raises:
        Broken: nobody taught this module that oracle.
    """
    if it not in _ORACLES:
        raise Broken(
            f"there is no answer for {it}", "build the object yourself and check the object"
        )
    return _ORACLES[it]


def _root(context: Context) -> Vector:
    return torch.ones(len(context.parameters), dtype=torch.float64)


def _loss(parameters: Vector, context: Context) -> float:
    return float((parameters[0] - 2).square())


def _accuracy(parameters: Vector, context: Context) -> float:
    return 1 / (1 + _loss(parameters, context))


def _losses(rows: Rows, context: Context) -> Tensor:
    return torch.tensor([1.0 + client % 3 for client in rows.ids or ()])


def _votes(rows: Rows, context: Context) -> Tensor:
    honest = torch.tensor([client < HONEST for client in rows.ids or ()])
    return honest[:, None] == honest


def _errors(models: list[Vector], context: Context) -> Tensor:
    return torch.zeros(1, len(models), 2)


def _activations(parameters: Vector, context: Context) -> Tensor:
    return parameters[:2].abs().repeat(3, 1)


def _features(parameters: Vector, context: Context) -> Tensor:
    return torch.outer(torch.tensor([0.5, 1.0, 2.0]).to(parameters), parameters)


_ORACLES: Mapping[Oracle, object] = {
    Oracle.ROOT: _root,
    Oracle.LOSS: _loss,
    Oracle.ACCURACY: _accuracy,
    Oracle.LOSSES: _losses,
    Oracle.VOTES: _votes,
    Oracle.ERRORS: _errors,
    Oracle.ACTIVATIONS: _activations,
    Oracle.FEATURES: _features,
    Oracle.UNITS: [torch.tensor([0]), torch.tensor([1])],
    Oracle.LAST_HIDDEN: torch.tensor([0, 1]),
    Oracle.LAYER_SIZES: [2, 3],
}
