"""A client's part: it says that it is there, adds its vector to what its neighbour passed on, and
passes the sum on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privfl.core import (
    Buffer,
    ClientId,
    KeepsSecrets,
    KnownKeys,
    Mail,
    PartyId,
    PartyKeys,
    client_party,
)
from privfl.crypto.abort import StageAbort
from privfl.crypto.chain.parameters import (
    HERE,
    LINK,
    ORDER,
    PASSED,
    READY,
    SEED,
    WATCH,
    WATCHED,
    ChainParameters,
    bound_to,
    neighbours,
    read_order,
    seed_bound_to,
)
from privfl.crypto.primitives import Words, backend, fields, mask, open_one
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.ring import word


@dataclass(repr=False)
class ChainClientParty(KeepsSecrets):
    """A client in one round: it adds its vector once, for one chain, which the quorum is in."""

    round: ChainParameters
    who: ClientId
    position: int
    identity: PartyKeys
    directory: KnownKeys
    vector: Words | None
    refused: tuple[str, PartyId] | None = None
    begun: bool = False
    order: frozenset[int] = frozenset()

    def step(self, mail: Mail) -> Mail:
        """Say that it is there; then wait for the neighbour's sum, and pass it on."""
        if self.refused is not None:
            raise StageAbort("enter", *self.refused)
        now = self.round
        if not self.begun:
            self.begun = True
            return {"server": now.write(HERE, self.position)}
        out: dict[PartyId, Buffer] = {}
        if "server" in mail:
            out |= self._told(mail["server"])
        before = self._before
        if before is not None and self.vector is not None and now.name(before) in mail:
            out |= self._heard(now.name(before), mail[now.name(before)])
        return out

    @property
    def _before(self) -> int | None:
        return neighbours(self.order, self.position)[0] if self.order else None

    def _told(self, body: Buffer) -> Mail:
        now = self.round
        if now.repeats(body, WATCH):
            passed = self.order and self.vector is None
            return {"server": now.write(WATCHED, self.position)} if passed else {}
        if self.order:
            return {}
        try:
            _, content = now.read(body, ORDER)
            order, token, seeds = read_order(content, now.plan.n)
            if self.position not in order:
                raise Malformed("this client is not in it")
            if neighbours(order, self.position)[0] is not None:
                fields.ends(seeds)
        except Malformed as malformed:
            raise StageAbort(
                "order", f"the server's chain cannot be used: {malformed}", letter_of="server"
            ) from None
        now.enough("order", order)
        self.order = order
        first, second = sorted(order)[:2]
        if self.position == first:
            return self._begin(seeds)
        waits = now.write(READY, self.position, token)
        return {"server": waits} if self.position == second else {}

    def _begin(self, boxes: memoryview) -> Mail:
        now, own = self.round, client_party(self.who)
        bits = fields.bit_set(self.order, now.plan.n)
        try:
            seed = open_one(boxes, SEED, self.identity, seed_bound_to(now.tag, bits, own))
        except Malformed as malformed:
            raise StageAbort(
                "order", f"the server's seed cannot be used: {malformed}", letter_of="server"
            ) from None
        total: Words = np.zeros(now.length, dtype=word(now.ring))
        mask(total, [(seed, 1)], backend(now.library_name))
        return self._pass_on(total)

    def _heard(self, before: PartyId, body: Buffer) -> Mail:
        now = self.round
        try:
            position, content = now.sender(before, body, LINK)
            rest = fields.after_facts(content, fields.facts(now.plan))
            order, boxes = fields.read_bit_set(rest, now.plan.n)
            if order != self.order:
                raise StageAbort(
                    "chain",
                    f"{before} was told another chain than this client: one of two was told by a"
                    " server that lies, or the letter is not of who it says",
                )
            bits = fields.bit_set(order, now.plan.n)
            context = bound_to(now.tag, bits, position, client_party(self.who))
            size = now.length * now.ring // 8
            packed = memoryview(open_one(boxes, size, self.identity, context))
        except Malformed as malformed:
            raise StageAbort(
                "chain", f"what {before} passed on cannot be used: {malformed}", letter_of=before
            ) from None
        return self._pass_on(fields.unpack(packed, now.ring, now.length).copy())

    def _pass_on(self, total: Words) -> Mail:
        if self.vector is None:
            return {}
        now, after = self.round, neighbours(self.order, self.position)[1]
        np.add(total, self.vector, out=total)
        self.vector = None
        to = "server" if after is None else now.name(after)
        out: dict[PartyId, Buffer] = {
            to: now.link(self.position, self.order, total, to, self.directory)
        }
        if after is not None:
            out["server"] = now.write(PASSED, self.position)
        return out
