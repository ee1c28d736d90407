"""Rings of 16, 24 and 32 bits: the smallest that holds any sum, and its elements as signed
integers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from privfl.core import Bounded, ConfigError, RoundPlan
from privfl.crypto.encoding import FixedPoint
from privfl.crypto.primitives import Words, fields

RINGS = (16, 24, 32)
_BLOCK = 1 << 14


def word(ring: int) -> type[np.unsignedinteger]:
    """The machine word that holds an element: a ring of 24 bits is computed in 32, whose upper byte
    never travels.
    """
    return np.uint16 if ring == 16 else np.uint32


def ring_for(code: FixedPoint, plan: RoundPlan, noise: int = 0, ring: int | None = None) -> int:
    """The bits of the smallest ring that holds every sum of the cohort and noise of that reach;
    ``ring`` itself where it is given.

    Raises:
        ConfigError: no ring, or not the given one, holds it.

    >>> ring_for(FixedPoint(16), RoundPlan(0, tuple(range(100)), d=1, l2=1.0))
    24
    """
    needed = (plan.n * code.top + noise).bit_length() + 1
    found = ring or next((r for r in RINGS if r >= needed), 0)
    if needed > found:
        way_out = "set ring=None" if ring else "ask fewer clients"
        raise ConfigError(
            f"round {plan.number}: a sum of {plan.n} contributions of {code.bits} bits needs a ring"
            f" of {needed} bits, and the ring has {found or max(RINGS)}: lower bits, or {way_out}."
        )
    return found


def ring_words(code: FixedPoint, update: Bounded, plan: RoundPlan, ring: int) -> Words:
    """A contribution [d + words] in words of the ring: integers of at most 31 bits in 32, without
    a copy where words have 32.

    Raises:
        BadUpdate: as `FixedPoint.encode`.

    >>> import torch
    >>> plan = RoundPlan(0, (1, 2), d=2, l2=1.0)
    >>> ring_words(FixedPoint(4), Bounded(1, torch.tensor([0.6, -0.8]), l2=1.0), plan, 16).tolist()
    [4, 65530, 7]
    """
    integers = code.encode(update, plan, dtype=np.int32)
    return integers.view(np.uint32).astype(word(ring), copy=False)


def lift(words: Words, ring: int) -> npt.NDArray[np.signedinteger]:
    """Ring elements as signed integers around zero.

    >>> lift(np.array([1, 0xFFFFFF], dtype=np.uint32), 24).tolist()
    [1, -1]
    """
    if ring == 24:
        return np.left_shift(words, 8).view(np.int32) >> 8
    return words.view(np.int16 if ring == 16 else np.int32)


def add_up(total: Words, packed: Sequence[memoryview], ring: int) -> None:
    """Add packed vectors, each as long as ``total``, to it in place, block by block: each is read
    from memory once.
    """
    for start in range(0, len(total), _BLOCK):
        part = total[start : start + _BLOCK]
        for vector in packed:
            piece = vector[start * ring // 8 : (start + len(part)) * ring // 8]
            np.add(part, fields.unpack(piece, ring, len(part)), out=part)
