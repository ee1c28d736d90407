"""What a caller hands a round: updates by name, and who was drawn and sent nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from privfl.core import BadUpdate, ClientId, Vector
from privfl.wrapper.names import Names
from privfl.wrapper.tree import Float64, UpdateLayout

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Given(Generic[V]):
    """Updates as vectors [d] by client, how they look outside, and all who were drawn."""

    layout: UpdateLayout[V]
    rows: Mapping[ClientId, Vector]
    cohort: tuple[ClientId, ...]


def given_of(
    updates: Mapping[Any, V],
    dropped: Collection[Any],
    names: Names,
    known: UpdateLayout[V] | None,
    float64: Float64,
) -> Given[V]:
    """A round's updates; ``known`` is how they look where there are none.

    Raises:
        BadUpdate: updates that are none, or of different shapes; a client that both dropped out and
            sent an update; no updates, where nothing says how they look.
    """
    if not isinstance(updates, Mapping):
        raise BadUpdate(
            "updates are given by client, as in {'ward 1': vector, 'ward 2': vector}, and these are"
            f" a {type(updates).__name__}."
        )
    if isinstance(dropped, str | bytes):
        raise BadUpdate(f"dropped names several clients, as in [{dropped!r}].")
    numbers = dict(zip(updates, names.numbers(updates), strict=True))
    lost = dict.fromkeys(names.numbers(dropped))
    for name, number in numbers.items():
        if number in lost:
            raise BadUpdate(f"client {name!r} is named in dropped, and sent an update.")
    layout = known
    if updates:
        name, first = next(iter(updates.items()))
        layout = UpdateLayout.of(first, f"client {name!r}", float64)
    if layout is None:
        raise BadUpdate(
            "there are no updates, and no round before says what they look like: give example=...,"
            " an update of their shape and type."
        )
    rows = {numbers[name]: layout.read(one, f"client {name!r}") for name, one in updates.items()}
    return Given(layout, rows, (*rows, *lost))
