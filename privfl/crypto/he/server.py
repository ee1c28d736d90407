"""The server in one round: it collects ciphertexts, and learns one sum from those who hold keys."""

from __future__ import annotations

import numpy as np

from privfl.core import (
    Abort,
    Buffer,
    ClientId,
    KeepsSecrets,
    Mail,
    Opened,
    PartyId,
    RoundPlan,
    Total,
    client_party,
)
from privfl.crypto.he.boxes import is_sealed, letter
from privfl.crypto.he.collecting import collect, enough
from privfl.crypto.he.decryption_policy import ANSWER, CIPHERTEXT, SUM, opened_answer, request
from privfl.crypto.he.keyring import Keyring
from privfl.crypto.he.scheme import ThresholdScheme
from privfl.crypto.he.wire import Numbers, Parts, Refused, SignedMessage, unpack_numbers

READERS = 3
"""How many clients the server asks where clients hold the key: what more than half of those who
were asked answer counts, and nothing else.
"""


class Collection(KeepsSecrets):
    """The first half of every server's round: the clients' messages, checked; who is out is out by
    name.

    Without ``check`` ciphertexts are not looked into as they come: a server that adds them itself
    notices, and then calls `sift`.
    """

    def __init__(self, ring: Keyring, plan: RoundPlan, *, check: bool) -> None:
        self.ring, self.plan, self.check = ring, plan, check
        self.messages: dict[ClientId, SignedMessage] = {}
        self.excluded: dict[PartyId, str] = {}
        self.closed = False

    def take(self, mail: Mail) -> None:
        """Read what clients sent; after the collection closed, refuse it as late."""
        late = "the message came after the sum was made" if self.closed else ""
        collect(mail, self.plan, self.messages, self.excluded, self._add, late)
        self._no_copies()

    def _add(self, client: ClientId, body: Buffer) -> None:
        ring, sender = self.ring, client_party(client)
        if sender not in ring.roster:
            raise Refused("did not take part in the set-up")
        message = SignedMessage.read(letter(ring.identity, body, sender))
        message.verify(ring.roster[sender], CIPHERTEXT, ring.topic(self.plan), sender)
        if self.check:
            ring.key().check(message.whole(), self.plan)
        self.messages[client] = message

    def _no_copies(self) -> None:
        """Leave out all who sent the same: fresh encryptions never are, and whose it is nobody can
        tell.
        """
        first: dict[bytes, ClientId] = {}
        for client, message in list(self.messages.items()):
            for part in message.digests:
                other = first.setdefault(part, client)
                if other == client or self.closed:
                    continue
                for one, two in ((client, other), (other, client)):
                    why = f"it sent the same ciphertext as {client_party(two)}"
                    self.excluded.setdefault(client_party(one), why)
                    self.messages.pop(one, None)

    @property
    def clients(self) -> tuple[ClientId, ...]:
        """Who is in the sum, in the order of the cohort."""
        return tuple(client for client in self.plan.cohort if client in self.messages)

    def sift(self) -> bool:
        """Throw out what is signed and yet no ciphertext; whether there was any."""
        before = len(self.messages)
        for client in self.clients:
            try:
                self.ring.key().check(self.messages[client].whole(), self.plan)
            except Refused as refused:
                self.excluded[client_party(client)] = str(refused)
                del self.messages[client]
        return len(self.messages) < before

    def close(self) -> list[SignedMessage]:
        """All usable messages; nothing joins them any more.

        Raises:
            Abort: too few for the decryptors to open.
        """
        self.closed = True
        quorum = self.ring.arrangement.quorum(self.plan.n)
        enough(len(self.messages), "sent a usable ciphertext", quorum, self.plan, self.excluded)
        return [self.messages[client] for client in self.clients]


class Opening(KeepsSecrets):
    """What the server's rounds of all schemes share: what it collected, what it opened, how it
    reads an answer.
    """

    def __init__(self, ring: Keyring, plan: RoundPlan, *, check: bool) -> None:
        self.ring, self.plan = ring, plan
        self.collected = Collection(ring, plan, check=check)
        self.opened: Opened[Total] | None = None

    @property
    def result(self) -> Opened[Total] | None:
        """The weighted sum, once it is opened."""
        return self.opened

    def answered(self, sender: PartyId, body: Buffer) -> tuple[bytes, ...]:
        """What a decryptor signed for this round and this sum.

        Raises:
            Refused: it is nothing of the kind.
        """
        message = SignedMessage.read(body)
        topic = self.ring.topic(self.plan)
        message.verify(self.ring.roster.get(sender, bytes(64)), ANSWER, topic, sender)
        count, parts = opened_answer(message, self.ring)
        if count != len(self.collected.messages):
            raise Refused("it opened a sum of another number of clients")
        return parts

    def finish(self, total: Total) -> None:
        """The round is done."""
        self.opened = Opened(total, self.collected.clients, excluded=dict(self.collected.excluded))


class ServerRound(Opening):
    """Collect, hand on, and learn the sum from those who hold keys."""

    def __init__(self, ring: Keyring, plan: RoundPlan) -> None:
        super().__init__(ring, plan, check=ring.arrangement.verifies)
        self.asked: tuple[PartyId, ...] = ()
        self.total: Parts = ()
        self.answers: dict[PartyId, Parts] = {}
        self.said: dict[PartyId, Numbers] = {}

    def step(self, mail: Mail) -> Mail:
        """Collect; then read the answers."""
        if not mail:
            return {}
        ask = not self.collected.closed
        self.collected.take(mail)
        if ask:
            return self._ask()
        self._read(mail)
        return {}

    def _ask(self) -> Mail:
        ring, plan = self.ring, self.plan
        messages = self.collected.close()
        self.asked = ring.arrangement.decryptors or tuple(
            client_party(client) for client in self.collected.clients[:READERS]
        )
        if ring.arrangement.verifies:
            there = [who for who in self.asked if who in ring.roster]
            return {who: request(ring, who, messages) for who in there}
        try:
            total = ring.key().add([message.whole() for message in messages], plan)
        except Refused as refused:
            if self.collected.sift():
                return self._ask()
            raise Abort(f"the ciphertexts do not add: {refused}") from refused
        count = len(messages).to_bytes(4, "little")
        body = SignedMessage.signed(
            ring.identity, SUM, ring.topic(plan), "server", (count, *total)
        ).to_bytes()
        return dict.fromkeys(self.asked, body)

    def _read(self, mail: Mail) -> None:
        ring, plan = self.ring, self.plan
        split = ring.arrangement.keys == "threshold"
        for sender, body in mail.items():
            if sender not in self.asked or sender in self.answers or self.opened is not None:
                continue
            if is_sealed(body):  # a client's ciphertext once more
                continue
            try:
                parts = self.answered(sender, body)
                if split:
                    self._proven(sender, parts)
                else:
                    self.said[sender] = _numbers_in(parts)
                self.answers[sender] = parts
            except Refused as refused:
                self.collected.excluded.setdefault(sender, str(refused))
        count = len(self.collected.messages)
        try:
            numbers = self._combined(count) if split else self._agreed(count)
            total = (
                None
                if numbers is None or self.opened is not None
                else ring.scheme.total(numbers, plan, count)
            )
        except Refused as refused:  # a client that encrypted no bounded update looks the same
            raise Abort(f"what the decryptors answered cannot be used: {refused}") from refused
        if total is not None:
            self.finish(total)

    def _proven(self, sender: PartyId, parts: Parts) -> None:
        ring, index = self.ring, self.asked.index(sender) + 1
        if not isinstance(ring.scheme, ThresholdScheme):
            raise Refused("a part of a key that is not split")
        if not self.total:
            messages = [self.collected.messages[client] for client in self.collected.clients]
            self.total = ring.key().add([message.whole() for message in messages], self.plan)
        ring.scheme.proven(ring.key(), self.total, parts, index, self.plan)

    def _combined(self, count: int) -> Numbers | None:
        """The sum, from any parts that are proven and enough; None while they may still come.

        Raises:
            Abort: they cannot come any more.
        """
        ring = self.ring
        liars = [who for who in self.asked if who in self.collected.excluded]
        least = ring.arrangement.threshold
        if len(self.asked) - len(liars) < least:
            raise Abort(
                f"{least} proven parts open the sum, and {', '.join(liars)} sent what is none",
                blamed=liars[0],
            )
        if not self.answers or not isinstance(ring.scheme, ThresholdScheme):
            return None
        return ring.scheme.combine(
            ring.key(), self.answers, self.plan, count, ring.arrangement.threshold
        )

    def _agreed(self, count: int) -> Numbers | None:
        """What more than half of those who were asked say, the others named; None while that may
        still come.

        Raises:
            Abort: it cannot come any more.
        """
        slack, needed = self.ring.scheme.slack(self.plan, count), len(self.asked) // 2 + 1
        most: list[PartyId] = []
        for numbers in self.said.values():
            alike = [who for who, other in self.said.items() if _alike(numbers, other, slack)]
            most = max(most, alike, key=len)
        refused = [who for who in self.asked if who in self.collected.excluded]
        if len(most) < needed:
            waiting = len(self.asked) - len(self.said) - len(refused)
            if len(most) + waiting < needed:
                raise Abort(
                    f"{len(self.asked)} were asked to open the sum, and no {needed} of them say the"
                    " same"
                )
            return None
        for who in self.said.keys() - set(most):
            self.collected.excluded.setdefault(who, "it opened another sum than most")
        return self.said[most[0]]


def _numbers_in(parts: Parts) -> Numbers:
    if len(parts) != 1:
        raise Refused("an answer of another form")
    return unpack_numbers(parts[0])


def _alike(one: Numbers, other: Numbers, slack: float) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bool((np.abs(one - other) <= slack).all())
