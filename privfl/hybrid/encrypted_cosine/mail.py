"""What server and key holder say to each other, and what of it a coalition can read."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import torch

from privfl.core import Buffer, KeepsSecrets, PartyId, RoundPlan, Total
from privfl.crypto.he.boxes import seal, unsealed
from privfl.crypto.he.wire import Parts, Refused, SignedMessage, Topic, pack, unpack
from privfl.hybrid.encrypted_cosine.keys import Ring
from privfl.hybrid.encrypted_cosine.parameters import CosineParameters, Integers
from privfl.hybrid.encrypted_cosine.products import uniform, values

CIPHERTEXT, QUESTIONS, SCORES, SUM, OPENED = b"ENCV", b"QUES", b"SCOR", b"SUM ", b"OPEN"
_NOTE = struct.Struct("<32sdII")


def box(ring: Ring, receiver: PartyId, kind: bytes, topic: Topic, parts: Parts) -> bytes:
    """A signed message whose content only its receiver can open.

    Raises:
        Refused: the receiver took no part in the set-up.
    """
    sealed = seal(ring.hello_of(receiver)[32:], pack(parts), _purpose(kind, topic))
    return SignedMessage.signed(ring.identity, kind, topic, ring.who, (sealed,)).to_bytes()


def unbox(ring: Ring, message: SignedMessage) -> list[memoryview]:
    """What is in a box that was sealed to this party.

    Raises:
        Refused: it was sealed to somebody else, or changed.
    """
    (sealed,) = message.whole()
    return unpack(unsealed(ring.identity, sealed, _purpose(message.kind, message.topic)))


def _purpose(kind: bytes, topic: Topic) -> bytes:
    return (
        b"encrypted-cosine/1/"
        + kind
        + topic.key_id
        + topic.facts
        + topic.number.to_bytes(8, "little")
    )


def numbers_to_bytes(numbers: Integers) -> bytes:
    """Residues mod t as they travel."""
    return numbers.astype("<u4").tobytes()


def numbers_from_bytes(body: memoryview, count: int, t: int) -> Integers:
    """So many residues mod t.

    Raises:
        Refused: another number of them, or no residues.
    """
    if len(body) != 4 * count:
        raise Refused(f"{len(body) // 4} numbers where {count} were due")
    numbers: Integers = np.frombuffer(body, dtype="<u4").astype(np.int64)
    if count and int(numbers.max()) >= t:
        raise Refused("numbers that are no residues")
    return numbers


@dataclass(frozen=True, slots=True, repr=False)
class Note(KeepsSecrets):
    """What the server must know to read the opened sum: it travels to the key holder and back,
    sealed by the server to itself.

    ``seed`` makes the mask; the integers of the sum times ``scale`` are the rule's result, of
    ``count`` contributions.
    """

    seed: bytes
    scale: float
    count: int
    d: int

    def sealed(self, ring: Ring, topic: Topic) -> bytes:
        """Sealed to the server itself."""
        plain = _NOTE.pack(self.seed, self.scale, self.count, self.d)
        return seal(ring.identity.hello[32:], plain, _purpose(b"NOTE", topic))

    @classmethod
    def read(cls, ring: Ring, body: memoryview, topic: Topic) -> Note:
        """The server's own note.

        Raises:
            Refused: it is not.
        """
        plain = unsealed(ring.identity, body, _purpose(b"NOTE", topic))
        if len(plain) != _NOTE.size:
            raise Refused("not a note of this version")
        return cls(*_NOTE.unpack(plain))

    def masks(self, setting: CosineParameters) -> Integers:
        """The mask of every coefficient [chunks, N]."""
        degree = setting.lattice.degree
        chunks = -(-self.d // degree)
        return uniform(self.seed, "mask", chunks * degree, setting.t).reshape(chunks, degree)

    def unmasked(self, setting: CosineParameters, opened: Integers) -> Integers:
        """The integers [d] of the weighted sum, from what the key holder opened [chunks, N]."""
        found = values(setting.lattice, (opened - self.masks(setting)) % setting.t)
        return setting.centred(found[: self.d])

    def total(self, integers: Integers) -> Total:
        """A total whose mean is the rule's result: every contribution that counts has the weight 1
        in it.
        """
        return Total(
            torch.from_numpy((integers * (self.scale * self.count)).astype(np.float32)),
            float(self.count),
            self.count,
        )


def opened_from(ring: Ring, message: SignedMessage) -> tuple[Note, Integers]:
    """The server's note and the polynomials [chunks, N] that the key holder opened.

    Raises:
        Refused: an answer of another form.
    """
    parts = unbox(ring, message)
    if len(parts) != 2:
        raise Refused("not an opened sum")
    note, setting = Note.read(ring, parts[0], message.topic), ring.setting
    degree = setting.lattice.degree
    chunks = -(-note.d // degree)
    return note, numbers_from_bytes(parts[1], chunks * degree, setting.t).reshape(chunks, degree)


def checked(
    ring: Ring, body: Buffer, sender: PartyId, kind: bytes, plan: RoundPlan
) -> SignedMessage:
    """A message of this sender, kind, round and key.

    Raises:
        Refused: it is not.
    """
    message = SignedMessage.read(body)
    message.verify(ring.hello_of(sender), kind, ring.topic(plan), sender)
    return message
