"""The server's part: it says who is in the chain, sends the first client a seed, watches that the
sum goes on, and takes the mask off what the last client sends.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from hmac import compare_digest

from privfl.core import (
    Buffer,
    KeepsSecrets,
    KnownKeys,
    Mail,
    Opened,
    PartyId,
    PartyKeys,
    Total,
)
from privfl.crypto.abort import StageAbort
from privfl.crypto.chain.parameters import (
    HERE,
    LINK,
    ORDER,
    PASSED,
    READY,
    TOKEN,
    WATCH,
    WATCHED,
    ChainParameters,
    bound_to,
    neighbours,
    seal_for,
    seed_bound_to,
)
from privfl.crypto.primitives import Words, backend, fields, mask, open_one
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.ring import lift


@dataclass(repr=False)
class ChainServerParty(KeepsSecrets):
    """The server in one round."""

    round: ChainParameters
    identity: PartyKeys
    directory: KnownKeys
    seed: bytes
    token: bytes = field(default_factory=lambda: secrets.token_bytes(TOKEN))
    here: set[int] = field(default_factory=set)
    order: frozenset[int] = frozenset()
    passed: set[int] = field(default_factory=set)
    asked: set[int] = field(default_factory=set)
    excluded: dict[PartyId, str] = field(default_factory=dict)
    result: Opened[Total] | None = None

    def step(self, mail: Mail) -> Mail:
        """Hear who is there, name the chain, watch it, and open what comes of it."""
        if not mail or self.result is not None:
            return {}
        if not self.order:
            for who, body in mail.items():
                self._hear(who, body)
            self.round.enough("here", self.here)
            return self._name()
        last = self.round.name(max(self.order))
        if last in mail and not self._says(last, mail[last], READY, WATCHED):
            self._open(last, mail[last])
        return self._watch(mail) if self.result is None else {}

    def _hear(self, who: PartyId, body: Buffer) -> None:
        try:
            position, content = self.round.sender(who, body, HERE)
            fields.ends(content)
            self.here.add(position)
        except Malformed as malformed:
            self.excluded[who] = f"stage here: {malformed}"

    def _name(self) -> Mail:
        now, self.order = self.round, frozenset(self.here)
        bits = fields.bit_set(self.order, now.plan.n)
        order = now.write(ORDER, 0, bits, self.token)
        first = now.name(min(self.order))
        context = seed_bound_to(now.tag, bits, first)
        sealed = seal_for(self.directory, first, self.seed, context, now.library_name)
        return {**{now.name(i): order for i in sorted(self.order)}, first: order + sealed}

    def _says(self, who: PartyId, body: Buffer, *kinds: int) -> bool:
        """Whether a client of the chain says this, in its own name."""
        for kind in kinds:
            try:
                position, _ = self.round.sender(who, body, kind)
            except Malformed:
                continue
            return position in self.order
        return False

    def _waits(self, who: PartyId, body: Buffer) -> bool:
        """Whether the second client has waited as long as the first has had to pass its sum on: it
        knows the token, which came with the chain's name.
        """
        try:
            _, content = self.round.sender(who, body, READY)
        except Malformed:
            return False
        return compare_digest(bytes(content), self.token)

    def _watch(self, mail: Mail) -> Mail:
        """Ask who passed the sum on to answer; whoever answers last is there, and the one after it
        has had the time to pass the sum on as well.
        """
        now = self.round
        places = {now.name(i): i for i in self.order}
        passed = {who for who, body in mail.items() if self._says(who, body, PASSED)}
        self.passed |= {places[who] for who in passed}
        first, second = sorted(self.order)[:2]
        for who, body in mail.items():
            if places.get(who) == second and self._waits(who, body):
                self._due(first)
            elif places.get(who) in self.asked and self._says(who, body, WATCHED):
                self._due(neighbours(self.order, places[who])[1])
        self.asked |= {places[who] for who in passed}
        return {who: now.write(WATCH, 0) for who in sorted(passed)}

    def _due(self, place: int | None) -> None:
        if place is None or place in self.passed:
            return
        now = self.round
        before = neighbours(self.order, place)[0]
        sent = "the server" if before is None else now.name(before)
        raise StageAbort(
            "chain",
            f"{now.name(place)} passed no sum on: it is gone, or what {sent} sent it did not arrive"
            " or could not be used",
            who=(now.name(place),),
        )

    def _open(self, last: PartyId, body: Buffer) -> None:
        now = self.round
        try:
            position, content = now.sender(last, body, LINK)
            rest = fields.after_facts(content, fields.facts(now.plan))
            order, boxes = fields.read_bit_set(rest, now.plan.n)
            if order != self.order:
                raise Malformed("it is of another chain")
            bits = fields.bit_set(order, now.plan.n)
            context = bound_to(now.tag, bits, position, "server")
            size = now.length * now.ring // 8
            packed = memoryview(open_one(boxes, size, self.identity, context))
        except Malformed as malformed:
            if now.repeats(body, HERE):
                return  # what came before comes again
            raise StageAbort(
                "sum", f"what {last} sent cannot be used: {malformed}", letter_of=last
            ) from None
        total: Words = fields.unpack(packed, now.ring, now.length).copy()
        mask(total, [(self.seed, -1)], backend(now.library_name))
        opened = now.code.decode(lift(total, now.ring), now.plan, len(order))
        clients = tuple(now.plan.cohort[i] for i in sorted(order))
        self.result = Opened(opened, clients, excluded=dict(self.excluded))
