"""Lies under homomorphic encryption, told by real parties: a server that passes one ciphertext off
as a sum, a dealer that keeps the key, decryptors that answer another sum, or two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from privfl.core import (
    Abort,
    Bounded,
    Buffer,
    Cast,
    ClientId,
    ConfigError,
    KeepsSecrets,
    Liars,
    Mail,
    Opened,
    Party,
    PartyId,
    RoundPlan,
    Rows,
    Total,
    Vector,
)
from privfl.crypto.he.decryption_policy import SUM, opened_answer, request
from privfl.crypto.he.decryptor import DecryptorRound
from privfl.crypto.he.keyring import KeyMaking
from privfl.crypto.he.scheme import SecretKey, ThresholdScheme
from privfl.crypto.he.server import Opening, ServerRound
from privfl.crypto.he.wire import Numbers, Parts, SignedMessage
from privfl.crypto.lies import TakesNotes, victim

Took = dict[ClientId, Vector]


def unexpected(party: Party, what: str) -> ConfigError:
    """The error of a lie told in the wrong protocol."""
    return ConfigError(f"{type(party).__name__} is no {what} of this scheme.")


@dataclass(repr=False)
class PassesOff(KeepsSecrets):
    """A server that signs one client's ciphertext, with empty ones of its own, as the sum."""

    honest: ServerRound
    who: ClientId

    def step(self, mail: Mail) -> Mail:
        """What the honest server says, about another sum."""
        out = self.honest.step(mail)
        return dict.fromkeys(out, self._lie()) if out else out

    def _lie(self) -> bytes:
        ring, plan, messages = self.honest.ring, self.honest.plan, self.honest.collected.messages
        key, count = ring.key(), len(messages)
        empty = ring.scheme.encode(Bounded(self.who, torch.zeros(plan.d), plan.l2), plan) * 0
        others = [key.encrypt(empty, plan) for _ in range(count - 1)]
        total = key.add([messages[self.who].whole(), *others], plan)
        topic, parts = ring.topic(plan), (count.to_bytes(4, "little"), *total)
        return SignedMessage.signed(ring.identity, SUM, topic, "server", parts).to_bytes()


def opens_one() -> Liars:
    """The server as `PassesOff`."""

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        server = honest["server"]
        if not isinstance(server, ServerRound):
            raise unexpected(server, "server")
        return {"server": PassesOff(server, victim(plan, honest))}

    return Liars(enter=enter)


def keeps_the_key() -> Liars:
    """A dealer that remembers the secret key after the set-up, and the server that has the
    ciphertexts.
    """
    made: list[KeyMaking] = []
    notes: list[TakesNotes] = []
    plans: list[RoundPlan] = []

    def set_up(honest: Cast) -> Cast:
        dealer = honest["dealer"]
        if not isinstance(dealer, KeyMaking):
            raise unexpected(dealer, "dealer")
        made.append(dealer)
        return honest

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        plans.append(plan)
        notes.append(TakesNotes(honest["server"]))
        return {**honest, "server": notes[0]}

    def took(published: Opened[Rows | Total] | None) -> Took:
        plan, secret, scheme = plans[0], made[0].secret, made[0].ring.scheme
        who, server = victim(plan, ()), notes[0].honest
        if secret is None or not isinstance(server, Opening):
            return {}
        numbers = secret.decrypt(server.collected.messages[who].whole(), plan, 1)
        return {who: scheme.total(numbers, plan, 1).mean()}

    return Liars(set_up=set_up, enter=enter, took=took)


@dataclass(repr=False)
class TurnedOver(KeepsSecrets):
    """A secret key whose holder answers the negative of what it decrypts."""

    honest: SecretKey

    def to_bytes(self) -> bytes:
        """As the honest one."""
        return self.honest.to_bytes()

    def encrypt(self, numbers: Numbers, plan: RoundPlan) -> Parts:
        """As the honest one."""
        return self.honest.encrypt(numbers, plan)

    def decrypt(self, ciphertext: Parts, plan: RoundPlan, count: int) -> Numbers:
        """Another sum: the values turned over, the weight as it is."""
        numbers = self.honest.decrypt(ciphertext, plan, count).copy()
        numbers[:-1] *= -1
        return numbers


def answers_another() -> Liars:
    """A decryptor that holds the key, and answers another sum than it decrypted."""

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        for party in honest.values():
            if not isinstance(party, DecryptorRound) or party.ring.secret is None:
                raise unexpected(party, "decryptor with the key")
            party.ring.secret = TurnedOver(party.ring.secret)
        return honest

    return Liars(enter=enter)


# ---- two sums of one round


Again = Callable[[Party], Party]
"""A second party for a decryptor that has answered: its own code forgets that it did."""
Request = Callable[[Opening, Sequence[PartyId], PartyId, Sequence[SignedMessage]], bytes]
"""What the server sends to one of a group for the sum of these messages."""
Combine = Callable[[Opening, Mapping[PartyId, Parts], Sequence[SignedMessage]], Total]
"""The sum of these messages, from a group's answers."""


@dataclass(repr=False)
class AnswersTwice(KeepsSecrets):
    """A decryptor that takes part in both sums."""

    honest: Party
    again: Again
    answered: bool = False

    def step(self, mail: Mail) -> Mail:
        """An answer to each question."""
        if "server" in mail and self.answered:
            self.honest = self.again(self.honest)
        self.answered = self.answered or "server" in mail
        return self.honest.step(mail)


@dataclass(repr=False)
class TwoSums(KeepsSecrets):
    """A server that asks one group of decryptors for the sum of all clients, and another for that
    of all but one. The groups meet only in decryptors that collude.
    """

    honest: Opening
    corrupt: tuple[PartyId, ...]
    request: Request
    combine: Combine
    took: Took
    answers: tuple[dict[PartyId, Parts], dict[PartyId, Parts]] = field(
        default_factory=lambda: ({}, {})
    )
    asked: list[tuple[PartyId, ...]] = field(default_factory=list)

    def step(self, mail: Mail) -> Mail:
        """Ask, ask the colluding ones again, and take the difference."""
        collected = self.honest.collected
        if not mail:
            return {}
        if not collected.closed:
            collected.take(mail)
            collected.close()
            return self._ask()
        for sender, body in mail.items():
            if sender in self.asked[0] or sender in self.asked[1]:
                second = sender in self.answers[0] or sender not in self.asked[0]
                _, parts = opened_answer(SignedMessage.read(body), self.honest.ring)
                self.answers[second][sender] = parts
        if self.corrupt and not any(who in self.answers[1] for who in self.corrupt):
            return {who: self._request(1, who) for who in self.corrupt}
        if len(self.answers[0]) == len(self.answers[1]) == len(self.asked[0]):
            self._subtract()
        return {}

    def _ask(self) -> dict[PartyId, Buffer]:
        arrangement = self.honest.ring.arrangement
        free = [who for who in arrangement.decryptors if who not in self.corrupt]
        own = arrangement.threshold - len(self.corrupt)
        groups = free[:own], free[own : 2 * own]
        self.asked = [(*self.corrupt, *group) for group in groups]
        out: dict[PartyId, Buffer] = {who: self._request(0, who) for who in self.asked[0]}
        return out | {who: self._request(1, who) for who in groups[1]}

    def _request(self, group: int, who: PartyId) -> bytes:
        messages = self._less() if group else self._all()
        return self.request(self.honest, self.asked[group], who, messages)

    def _all(self) -> list[SignedMessage]:
        return [self.honest.collected.messages[c] for c in self.honest.collected.clients]

    def _less(self) -> list[SignedMessage]:
        return self._all()[:-1]

    def _subtract(self) -> None:
        whole = self.combine(self.honest, self.answers[0], self._all())
        less = self.combine(self.honest, self.answers[1], self._less())
        self.took[self.honest.collected.clients[-1]] = whole.value - less.value


def two_sums(request: Request, combine: Combine, again: Again) -> Callable[[], Liars]:
    """The server and the decryptors that collude with it, having two sums of a round opened."""

    def how() -> Liars:
        took: Took = {}

        def enter(plan: RoundPlan, honest: Cast) -> Cast:
            server = honest["server"]
            if not isinstance(server, Opening):
                raise unexpected(server, "server")
            corrupt = tuple(sorted(who for who in honest if who != "server"))
            lying: dict[PartyId, Party] = {w: AnswersTwice(honest[w], again) for w in corrupt}
            return {**lying, "server": TwoSums(server, corrupt, request, combine, took)}

        return Liars(enter=enter, took=lambda published: took)

    return how


def all_of_them(
    server: Opening, group: Sequence[PartyId], who: PartyId, messages: Sequence[SignedMessage]
) -> bytes:
    """A request for a sum where every decryptor is handed every ciphertext."""
    return request(server.ring, who, messages)


def combined(
    server: Opening, answers: Mapping[PartyId, Parts], messages: Sequence[SignedMessage]
) -> Total:
    """The sum from shares of the key, where there are enough.

    Raises:
        ConfigError: the scheme is no threshold scheme.
    """
    ring, plan = server.ring, server.plan
    if not isinstance(ring.scheme, ThresholdScheme):
        raise ConfigError("only a threshold scheme combines answers.")
    count = len(messages)
    numbers = ring.scheme.combine(ring.key(), answers, plan, count, ring.arrangement.threshold)
    if numbers is None:
        raise Abort("too few answers for a sum")
    return ring.scheme.total(numbers, plan, count)


def answers_anew(party: Party) -> Party:
    """A decryptor's second party, which has forgotten that the round was opened."""
    if not isinstance(party, DecryptorRound):
        raise unexpected(party, "decryptor")
    party.ring.answered.clear()
    return DecryptorRound(party.ring, party.plan)
