"""Lies under one-time-pad RLWE, told by real parties: decryptors that answer another sum or turn
good dealings down, clients that deal badly or encrypt under another key, two sums of one round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from privfl.core import (
    Bounded,
    Cast,
    ClientId,
    ConfigError,
    KeepsSecrets,
    Liars,
    Mail,
    Party,
    PartyId,
    RoundPlan,
    Vector,
    client_of,
)
from privfl.crypto.he.boxes import unsealed
from privfl.crypto.he.mprlwe.ring import N
from privfl.crypto.he.onetime import dealing, message, view
from privfl.crypto.he.onetime.client import OneTimeClientParty
from privfl.crypto.he.onetime.dealing import Dealing, Values
from privfl.crypto.he.onetime.decryptor import OneTimeDecryptorParty
from privfl.crypto.he.onetime.drawn import DrawnClientParty
from privfl.crypto.he.onetime.message import CHECKED, OPEN, id_of, ids_bytes
from privfl.crypto.he.onetime.pad import ShortStream, encrypted
from privfl.crypto.he.onetime.parameters import P
from privfl.crypto.he.onetime.server import OneTimeServerParty
from privfl.crypto.he.wire import SignedMessage


def _decryptor(party: Party) -> OneTimeDecryptorParty:
    if isinstance(party, DrawnClientParty) and party.decryptor is not None:
        return party.decryptor
    if not isinstance(party, OneTimeDecryptorParty):
        raise ConfigError(f"{type(party).__name__} is no decryptor of one-time-pad RLWE.")
    return party


def _client(party: Party) -> OneTimeClientParty:
    if isinstance(party, DrawnClientParty):
        return party.client
    if not isinstance(party, OneTimeClientParty):
        raise ConfigError(f"{type(party).__name__} is no client of one-time-pad RLWE.")
    return party


# ---- decryptors


@dataclass(repr=False)
class AnswersAnother(KeepsSecrets):
    """A decryptor that answers another sum than that of its shares: ``error`` [N] is added to it,
    or a one to the first word.
    """

    honest: Party
    error: Values | None = None

    def step(self, mail: Mail) -> Mail:
        """What the honest decryptor says, about other shares."""
        honest = _decryptor(self.honest)
        asked = "server" in mail and bytes(mail["server"][:3]) == b"PFH"
        if asked and honest.good:
            name = next(iter(honest.good))
            share = dealing.from_bytes(honest.good[name], (N,))
            moved = np.eye(1, N, dtype=np.int64)[0] if self.error is None else self.error
            honest.good[name] = dealing.to_bytes((share + moved) % P)
        return self.honest.step(mail)


@dataclass(repr=False)
class TurnsDown(KeepsSecrets):
    """A decryptor that finds good dealings bad, all but as many as a sum needs."""

    honest: Party

    def step(self, mail: Mail) -> Mail:
        """What the honest decryptor says, of fewer clients."""
        honest = _decryptor(self.honest)
        before = honest.good
        out = self.honest.step(mail)
        if before is not None or honest.good is None:
            return out
        few = list(honest.good)[: honest.settings.quorum(honest.plan.n)]
        return {"server": honest.said(CHECKED, ids_bytes(few))}


# ---- clients


class Bent(Dealing):
    """Shares of which the first decryptor's is on no polynomial."""

    def share(self, point: int) -> Values:
        """The values at a point; one is wrong at the first."""
        values = super().share(point)
        bent: Values = (values + (point == 1) * np.eye(1, len(values), dtype=np.int64)[0]) % P
        return bent


@dataclass(repr=False)
class DealsBadly(KeepsSecrets):
    """A client whose dealing is ``kind``'s, and whose contribution is encrypted under another key
    where ``other_key`` is set; ``whole`` is the party that it is part of.
    """

    honest: OneTimeClientParty
    kind: type[Dealing] = Dealing
    other_key: bool = False
    whole: Party | None = None

    def step(self, mail: Mail) -> Mail:
        """One message, as the honest client's."""
        honest = self.honest
        if honest.update is None:
            return {} if self.whole is None else self.whole.step(mail)
        update, honest.update = honest.update, None
        return {"server": self._message(update)}

    def _message(self, update: Bounded) -> bytes:
        honest, settings = self.honest, self.honest.settings
        topic, who = settings.topic(honest.plan), honest.identity.who
        short, other = (ShortStream(settings.secrets).take(1)[0] for _ in range(2))
        numbers = settings.scheme.encode(update, honest.plan)
        under = other if self.other_key else short
        layout = settings.layout(honest.plan)
        body = encrypted(numbers, under, settings.secrets, topic, layout)
        dealt = self.kind(short, settings.threshold)
        parts = message.dealt_parts(
            dealt, body, topic, who, honest.occasions.heard, honest.directory
        )
        return message.dealt_message(honest.identity, topic, parts).to_bytes()


def deals_on_no_polynomial(party: Party) -> Party:
    """A client as `DealsBadly` with `Bent` shares."""
    return DealsBadly(_client(party), Bent, whole=party)


def encrypts_under_another_key(party: Party) -> Party:
    """A client whose contribution does not fit its dealing."""
    return DealsBadly(_client(party), other_key=True, whole=party)


# ---- two sums of one round


@dataclass(repr=False)
class OpensTwice(KeepsSecrets):
    """A decryptor that takes part in both sums: its own code forgets that it answered."""

    honest: OneTimeDecryptorParty
    good: dict[bytes, bytes] = field(default_factory=dict)

    def step(self, mail: Mail) -> Mail:
        """An answer to each question."""
        honest = self.honest
        if honest.good:
            self.good = dict(honest.good)
        if honest.answered is not None:
            honest.memory.opened.clear()
            honest.answered, honest.good = None, dict(self.good)
        return honest.step(mail)


@dataclass(repr=False)
class AsksForTwoSums(KeepsSecrets):
    """A server that asks one group of decryptors for the sum of all clients, and another for that
    of all but one. The groups meet only in decryptors that collude.
    """

    honest: OneTimeServerParty
    corrupt: tuple[PartyId, ...]
    took: dict[ClientId, Vector]
    sent: dict[ClientId, SignedMessage] = field(default_factory=dict)
    groups: tuple[tuple[PartyId, ...], ...] = ()
    answers: tuple[dict[int, Values], dict[int, Values]] = field(default_factory=lambda: ({}, {}))
    again: bool = False

    def step(self, mail: Mail) -> Mail:
        """Have all dealings checked, ask, ask the colluding ones again, and take the difference."""
        honest = self.honest
        for who, body in mail.items():
            client = client_of(who)
            if client is not None:
                self.sent[client] = SignedMessage.read(bytes(body))
        if not honest.closed or not mail:
            return honest.step(mail)
        if not self.groups:
            return self._ask()
        for who, body in mail.items():
            self._take(who, SignedMessage.read(body))
        if self.corrupt and not self.again:
            self.again = True
            return dict.fromkeys(self.corrupt, self._request(self._all()[:-1]))
        self._subtract()
        return {}

    def _all(self) -> list[SignedMessage]:
        return [self.sent[client] for client in sorted(self.sent)]

    def _ask(self) -> Mail:
        settings = self.honest.settings
        free = [who for who in settings.decryptors if who not in self.corrupt]
        own = settings.threshold - len(self.corrupt)
        first, second = free[:own], free[own : 2 * own]
        self.groups = ((*self.corrupt, *first), (*self.corrupt, *second))
        out = dict.fromkeys(self.groups[0], self._request(self._all()))
        return out | dict.fromkeys(second, self._request(self._all()[:-1]))

    def _request(self, messages: Sequence[SignedMessage]) -> bytes:
        honest = self.honest
        ids = ids_bytes([id_of(m) for m in messages])
        signed = SignedMessage.signed(honest.identity, OPEN, honest.topic, "server", (ids,))
        return signed.to_bytes()

    def _take(self, who: PartyId, said: SignedMessage) -> None:
        ids, box = said.whole()
        purpose = message.answer_purpose(said.topic, who)
        plain = unsealed(self.honest.identity, box, purpose)
        less = len(message.ids_in(ids)) < len(self.sent)
        point = 1 + self.honest.settings.decryptors.index(who)
        self.answers[less][point] = dealing.from_bytes(plain, (N,))

    def _subtract(self) -> None:
        settings, everybody = self.honest.settings, self._all()
        server = self.honest.identity
        whole = view.summed(settings, server, everybody, self.answers[0])
        less = view.summed(settings, server, everybody[:-1], self.answers[1])
        if whole is not None and less is not None:
            self.took[max(self.sent)] = whole.value - less.value


def two_sums() -> Liars:
    """The server and the decryptors that collude with it, having two sums of a round opened.

    Raises:
        ConfigError: when it is told in the round of another protocol.
    """
    took: dict[ClientId, Vector] = {}

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        server = honest["server"]
        if not isinstance(server, OneTimeServerParty):
            raise ConfigError(f"{type(server).__name__} is no server of one-time-pad RLWE.")
        corrupt = tuple(sorted(who for who in honest if who != "server"))
        lying: dict[PartyId, Party] = {w: OpensTwice(_decryptor(honest[w])) for w in corrupt}
        return {**lying, "server": AsksForTwoSums(server, corrupt, took)}

    return Liars(enter=enter, took=lambda published: took)
