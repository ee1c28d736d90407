"""The plain channel's letters: a header in front of a vector."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection

import numpy as np
import torch

from privfl.core import FRAME_ROOM, Buffer, ClientId, PartyId, RoundPlan, client_of, norm

_HEADER = struct.Struct("<4sIQQd")
"""Magic and version, CRC-32 of the part's name, round, d, weight: FRAME_ROOM bytes in front of d
little-endian float32.
"""
_MAGIC = b"PFL\x01"
_SLACK = 1e-5


class NotUsable(Exception):
    """A letter that is none, and why."""


def header(plan: RoundPlan, weight: float) -> bytes:
    """What stands in front of a vector of this weight."""
    return _HEADER.pack(_MAGIC, zlib.crc32(plan.part.encode()), plan.number, plan.d, weight)


def read(body: Buffer, plan: RoundPlan | None = None) -> tuple[torch.Tensor, float]:
    """The vector (a view of a body that can be written, or a copy) and its weight; with a plan,
    only if they belong to it.
    """
    if len(body) < FRAME_ROOM:
        raise NotUsable(f"{len(body)} bytes are no message")
    magic, part, number, d, weight = _HEADER.unpack_from(body)
    if magic != _MAGIC:
        raise NotUsable("not a plain update of this version")
    if len(body) != FRAME_ROOM + 4 * d:
        raise NotUsable(f"{len(body)} bytes where {FRAME_ROOM + 4 * d} were announced")
    if plan is not None:
        if (part, number) != (zlib.crc32(plan.part.encode()), plan.number):
            raise NotUsable(
                f"a message for round {number}, not for round {plan.number}, part '{plan.part}'"
            )
        if d != plan.d:
            raise NotUsable(f"a vector of {d} values where {plan.d} were asked for")
        if not 0 < weight <= plan.max_weight:
            raise NotUsable(f"weight {weight} is not in (0, {plan.max_weight}]")
    values = np.frombuffer(body, dtype="<f4", offset=FRAME_ROOM)
    return torch.from_numpy(values if values.flags.writeable else values.copy()), weight


def checked(
    plan: RoundPlan,
    expected: Collection[ClientId],
    taken: Collection[ClientId],
    who: PartyId,
    body: Buffer,
) -> tuple[ClientId, torch.Tensor, float]:
    """Who sent a message, its vector and its weight.

    Raises:
        NotUsable: it is none of this round's, or longer than the bound.
    """
    client = client_of(who)
    if client is None or client not in expected:
        raise NotUsable("not in the cohort")
    if client in taken:
        raise NotUsable("a second message")
    row, weight = read(body, plan)
    length = norm(row)
    if not length <= plan.l2 * (1 + _SLACK) or length == float("inf"):
        raise NotUsable(f"norm {length:.6g} is over the bound {plan.l2:.6g}, or not finite")
    return client, row, weight
