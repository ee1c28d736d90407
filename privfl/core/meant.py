"""What a type asks of a value in a config, in words for people who do not read types."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union

_ONE: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "none",
}
_SEVERAL: Mapping[Any, str] = {bool: "truths", int: "whole numbers", float: "numbers", str: "texts"}


def in_words(hint: Any) -> str:
    """What is meant by a type, unions of types included.

    >>> in_words(int | float), in_words(float | None)
    ('a number', 'a number or none')
    >>> in_words(Sequence[int]), in_words(Literal["all", "none"] | list[int])
    ('a list of whole numbers', "'all', 'none' or a list of whole numbers")
    """
    words = list(dict.fromkeys(word for arm in _arms(hint) for word in _arm(arm)))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _bare(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def _arms(hint: Any) -> list[Any]:
    """The types of a union, none last; whole numbers are numbers."""
    hint = _bare(hint)
    if typing.get_origin(hint) not in (Union, types.UnionType):
        return [hint]
    arms = [_bare(arm) for arm in typing.get_args(hint)]
    arms.sort(key=lambda arm: arm is type(None))
    return [arm for arm in arms if arm is not int or float not in arms]


def _arm(hint: Any) -> list[str]:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return [repr(value) for value in inner]
    if origin in (list, tuple, Sequence):
        return [f"a list of {_several(hint)}"]
    if hint is dict or origin in (dict, Mapping):
        return ["a mapping of keys"]
    return [_ONE.get(hint, hint.__name__ if isinstance(hint, type) else str(hint))]


def _several(hint: Any) -> str:
    """What a list holds."""
    inner = [arm for arm in typing.get_args(hint) if arm is not Ellipsis]
    if typing.get_origin(hint) is tuple and len(inner) == len(typing.get_args(hint)):
        return f"{len(inner)} {_many(inner[0])}"
    return _many(inner[0]) if inner else "values"


def _many(hint: Any) -> str:
    arms = _arms(hint)
    if len(arms) == 1 and typing.get_origin(arms[0]) in (list, tuple, Sequence):
        return f"lists of {_several(arms[0])}"
    return _SEVERAL.get(arms[0], "values") if len(arms) == 1 else "values"


def truth_for_number(value: Any, hint: Any) -> bool:
    """Whether true or false stands where a number is meant, which pydantic takes for 1 or 0.

    >>> truth_for_number(True, int), truth_for_number([8, False], Sequence[int])
    (True, True)
    >>> truth_for_number(True, bool | None), truth_for_number(["yes", True], Sequence[Any])
    (False, False)
    """
    if isinstance(value, bool):
        types_ = _leaves(hint)
        return bool(types_ & {int, float}) and not types_ & {bool, object, Any}
    inner = value.values() if isinstance(value, Mapping) else value
    several = isinstance(value, list | tuple | Mapping)
    return several and any(truth_for_number(one, hint) for one in inner)


def _leaves(hint: Any) -> set[Any]:
    """The types of which a type is made; no words of a Literal."""
    if typing.get_origin(hint) is Literal:
        return set()
    inner = typing.get_args(_bare(hint))
    return set().union(*map(_leaves, inner)) if inner else {_bare(hint)}


def wrong_value(problem: Mapping[str, Any], hint: Any) -> str:
    """What is wrong with a value, as a predicate: that it is not of the type that is meant, or what
    a validator said of it (pydantic's ``type``, ``msg`` and ``input``).

    >>> wrong_value({"type": "int_parsing", "msg": "Input ...", "input": "abc"}, int | float)
    "must be a number (it is 'abc')."
    """
    what = str(problem["msg"]).removeprefix("Value error, ")
    said = f"{what[0].lower()}{what[1:]}" if problem["type"] in _OF_VALUES else ""
    said = said.removeprefix("input ").replace("should be", "must be", 1)
    return f"{said or f'must be {in_words(hint)}'} (it is {problem['input']!r})."


_OF_VALUES = frozenset(
    {
        "greater_than",
        "greater_than_equal",
        "less_than",
        "less_than_equal",
        "finite_number",
        "multiple_of",
        "too_short",
        "too_long",
        "missing",
        "value_error",
        "assertion_error",
        "callable_type",
    }
)
"""What a validator says of a value whose type is right."""
