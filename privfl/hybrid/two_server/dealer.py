"""The dealer in one round."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from privfl.core import Buffer, KeepsSecrets, Mail, PartyId, PartyKeys
from privfl.crypto.abort import StageAbort
from privfl.crypto.mpc.preprocessing import (
    correct,
    derived_words,
    first_preprocessing,
)
from privfl.crypto.mpc.words import U64, pack
from privfl.crypto.primitives import fields, open_one
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.between_servers import unusable
from privfl.hybrid.two_server.bits import dealt_flips
from privfl.hybrid.two_server.parameters import DEAL, DEALT, TwoServerParameters
from privfl.hybrid.two_server.recipe import Recipe
from privfl.hybrid.two_server.rows import SeedRows, Veil, blinds, dealt, tag_keys
from privfl.hybrid.two_server.sealing import SEED_SIZE, seal_dealt


@dataclass(repr=False)
class Dealer(KeepsSecrets):
    """The dealer in one round: it sees seeds, no client's data, and must collude with neither
    server.
    """

    now: TwoServerParameters
    recipe: Recipe
    identity: PartyKeys
    heard: dict[PartyId, tuple[frozenset[int], bytes]] = field(default_factory=dict)
    done: bool = False

    def step(self, mail: Mail) -> Mail:
        """Once both servers have spoken, the second server's words."""
        for who in ("server", "server/1"):
            if who in mail and who not in self.heard:
                self.heard[who] = self.read_seeds(who, mail[who])
        if len(self.heard) < 2 or self.done:
            return {}
        now, (members, first), (same, second) = (
            self.now,
            self.heard["server"],
            self.heard["server/1"],
        )
        if members != same:
            raise StageAbort("deal", "the servers name different clients")
        self.done = True
        demand = self.recipe.demand(now, len(members))
        own, seeds = (
            second[:SEED_SIZE],
            [second[i : i + SEED_SIZE] for i in range(SEED_SIZE, len(second), SEED_SIZE)],
        )
        preprocessing = first_preprocessing(first, demand, now.library)
        theirs = derived_words(own, "weights", demand.weights, now.library)
        none: U64 = np.zeros(0, dtype=np.uint64)
        if now.signs:
            words = correct(preprocessing, own, demand, now.library, none, none)
            words += dealt_flips(now, first, own, len(members), preprocessing.weights + theirs)
        else:
            key = tag_keys(now, first)[0] if self.recipe.tagged else none
            inner, vector, tags = dealt(
                now, SeedRows(seeds), Veil(first), preprocessing.weights, theirs, key
            )
            words = correct(preprocessing, own, demand, now.library, inner, vector)
        self.heard = {}
        out: dict[PartyId, Buffer] = {"server/1": now.write(DEALT, 0, seal_dealt(now, own, words))}
        if self.recipe.tagged:
            hidden = tags + blinds(now, own, len(members))[0]
            out["server"] = now.write(DEALT, 0, seal_dealt(now, first, pack(hidden, 64)))
        return out

    def read_seeds(self, who: PartyId, body: Buffer) -> tuple[frozenset[int], bytes]:
        """Whom a server lists, and the seeds that it sealed to the dealer.

        Raises:
            StageAbort: the message is none.
        """
        now = self.now
        try:
            _, content = now.read(body, DEAL)
            members, sealed_boxes = fields.read_bit_set(content, now.plan.n)
            size = SEED_SIZE if who == "server" else SEED_SIZE * (1 + len(members))
            return members, open_one(sealed_boxes, size, self.identity, now.bound_to("deal", who))
        except Malformed as malformed:
            raise unusable("deal", who, malformed) from None
