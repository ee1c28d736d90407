"""The servers' parts: the others add up seeds, and the first learns the sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from privfl.core import (
    Buffer,
    KeepsSecrets,
    Mail,
    Opened,
    PartyId,
    PartyKeys,
    Total,
    client_of,
)
from privfl.crypto.abort import StageAbort
from privfl.crypto.own_noise import own_noise
from privfl.crypto.primitives import Words, backend, fields, mask, open_one
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.ring import add_up, lift, word
from privfl.crypto.sharing.additive import SEED
from privfl.crypto.sharing.parameters import (
    HELD,
    SEEDS,
    SUM,
    SURVIVORS,
    VECTOR,
    SharingParameters,
    bound_to,
)


def noise_words(now: SharingParameters, who: PartyId) -> Words:
    """A server's own noise on the vector, none on the weight [d + words]; zeros if unset."""
    total: Words = np.zeros(now.length, dtype=word(now.ring))
    if now.noise is not None:
        drawn = now.noise.draw(now.plan.d, own_noise(now.source, now.plan, who))
        total[: now.plan.d] = drawn.astype(total.dtype)
    return total


@dataclass(repr=False)
class HelperParty(KeepsSecrets):
    """Another server in one round: it says whom it heard, and adds up once, for a set that the
    quorum is in.
    """

    round: SharingParameters
    name: PartyId
    identity: PartyKeys
    seeds: dict[int, bytes] = field(default_factory=dict)
    excluded: dict[PartyId, str] = field(default_factory=dict)
    told: bool = False
    done: bool = False
    refused: str | None = None

    def step(self, mail: Mail) -> Mail:
        """Hear the clients, then the first server."""
        if self.refused is not None:
            raise StageAbort("enter", self.refused, "server")
        now = self.round
        heard = {who: body for who, body in mail.items() if client_of(who) is not None}
        if heard and not self.told:
            for who, body in heard.items():
                self._hear(who, body)
            self.told = True
            held = fields.bit_set(self.seeds, now.plan.n)
            return {"server": now.write(HELD, 0, held, now.reasons(self.excluded))}
        if "server" in mail and self.told and not self.done:
            return {"server": self._sum(mail["server"])}
        return {}

    def _hear(self, who: PartyId, body: Buffer) -> None:
        try:
            position, content = self.round.sender(who, body, SEEDS)
            context = bound_to(self.round.tag, position, self.name)
            self.seeds[position] = open_one(content, SEED, self.identity, context)
        except Malformed as malformed:
            self.excluded[who] = f"stage share: {malformed}"

    def _sum(self, body: Buffer) -> bytes:
        now = self.round
        try:
            _, content = now.read(body, SURVIVORS)
            survivors, rest = fields.read_bit_set(content, now.plan.n)
            fields.ends(rest)
        except Malformed as malformed:
            raise StageAbort(
                "sum", f"the server's message cannot be used: {malformed}", "server"
            ) from None
        if not survivors <= self.seeds.keys():
            raise StageAbort(
                "sum", "the server lists clients that never reached this one", "server"
            )
        now.enough("sum", survivors)
        total = noise_words(now, self.name)
        mask(total, [(self.seeds[i], 1) for i in sorted(survivors)], backend(now.library_name))
        self.done, self.seeds = True, {}
        return now.write(SUM, 0, fields.pack(total, now.ring))


@dataclass(repr=False)
class SharingServerParty(KeepsSecrets):
    """The first server in one round."""

    round: SharingParameters
    vectors: dict[int, Words] = field(default_factory=dict)
    folded: dict[PartyId, int] = field(default_factory=dict)
    total: Words | None = None
    held: dict[PartyId, frozenset[int]] = field(default_factory=dict)
    survivors: frozenset[int] = frozenset()
    asked: bool = False
    sums: dict[PartyId, Words] = field(default_factory=dict)
    excluded: dict[PartyId, str] = field(default_factory=dict)
    result: Opened[Total] | None = None

    def step(self, mail: Mail) -> Mail:
        """Hear the clients, agree with the servers on whom to sum, and add the sums up."""
        now = self.round
        for who, body in mail.items():
            if who not in now.others and (body or who not in self.folded):
                self._hear(who, body)
        reports = {
            who: body
            for who, body in mail.items()
            if who in now.others and not (self.asked and now.repeats(body, HELD))
        }
        if not reports or self.result is not None:
            return {}
        if not self.asked:
            return self._ask(reports)
        return self._open(reports)

    def fold(self, sender: PartyId, body: Buffer) -> Buffer | None:
        """Add a share up when it is written (`core.streaming.Folds`)."""
        now = self.round
        try:
            position, packed = self._read(sender, body)
            known = self.asked or position in self.vectors or sender in self.folded
            if known or len(packed) != now.length * now.ring // 8:
                return None
        except Malformed:
            return None
        if self.total is None:
            self.total = np.zeros(now.length, dtype=word(now.ring))
        add_up(self.total, [packed], now.ring)
        self.folded[sender] = position
        return b""

    def _hear(self, who: PartyId, body: Buffer) -> None:
        try:
            position, packed = self._read(who, body)
            if position in self.vectors or who in self.folded or self.asked:
                return
            self.vectors[position] = fields.unpack(packed, self.round.ring, self.round.length)
        except Malformed as malformed:
            self.excluded.setdefault(who, f"stage share: {malformed}")

    def _read(self, who: PartyId, body: Buffer) -> tuple[int, memoryview]:
        position, content = self.round.sender(who, body, VECTOR)
        return position, fields.after_facts(content, fields.facts(self.round.plan))

    def _ask(self, reports: Mapping[PartyId, Buffer]) -> Mail:
        now = self.round
        self._all(reports, "agree")
        left = {*self.vectors, *self.folded.values()}
        for who, body in reports.items():
            try:
                _, content = now.read(body, HELD)
                held, reasons = fields.read_bit_set(content, now.plan.n)
                said = now.reasons_in(reasons, held, who)
            except Malformed as malformed:
                raise StageAbort(
                    "agree", f"the message of {who} cannot be used: {malformed}", who
                ) from None
            self.excluded = {**said, **self.excluded}
            left &= held
        now.enough("agree", left)
        if not left.issuperset(self.folded.values()):
            raise StageAbort("agree", "a share was added up of a client that a server never heard")
        self.survivors, self.asked = frozenset(left), True
        message = now.write(SURVIVORS, 0, fields.bit_set(left, now.plan.n))
        return dict.fromkeys(now.others, message)

    def _all(self, reports: Mapping[PartyId, Buffer], stage: str) -> None:
        missing = [who for who in self.round.others if who not in reports]
        if missing:
            raise StageAbort(
                stage,
                f"{', '.join(missing)} said nothing, and without every server there is no sum",
                None,
                missing,
            )

    def _open(self, reports: Mapping[PartyId, Buffer]) -> Mail:
        now = self.round
        self._all(reports, "sum")
        total = noise_words(now, "server")
        for who, body in reports.items():
            try:
                _, content = now.read(body, SUM)
                np.add(total, fields.unpack(content, now.ring, now.length), out=total)
            except Malformed as malformed:
                raise StageAbort(
                    "sum", f"the sum of {who} cannot be used: {malformed}", who
                ) from None
        if self.total is not None:
            np.add(total, self.total, out=total)
        for i in self.survivors.difference(self.folded.values()):
            np.add(total, self.vectors[i], out=total)
        opened = now.code.decode(lift(total, now.ring), now.plan, len(self.survivors))
        clients = tuple(client for i, client in enumerate(now.plan.cohort) if i in self.survivors)
        self.result = Opened(opened, clients, excluded=dict(self.excluded))
        return {}
