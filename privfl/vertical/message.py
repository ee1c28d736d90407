"""What travels between a guest and its hosts: a head that says which batch and what it is, then
float32 numbers, row by row.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.core import Buffer, ConfigError
from privfl.crypto.he.wire import Refused

Kind: TypeAlias = Literal["activations", "gradients"]
_KINDS: tuple[Kind, ...] = ("activations", "gradients")
_HEAD = struct.Struct("<4sBBHII16s")
_MAGIC, _VERSION = b"PFVE", 1
_DOMAIN = b"privfl/vertical/batch/1\x00"


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The public facts of one batch: the session, its number in it, the rows [B] of the aligned
    samples, whether it trains.

    Raises:
        ConfigError: no rows.

    >>> one = Batch(b"session", 0, torch.tensor([3, 1]), training=True)
    >>> one.digest == Batch(b"session", 1, torch.tensor([3, 1]), training=True).digest
    False
    """

    session: bytes
    number: int
    rows: Int[Tensor, " B"]
    training: bool

    def __post_init__(self) -> None:
        if not len(self.rows):
            raise ConfigError("a batch has at least one row, and this one has none.")

    @property
    def digest(self) -> bytes:
        """What messages of this batch carry, and those of no other."""
        facts = struct.pack("<IQ?", len(self.session), self.number, self.training)
        rows = self.rows.numpy().astype("<i8").tobytes()
        return hashlib.sha256(_DOMAIN + facts + self.session + rows).digest()[:16]


def closed(batch: Batch, kind: Kind, values: Float[Tensor, "B k"]) -> bytes:
    """A message."""
    rows, width = values.shape
    head = _HEAD.pack(_MAGIC, _VERSION, _KINDS.index(kind), 0, rows, width, batch.digest)
    return head + values.detach().numpy().astype("<f4").tobytes()


def opened(batch: Batch, kind: Kind, width: int, data: Buffer) -> Float[Tensor, "B k"]:
    """A message's numbers, a copy of them.

    Raises:
        Refused: no message of this version, kind, batch or shape, or one with NaN or infinities.
    """
    view = memoryview(data).cast("B")
    if len(view) < _HEAD.size:
        raise Refused("not a message of vertical learning: cut short")
    magic, version, number, rest, rows, columns, digest = _HEAD.unpack_from(view)
    if (magic, version, rest) != (_MAGIC, _VERSION, 0) or number >= len(_KINDS):
        raise Refused("not a message of vertical learning of this version")
    if _KINDS[number] != kind:
        raise Refused(f"{_KINDS[number]} where {kind} were due")
    if digest != batch.digest:
        raise Refused("a message of another batch")
    if (rows, columns) != (len(batch.rows), width):
        raise Refused(f"{rows} x {columns} numbers where {len(batch.rows)} x {width} were due")
    if len(view) != _HEAD.size + 4 * rows * columns:
        raise Refused("a message of another length than it says")
    values = torch.frombuffer(bytearray(view[_HEAD.size :]), dtype=torch.float32)
    if not bool(values.isfinite().all()):
        raise Refused("numbers that are not finite")
    return values.reshape(rows, columns)
