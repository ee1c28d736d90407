"""Servers of secure aggregation that lie in what they send: the honest server's letters, edited."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from privfl.core import Buffer, KeepsSecrets, Mail, Opened, PartyId, Total
from privfl.crypto.primitives import fields
from privfl.crypto.secagg import wire
from privfl.crypto.secagg.server import SecAggServerParty
from privfl.crypto.secagg.stage import Kind

Edit = Callable[[PartyId, Kind, bytes], bytes]


@dataclass(repr=False)
class EditsLetters(KeepsSecrets):
    """The honest server, each of whose letters to a client is changed on its way out: by receiver,
    kind and body.
    """

    honest: SecAggServerParty
    edit: Edit

    @property
    def result(self) -> Opened[Total] | None:
        """What the honest server opened of what came of it."""
        return self.honest.result

    def step(self, mail: Mail) -> Mail:
        """What the honest server says, edited."""
        return {
            to: body if to == "server" else self.edit(to, wire.read(body)[0], bytes(body))
            for to, body in self.honest.step(mail).items()
        }


@dataclass(repr=False)
class AsksEarly(KeepsSecrets):
    """A server that asks early: when it sends one kind of message, ``ahead`` sends another beside
    it an exchange later, before anybody has answered the first.
    """

    honest: SecAggServerParty
    when: Kind
    ahead: Callable[[PartyId], bytes]
    due: dict[PartyId, Buffer] = field(default_factory=dict)

    @property
    def result(self) -> Opened[Total] | None:
        """What the honest server opened of what came of it."""
        return self.honest.result

    def step(self, mail: Mail) -> Mail:
        """The early question where one is due, and what the honest server says."""
        early, self.due = self.due, {}
        sent = dict(self.honest.step(mail))
        for to, body in sent.items():
            if to != "server" and wire.read(body)[0] is self.when:
                self.due[to] = self.ahead(to)
        if early:
            return {**sent, **early}
        return sent


def told(body: bytes, listed: Collection[int], n: int) -> bytes:
    """A message that begins with a set of clients, with another set in its place."""
    _, rest = fields.read_most(memoryview(body)[fields.HEADER :], n)
    return body[: fields.HEADER] + fields.most(listed, n) + bytes(rest)
