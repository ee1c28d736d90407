"""What travels between a client and a model's owner: a head that says which circuit and what it is,
then residues of fixed width.
"""

from __future__ import annotations

import struct
from typing import Literal, TypeAlias

from privfl.core import Buffer
from privfl.crypto.he.wire import Refused
from privfl.inference.circuit import InferenceCircuit

Kind: TypeAlias = Literal["keys", "query", "answer"]
_KINDS: tuple[Kind, ...] = ("keys", "query", "answer")
_HEAD = struct.Struct("<4sBBH16s")
_MAGIC, _VERSION = b"PFIN", 1


def closed(circuit: InferenceCircuit, kind: Kind, body: Buffer) -> bytes:
    """A message."""
    return _HEAD.pack(_MAGIC, _VERSION, _KINDS.index(kind), 0, circuit.digest) + bytes(body)


def opened(circuit: InferenceCircuit, kind: Kind, data: Buffer) -> memoryview:
    """A message's body.

    Raises:
        Refused: no message of this version, of another kind, or for another circuit.
    """
    view = memoryview(data).cast("B")
    if len(view) < _HEAD.size:
        raise Refused("not a message of encrypted inference: cut short")
    magic, version, number, rest, digest = _HEAD.unpack_from(view)
    if (magic, version, rest) != (_MAGIC, _VERSION, 0) or number >= len(_KINDS):
        raise Refused("not a message of encrypted inference of this version")
    if _KINDS[number] != kind:
        raise Refused(f"{_KINDS[number]} where {kind} was due")
    if digest != circuit.digest:
        raise Refused("a message for a network of other widths")
    return view[_HEAD.size :]
