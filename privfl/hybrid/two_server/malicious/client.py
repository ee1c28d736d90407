"""A client that fixes its row: it speaks once, to both servers and to the dealer."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privfl.core import BadUpdate, Bounded, Buffer, ClientId, KeepsSecrets, Mail, client_party
from privfl.crypto.abort import StageAbort
from privfl.crypto.mpc.words import U64
from privfl.crypto.primitives import fields, seal_to
from privfl.hybrid.two_server.bits import Bits, BitSeeds
from privfl.hybrid.two_server.client import hide, integers, room_after, signs, written
from privfl.hybrid.two_server.malicious.letters import row_tag
from privfl.hybrid.two_server.parameters import SEED, VECTOR, TwoServerParameters

_TAG = 16


@dataclass(repr=False)
class FixedClientParty(KeepsSecrets):
    """A client in one round: E = x - A0 - A1 to the first server with the seed of A0, the seed of
    A1 and the key of E's tag, sealed, to the second, both seeds, sealed, to the dealer. The last
    word of ``vector`` x is its squared norm; rows of signs are packed bits, and masked by exclusive
    or.
    """

    now: TwoServerParameters
    who: ClientId
    position: int
    second: tuple[bytes, ...]
    dealer: tuple[bytes, ...]
    vector: U64 | Bits | None
    refused: str | None = None

    def step(self, mail: Mail) -> Mail:
        """All three messages, once."""
        if self.refused is not None:
            raise StageAbort("enter", self.refused, client_party(self.who))
        if self.vector is None:
            return {}
        now, (first, second, key) = self.now, (secrets.token_bytes(32) for _ in range(3))
        front = now.write(VECTOR, self.position, fields.facts(now.plan), first)
        letter, body = room_after(front, _TAG + now.packed)
        fix(now, self.vector, (first, second), body[_TAG:])
        self.vector = None
        tag = row_tag(now, key, self.position, body[_TAG:].data)
        body[:_TAG] = np.frombuffer(tag, dtype=np.uint8)
        context = now.bound_to("seed", str(self.position))
        out: dict[str, Buffer] = {
            "server": written(letter),
            "server/1": now.write(
                SEED, self.position, seal_to(self.second, second + key, context, now.library)
            ),
            "dealer": now.write(
                SEED, self.position, seal_to(self.dealer, first + second, context, now.library)
            ),
        }
        return out


def fix(
    now: TwoServerParameters,
    vector: U64 | Bits,
    seeds: Sequence[bytes],
    out: npt.NDArray[np.uint8],
) -> None:
    """Write a row under masks of these seeds, packed, to ``out``: E."""
    if not now.signs:
        hide(now, vector.view(np.uint64), seeds, out)
        return
    out[:] = vector
    for mask in BitSeeds([*seeds]).packed(now):
        out ^= mask


def with_norm(now: TwoServerParameters, vector: U64) -> U64:
    """A row whose last word is now its squared norm."""
    values = vector[: now.plan.d]
    vector[-1:] = np.einsum("i,i->", values, values)
    return vector


def enter(
    now: TwoServerParameters,
    who: ClientId,
    second: tuple[bytes, ...],
    dealer: tuple[bytes, ...],
    update: Bounded,
) -> FixedClientParty:
    """The client's party with its update; one that cannot be encoded gives up by name."""
    position = now.plan.cohort.index(who)
    try:
        vector = signs(now, update) if now.signs else with_norm(now, integers(now, update))
        return FixedClientParty(now, who, position, second, dealer, vector)
    except BadUpdate as bad:
        return FixedClientParty(now, who, position, second, dealer, None, str(bad))
