"""Lies under the joint key: a decryptor that moves the sum by a constant, a server that opens one
ciphertext where sums are not verified, two sums of one round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from privfl.core import (
    Buffer,
    Cast,
    KeepsSecrets,
    Liars,
    Mail,
    Party,
    PartyId,
    RoundPlan,
    Total,
    client_of,
)
from privfl.crypto.he.decryption_policy import SUM, answer, forwarded, opened_answer
from privfl.crypto.he.lies import Request, Took, unexpected
from privfl.crypto.he.mprlwe.decryptor import JointDecryptorRound, joint
from privfl.crypto.he.mprlwe.keys import add_c0, from_bytes, partial, pieces, plain_bits, to_bytes
from privfl.crypto.he.mprlwe.server import JointServerRound
from privfl.crypto.he.server import Opening
from privfl.crypto.he.wire import Parts, SignedMessage, pack, unpack
from privfl.crypto.lies import victim

CONSTANT = 20_000
"""What is added to the first value of the sum, in steps of the fixed point."""


@dataclass(repr=False)
class MovesTheSum(KeepsSecrets):
    """A decryptor that adds a constant, in steps of the plaintext, to its part."""

    honest: JointDecryptorRound

    def step(self, mail: Mail) -> Mail:
        """What the honest decryptor says, and a part of its own making."""
        honest = self.honest
        if "server" not in mail:
            return honest.step(mail)
        honest.step(mail)
        key, plan = joint(honest.ring), honest.plan
        groups = [bytes(group) for group in unpack(unpack(mail["server"])[0])]
        parts: list[Buffer] = []
        for i, group in enumerate(groups):
            held = [honest.held[piece] for piece in group]
            part = partial(held, honest.c1, key.blocks(plan), honest.smudge_bits)
            words = from_bytes(part, key.blocks(plan)).copy()
            if i == 0:
                # a slice: words wrap around, where numpy would warn of a single number
                words[2, 0, :1] += np.uint32(CONSTANT << (32 - plain_bits(plan, key.top)))
            parts += [group, to_bytes(words)]
        return {"server": answer(tuple(parts), honest.count, plan, honest.ring)}


def moves_the_sum() -> Liars:
    """Decryptors as `MovesTheSum`."""

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        return {who: MovesTheSum(_decryptor(party)) for who, party in honest.items()}

    return Liars(enter=enter)


@dataclass(repr=False)
class OpensOne(KeepsSecrets):
    """A server that signs one client's half of a ciphertext as the sum of all, and decrypts it with
    the parts that come back.
    """

    honest: JointServerRound
    who: int
    took: Took
    parts: list[bytes] = field(default_factory=list)

    def step(self, mail: Mail) -> Mail:
        """What the honest server asks, about one client."""
        honest = self.honest
        if honest.collected.closed:
            for sender, body in mail.items():
                if client_of(sender) is None:
                    self._take(body)
            return {}
        out = honest.step(mail)
        if not out:
            return out
        ring, messages = honest.ring, honest.collected.messages
        count = len(messages).to_bytes(4, "little")
        half = messages[self.who].only([1])[0]
        topic = ring.topic(honest.plan)
        lie = SignedMessage.signed(ring.identity, SUM, topic, "server", (count, half)).to_bytes()
        return {to: pack([unpack(body)[0], lie]) for to, body in out.items()}

    def _take(self, body: Buffer) -> None:
        honest = self.honest
        _, items = opened_answer(SignedMessage.read(body), honest.ring)
        self.parts += items[1::2]
        asked = sum(len(pieces) > 0 for pieces in honest.asked.values())
        if len(self.parts) == asked:
            c0 = bytes(honest.collected.messages[self.who].only([0])[0])
            numbers = joint(honest.ring).opened(c0, self.parts, honest.plan)
            self.took[self.who] = honest.ring.scheme.total(numbers, honest.plan, 1).mean()


def opens_one() -> Liars:
    """The server as `OpensOne`."""
    took: Took = {}

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        server = honest["server"]
        if not isinstance(server, JointServerRound):
            raise unexpected(server, "server")
        return {"server": OpensOne(server, victim(plan, honest), took)}

    return Liars(enter=enter, took=lambda published: took)


def request_pieces(holders: int, threshold: int) -> Request:
    """A request for the pieces of the key that one of a group answers for."""
    layout = pieces(holders, threshold)

    def request(
        server: Opening, group: Sequence[PartyId], who: PartyId, messages: Sequence[SignedMessage]
    ) -> bytes:
        taken: set[int] = set()
        for member in group:
            index = int(member.rpartition("/")[2])
            own = {p for p, holds in enumerate(layout) if index in holds} - taken
            if member == who:
                return pack([pack([bytes(sorted(own))]), forwarded(messages, left_out=[0])])
            taken |= own
        return b""

    return request


def combined(
    server: Opening, answers: Mapping[PartyId, Parts], messages: Sequence[SignedMessage]
) -> Total:
    """The sum from a group's parts."""
    plan, key = server.plan, joint(server.ring)
    parts = [bytes(items[1]) for items in answers.values()]
    c0 = add_c0([message.only([0])[0] for message in messages])
    return server.ring.scheme.total(key.opened(c0, parts, plan), plan, len(messages))


def answers_anew(party: Party) -> Party:
    """A decryptor's second party, which has forgotten that the round was opened."""
    honest = _decryptor(party)
    honest.ring.answered.clear()
    return JointDecryptorRound(honest.ring, honest.held, honest.plan, honest.smudge_bits)


def _decryptor(party: Party) -> JointDecryptorRound:
    if not isinstance(party, JointDecryptorRound):
        raise unexpected(party, "decryptor")
    return party
