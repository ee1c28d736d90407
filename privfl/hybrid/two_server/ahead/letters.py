"""What the servers tell each other before they compute where the dealer dealt ahead: that both took
the same dealing, for whom, and how the clients' masks differ from the dealt ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from privfl.core import Buffer, KeepsSecrets, PartyKeys
from privfl.crypto.mpc.words import U64, expand, pack, packed_size, unpack
from privfl.crypto.primitives import fields, open_one, seal_to
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.primitives.sealed_box import OVERHEAD
from privfl.hybrid.two_server.ahead.dealing import Part
from privfl.hybrid.two_server.parameters import CLAIM, DIFFERENCES
from privfl.hybrid.two_server.rows import SeedRows, VeilOfSlots, combined
from privfl.hybrid.two_server.sealing import SEED_SIZE

_ID = 16
_TAG = 16


@dataclass(frozen=True, slots=True, repr=False)
class FirstsClaim(KeepsSecrets):
    """What ``server`` took: of which set, its number, for which places; the key that both seal
    with, and of the places that are left out its seeds and weights, where a sum was dealt of all.
    No ``key``: it took another dealing than ``server/1``, and nothing follows.
    """

    of: bytes
    number: int
    places: tuple[int, ...] = ()
    key: bytes = b""
    left_out: bytes = b""


def left_out(part: Part, places: tuple[int, ...]) -> list[int]:
    """The places that are dropped from a hidden sum that was dealt of all."""
    return sorted(set(range(part.now.plan.n)) - set(places)) if part.demand.vector else []


def write_claim(
    part: Part, places: tuple[int, ...], key: bytes, second: tuple[bytes, ...]
) -> bytes:
    """The letter that says that the dealing is the right one."""
    now, gone = part.now, left_out(part, places)
    told = b"".join(part.rows(gone)) + pack(part.weights(gone), 64) if gone else b""
    return now.write(
        CLAIM,
        part.taken.number,
        part.taken.of,
        fields.bit_set(places, now.plan.n),
        seal_to(second, key, now.bound_to("key"), now.library),
        now.library.seal(key, b"C" + bytes(11), told, now.bound_to("left out")),
    )


def write_other(part: Part) -> bytes:
    """The letter that says that it took another one."""
    return part.now.write(CLAIM, part.taken.number, part.taken.of)


def read_claim(part: Part, body: Buffer, identity: PartyKeys, keys: int) -> FirstsClaim:
    """What either wrote.

    Raises:
        Malformed: it is no such letter, or not for this party's keys.
    """
    now = part.now
    number, content = now.read(body, CLAIM)
    of, rest = bytes(content[:_ID]), content[_ID:]
    if len(of) < _ID:
        raise Malformed("it is cut off")
    if (of, number) != (part.taken.of, part.taken.number):
        return FirstsClaim(of, number)
    places, rest = fields.read_bit_set(rest, now.plan.n)
    sealed = (SEED_SIZE + OVERHEAD) * keys
    key = open_one(rest[:sealed], SEED_SIZE, identity, now.bound_to("key"))
    told = now.library.unseal(key, b"C" + bytes(11), bytes(rest[sealed:]), now.bound_to("left out"))
    listed = tuple(sorted(places))
    if told is None or len(told) != (SEED_SIZE + 8) * len(left_out(part, listed)):
        raise Malformed("what it says of the places that are left out is not what was asked for")
    return FirstsClaim(of, number, listed, key, told)


def without(part: Part, claim: FirstsClaim) -> U64:
    """What the places that are left out are in the second server's share of the masks' sum under
    hidden weights [d].
    """
    now, gone = part.now, left_out(part, claim.places)
    vector: U64 = np.zeros(part.demand.vector, dtype=np.uint64)
    if not gone:
        return vector
    end = SEED_SIZE * len(gone)
    seeds = [claim.left_out[at : at + SEED_SIZE] for at in range(0, end, SEED_SIZE)]
    theirs, own = unpack(claim.left_out[end:], 64, len(gone)), part.weights(gone)
    covers = VeilOfSlots(seeds).blocks(now, len(gone))
    for start, stop, block in SeedRows(part.rows(gone)).blocks(now):
        if start < now.plan.d:
            vector[start:stop] = combined(own, next(covers)[2]) + combined(theirs, block)
    return vector


def write_differences(part: Part, claim: FirstsClaim, seeds: Mapping[int, bytes]) -> bytes:
    """How the masks that clients drew differ from the dealt ones, sealed row by row."""
    return write_rows(part, claim, _differences(part, claim, seeds))


def _differences(part: Part, claim: FirstsClaim, seeds: Mapping[int, bytes]) -> Iterator[U64]:
    now = part.now
    for place, dealt in zip(claim.places, part.rows(claim.places), strict=True):
        row = expand(seeds[place], now.words, now.library)
        row -= expand(dealt, now.words, now.library)
        yield row


def write_rows(part: Part, claim: FirstsClaim, rows: Iterable[U64]) -> bytes:
    """The letter of these differences."""
    now = part.now
    sealed = (
        now.library.seal(claim.key, _nonce(place), pack(row, now.ring), now.bound_to("differences"))
        for place, row in zip(claim.places, rows, strict=True)
    )
    return now.write(DIFFERENCES, 0, *sealed)


def read_differences(
    part: Part, body: Buffer, places: tuple[int, ...], key: bytes
) -> Iterator[tuple[int, U64]]:
    """Place and words of each row.

    Raises:
        Malformed: it is no such letter.
    """
    now = part.now
    _, content = now.read(body, DIFFERENCES)
    size = packed_size(now.ring, now.words) + _TAG
    if len(content) != size * len(places):
        raise Malformed("its rows are of another length")
    for i, place in enumerate(places):
        sealed = bytes(content[i * size : (i + 1) * size])
        plain = now.library.unseal(key, _nonce(place), sealed, now.bound_to("differences"))
        if plain is None:
            raise Malformed("its rows are not what the other server sealed")
        yield place, unpack(plain, now.ring, now.words)


def _nonce(place: int) -> bytes:
    return b"D" + place.to_bytes(11, "little")
