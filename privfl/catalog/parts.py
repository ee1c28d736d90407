"""How a part of a config becomes an object: the keys are the fields of the class that a name stands
for.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from privfl.catalog.tables import PARTS, Table
from privfl.core import (
    ConfigError,
    Needs,
    in_words,
    truth_for_number,
    unknown,
    wrong_value,
)


def build(
    seam: str,
    table: Table,
    part: Mapping[str, Any],
    supplied: Mapping[str, Any] | None = None,
) -> Any:
    """The object that a part of a config describes: its class by name, its fields by key.

    Fields whose type is a part's (`PARTS`) are built from their own table; ``supplied`` are
    arguments that come from the program and not from the config.

    Raises:
        ConfigError: an unknown name or key (with the nearest known one), a missing key, or a value
            of the wrong type or range.

    >>> from privfl.catalog.tables import BOUNDS
    >>> build("bound", BOUNDS, {"name": "clip", "l2": 2.0})
    Clip(l2=2.0)
    >>> build("bound", BOUNDS, {"name": "clip", "l3": 2.0})
    Traceback (most recent call last):
    privfl.core.errors.ConfigError: bound 'clip': unknown key 'l3'; did you mean 'l2'? Known: l2.
    """
    maker, values = checked(seam, table, part, tuple(supplied or ()))
    try:
        return maker(**(supplied or {}), **values)
    except ConfigError as error:
        raise ConfigError(f"{seam} '{part['name']}': {error}") from None


def checked(
    seam: str,
    table: Table,
    part: Mapping[str, Any],
    supplied: Sequence[str] = (),
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The class or builder that a part names, and its checked keyword arguments; raises as `build`
    does.

    Raises:
        ConfigError: as `build`.
    """
    name = part["name"]
    if name not in table:
        raise ConfigError(unknown(seam, name, table))
    maker = table[name]
    hints, required = fields_of(maker, supplied)
    given = {key: value for key, value in part.items() if key != "name"}
    for key in given:
        if key not in hints:
            known = unknown("key", key, hints) if hints else f"unknown key '{key}': it has no keys."
            raise ConfigError(f"{seam} '{name}': {known}")
    for key in required:
        if key not in given:
            raise ConfigError(
                f"{seam} '{name}' needs the key '{key}', as in {{name: {name}, {key}: ...}}."
            )
    values: dict[str, Any] = {}
    for key, value in given.items():
        held = _table_of(hints[key])
        if held is not None and isinstance(value, Sequence) and not isinstance(value, str):
            parts = [{"name": one} if isinstance(one, str) else one for one in value]
            values[key] = tuple(build(f"{seam}.{key}", held, one) for one in parts)
        elif held is not None and value is not None:
            inner = {"name": value} if isinstance(value, str) else value
            values[key] = build(f"{seam}.{key}", held, inner)
        elif isinstance(value, Mapping) and dataclasses.is_dataclass(hints[key]):
            values[key] = build(
                f"{seam}.{key}", {key: hints[key]}, {"name": key, **value}
            )  # a group of settings
        else:
            values[key] = _checked(f"{seam} '{name}'", key, hints[key], value)
    return maker, values


def fields_of(
    maker: Callable[..., Any], supplied: Sequence[str] = ()
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The keys that a class or builder takes from a config, with their types, and which of them it
    needs.
    """
    parameters = [
        p
        for p in inspect.signature(maker).parameters.values()
        if p.name not in supplied and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    described: Any = maker
    if isinstance(maker, type) and not dataclasses.is_dataclass(maker):
        described = maker.__init__  # type: ignore[misc]
    hints = typing.get_type_hints(described)
    return {p.name: hints.get(p.name, Any) for p in parameters}, tuple(
        p.name for p in parameters if p.default is p.empty
    )


def _table_of(hint: Any) -> Table | None:
    """The table of the part that a type stands for, looked for inside of unions and sequences."""
    if typing.get_origin(hint) in PARTS:
        return PARTS[typing.get_origin(hint)]
    if isinstance(hint, type) and hint in PARTS:
        return PARTS[hint]
    for arm in typing.get_args(hint):
        found = _table_of(arm)
        if found is not None:
            return found
    return None


def needs_of(maker: Any) -> Needs:
    """The arguments that a run fills, as a rule, a defence or a bound declares them; a builder's
    are those of its class.
    """
    owner: Any = maker.__self__ if inspect.ismethod(maker) else maker
    needs: Needs = owner.needs
    return needs


def _checked(owner: str, key: str, hint: Any, value: Any) -> Any:
    if truth_for_number(value, hint):
        raise ConfigError(f"{owner}: '{key}' must be {in_words(hint)} (it is {value!r}).")
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(
            value
        )
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"{owner}: '{key}' {wrong_value(problem, hint)}") from None
    except PydanticUserError:
        raise ConfigError(
            f"{owner}: '{key}' cannot be set from a config; build the object in Python."
        ) from None
