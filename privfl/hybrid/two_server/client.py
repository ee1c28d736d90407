"""A client in one round: it speaks once."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privfl.core import (
    BadUpdate,
    Bounded,
    Buffer,
    ClientId,
    KeepsSecrets,
    Mail,
    Vector,
    client_party,
    norm,
)
from privfl.crypto.abort import StageAbort
from privfl.crypto.mpc.words import U64, draw, pack_into, stream
from privfl.crypto.primitives import fields, seal_to
from privfl.hybrid.two_server.bits import Bits, BitSeeds
from privfl.hybrid.two_server.parameters import SEED, VECTOR, TwoServerParameters

_BLOCK = 1 << 15
"""Words at a time: they and their masks stay in cache."""


def integers(now: TwoServerParameters, update: Bounded) -> U64:
    """A contribution [words] as ring words: the values, and the weight where rows have one; else
    every row has the largest weight. Where rows are fixed there is room for one word more.

    Raises:
        BadUpdate: as `FixedPoint.encode`, or a zero vector where only directions count.
    """
    claimed = update
    if not now.weighted:
        delta = update.delta if not now.shortest else _stretched(now, update)
        claimed = Bounded.claimed(update.client, delta, update.l2, now.plan.max_weight)
    encoded = now.code.encode(claimed, now.plan, dtype=np.int64).astype(np.int64, copy=False)
    if now.words > len(encoded):
        encoded = np.append(encoded, 0)
    return encoded[: now.words].view(np.uint64)


def hide(
    now: TwoServerParameters, vector: U64, seeds: Sequence[bytes], out: npt.NDArray[np.uint8]
) -> None:
    """Write a row [words] less the masks of these seeds, packed, to ``out``, block by block."""
    streams = [stream(seed, now.library) for seed in seeds]
    for start in range(0, len(vector), _BLOCK):
        block = vector[start : start + _BLOCK].copy()
        for source in streams:
            block -= draw(source, len(block))
        pack_into(out, now.ring, start, block)


def room_after(front: bytes, size: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """A letter that begins with its ``front``, and the ``size`` bytes of it that are to be written
    after that.
    """
    letter = np.empty(len(front) + size, dtype=np.uint8)
    letter[: len(front)] = np.frombuffer(front, dtype=np.uint8)
    return letter, letter[len(front) :]


def written(letter: npt.NDArray[np.uint8]) -> memoryview:
    """A letter that nobody writes to any more."""
    letter.flags.writeable = False
    return letter.data


def _stretched(now: TwoServerParameters, update: Bounded) -> Vector:
    """The update at full length: FLTrust looks at directions, and rows of one length need no
    division on shares.
    """
    length = norm(update.delta)
    if not 0 < length < math.inf:
        raise BadUpdate(
            f"client {update.client}: an update of length {length:.6g} has no direction, and"
            f" {now.plan.l2:g} is asked for."
        )
    return update.delta * (now.plan.l2 / length)


def signs(now: TwoServerParameters, update: Bounded) -> Bits:
    """Packed bits, 1 where an entry is below zero.

    Raises:
        BadUpdate: a wrong length, or entries that are not finite.
    """
    values = update.delta.detach().cpu().numpy()
    if len(values) != now.plan.d or not np.isfinite(values).all():
        raise BadUpdate(f"client {update.client}: no finite vector of {now.plan.d} values.")
    return np.packbits(values < 0, bitorder="little")


@dataclass(repr=False)
class TwoServerClientParty(KeepsSecrets):
    """A client in one round: its vector minus a mask to the first server, the mask's seed, sealed,
    to the second.
    """

    now: TwoServerParameters
    who: ClientId
    position: int
    boxes: tuple[bytes, ...]
    vector: U64 | Bits | None
    refused: str | None = None

    def step(self, mail: Mail) -> Mail:
        """Both messages, once."""
        if self.refused is not None:
            raise StageAbort("enter", self.refused, client_party(self.who))
        if self.vector is None:
            return {}
        now, seed = self.now, secrets.token_bytes(32)
        front = now.write(VECTOR, self.position, fields.facts(now.plan))
        letter, body = room_after(front, now.packed)
        if now.signs:
            body[:] = self.vector ^ next(BitSeeds([seed]).packed(now))
        else:
            hide(now, self.vector.view(np.uint64), [seed], body)
        self.vector = None
        sealed_boxes = seal_to(
            self.boxes, seed, now.bound_to("seed", str(self.position)), now.library
        )
        out: dict[str, Buffer] = {
            "server": written(letter),
            "server/1": now.write(SEED, self.position, sealed_boxes),
        }
        return out


def enter(
    now: TwoServerParameters, who: ClientId, boxes: tuple[bytes, ...], update: Bounded
) -> TwoServerClientParty:
    """The client's party with its update; one that cannot be encoded gives up by name."""
    try:
        vector = signs(now, update) if now.signs else integers(now, update)
        return TwoServerClientParty(now, who, now.plan.cohort.index(who), boxes, vector)
    except BadUpdate as bad:
        return TwoServerClientParty(now, who, now.plan.cohort.index(who), boxes, None, str(bad))
