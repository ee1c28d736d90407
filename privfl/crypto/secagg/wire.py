"""The wire format of secure aggregation, version 5: the shared frame, then fields."""

from __future__ import annotations

from privfl.core import Buffer
from privfl.crypto.frame import FrameFormat
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.secagg.stage import Kind

FORMAT = FrameFormat(b"PSA\x05", "a secure aggregation message")


def write(kind: Kind, ring: int, position: int, tag: bytes, *parts: Buffer) -> bytes:
    """A whole message."""
    return FORMAT.write(kind, ring, position, tag, *parts)


def read(message: Buffer, tag: bytes | None = None) -> tuple[Kind, int, bytes, memoryview]:
    """Kind, position, tag and body of a message.

    Raises:
        Malformed: too short, another format or version, an unknown kind, or another round's.
    """
    found = FORMAT.read(message, tag)
    try:
        return Kind(found.kind), found.position, found.tag, found.content
    except ValueError:
        raise Malformed(f"kind {found.kind} does not exist") from None
