"""The servers' parts: both verify every proof, server/1 adds up its shares, and server learns the
sum.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from privfl.core import Buffer, KeepsSecrets, Mail, Opened, PartyId, Total, client_of
from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives import fields, open_one
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.sharing.pine.field64 import Field64, add, decode, encode
from privfl.crypto.sharing.pine.parameters import (
    HALF,
    HELD,
    REPORT,
    SEEDS,
    SUM,
    SURVIVORS,
    PineParameters,
)
from privfl.crypto.sharing.pine.vdaf import NONCE
from privfl.crypto.sharing.pine.verification import Verification


def report_of(round: PineParameters, content: memoryview) -> tuple[bytes, bytes, memoryview]:
    """What a client drew, the public share, and this server's share.

    Raises:
        Malformed: it is cut off.
    """
    end = NONCE + round.pine.public_size
    if len(content) < end:
        raise Malformed("a report is cut off")
    return bytes(content[:NONCE]), bytes(content[NONCE:end]), content[end:]


@dataclass(repr=False)
class PineHelperParty(KeepsSecrets):
    """The second server in one round: it says what its shares say of each proof, and adds up once,
    for a set of at least the quorum whose proofs hold.
    """

    round: PineParameters
    verification: Verification
    began: bool = False
    heard: bool = False
    told: bool = False
    done: bool = False
    refused: str | None = None

    def step(self, mail: Mail) -> Mail:
        """Agree on the key, hear the clients, then the first server."""
        if self.refused is not None:
            raise StageAbort("enter", self.refused, "server")
        out: dict[PartyId, Buffer] = {}
        now, verification = self.round, self.verification
        if not self.began:
            self.began = True
            out["server"] = verification.offer()
        body = mail.get("server")
        if body is not None and verification.key is None and not self.done:
            verification.agree(body)
            body = None
        if not self.told:
            for who, letter in mail.items():
                if client_of(who) is not None:
                    self.heard = True
                    self._hear(who, letter)
            if self.heard and verification.key is not None:
                verification.prepare()
                self.told = True
                held = fields.bit_set(verification.prepared, now.plan.n)
                said = fields.table(verification.said())
                lost = verification.lost(verification.prepared)
                out["server"] = now.write(HELD, 0, held, said, now.reasons(lost))
        elif body is not None and not self.done and not now.repeats(body, HALF):
            out["server"] = self._sum(body)
        return out

    def _hear(self, who: PartyId, body: Buffer) -> None:
        now = self.round
        size = NONCE + now.pine.public_size + now.pine.helper_size
        try:
            position, content = now.sender(who, body, SEEDS)
            opened = open_one(
                content, size, self.verification.identity, now.report_context(position)
            )
            self.verification.hear(position, *report_of(now, memoryview(opened)))
        except Malformed as malformed:
            self.verification.excluded[who] = f"stage share: {malformed}"

    def _sum(self, body: Buffer) -> bytes:
        now, verification = self.round, self.verification
        try:
            _, content = now.read(body, SURVIVORS)
            survivors, rest = fields.read_bit_set(content, now.plan.n)
            said, rest = fields.read_table(rest, now.said, now.plan.n)
            fields.ends(rest)
            good = verification.verdicts(said)
        except Malformed as malformed:
            raise StageAbort(
                "sum", f"the server's message cannot be used: {malformed}", "server"
            ) from None
        if not survivors <= good:
            raise StageAbort(
                "sum",
                "the server lists clients that never reached this one, or whose proofs do not hold"
                " by its own word",
                "server",
            )
        now.enough("sum", survivors)
        total = verification.total(survivors)
        self.done = True
        return now.write(SUM, 0, fields.bit_set(survivors, now.plan.n), encode(total))


@dataclass(repr=False)
class PineServerParty(KeepsSecrets):
    """The first server in one round."""

    round: PineParameters
    verification: Verification
    began: bool = False
    survivors: frozenset[int] = frozenset()
    share: Field64 | None = None
    result: Opened[Total] | None = None
    excluded: dict[PartyId, str] = field(default_factory=dict)
    refused: str | None = None

    def step(self, mail: Mail) -> Mail:
        """Agree on the key, hear the clients, compare with server/1, and open the sum."""
        if self.refused is not None:
            raise StageAbort("enter", self.refused, None)
        out: dict[PartyId, Buffer] = {}
        now, verification = self.round, self.verification
        if not self.began:
            self.began = True
            out[now.other] = verification.offer()
        body = mail.get(now.other)
        if body is not None and verification.key is None and self.share is None:
            verification.agree(body)
            body = None
        for who, letter in mail.items():
            if who != now.other:
                self._hear(who, letter)
        verification.prepare()
        if body is None or self.result is not None:
            return out
        if self.share is None:
            if not now.repeats(body, HALF):
                out[now.other] = self._ask(body)
        elif not now.repeats(body, HELD):
            self._open(body)
        return out

    def _hear(self, who: PartyId, body: Buffer) -> None:
        now = self.round
        try:
            position, content = now.sender(who, body, REPORT)
            if self.share is not None:
                return
            content = fields.after_facts(content, fields.facts(now.plan))
            self.verification.hear(position, *report_of(now, content))
        except Malformed as malformed:
            self.verification.excluded.setdefault(who, f"stage share: {malformed}")

    def _ask(self, body: Buffer) -> bytes:
        now, verification = self.round, self.verification
        try:
            _, content = now.read(body, HELD)
            held, rest = fields.read_bit_set(content, now.plan.n)
            said, rest = fields.read_table(rest, now.said, now.plan.n)
            if said.keys() != held:
                raise Malformed("it speaks of other clients than it heard")
            reasons = now.reasons_in(rest, held, now.other)
            survivors = verification.verdicts(said)
        except Malformed as malformed:
            raise StageAbort(
                "agree", f"the message of {now.other} cannot be used: {malformed}", now.other
            ) from None
        self.excluded = {**reasons, **verification.lost(survivors)}
        now.enough("agree", survivors)
        both = {i: own for i, own in verification.said().items() if i in held}
        self.survivors = survivors
        self.share = verification.total(survivors)
        return now.write(SURVIVORS, 0, fields.bit_set(survivors, now.plan.n), fields.table(both))

    def _open(self, body: Buffer) -> None:
        now = self.round
        try:
            _, content = now.read(body, SUM)
            summed, packed = fields.read_bit_set(content, now.plan.n)
            if summed != self.survivors:
                raise Malformed("it summed other clients than it was asked for")
            theirs = decode(packed, now.length)
        except Malformed as malformed:
            raise StageAbort(
                "sum", f"the sum of {now.other} cannot be used: {malformed}", now.other
            ) from None
        if self.share is None:
            return
        total = now.integers(add(self.share, theirs))
        opened = now.code.decode(total, now.plan, len(self.survivors))
        clients = tuple(client for i, client in enumerate(now.plan.cohort) if i in self.survivors)
        self.result = Opened(opened, clients, excluded=dict(self.excluded))
