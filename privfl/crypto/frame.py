"""The frame around every message of the protocols that add up ring elements: a header that says
which protocol, version and round it belongs to, and whose place in the cohort it claims.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from privfl.core import Buffer, PartyId, RoundPlan, client_party
from privfl.crypto import cohort
from privfl.crypto.primitives.fields import Malformed

HEADER = struct.Struct("<4sBBHI16s")
"""Magic and version, kind, bits of the ring, nothing, the client's place in the cohort, the round's
tag; `fields.HEADER` bytes.
"""


class Frame(NamedTuple):
    """A message, taken apart."""

    kind: int
    ring: int
    position: int
    tag: bytes
    content: memoryview


@dataclass(frozen=True, slots=True)
class FrameFormat:
    r"""One protocol's frame: ``magic`` is three letters and the version, ``name`` what its
    messages are called.

    >>> ours = FrameFormat(b"PXY\x01", "an example message")
    >>> ours.read(ours.write(3, 32, 7, bytes(16), b"body")).position
    7
    """

    magic: bytes
    name: str

    def write(self, kind: int, ring: int, position: int, tag: bytes, *parts: Buffer) -> bytes:
        """A whole message."""
        return b"".join((HEADER.pack(self.magic, kind, ring, 0, position, tag), *parts))

    def read(self, body: Buffer, tag: bytes | None = None) -> Frame:
        """A message, of this round where ``tag`` is given.

        Raises:
            Malformed: too short, another format or version, or another round's.
        """
        if len(body) < HEADER.size:
            raise Malformed(f"{len(body)} bytes are no message")
        magic, kind, ring, nothing, position, its_tag = HEADER.unpack_from(body)
        if magic != self.magic or nothing:
            raise Malformed(f"not {self.name} of this version")
        if tag is not None and its_tag != tag:
            raise Malformed(
                "it belongs to another round, or its sender runs it with other parameters"
            )
        return Frame(kind, ring, position, its_tag, memoryview(body)[HEADER.size :])


class FramedRound:
    """What the parameters of a round do with its messages, whatever the protocol."""

    __slots__ = ()
    FORMAT: ClassVar[FrameFormat]
    tag: bytes
    plan: RoundPlan
    ring: int
    quorum: int

    def write(self, kind: int, position: int, *parts: Buffer) -> bytes:
        """A whole message."""
        return self.FORMAT.write(kind, self.ring, position, self.tag, *parts)

    def read(self, body: Buffer, kind: int) -> tuple[int, memoryview]:
        """Position and content of a message of this kind.

        Raises:
            Malformed: it is none, or another round's.
        """
        found = self.FORMAT.read(body, self.tag)
        if found.kind != kind:
            raise Malformed("it is out of order")
        return found.position, found.content

    def sender(self, who: PartyId, body: Buffer, kind: int) -> tuple[int, memoryview]:
        """Position and content of a client's message.

        Raises:
            Malformed: as `read`, or it claims another's place.
        """
        client = cohort.member_of(self.plan, who)
        position, content = self.read(body, kind)
        cohort.own_place(self.plan, client, position)
        return position, content

    def repeats(self, body: Buffer, kind: int) -> bool:
        """Whether it is a message of this kind and round: one that came before, and comes again."""
        try:
            self.read(body, kind)
        except Malformed:
            return False
        return True

    def reasons(self, excluded: Mapping[PartyId, str]) -> bytes:
        """Whom of the cohort a helper could not use, and why, as `reasons_in` reads it; strangers
        that wrote to it are none of the round's.
        """
        known = {client_party(client) for client in self.plan.cohort}
        return "\n".join(f"{who}\t{why}" for who, why in excluded.items() if who in known).encode()

    def reasons_in(self, raw: Buffer, held: Collection[int], helper: PartyId) -> dict[PartyId, str]:
        """Whom a helper says that it could not use, and why; it names itself as who says so.

        Raises:
            Malformed: no text, or it names who takes no part, or whom it says that it heard.
        """
        try:
            lines = [line.partition("\t") for line in bytes(raw).decode().split("\n") if line]
        except UnicodeDecodeError:
            raise Malformed("its reasons are no text") from None
        known = {client_party(client) for client in self.plan.cohort}
        heard = {self.name(position) for position in held}
        for client, _, why in lines:
            if not (client + why).isprintable():
                raise Malformed("its reasons are no printable text")
            if client not in known:
                raise Malformed(f"it excludes {client!r}, who takes no part")
            if client in heard:
                raise Malformed(f"it excludes {client}, whom it says that it heard")
        return {client: f"{why} ({helper})" for client, _, why in lines}

    def name(self, position: int) -> PartyId:
        """The party at a place of the cohort."""
        return client_party(self.plan.cohort[position])

    def enough(self, stage: str, left: Collection[int]) -> None:
        """Refuse to go on with fewer contributions than the quorum.

        Raises:
            StageAbort: fewer are left.
        """
        cohort.enough(self.plan, self.quorum, stage, left)
