"""What servers and dealer send to each other, sealed: the joint coins, masked rows, steps of the
computation, what is dealt.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import numpy as np

from privfl.core import Buffer, PartyId, PartyKeys
from privfl.crypto.primitives import derive, fields, open_one
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.primitives.sealed_box import OVERHEAD
from privfl.hybrid.two_server.parameters import DEALT, STEPS, VECTOR, Direction, TwoServerParameters
from privfl.hybrid.two_server.row_letters import first_letter

SEED_SIZE = 32
_TAG = 16
NOBODY, DIRECTED, UNKNOWN = range(3)
"""What the first server says of the direction: there is none, or it is zero; here it is; none is
known yet, so nobody is filtered.
"""
DIRECTION_HEAD = struct.Struct("<Bd")


def coin_of(now: TwoServerParameters, mine: bytes, theirs: bytes) -> bytes:
    """The joint coins' seed, from both servers' halves; neither is drawn before the clients have
    spoken.
    """
    return hashlib.sha256(b"privfl/1/two-server/coin" + now.tag + mine + theirs).digest()


def seal_steps(
    now: TwoServerParameters, key: bytes, sender: bytes, number: int, frames: list[Buffer]
) -> bytes:
    """Steps from one server to the other; ``number`` counts the sender's messages, so that no nonce
    serves twice.
    """
    nonce = sender + number.to_bytes(11, "little")
    return now.write(
        STEPS, number, now.library.seal(key, nonce, b"".join(frames), now.bound_to("steps"))
    )


def open_steps(now: TwoServerParameters, key: bytes, sender: bytes, body: Buffer) -> bytes:
    """What `seal_steps` sealed.

    Raises:
        Malformed: it is not that.
    """
    number, content = now.read(body, STEPS)
    frames = now.library.unseal(
        key, sender + number.to_bytes(11, "little"), bytes(content), now.bound_to("steps")
    )
    if frames is None or not number:
        raise Malformed("it is not sealed by the other server of this round")
    return frames


def read_vector(now: TwoServerParameters, who: PartyId, body: Buffer) -> tuple[int, memoryview]:
    """A client's place and masked vector, packed.

    Raises:
        Malformed: it is not what this client sends in this round.
    """
    position, content = now.sender(who, body, VECTOR)
    packed = fields.after_facts(content, fields.facts(now.plan))
    if len(packed) != now.body:
        raise Malformed(f"a vector of {len(packed)} bytes where {now.body} were asked for")
    return position, packed


def open_masked(
    now: TwoServerParameters, identity: PartyKeys, keys: int, content: memoryview
) -> tuple[frozenset[int], bytes, bytes, memoryview]:
    """Of the first server's message: whom it lists, the key that both servers seal with, its head
    in plain, the sealed rows.

    Raises:
        Malformed: this party's key opens nothing of it.
    """
    members, rest = fields.read_bit_set(content, now.plan.n)
    sealed = (SEED_SIZE + OVERHEAD) * keys
    key = open_one(rest[:sealed], SEED_SIZE, identity, now.bound_to("key"))
    rows = rest[sealed : sealed + first_letter(now, len(members))]
    head = now.library.unseal(
        key, bytes(12), bytes(rest[sealed + len(rows) :]), now.bound_to("head")
    )
    if head is None:
        raise Malformed("its head is not what the server sealed")
    return members, key, head, rows


def read_direction(head: bytes, d: int) -> tuple[int, Direction | None]:
    """What the first server says of the direction, after its half of the coin.

    Raises:
        Malformed: it is cut off.
    """
    if len(head) < SEED_SIZE + DIRECTION_HEAD.size:
        raise Malformed("it is cut off")
    told, length = DIRECTION_HEAD.unpack_from(head, SEED_SIZE)
    rest = head[SEED_SIZE + DIRECTION_HEAD.size :]
    if len(rest) != (4 * d if told == DIRECTED else 0) or (
        told == DIRECTED and not 0 < length < float("inf")
    ):
        raise Malformed("its direction is of another length")
    return told, (
        Direction.of(np.frombuffer(rest, dtype="<i4").astype(np.int64), length)
        if told == DIRECTED
        else None
    )


def seal_dealt(now: TwoServerParameters, key: bytes, words: bytes) -> bytes:
    """What the dealer sends to the second server, under a key that the second server's fresh seed
    gives: it seals once.
    """
    return now.library.seal(
        derive(key, now.tag, "two-server dealt"), bytes(12), words, now.bound_to("dealt")
    )


def dealt_letter(now: TwoServerParameters, key: bytes, pieces: Sequence[Buffer]) -> Buffer:
    """The dealer's whole message, sealed as by `seal_dealt` piece by piece: of many comparisons it
    is long.
    """
    head = now.write(DEALT, 0)
    letter = memoryview(bytearray(len(head) + sum(map(len, pieces)) + _TAG))
    letter[: len(head)] = head
    sealing = derive(key, now.tag, "two-server dealt")
    body = letter[len(head) :]
    now.library.seal_into(sealing, bytes(12), pieces, now.bound_to("dealt"), body)
    return letter.toreadonly()


def unseal_dealt(now: TwoServerParameters, key: bytes, sealed: Buffer) -> bytes:
    """What `seal_dealt` sealed.

    Raises:
        Malformed: it is not that.
    """
    words = now.library.unseal(
        derive(key, now.tag, "two-server dealt"), bytes(12), sealed, now.bound_to("dealt")
    )
    if words is None:
        raise Malformed("it is not sealed by the dealer of this round")
    return words
