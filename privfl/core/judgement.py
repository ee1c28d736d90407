"""What a defence made of the clients of a round, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from privfl.core.types import ClientId

Numbers: TypeAlias = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one seat made of each of the n rows that it saw in a round. It is whole, and knows
    nothing of who lied.

    ``seat`` is the class of the defence, numbered from the second of its class in a run on
    (``"FLANDERS 2"``), ``part`` the vector of the round that it judged. ``ids``
    [n] are the clients of each row: one, or all of a group where rows are means of groups. ``kept``
    [n] is False where a row was dropped; ``scale`` [n] what it was multiplied by; ``suspicion`` [n]
    how bad it looked, higher is worse (infinite for rows that are not finite); ``scores`` the
    numbers [n] behind that, by name.

    ``accuses``: whether the seat drops as many as look bad to it. Where it selects a fixed number,
    those that it leaves out are accused of nothing. ``told_f``: whether it was told how many lie.

    >>> one = Judgement("Krum", "delta", ((4,), (7,)), kept=(True, False), suspicion=(0.5, 2.0))
    >>> Judgement.from_json(one.to_json()) == one
    True
    """

    seat: str
    part: str
    ids: tuple[tuple[ClientId, ...], ...]
    accuses: bool = False
    told_f: bool = False
    kept: tuple[bool, ...] | None = None
    scale: Numbers | None = None
    suspicion: Numbers | None = None
    scores: Mapping[str, Numbers] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data; numbers that are not finite are words, which JSON has no numbers for."""
        return {
            "seat": self.seat,
            "part": self.part,
            "ids": [list(clients) for clients in self.ids],
            "accuses": self.accuses,
            "told_f": self.told_f,
            "kept": None if self.kept is None else list(self.kept),
            "scale": _words(self.scale),
            "suspicion": _words(self.suspicion),
            "scores": {name: _words(values) for name, values in self.scores.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Judgement:
        """From what `to_json` made."""
        kept = data["kept"]
        return cls(
            seat=data["seat"],
            part=data["part"],
            ids=tuple(tuple(clients) for clients in data["ids"]),
            accuses=data["accuses"],
            told_f=data["told_f"],
            kept=None if kept is None else tuple(kept),
            scale=_numbers(data["scale"]),
            suspicion=_numbers(data["suspicion"]),
            scores={name: _numbers(values) or () for name, values in data["scores"].items()},
        )


def _words(values: Sequence[float] | None) -> list[float | str] | None:
    if values is None:
        return None
    return [value if math.isfinite(value) else str(value) for value in values]


def _numbers(values: Sequence[float | str] | None) -> Numbers | None:
    return None if values is None else tuple(float(value) for value in values)
