"""What wire formats are made of: fixed-width tables by position, sets as bits, packed ring vectors,
a round's public facts.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from privfl.core import Buffer, RoundPlan
from privfl.crypto.primitives.stream import Words

HEADER = 28
"""Bytes of the header in front of fields: magic, kind, ring, the sender's place, the round's
tag.
"""
_FACTS = struct.Struct("<qQddIHH")
_MOST = 1 << 20
"""Clients in a cohort: more than that are a lie."""


class Malformed(Exception):
    """A message that is none of this round's."""


def table(rows: Mapping[int, Buffer]) -> bytes:
    """Rows of one width by position: the count, the positions in order, the rows."""
    positions = sorted(rows)
    return b"".join(
        (
            struct.pack("<I", len(rows)),
            np.array(positions, dtype="<u4").tobytes(),
            *(rows[p] for p in positions),
        )
    )


def read_table(body: memoryview, width: int, n: int) -> tuple[dict[int, memoryview], memoryview]:
    """The rows that `table` wrote, and what follows them.

    Raises:
        Malformed: it ends early, or a position is twice there, out of order, or not under ``n``.
    """
    if len(body) < 4:
        raise Malformed("a table is cut off")
    count = struct.unpack_from("<I", body)[0]
    start = 4 + 4 * count
    if count > n or len(body) < start + width * count:
        raise Malformed(f"a table of {count} rows is cut off")
    positions = np.frombuffer(body, dtype="<u4", count=count, offset=4).astype(np.int64)
    if count and (positions[-1] >= n or (np.diff(positions) <= 0).any()):
        raise Malformed("a table names somebody twice, out of order, or outside of the cohort")
    rows = {
        p: body[start + i * width : start + (i + 1) * width]
        for i, p in enumerate(positions.tolist())
    }
    return rows, body[start + width * count :]


def ends(rest: memoryview) -> None:
    """Refuse what follows a message.

    Raises:
        Malformed: something does.
    """
    if rest:
        raise Malformed(f"{len(rest)} bytes too many")


def bit_set(members: Collection[int], n: int) -> bytes:
    """A set of positions as n bits."""
    bits = np.zeros(n, dtype=bool)
    bits[list(members)] = True
    return np.packbits(bits, bitorder="little").tobytes()


def read_bit_set(body: memoryview, n: int) -> tuple[frozenset[int], memoryview]:
    """The set that `bit_set` wrote, and what follows it.

    Raises:
        Malformed: it ends early, or has bits past n.
    """
    size = -(-n // 8)
    if len(body) < size:
        raise Malformed("a set is cut off")
    return _positions(bytes(body[:size]), n), body[size:]


@lru_cache(maxsize=8)
def _positions(packed: bytes, n: int) -> frozenset[int]:
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), bitorder="little")
    if bits[n:].any():
        raise Malformed("a set has members outside of the cohort")
    return frozenset(np.flatnonzero(bits).tolist())


def most(members: Collection[int], n: int) -> bytes:
    """A set that holds most of the n positions, in the shorter way of two: as n bits, or by the
    numbers of those that are missing.

    >>> len(most(range(10_000), 10_000)), len(most(range(5_000), 10_000))
    (5, 1251)
    """
    missing = sorted(set(range(n)).difference(members))
    if -(-n // 8) <= 4 + 4 * len(missing):
        return b"\0" + bit_set(members, n)
    return b"\1" + table(dict.fromkeys(missing, b""))


def read_most(body: memoryview, n: int) -> tuple[frozenset[int], memoryview]:
    """The set that `most` wrote, and what follows it.

    Raises:
        Malformed: it ends early, is written in neither way, or has positions that are not under
            ``n``.
    """
    if not body or body[0] > 1:
        raise Malformed("a set that is neither bits nor numbers")
    if not body[0]:
        return read_bit_set(body[1:], n)
    rows, rest = read_table(body[1:], 0, n)
    return _without(tuple(rows), n), rest


@lru_cache(maxsize=8)
def _without(missing: tuple[int, ...], n: int) -> frozenset[int]:
    return frozenset(range(n)).difference(missing)


def some(members: Collection[int], n: int) -> bytes:
    """A set of positions in the shorter way of two: as n bits, or each by its number.

    >>> len(some({1, 5}, 10)), len(some({1, 5}, 1000))
    (2, 12)
    """
    if -(-n // 8) <= 4 + 4 * len(members):
        return bit_set(members, n)
    return table(dict.fromkeys(members, b""))


def read_some(body: memoryview, size: int, n: int) -> tuple[frozenset[int], memoryview]:
    """The set of ``size`` positions that `some` wrote, and what follows it.

    Raises:
        Malformed: it ends early, has another size, or positions that are not under ``n``.
    """
    if -(-n // 8) <= 4 + 4 * size:
        found, rest = read_bit_set(body, n)
    else:
        rows, rest = read_table(body, 0, n)
        found = frozenset(rows)
    if len(found) != size:
        raise Malformed(f"a set of {len(found)} where {size} are due")
    return found, rest


def pack(values: Words, ring: int) -> Buffer:
    """Words of a ring of 16, 24 or 32 bits, little-endian, without a bit between them.

    >>> bytes(pack(np.array([1, 0xFFFFFF], dtype=np.uint32), 24)).hex()
    '010000ffffff'
    """
    if ring != 24:
        return values.astype(f"<u{ring // 8}", copy=False).data.cast("B")
    whole = len(values) // 4
    out = np.empty(3 * len(values), dtype=np.uint8)
    a, b, c, d = values[: 4 * whole].reshape(whole, 4).T
    packed = out[: 12 * whole].view("<u4").reshape(whole, 3)
    packed[:, 0] = a & 0xFFFFFF | b << 24
    packed[:, 1] = b >> 8 & 0xFFFF | c << 16
    packed[:, 2] = c >> 16 & 0xFF | d << 8
    out[12 * whole :] = (
        values[4 * whole :].astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3].reshape(-1)
    )
    return out.data


def packed_size(body: memoryview, ring: int, length: int) -> memoryview:
    """A packed vector, once it has the right size.

    Raises:
        Malformed: not exactly ``length`` values.
    """
    if len(body) != length * ring // 8:
        raise Malformed(f"a vector of {len(body)} bytes where {length * ring // 8} were asked for")
    return body


def unpack(
    body: memoryview, ring: int, length: int
) -> npt.NDArray[np.uint16] | npt.NDArray[np.uint32]:
    """What `pack` packed, as words of 16 or 32 bits.

    Raises:
        Malformed: not exactly ``length`` values.
    """
    packed_size(body, ring, length)
    if ring != 24:
        return np.frombuffer(body, dtype=f"<u{ring // 8}")
    whole = length // 4
    out = np.empty(length, dtype=np.uint32)
    a, b, c = np.frombuffer(body[: 12 * whole], dtype="<u4").reshape(whole, 3).T
    words = out[: 4 * whole].reshape(whole, 4)
    words[:, 0] = a & 0xFFFFFF
    words[:, 1] = a >> 24 | (b & 0xFFFF) << 8
    words[:, 2] = b >> 16 | (c & 0xFF) << 16
    words[:, 3] = c >> 8
    tail = np.zeros((length - 4 * whole, 4), dtype=np.uint8)
    tail[:, :3] = np.frombuffer(body[12 * whole :], dtype=np.uint8).reshape(-1, 3)
    out[4 * whole :] = tail.view("<u4").reshape(-1)
    return out


def facts(plan: RoundPlan) -> bytes:
    """The round's public facts, without which nobody could tell a view of the wire what the sum
    means; the cohort is its size alone.

    Padded with zeros so that behind a header of `HEADER` bytes a vector starts at a multiple of 8,
    where adding is fastest.
    """
    part = plan.part.encode()
    numbers = _FACTS.pack(
        plan.number, plan.d, plan.l2, plan.max_weight, plan.n, len(part), len(plan.session)
    )
    return numbers + part + plan.session + bytes(_padding(len(part) + len(plan.session)))


def after_facts(body: memoryview, known: bytes) -> memoryview:
    """What follows the facts, which must be the known ones.

    Raises:
        Malformed: they are others.
    """
    if body[: len(known)] != known:
        raise Malformed("its facts are not this round's")
    return body[len(known) :]


def _padding(names: int) -> int:
    return -(HEADER + _FACTS.size + names) % 8


def read_facts(body: memoryview) -> tuple[RoundPlan, memoryview]:
    """The plan that `facts` wrote, its cohort numbered from 0, and what follows it.

    Raises:
        Malformed: it ends early, or is no plan.
    """
    if len(body) < _FACTS.size:
        raise Malformed("the facts are cut off")
    number, d, l2, max_weight, n, part, session = _FACTS.unpack_from(body)
    start, middle = _FACTS.size, _FACTS.size + part
    end = middle + session + _padding(part + session)
    if len(body) < end or n > _MOST:
        raise Malformed("the facts are cut off, or of no cohort")
    try:
        name = bytes(body[start:middle]).decode()
        return (
            RoundPlan(
                number,
                tuple(range(n)),
                d,
                l2,
                max_weight,
                name,
                bytes(body[middle : middle + session]),
            ),
            body[end:],
        )
    except ValueError:
        raise Malformed("the facts are no plan") from None
