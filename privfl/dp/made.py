"""What a rule made of a part of a round, before noise."""

from __future__ import annotations

from dataclasses import dataclass

from privfl.core import Vector


@dataclass(frozen=True, slots=True)
class Made:
    """What a rule made of one part: the vector [d], how many rows it read, and how many clients'
    contributions are in them.
    """

    vector: Vector
    rows: int
    survivors: int
