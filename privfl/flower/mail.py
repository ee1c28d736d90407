"""Envelopes: what travels between the server and one node, as bytes.

An envelope is signed by its sender for its receiver, in one session of the keys, and numbered; the
answer carries the number of the question. Inside are a head of plain JSON and named bodies (frames
of the protocols, tensors as raw numbers). There is no pickle in it, every length is checked against
what is there before anything is copied, and whatever `write` did not make ends in `BadEnvelope`.

Letters between parties are signed and sealed inside of frames (`crypto.post`); an envelope hides
nothing from who carries it.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from privfl.core import Buffer, KnownKeys, PartyId, PartyKeys, PrivflError, Vector
from privfl.crypto.primitives import backend

Kind: TypeAlias = Literal["set up", "order", "mail", "ping", "answer", "refusal"]

_MAGIC = b"PFE\x01"
_KINDS: tuple[Kind, ...] = ("set up", "order", "mail", "ping", "answer", "refusal")
_HEADER = struct.Struct("<4sB16sQHHIH")
_ENTRY = struct.Struct("<HQ")
_SIGNATURE = 64
_SCENE = b"privfl/envelope/1"
MAX_HEAD = 1 << 20
MAX_BODIES = 1 << 12
MAX_NAME = 256
MAX_BYTES = 1 << 32
_DTYPES: Mapping[str, torch.dtype] = {"<f4": torch.float32, "<f8": torch.float64}


class BadEnvelope(PrivflError, ValueError):
    """Bytes that are no envelope of this version, or of another sender or receiver."""


@dataclass(frozen=True, slots=True)
class Envelope:
    r"""One envelope. ``session`` [16 bytes] is that of the keys, ``number`` that of the question in
    it; ``head`` is plain data, ``bodies`` are bytes by name.

    >>> from privfl.crypto.primitives import Directory, Identity
    >>> keys = {who: Identity.fresh(who) for who in ("server", "client/0")}
    >>> known = Directory.of({who: identity.public for who, identity in keys.items()})
    >>> sent = Envelope("mail", "server", "client/0", bytes(16), 7, {"a": [1]}, {"b": b"body"})
    >>> sent.write(keys["server"])[:4]
    b'PFE\x01'
    >>> read(sent.write(keys["server"]), "client/0", known).head
    {'a': [1]}
    """

    kind: Kind
    sender: PartyId
    receiver: PartyId
    session: bytes
    number: int
    head: Mapping[str, Any] = field(default_factory=dict)
    bodies: Mapping[str, Buffer] = field(default_factory=dict)

    def answer(
        self, kind: Kind, head: Mapping[str, Any], bodies: Mapping[str, Buffer] | None = None
    ) -> Envelope:
        """An envelope back to its sender."""
        return Envelope(
            kind, self.receiver, self.sender, self.session, self.number, head, bodies or {}
        )

    def write(self, keys: PartyKeys) -> bytes:
        """The envelope as bytes, signed.

        Raises:
            BadEnvelope: it is too large for `read`.
        """
        sender, receiver = self.sender.encode(), self.receiver.encode()
        head = json.dumps(self.head, separators=(",", ":"), allow_nan=False).encode()
        if len(head) > MAX_HEAD or len(self.bodies) > MAX_BODIES:
            raise BadEnvelope(
                f"an envelope to {self.receiver} has a head of {len(head)} bytes and"
                f" {len(self.bodies)} bodies, and {MAX_HEAD} and {MAX_BODIES} are the most."
            )
        pieces: list[Buffer] = [
            _HEADER.pack(
                _MAGIC,
                _KINDS.index(self.kind),
                self.session,
                self.number,
                len(sender),
                len(receiver),
                len(head),
                len(self.bodies),
            ),
            sender,
            receiver,
            head,
        ]
        for name, body in self.bodies.items():
            pieces += [_ENTRY.pack(len(name.encode()), len(body)), name.encode()]
        whole = b"".join([*pieces, *self.bodies.values()])
        return whole + keys.sign(_signed(whole))


def _signed(content: Buffer) -> bytes:
    return _SCENE + hashlib.sha256(content).digest()


def read(raw: Buffer, receiver: PartyId, directory: KnownKeys) -> Envelope:
    """An envelope to this receiver, signed by who it says sent it.

    Raises:
        BadEnvelope: it is none, or not; nothing in it may be believed then.
    """
    view = memoryview(raw).cast("B")
    if len(view) > MAX_BYTES:
        raise BadEnvelope(f"an envelope of {len(view)} bytes, where {MAX_BYTES} are the most.")
    found = _parsed(view)
    if found.receiver != receiver:
        raise BadEnvelope(f"an envelope to {found.receiver} reached {receiver}.")
    signed, signature = _signed(view[:-_SIGNATURE]), bytes(view[-_SIGNATURE:])
    library = backend()
    if not any(library.verify(key, signed, signature) for key in directory.keys(found.sender)):
        raise BadEnvelope(f"an envelope in the name of {found.sender} is not signed by it.")
    return found


def _parsed(view: memoryview) -> Envelope:
    """What the bytes say, with nothing believed of it."""
    if len(view) < _HEADER.size + _SIGNATURE:
        raise BadEnvelope(f"{len(view)} bytes are no envelope.")
    magic, kind, session, number, to, by, size, count = _HEADER.unpack_from(view)
    if magic != _MAGIC or kind >= len(_KINDS):
        raise BadEnvelope("these bytes are no envelope of this version.")
    if size > MAX_HEAD or count > MAX_BODIES or max(to, by) > MAX_NAME:
        raise BadEnvelope("an envelope announces more than one may hold.")
    at, end = _HEADER.size, len(view) - _SIGNATURE
    try:
        texts = []
        for length in (to, by, size):
            if at + length > end:
                raise BadEnvelope("an envelope is cut off.")
            texts.append(bytes(view[at : at + length]).decode())
            at += length
        if not (texts[0] + texts[1]).isprintable():  # anybody may have written them: they are said
            raise BadEnvelope("an envelope names parties that cannot be.")
        sizes: dict[str, int] = {}
        for _ in range(count):
            length, body = _ENTRY.unpack_from(view[:end], at)
            at += _ENTRY.size
            if length > MAX_NAME or at + length > end:
                raise BadEnvelope("an envelope is cut off.")
            name = bytes(view[at : at + length]).decode()
            at += length
            if name in sizes:
                raise BadEnvelope("an envelope holds two bodies of one name.")
            sizes[name] = body
        head = json.loads(texts[2])
    except (struct.error, UnicodeDecodeError, ValueError, RecursionError) as error:
        if isinstance(error, BadEnvelope):
            raise
        raise BadEnvelope(f"an envelope's head is garbled ({type(error).__name__}).") from None
    if not isinstance(head, dict):
        raise BadEnvelope("an envelope's head is no mapping.")
    if at + sum(sizes.values()) != end:
        raise BadEnvelope("an envelope is longer or shorter than it says.")
    bodies: dict[str, Buffer] = {}
    for name, length in sizes.items():
        bodies[name], at = view[at : at + length], at + length
    return Envelope(_KINDS[kind], texts[0], texts[1], session, number, head, bodies)


def packed_vector(vector: Vector) -> tuple[str, bytes]:
    """The type of a vector's numbers, and these as little-endian bytes.

    >>> kind, raw = packed_vector(torch.tensor([1.0, 2.0]))
    >>> kind, unpacked_vector(kind, raw)
    ('<f4', tensor([1., 2.]))
    """
    values = vector.detach().cpu().contiguous().numpy()
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return little.dtype.newbyteorder("<").str, little.tobytes()


def unpacked_vector(kind: object, raw: Buffer) -> Vector:
    """What `packed_vector` packed, as a vector [d] of its own.

    Raises:
        BadEnvelope: no type of numbers that travel, or bytes that are not whole numbers of them.
    """
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise BadEnvelope("a vector travels as <f4 or <f8 numbers, and this one as something else.")
    if len(raw) % np.dtype(kind).itemsize:
        raise BadEnvelope(f"{len(raw)} bytes are no vector of {kind} numbers.")
    return torch.from_numpy(np.frombuffer(raw, dtype=kind).copy())
