"""What homomorphic channels say to each other: signed messages bound to a round and a key, lists of
byte strings, arrays. Boxes sealed to one receiver are in `boxes`.

A message is a head, the SHA-256 digest of each of its parts, one Ed25519 signature over both, and
the parts themselves. A part can be left out on the way without breaking the signature, so that a
server forwards to a decryptor only what it needs.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from privfl.core import Buffer, KnownKeys, PartyId, PartyKeys, RoundPlan
from privfl.crypto.primitives import backend

Parts: TypeAlias = tuple[Buffer, ...]
"""The body of one message. A ciphertext has one part, or several where decryptors need only some of
them.
"""
Rope: TypeAlias = list[Buffer]
"""One byte string in pieces."""
Numbers: TypeAlias = npt.NDArray[Any]
"""What is encrypted: int64 [d + 1] of a fixed-point code, or float64 [d + 1]."""

_DOMAIN = b"privfl/he/message/1\x00"
_HEAD = struct.Struct("<4s4s16s16sQQddI32sB")
_MAGIC = b"PFH\x01"
_MOST_PARTS = 32
_MOST_CLIENTS = 1 << 20


class Refused(Exception):
    """Mail that cannot be used, and why."""


class HostileKey(Refused):
    """A key of a set-up that no honest maker hands out, under which nothing is encrypted."""


@dataclass(frozen=True, slots=True)
class Topic:
    """What a message is about: the key in this set-up (``key_id``), and the public facts of the
    round that its signature binds it to.
    """

    key_id: bytes
    facts: bytes
    number: int
    d: int
    l2: float
    max_weight: float
    n: int

    @classmethod
    def of(cls, plan: RoundPlan, key_id: bytes) -> Topic:
        """The topic of a round under a key; ``facts`` digests the session, the part, the cohort
        and the models that it trained from.
        """
        cohort = b"".join(struct.pack("<Q", client) for client in plan.cohort)
        models = b"".join(map(bytes.fromhex, plan.models))
        facts = hashlib.sha256(
            digest(plan.session) + digest(plan.part.encode()) + cohort + models
        ).digest()[:16]
        return cls(
            key_id, facts, plan.number, plan.d, float(plan.l2), float(plan.max_weight), plan.n
        )

    def plan(self) -> RoundPlan:
        """The numbers of the round, for somebody who reads mail without its plan: the cohort is
        known by its size only.

        Raises:
            Refused: no round has such numbers.
        """
        if not (0 < self.n <= _MOST_CLIENTS and self.d > 0 and self.l2 > 0 and self.max_weight > 0):
            raise Refused("the facts of no round")
        return RoundPlan(self.number, tuple(range(self.n)), self.d, self.l2, self.max_weight)


def digest(data: Buffer) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


def is_known(directory: KnownKeys, who: PartyId, hello: bytes) -> bool:
    """Whether the public keys [64 bytes] that came in a party's name are that party's."""
    return hello[:32] in directory.keys(who) and hello[32:] in directory.boxes(who)


class RoomInFrame:
    """Room for a message of so many parts, the first of which, of ``size`` bytes, is written to
    ``first``: a long part is in its place at once, and need not be copied there. ``rest``: bytes
    of all other parts at most.
    """

    def __init__(self, count: int, size: int, rest: int) -> None:
        start = _HEAD.size + (32 + 8) * count + 64
        self.whole = bytearray(start + size + rest)
        self.first = memoryview(self.whole)[start : start + size]


@dataclass(frozen=True, slots=True)
class SignedMessage:
    """A signed message: who says what about which round. ``parts`` holds None where a part was left
    out on the way.
    """

    kind: bytes
    topic: Topic
    sender: PartyId
    digests: tuple[bytes, ...]
    signature: bytes
    parts: tuple[Buffer | None, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return SignedMessage.read, (
            self.to_bytes(),
        )  # parts may be views of somebody's mail, and views do not rest

    @classmethod
    def signed(
        cls,
        identity: PartyKeys,
        kind: bytes,
        topic: Topic,
        sender: PartyId,
        parts: Parts,
        first: bytes | None = None,
    ) -> SignedMessage:
        """Sign these parts. ``first``: the digest of the first one, where it is known already."""
        known = () if first is None else (first,)
        digests = (*known, *(digest(part) for part in parts[len(known) :]))
        return cls(
            kind,
            topic,
            sender,
            digests,
            identity.sign(_signed_bytes(kind, topic, sender, digests)),
            parts,
        )

    @classmethod
    def read(cls, body: Buffer) -> SignedMessage:
        """Take a message apart; nothing is verified yet, and nothing is copied.

        Raises:
            Refused: these bytes are no message of this version, or not all of one.
        """
        view = memoryview(body).cast("B")
        if len(view) < _HEAD.size:
            raise Refused(f"{len(view)} bytes are no message")
        magic, kind, key_id, facts, number, d, l2, weight, n, who, count = _HEAD.unpack_from(view)
        end = _HEAD.size + 32 * count + 64 + 8 * count
        if magic != _MAGIC or count > _MOST_PARTS or len(view) < end:
            raise Refused("not a message of this version, or cut short")
        digests = tuple(
            bytes(view[_HEAD.size + 32 * i : _HEAD.size + 32 * (i + 1)]) for i in range(count)
        )
        signature = bytes(view[end - 8 * count - 64 : end - 8 * count])
        parts: list[Buffer | None] = []
        for (length,) in struct.iter_unpack("<q", view[end - 8 * count : end]):
            if length < -1 or end + length > len(view):
                raise Refused("a message is cut short")
            parts.append(None if length < 0 else view[end : end + length])
            end += max(length, 0)
        if end != len(view):
            raise Refused(f"{len(view) - end} bytes too many")
        topic = Topic(key_id, facts, number, d, l2, weight, n)
        return cls(
            kind,
            topic,
            who.rstrip(b"\0").decode("ascii", "replace"),
            digests,
            signature,
            tuple(parts),
        )

    def rope(self) -> Rope:
        """The message as it travels, in pieces that nobody has copied yet."""
        lengths = struct.pack(
            f"<{len(self.parts)}q", *(-1 if part is None else len(part) for part in self.parts)
        )
        present = [part for part in self.parts if part is not None]
        return [
            _head(self.kind, self.topic, self.sender, len(self.parts)),
            *self.digests,
            self.signature,
            lengths,
            *present,
        ]

    def to_bytes(self) -> bytes:
        """The message as it travels."""
        return b"".join(self.rope())

    def framed(self, frame: RoomInFrame) -> bytearray:
        """The message as it travels, of which the first part lies in its place already."""
        at = 1 + len(self.digests) + 2
        rope, out, size = self.rope(), frame.whole, len(frame.first)
        frame.first.release()
        head, rest = b"".join(rope[:at]), b"".join(rope[at + 1 :])
        out[: len(head)] = head
        out[len(head) + size :] = rest
        return out

    def without(self, left_out: Collection[int]) -> SignedMessage:
        """The same signed message with some parts left out."""
        return replace(
            self, parts=tuple(None if i in left_out else part for i, part in enumerate(self.parts))
        )

    def verify(self, hello: bytes, kind: bytes, topic: Topic, sender: PartyId) -> None:
        """Refuse what this sender did not sign, about this round, under this key, and parts that
        are not the ones signed.

        Raises:
            Refused: and why.
        """
        if self.kind != kind or self.sender != sender:
            raise Refused(f"a {self.kind!r} of {self.sender} where a {kind!r} of {sender} was due")
        if self.topic.key_id != topic.key_id:
            raise Refused("made under a foreign key, or in another set-up")
        if self.topic.number != topic.number:
            raise Refused(f"a message for round {self.topic.number}, not for round {topic.number}")
        if self.topic != topic:
            raise Refused("made for another session, part, cohort or bound")
        signed = _signed_bytes(self.kind, self.topic, self.sender, self.digests)
        if not backend().verify(bytes(hello[:32]), signed, self.signature):
            raise Refused("the signature is not the sender's")
        for part, expected in zip(self.parts, self.digests, strict=True):
            if part is not None and digest(part) != expected:
                raise Refused("the content is not what was signed")

    def whole(self) -> Parts:
        """All parts.

        Raises:
            Refused: one was left out.
        """
        return self.only(range(len(self.parts)))

    def only(self, wanted: Collection[int]) -> Parts:
        """These parts.

        Raises:
            Refused: one was left out.
        """
        chosen = tuple(self.parts[i] for i in wanted if i < len(self.parts))
        there = tuple(part for part in chosen if part is not None)
        if len(there) != len(wanted):
            raise Refused("a part of the message is missing")
        return there


def _head(kind: bytes, topic: Topic, sender: PartyId, count: int) -> bytes:
    facts = (topic.key_id, topic.facts, topic.number, topic.d, topic.l2, topic.max_weight, topic.n)
    return _HEAD.pack(_MAGIC, kind, *facts, sender.encode("ascii"), count)


def _signed_bytes(kind: bytes, topic: Topic, sender: PartyId, digests: Sequence[bytes]) -> bytes:
    return _DOMAIN + _head(kind, topic, sender, len(digests)) + b"".join(digests)


def braid(items: Sequence[Buffer | Rope]) -> Rope:
    """Several byte strings, some of them in pieces, as one that `unpack` takes apart; nothing is
    copied.
    """
    ropes = [item if isinstance(item, list) else [item] for item in items]
    lengths = (sum(map(len, rope)) for rope in ropes)
    return [
        struct.pack(f"<I{len(ropes)}Q", len(ropes), *lengths),
        *(piece for rope in ropes for piece in rope),
    ]


def pack(items: Sequence[Buffer | Rope]) -> bytes:
    """Several byte strings as one.

    >>> [bytes(item) for item in unpack(pack([b"one", b"", b"three"]))]
    [b'one', b'', b'three']
    """
    return b"".join(braid(items))


def unpack(body: Buffer) -> list[memoryview]:
    """The byte strings that `pack` joined, as views.

    Raises:
        Refused: not all of them are there, or more is.
    """
    view = memoryview(body).cast("B")
    count = struct.unpack_from("<I", view)[0] if len(view) >= 4 else -1
    if count < 0 or len(view) < 4 + 8 * count:
        raise Refused("a list of messages is cut short")
    lengths = struct.unpack_from(f"<{count}Q", view, 4)
    if 4 + 8 * count + sum(lengths) != len(view):
        raise Refused("a list of messages has another length than it says")
    items: list[memoryview] = []
    start = 4 + 8 * count
    for length in lengths:
        items.append(view[start : start + length])
        start += length
    return items


def pack_numbers(numbers: Numbers) -> bytes:
    """Decrypted numbers as they travel: int32 where they fit, otherwise int64, or float64.

    >>> unpack_numbers(pack_numbers(np.array([1, -2]))).tolist()
    [1, -2]
    """
    if numbers.dtype == np.float64:
        return b"d" + numbers.astype("<f8", copy=False).tobytes()
    small = len(numbers) == 0 or (numbers.min() >= -(1 << 31) and numbers.max() < 1 << 31)
    return (
        b"i" + numbers.astype("<i4").tobytes() if small else b"q" + numbers.astype("<i8").tobytes()
    )


def unpack_numbers(body: Buffer) -> Numbers:
    """What `pack_numbers` packed.

    Raises:
        Refused: it packed something else.
    """
    kinds = {b"d": ("<f8", np.float64), b"i": ("<i4", np.int64), b"q": ("<i8", np.int64)}
    tag = bytes(body[:1])
    if tag not in kinds or (len(body) - 1) % int(kinds[tag][0][-1]):
        raise Refused("not an array of numbers")
    there, here = kinds[tag]
    return np.frombuffer(body, dtype=there, offset=1).astype(here)
