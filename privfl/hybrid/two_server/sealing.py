"""What servers and dealer send to each other, sealed: the joint coins, masked rows, steps of the
computation, what is dealt.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from privfl.core import Buffer, KeepsSecrets, PartyId, PartyKeys
from privfl.crypto.frame import HEADER
from privfl.crypto.mpc.words import U64
from privfl.crypto.primitives import derive, fields, open_one
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.primitives.sealed_box import OVERHEAD
from privfl.hybrid.two_server.parameters import DEALT, STEPS, VECTOR, Direction, TwoServerParameters
from privfl.hybrid.two_server.row_letters import first_letter

SEED_SIZE = 32
_TAG = _BLOCK = 16
_FIRST = 2
"""The block of AES-GCM's counter from which on it seals (SP 800-38D, section 7.1)."""
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
) -> Buffer:
    """Steps from one server to the other; ``number`` counts the sender's messages, so that no nonce
    serves twice.
    """
    nonce, head = sender + number.to_bytes(11, "little"), now.write(STEPS, number)
    letter = bytearray(len(head) + sum(map(len, frames)) + _TAG)
    letter[: len(head)] = head
    body = memoryview(letter)[len(head) :]
    now.library.seal_into(key, nonce, frames, now.bound_to("steps"), body)
    return memoryview(letter).toreadonly()


def open_steps(now: TwoServerParameters, key: bytes, sender: bytes, body: Buffer) -> bytes:
    """What `seal_steps` sealed.

    Raises:
        Malformed: it is not that.
    """
    number, content = now.read(body, STEPS)
    frames = now.library.unseal(
        key, sender + number.to_bytes(11, "little"), content, now.bound_to("steps")
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


def dealt_room(now: TwoServerParameters, length: int) -> npt.NDArray[np.uint8]:
    """Room for a letter of the dealer to a server, in which the pieces after who takes part are
    ``length`` bytes long, and begin at a multiple of 8: what is computed there need not be copied.
    """
    before = HEADER.size + -(-now.plan.n // 8)
    return np.empty(-before % 8 + before + length + _TAG, dtype=np.uint8)[-before % 8 :]


def words_in(now: TwoServerParameters, room: npt.NDArray[np.uint8], length: int) -> U64:
    """The first words in a letter's room after who takes part."""
    start = HEADER.size + -(-now.plan.n // 8)
    words: U64 = room[start : start + 8 * length].view("<u8")
    return words


def dealt_letter(
    now: TwoServerParameters,
    key: bytes,
    pieces: Sequence[Buffer],
    room: npt.NDArray[np.uint8] | None = None,
) -> Buffer:
    """The dealer's whole message, sealed as by `seal_dealt`: of many comparisons it is long. A
    piece that lies in its place in the ``room`` is not copied.
    """
    head = now.write(DEALT, 0)
    size, at = len(head) + sum(map(len, pieces)) + _TAG, 0
    letter = np.empty(size, dtype=np.uint8) if room is None or len(room) < size else room[:size]
    for piece in (head, *pieces):
        words = np.frombuffer(piece, dtype=np.uint8)
        place = letter[at : at + len(words)]
        if words.ctypes.data != place.ctypes.data:
            place[:] = words
        at += len(words)
    sealing, body = derive(key, now.tag, "two-server dealt"), letter[len(head) :].data
    now.library.seal_into(sealing, bytes(12), [body[:-_TAG]], now.bound_to("dealt"), body)
    letter.flags.writeable = False
    return letter.data


@dataclass(frozen=True, slots=True, repr=False)
class SealedWords(KeepsSecrets):
    """What the dealer sealed to a server, which was found to be that, from one of its bytes on. It
    is opened piece by piece, so that it does not lie in memory twice.
    """

    now: TwoServerParameters
    key: bytes
    body: memoryview
    start: int = 0

    def __len__(self) -> int:
        return len(self.body) - self.start

    def after(self, size: int) -> SealedWords:
        """What comes after so many bytes."""
        return replace(self, start=min(self.start + size, len(self.body)))

    def read(self, size: int) -> bytes:
        """The next bytes, so many or as many as there are."""
        return next(self.pieces([min(size, len(self))])).tobytes()

    def pieces(self, sizes: Iterable[int]) -> Iterator[npt.NDArray[np.uint8]]:
        """The next bytes in pieces of these sizes, which there must be."""
        at, skip = self.start, self.start % _BLOCK
        counter = _FIRST + at // _BLOCK
        stream = self.now.library.keystream(self.key, bytes(12) + counter.to_bytes(4, "big"))
        stream.fill(np.empty(2 * _BLOCK, dtype=np.uint8), skip)
        for size in sizes:
            plain = np.empty(size + _BLOCK, dtype=np.uint8)
            stream.fill(plain, size)
            plain[:size] ^= np.frombuffer(self.body[at : at + size], dtype=np.uint8)
            yield plain[:size]
            at += size


def open_dealt(now: TwoServerParameters, key: bytes, sealed: memoryview) -> SealedWords:
    """What `dealt_letter` sealed.

    Raises:
        Malformed: it is not that.
    """
    sealing = derive(key, now.tag, "two-server dealt")
    if not now.library.sealed(sealing, bytes(12), sealed, now.bound_to("dealt")):
        raise Malformed("it is not sealed by the dealer of this round")
    return SealedWords(now, sealing, sealed[:-_TAG])


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
