"""A server of secure aggregation that shows different clients different rounds: to each island of
honest clients only itself and the server's own friends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from privfl.core import (
    Abort,
    Buffer,
    ClientId,
    ConfigError,
    KeepsSecrets,
    Mail,
    Opened,
    Party,
    PartyId,
    Total,
    client_party,
)
from privfl.crypto.primitives import fields
from privfl.crypto.secagg.server import SecAggServerParty
from privfl.crypto.secagg.stage import Kind

Friends = Callable[[], Mapping[PartyId, Party]]
"""New parties of the clients that collude with the server: one set for every island."""


@dataclass(repr=False)
class Island(KeepsSecrets):
    """An honest server that hears some clients and the liars' own, sums however few there are, and
    pads what it says about the cohort up to the quorum with names that it never spoke to.
    """

    server: SecAggServerParty
    members: frozenset[PartyId]
    friends: Mapping[PartyId, Party]
    padded: frozenset[int]
    over: str = ""

    @classmethod
    def of(cls, server: SecAggServerParty, members: Sequence[ClientId], friends: Friends) -> Island:
        """An island of these honest clients."""
        now = server.parameters
        own = friends()
        names = frozenset(map(client_party, members))
        here = {
            i for i, c in enumerate(server.plan.cohort) if client_party(c) in names | own.keys()
        }
        others = [i for i in range(now.n) if i not in here]
        pad = others[: max(0, now.quorum - len(here))]
        server.parameters = replace(now, quorum=2)
        return cls(server, names, own, frozenset(pad))

    def step(self, mail: Mail) -> Mail:
        """Play on with these letters, the friends' answers among them."""
        if self.over:
            return {}
        try:
            return {who: self._pad(body) for who, body in self.server.step(mail).items()}
        except Abort as abort:
            self.over = str(abort)
            return {}

    def _pad(self, body: Buffer) -> Buffer:
        if bytes(body[4:5])[0] not in (Kind.INBOX, Kind.SURVIVORS):
            return body
        n = self.server.parameters.n
        told, rest = fields.read_most(memoryview(body)[fields.HEADER :], n)
        return b"".join((body[: fields.HEADER], fields.most(told | self.padded, n), rest))


@dataclass(repr=False)
class IslandServer(KeepsSecrets):
    """The lying server: every island is a round of its own. Whatever opens is in ``opened``, by
    island; it never has a result of the round.
    """

    islands: list[Island]
    waiting: dict[int, dict[PartyId, Buffer]] = field(default_factory=dict)
    result: Opened[Total] | None = None

    @classmethod
    def of(
        cls,
        enter: Callable[[], Party],
        islands: Sequence[Sequence[ClientId]],
        friends: Friends,
    ) -> IslandServer:
        """A server over these islands; ``enter`` makes one honest party of the server.

        Raises:
            ConfigError: the party is no server of secure aggregation.
        """
        made = []
        for members in islands:
            server = enter()
            if not isinstance(server, SecAggServerParty):
                raise ConfigError(f"{type(server).__name__} is no server of secure aggregation.")
            made.append(Island.of(server, members, friends))
        return cls(made)

    def step(self, mail: Mail) -> Mail:
        """Hand each island its letters; the friends answer at once, and are heard together with the
        honest ones.
        """
        out: dict[PartyId, Buffer] = {}
        for at, island in enumerate(self.islands):
            arrived = {who: body for who, body in mail.items() if who in island.members}
            if mail and not arrived:
                continue
            arrived |= self.waiting.pop(at, {})
            sent = dict(island.step(arrived))
            answers: dict[PartyId, Buffer] = {}
            for who, friend in island.friends.items():
                try:
                    body = friend.step({"server": sent.pop(who)} if who in sent else {})
                except Abort:
                    continue
                if "server" in body:
                    answers[who] = body["server"]
            self.waiting[at] = answers
            out |= sent
        return out

    @property
    def opened(self) -> list[Opened[Total] | None]:
        """What each island opened."""
        return [island.server.result for island in self.islands]
