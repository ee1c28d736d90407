"""What a client sends at the stage of masked vectors, as the server reads it."""

from __future__ import annotations

from collections.abc import Sequence

from privfl.crypto.primitives import fields
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.secagg.keys import WORD
from privfl.crypto.secagg.parameters import SecAggParameters


def read_masked(
    now: SecAggParameters, facts: bytes, listeners: Sequence[int], content: memoryview
) -> tuple[memoryview, dict[int, bytes]]:
    """The packed vector [d + words], and against an active server the sender's word to each of
    these ``listeners``, by place.

    Raises:
        Malformed: other facts than the round's, a vector of another length, or other words.
    """
    rest = fields.after_facts(content, facts)
    size = now.length * now.ring // 8
    packed = fields.packed_size(rest[:size], now.ring, now.length)
    return packed, read_words(now, listeners, rest[size:])


def read_words(
    now: SecAggParameters, listeners: Sequence[int], rest: memoryview
) -> dict[int, bytes]:
    """The words behind the vector, by listener.

    Raises:
        Malformed: words for others, not for all of them, or where none are due.
    """
    if not now.active:
        fields.ends(rest)
        return {}
    if len(rest) != WORD * len(listeners):
        raise Malformed("words for others than its share holders, or not for all of them")
    return {other: bytes(rest[i * WORD : (i + 1) * WORD]) for i, other in enumerate(listeners)}
