"""The key holder: it decrypts masked numbers, so many a round and once, and one masked sum."""

from __future__ import annotations

from privfl.core import Abort, Buffer, KeepsSecrets, Mail, RoundPlan, client_of
from privfl.crypto.he.wire import Refused, SignedMessage, unpack
from privfl.hybrid.encrypted_cosine.keys import KEY_HOLDER, Ring, Secret
from privfl.hybrid.encrypted_cosine.mail import (
    CIPHERTEXT,
    OPENED,
    QUESTIONS,
    SCORES,
    SUM,
    box,
    checked,
    numbers_to_bytes,
)
from privfl.hybrid.encrypted_cosine.parameters import PROBES
from privfl.hybrid.encrypted_cosine.products import opened
from privfl.hybrid.encrypted_cosine.queries import from_bytes


class HolderRound(KeepsSecrets):
    """What it insists on, because whoever may ask it anything reads everybody: questions about
    clients that signed ciphertexts of this round, at least ``min_clients`` of them, no more
    questions than the protocol has, one answer, then one sum of at least ``min_clients``, once. It
    cannot see what a question asks nor which weights are in the sum.
    """

    def __init__(self, ring: Ring, plan: RoundPlan) -> None:
        self.ring, self.plan, self.admitted = ring, plan, 0
        self.heard: set[bytes] = set()

    def step(self, mail: Mail) -> Mail:
        """Answer the server; anybody else is ignored, and so is a letter that the post brings
        twice.
        """
        if "server" not in mail:
            return {}
        try:
            message = SignedMessage.read(mail["server"])
            if message.signature in self.heard:
                return {}
            self.heard.add(message.signature)
            return {"server": self._answer(message.kind, mail["server"])}
        except Refused as refused:
            raise Abort(f"{KEY_HOLDER} opens nothing: {refused}", blamed="server") from refused

    def _answer(self, kind: bytes, body: Buffer) -> bytes:
        if kind not in (QUESTIONS, SUM):
            raise Refused(f"a {kind!r} where questions or a sum were due")
        message = checked(self.ring, body, "server", kind, self.plan)
        return self._scores(message) if kind == QUESTIONS else self._sum(message)

    def _scores(self, message: SignedMessage) -> bytes:
        ring, setting, secret = self.ring, self.ring.setting, self._secret()
        if len(parts := message.whole()) != 3:
            raise Refused("questions of another form")
        count = self._clients(parts[0])
        degree = setting.lattice.degree
        dots = from_bytes(setting.lattice, memoryview(parts[1]), 1 + degree)
        squares = from_bytes(setting.lattice, memoryview(parts[2]), 1 + 2 * degree)
        most, most_squares = (
            count * setting.directions + PROBES,
            (count if setting.norms == "exact" else 0),
        )
        if len(dots) > most or len(squares) > most_squares:
            raise Refused(
                f"{len(dots)} + {len(squares)} questions about {count} clients, and a round has"
                f" {most} + {most_squares}"
            )
        self._once(QUESTIONS)
        answers = [numbers_to_bytes(secret.answering.answers(asked)) for asked in (dots, squares)]
        self.admitted = count
        ring.queries += len(dots) + len(squares)
        return box(ring, "server", SCORES, ring.topic(self.plan), tuple(answers))

    def _clients(self, heads: Buffer) -> int:
        """How many clients of the cohort signed ciphertexts of this round; the ciphertexts
        themselves it must not have.
        """
        ring, topic, senders = self.ring, self.ring.topic(self.plan), set[str]()
        for head in unpack(heads):
            message = SignedMessage.read(head)
            if client_of(message.sender) not in self.plan.cohort or message.sender in senders:
                raise Refused(f"{message.sender} is not in the cohort, or named twice")
            message.verify(ring.hello_of(message.sender), CIPHERTEXT, topic, message.sender)
            senders.add(message.sender)
        if len(senders) < ring.setting.min_clients:
            raise Refused(
                f"questions about {len(senders)} clients, and fewer than {ring.setting.min_clients}"
                " stay closed"
            )
        return len(senders)

    def _sum(self, message: SignedMessage) -> bytes:
        ring, setting, secret = self.ring, self.ring.setting, self._secret()
        if len(parts := message.whole()) != 3:
            raise Refused("a sum of another form")
        note, said, body = parts
        count = int.from_bytes(bytes(said), "little")
        if not setting.min_clients <= count <= self.admitted:
            raise Refused(
                f"a sum of {count} clients, where {setting.min_clients} to {self.admitted} may be"
                " summed"
            )
        chunks = unpack(body)
        if len(chunks) != setting.chunks(self.plan):
            raise Refused(f"{len(chunks)} ciphertexts where {setting.chunks(self.plan)} were due")
        self._once(SUM)
        polynomials = opened(setting.lattice, secret.seal, chunks)
        return box(
            ring,
            "server",
            OPENED,
            ring.topic(self.plan),
            (bytes(note), numbers_to_bytes(polynomials.ravel())),
        )

    def _secret(self) -> Secret:
        if self.ring.secret is None:
            raise Abort(
                f"{KEY_HOLDER} holds no key: it took no part in the set-up", blamed=KEY_HOLDER
            )
        return self.ring.secret

    def _once(self, kind: bytes) -> None:
        """Two answers about one round would be about one client where they differ by it."""
        topic = self.ring.topic(self.plan)
        mark = (kind, topic.facts, topic.number)
        if mark in self.ring.done:
            raise Refused(
                f"round {self.plan.number} had its {'questions' if kind == QUESTIONS else 'sum'}"
                " answered already: once a round"
            )
        self.ring.done.add(mark)
