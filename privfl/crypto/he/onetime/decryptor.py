"""A decryptor's part in one round: it checks the shares that it was dealt, and adds up those of one
set of clients, once.
"""

from __future__ import annotations

import numpy as np

from privfl.core import (
    Abort,
    Buffer,
    KeepsSecrets,
    KnownKeys,
    Mail,
    PartyKeys,
    RoundPlan,
    client_of,
)
from privfl.crypto.he.boxes import seal
from privfl.crypto.he.mprlwe.ring import N
from privfl.crypto.he.onetime import dealing, message
from privfl.crypto.he.onetime.message import CHECKED, DEALT, OPEN, SHARE, id_of, ids_bytes, ids_in
from privfl.crypto.he.onetime.parameters import OneTimeSettings, P
from privfl.crypto.he.onetime.set_up import SessionMemory
from privfl.crypto.he.wire import Refused, SignedMessage, digest, unpack

HERE = b"here"


class OneTimeDecryptorParty(KeepsSecrets):
    """Say that you are there; say whose dealings are good; give the sum of the shares of one set of
    them.
    """

    def __init__(
        self,
        settings: OneTimeSettings,
        identity: PartyKeys,
        directory: KnownKeys,
        memory: SessionMemory,
        plan: RoundPlan,
    ) -> None:
        self.settings, self.identity, self.directory = settings, identity, directory
        self.memory, self.plan = memory, plan
        self.index = settings.decryptors.index(identity.who)
        self.topic, self.occasion = settings.topic(plan), memory.occasion
        self.good: dict[bytes, bytes] | None = None
        self.answered: frozenset[bytes] | None = None

    def step(self, mail: Mail) -> Mail:
        """What the server asks.

        Raises:
            Abort: it asks what no honest server asks.
        """
        if not mail:
            return {"server": HERE}
        if "server" not in mail:
            return {}
        body = mail["server"]
        try:
            asked = _read(body)
            if asked is None:
                return self._check(body)
            return self._open(asked)
        except Refused as refused:
            raise self._abort(f"opens nothing: {refused}") from refused

    def _abort(self, why: str) -> Abort:
        return Abort(f"{self.identity.who} {why}", blamed="server")

    def _check(self, body: Buffer) -> Mail:
        if self.good is not None:
            return {}
        messages = [SignedMessage.read(item) for item in unpack(body)]
        if len({m.sender for m in messages}) != len(messages):
            raise Refused("one client's message is there twice")
        for m in messages:
            if client_of(m.sender) not in self.plan.cohort:
                raise Refused(f"{m.sender} is not in the cohort")
            try:
                message.verify(m, self.directory, DEALT, self.topic, m.sender)
            except Refused as refused:
                raise Refused(f"{m.sender}: {refused}") from None
        self.good = {}
        for m in messages:
            try:
                self.good[id_of(m)] = dealing.to_bytes(self._share(m)[:N])
            except Refused:
                continue
        return {"server": self.said(CHECKED, ids_bytes(self.good))}

    def _share(self, m: SignedMessage) -> dealing.Values:
        settings, who = self.settings, self.identity.who
        dealt = (settings.holders, settings.threshold)
        return message.share_in(m, self.index, dealt, who, self.identity, self.occasion)

    def _open(self, asked: SignedMessage) -> Mail:
        message.verify(asked, self.directory, OPEN, self.topic, "server")
        if len(asked.parts) != 1:
            raise Refused("a request of another form")
        ids = ids_in(asked.whole()[0])
        if self.answered is not None and ids == self.answered:
            return {}
        if self.good is None or not ids <= self.good.keys():
            raise Refused("it is asked to add shares that it did not find good")
        least = self.settings.quorum(self.plan.n)
        if len(ids) < least:
            raise Refused(
                f"a sum of {len(ids)}, and sums of fewer than {least} clients stay closed"
            )
        self._once()
        self.answered = ids
        total = np.zeros(N, dtype=np.int64)
        for name in ids:
            total += dealing.from_bytes(self.good[name], (N,))
        self.good = {}
        boxes = self.directory.boxes("server")
        if not boxes:
            raise Refused("the directory knows no box of the server")
        purpose = message.answer_purpose(self.topic, self.identity.who)
        box = seal(boxes[-1], dealing.to_bytes(total % P), purpose)
        return {"server": self.said(SHARE, ids_bytes(ids), box)}

    def _once(self) -> None:
        """Answer once a round and part, whatever the set: two sums that differ by one client would
        show that client. A new set-up forgets what was opened, so what began before it ends with
        it.
        """
        plan = self.plan
        if self.occasion != self.memory.occasion:
            raise Refused("a new session has begun since these shares were dealt")
        mark = (digest(digest(plan.session) + plan.part.encode()), plan.number)
        if mark in self.memory.opened:
            raise Refused(
                f"it has already opened round {plan.number}, part '{plan.part}', and answers once"
            )
        self.memory.opened.add(mark)

    def said(self, kind: bytes, *parts: bytes) -> bytes:
        """A signed message of this round."""
        who = self.identity.who
        return SignedMessage.signed(self.identity, kind, self.topic, who, parts).to_bytes()


def _read(body: Buffer) -> SignedMessage | None:
    """The server's request to open; None for a bundle of clients' messages."""
    return SignedMessage.read(body) if bytes(body[:3]) == b"PFH" else None
