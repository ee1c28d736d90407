"""What servers write and read alike, whether clients fix their rows or not: whom the second one
heard, the key and the head that the first one sends along with rows, steps of the computation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from privfl.core import Buffer, Mail, PartyId, PartyKeys
from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives import fields, open_one, seal_to
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.primitives.sealed_box import OVERHEAD
from privfl.hybrid.two_server.parameters import (
    HELD,
    SEED,
    Direction,
    TwoServerParameters,
)
from privfl.hybrid.two_server.sealing import (
    DIRECTED,
    DIRECTION_HEAD,
    NOBODY,
    SEED_SIZE,
    UNKNOWN,
    open_steps,
    read_vector,
    seal_steps,
)

SEAL = 16
"""Bytes that sealing adds."""
_LABELS: Mapping[PartyId, bytes] = {"server": b"1", "server/1": b"2"}


def unusable(stage: str, who: PartyId, malformed: Malformed) -> StageAbort:
    """Why a round ends at a message that is none: whose it is, is what its label says."""
    why = f"a letter in the name of {who} cannot be used: {malformed}"
    return StageAbort(stage, why, letter_of=who)


def hear_seeds(
    now: TwoServerParameters,
    heard: Mapping[PartyId, Buffer],
    identity: PartyKeys,
    size: int,
    excluded: dict[PartyId, str],
) -> dict[int, bytes]:
    """Of clients' letters to the second server what each sealed [size bytes], by place; whose
    letter is none is ``excluded``.
    """
    seeds: dict[int, bytes] = {}
    for who, body in heard.items():
        try:
            position, content = now.sender(who, body, SEED)
            context = now.bound_to("seed", str(position))
            seeds[position] = open_one(content, size, identity, context)
        except Malformed as malformed:
            excluded[who] = f"stage share: {malformed}"
    return seeds


def hear_vector(
    now: TwoServerParameters, who: PartyId, body: Buffer, excluded: dict[PartyId, str]
) -> tuple[int, memoryview] | None:
    """A client's place and body at the first server; whose letter is none is ``excluded``."""
    try:
        return read_vector(now, who, body)
    except Malformed as malformed:
        excluded.setdefault(who, f"stage share: {malformed}")
        return None


def tell_held(
    now: TwoServerParameters,
    held: Collection[int],
    half: bytes,
    excluded: Mapping[PartyId, str],
    dealing: int = 0,
) -> Mail:
    """The second server's first letter: whom it heard, its half of the coin, whom it excludes;
    ``dealing``: which one it took, where the dealer dealt ahead.
    """
    listed = fields.bit_set(held, now.plan.n)
    return {"server": now.write(HELD, dealing, listed, half, now.reasons(excluded))}


def read_held(
    now: TwoServerParameters, body: Buffer
) -> tuple[frozenset[int], bytes, dict[PartyId, str]]:
    """What `tell_held` told.

    Raises:
        StageAbort: it is no such letter.
    """
    try:
        _, content = now.read(body, HELD)
        held, rest = fields.read_bit_set(content, now.plan.n)
        if len(rest) < SEED_SIZE:
            raise Malformed("its half of the coin is cut off")
        return held, bytes(rest[:SEED_SIZE]), now.reasons_in(rest[SEED_SIZE:], held, "server/1")
    except Malformed as malformed:
        raise unusable("agree", "server/1", malformed) from None


def key_and_head(
    now: TwoServerParameters,
    second: tuple[bytes, ...],
    key: bytes,
    half: bytes,
    direction: Direction | None,
    unknown: bool,
) -> tuple[bytes, bytes]:
    """What the first server sends beside rows: the key that both seal with, to the second's keys,
    and under it its half of the coin with the direction.
    """
    keys = seal_to(second, key, now.bound_to("key"), now.library)
    told = half + _of_direction(direction, unknown)
    return keys, now.library.seal(key, bytes(12), told, now.bound_to("head"))


def sizes_of(
    now: TwoServerParameters, second: tuple[bytes, ...], direction: Direction | None
) -> tuple[int, int]:
    """Bytes of the first server's letter before the rows and after them."""
    told = 0 if direction is None else 4 * len(direction.values)
    members = -(-now.plan.n // 8)
    front = fields.HEADER + members + (SEED_SIZE + OVERHEAD) * len(second)
    return front, SEED_SIZE + DIRECTION_HEAD.size + told + SEAL


def _of_direction(direction: Direction | None, unknown: bool) -> bytes:
    if direction is None:
        return DIRECTION_HEAD.pack(UNKNOWN if unknown else NOBODY, 0.0)
    head = DIRECTION_HEAD.pack(DIRECTED, direction.length)
    return head + direction.values.astype("<i4").tobytes()


def frames_letter(
    now: TwoServerParameters, key: bytes, sender: PartyId, number: int, frames: list[Buffer]
) -> Buffer:
    """Steps of the computation from one server to the other, its letter of this number."""
    return seal_steps(now, key, _LABELS[sender], number, frames)


def read_frames(now: TwoServerParameters, key: bytes, sender: PartyId, body: Buffer) -> bytes:
    """What `frames_letter` wrote.

    Raises:
        StageAbort: it is no such letter.
    """
    try:
        return open_steps(now, key, _LABELS[sender], body)
    except Malformed as malformed:
        raise unusable("compute", sender, malformed) from None
