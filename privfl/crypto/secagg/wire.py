"""The wire format of secure aggregation, version 1: a header that binds every message to its round,
then fields.
"""

from __future__ import annotations

import struct

from privfl.core import Buffer
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.secagg.stage import Kind

HEADER = struct.Struct("<4sBBHI16s")
"""Magic and version, kind, bits of the ring, nothing, the client's place in the cohort, the round's
tag.
"""
MAGIC = b"PSA\x01"


def write(kind: Kind, ring: int, position: int, tag: bytes, *parts: Buffer) -> bytes:
    """A whole message."""
    return b"".join((HEADER.pack(MAGIC, kind, ring, 0, position, tag), *parts))


def read(message: Buffer, tag: bytes | None = None) -> tuple[Kind, int, bytes, memoryview]:
    """Kind, position, tag and body of a message.

    Raises:
        Malformed: too short, another format or version, an unknown kind, or another round's.
    """
    if len(message) < HEADER.size:
        raise Malformed(f"{len(message)} bytes are no message")
    magic, kind, _, nothing, position, its_tag = HEADER.unpack_from(message)
    if magic != MAGIC or nothing:
        raise Malformed("not a secure aggregation message of this version")
    if tag is not None and its_tag != tag:
        raise Malformed("it belongs to another round, or its sender runs it with other parameters")
    try:
        return Kind(kind), position, its_tag, memoryview(message)[HEADER.size :]
    except ValueError:
        raise Malformed(f"kind {kind} does not exist") from None
