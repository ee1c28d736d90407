"""A client that fixes its row: it speaks once, to both servers and to the dealer."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from privfl.core import BadUpdate, Bounded, Buffer, ClientId, KeepsSecrets, Mail, client_party
from privfl.crypto.abort import StageAbort
from privfl.crypto.mpc.words import U64, expand, pack
from privfl.crypto.primitives import fields, seal_to
from privfl.hybrid.two_server.bits import Bits, BitSeeds
from privfl.hybrid.two_server.client import integers, signs
from privfl.hybrid.two_server.malicious.letters import row_tag
from privfl.hybrid.two_server.parameters import SEED, VECTOR, TwoServerParameters


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
        now, vector = self.now, self.vector
        first, second, key = (secrets.token_bytes(32) for _ in range(3))
        packed = fixed(now, vector, (first, second))
        self.vector = None
        tag = row_tag(now, key, self.position, packed)
        context = now.bound_to("seed", str(self.position))
        out: dict[str, Buffer] = {
            "server": now.write(VECTOR, self.position, fields.facts(now.plan), first, tag, packed),
            "server/1": now.write(
                SEED, self.position, seal_to(self.second, second + key, context, now.library)
            ),
            "dealer": now.write(
                SEED, self.position, seal_to(self.dealer, first + second, context, now.library)
            ),
        }
        return out


def fixed(now: TwoServerParameters, vector: U64 | Bits, seeds: Sequence[bytes]) -> bytes:
    """A row under masks of these seeds, packed: E."""
    if now.signs:
        bits = vector.astype(np.uint8)
        for mask in BitSeeds([*seeds]).packed(now):
            bits ^= mask
        return bits.tobytes()
    whole = vector.astype(np.uint64)
    for seed in seeds:
        whole -= expand(seed, now.words, now.library)
    return pack(whole, now.ring)


def with_norm(now: TwoServerParameters, vector: U64) -> U64:
    """A row with its squared norm as one more word."""
    values = vector[: now.plan.d]
    return np.concatenate([vector, (values * values).sum(keepdims=True, dtype=np.uint64)])


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
