"""A client in one round: it speaks once."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass

import numpy as np

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
from privfl.crypto.mpc.words import U64, expand, pack
from privfl.crypto.primitives import fields, seal_to
from privfl.hybrid.two_server.bits import Bits, BitSeeds
from privfl.hybrid.two_server.parameters import SEED, VECTOR, TwoServerParameters


def integers(now: TwoServerParameters, update: Bounded) -> U64:
    """A contribution as ring words: the values, and the weight where rows have one; else every row
    has the largest weight.

    Raises:
        BadUpdate: as `FixedPoint.encode`, or a zero vector where only directions count.
    """
    claimed = update
    if not now.weighted:
        delta = update.delta if not now.shortest else _stretched(now, update)
        claimed = Bounded.claimed(update.client, delta, update.l2, now.plan.max_weight)
    encoded = now.code.encode(claimed, now.plan, dtype=np.int64)
    return encoded[: now.length].astype(np.int64, copy=False).view(np.uint64)


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
        if now.signs:
            masked = (self.vector ^ next(BitSeeds([seed]).packed(now))).tobytes()
        else:
            masked = pack(self.vector - expand(seed, now.length, now.library), now.ring)
        self.vector = None
        sealed_boxes = seal_to(
            self.boxes, seed, now.bound_to("seed", str(self.position)), now.library
        )
        out: dict[str, Buffer] = {
            "server": now.write(VECTOR, self.position, fields.facts(now.plan), masked),
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
