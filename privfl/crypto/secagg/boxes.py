"""What clients deal to each other, as the server carries it: a row for each holder or owner."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from privfl.core import Buffer
from privfl.crypto.primitives import fields
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.secagg.keys import AGREED, MOVED, SEALED
from privfl.crypto.secagg.parameters import SecAggParameters
from privfl.crypto.sharing import shamir


def write(now: SecAggParameters, rows: Mapping[int, Buffer], added: int = 0) -> bytes:
    """Rows by position, each with ``added`` bytes before what was dealt. In an active round they
    are of two lengths, and a table of each is written.
    """
    if not now.active:
        return fields.table(rows)
    return b"".join(
        _table(now.n, {p: row for p, row in rows.items() if len(row) - added == size})
        for size in (AGREED, MOVED)
    )


def read(
    now: SecAggParameters, body: memoryview, added: int = 0
) -> tuple[dict[int, memoryview], memoryview]:
    """The rows that `write` wrote, and what follows them.

    Raises:
        Malformed: they end early, name somebody twice or outside of the cohort, or move a share by
            what is no element of its field.
    """
    if not now.active:
        return fields.read_table(body, added + SEALED, now.n)
    agreed, rest = _read_table(now.n, body, added + AGREED)
    moved, rest = _read_table(now.n, rest, added + MOVED)
    if agreed.keys() & moved.keys():
        raise Malformed("two rows for one client")
    for row in moved.values():
        at = added + AGREED
        if not (
            shamir.in_range(row[at : at + shamir.SIZE]) and shamir.in_range(row[at + shamir.SIZE :])
        ):
            raise Malformed("a share that is no field element")
    return agreed | moved, rest


def partners(dealt: Mapping[int, Collection[int]]) -> dict[int, frozenset[int]]:
    """Who dealt to whom, seen from either end: the two mask with each other."""
    toward = {owner: set(holders) for owner, holders in dealt.items()}
    for owner, holders in dealt.items():
        for holder in holders:
            toward.setdefault(holder, set()).add(owner)
    return {one: frozenset(others) for one, others in toward.items()}


def _word(n: int) -> str:
    return "<u2" if n <= 1 << 16 else "<u4"


def _table(n: int, rows: Mapping[int, Buffer]) -> bytes:
    places = sorted(rows)
    head = len(rows).to_bytes(4, "little") + np.array(places, dtype=_word(n)).tobytes()
    return b"".join((head, *(rows[p] for p in places)))


def _read_table(n: int, body: memoryview, width: int) -> tuple[dict[int, memoryview], memoryview]:
    count, word = int.from_bytes(body[:4], "little"), np.dtype(_word(n))
    start = 4 + word.itemsize * count
    end = start + width * count
    if len(body) < 4 or count > n or len(body) < end:
        raise Malformed("what was dealt is cut off")
    places = np.frombuffer(body, dtype=word, count=count, offset=4).astype(np.int64)
    if count and (places[-1] >= n or (np.diff(places) <= 0).any()):
        raise Malformed("somebody is named twice, out of order, or outside of the cohort")
    rows = {
        p: body[start + i * width : start + (i + 1) * width] for i, p in enumerate(places.tolist())
    }
    return rows, body[end:]
