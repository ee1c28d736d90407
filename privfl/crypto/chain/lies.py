"""What a server and clients of a chain can do in place of the protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from privfl.core import (
    Cast,
    ClientId,
    Coalition,
    ConfigError,
    KeepsSecrets,
    Liars,
    Lie,
    Mail,
    Opened,
    Party,
    PartyId,
    Quota,
    RoundPlan,
    Rows,
    Some,
    Total,
    Vector,
    client_of,
    client_party,
)
from privfl.crypto import lies
from privfl.crypto.chain.client import ChainClientParty
from privfl.crypto.chain.parameters import FORMAT, HERE
from privfl.crypto.chain.server import ChainServerParty
from privfl.crypto.chain.view import OwnSums, decode
from privfl.crypto.primitives import Words, backend
from privfl.crypto.primitives.fields import Malformed


def puts_between(least: Callable[[RoundPlan], int]) -> Lie[Liars]:
    """A server that shuts out as many as the rules allow, so that its victim is at an end of the
    chain with a colluding client beside it.
    """

    def around(plan: RoundPlan) -> dict[ClientId, Quota]:
        spare, chain = least(plan) - 2, plan.cohort
        return {
            victim: Quota(
                1,
                tuple(
                    client_party(c)
                    for i, c in enumerate(chain)
                    if (i < place and i >= spare) or (i > place and plan.n - 1 - i >= spare)
                ),
            )
            for place, victim in enumerate(chain)
        }

    some = Some("a client that has quorum - 2 others on its far side from a victim", around)
    return Lie(
        Coalition.of("server", some=some),
        "read",
        "shuts out whom it likes, so that the client is beside a victim at an end of the chain",
        lambda: _Between(least).liars(),
    )


def puts_among(least: Callable[[RoundPlan], int]) -> Lie[Liars]:
    """A server that shuts out whoever is between its victim and two colluding clients, one on each
    side.
    """

    def around(plan: RoundPlan) -> dict[ClientId, Quota]:
        spare, n = least(plan) - 3, plan.n
        found: dict[ClientId, Quota] = {}
        for place in range(1, n - 1):
            pairs = [
                (low, high)
                for low in range(place)
                for high in range(place + 1, n)
                if low + (n - 1 - high) >= spare
            ]
            widest = max(pairs, key=lambda pair: pair[1] - pair[0])
            both = tuple(client_party(plan.cohort[i]) for i in widest)
            found[plan.cohort[place]] = Quota(2, both)
        return found

    what = "two clients around a victim that have quorum - 3 others on their far sides from it"
    return Lie(
        Coalition.of("server", some=Some(what, around)),
        "read",
        "shuts out whoever is between them and the victim",
        lambda: _Between(least).liars(),
    )


@dataclass(repr=False)
class _Between(KeepsSecrets):
    """The liars, and what they have noted when the round is over."""

    least: Callable[[RoundPlan], int]
    honest: dict[PartyId, Party] = field(default_factory=dict)
    notes: dict[PartyId, lies.TakesNotes] = field(default_factory=dict)
    added: dict[ClientId, tuple[int, Words]] = field(default_factory=dict)

    def liars(self) -> Liars:
        return Liars(enter=self.enter, took=self.took)

    def enter(self, plan: RoundPlan, honest: Cast) -> Cast:
        own = [c for c in map(client_of, honest) if c is not None]
        victim = lies.victim(plan, honest)
        at, places = plan.cohort.index(victim), [plan.cohort.index(c) for c in own]
        before, after = [i for i in places if i < at], [i for i in places if i > at]
        beyond = [
            *(range(max(before)) if before else ()),
            *(range(min(after) + 1, plan.n) if after else ()),
        ]
        others = [plan.cohort[i] for i in beyond if i not in places]
        kept = {victim, *own, *others[: self.least(plan) - 1 - len(own)]}
        self.honest = dict(honest)
        for colluder, place in zip(own, places, strict=True):
            client = honest[client_party(colluder)]
            if not isinstance(client, ChainClientParty) or client.vector is None:
                raise ConfigError(f"{type(client).__name__} is no client of a chain.")
            self.added[colluder] = (place, client.vector.copy())
        self.notes = {who: lies.TakesNotes(party) for who, party in honest.items()}
        hears = lies.Hears(self.notes["server"], lambda sender: client_of(sender) in kept)
        return {**self.notes, "server": hears}

    def took(self, published: Opened[Rows | Total] | None) -> Mapping[ClientId, Vector]:
        server = self.honest["server"]
        if not isinstance(server, ChainServerParty):
            raise ConfigError(f"{type(server).__name__} is no server of a chain.")
        now = server.round
        keys = {
            who: party.identity
            for who, party in self.honest.items()
            if isinstance(party, ChainClientParty | ChainServerParty)
        }
        own = OwnSums(keys, {now.tag: server.seed}, {now.tag: self.added})
        mail = {who: note.mail for who, note in self.notes.items()}
        found = decode(now.code, mail, own, backend(now.library_name))
        if not isinstance(found, Rows) or found.ids is None:
            return {}
        return dict(zip(found.ids, found.values, strict=True))


def breaks_off(who: PartyId = "client/0") -> Lie[Liars]:
    """A client that says that it is there, and then nothing."""
    how = lies.each(_OnlyHere)
    return Lie(Coalition.of(who), "abort", "says that it is there, and passes nothing on", how)


@dataclass(repr=False)
class _OnlyHere(KeepsSecrets):
    honest: Party

    def step(self, mail: Mail) -> Mail:
        """What it says first."""
        return {} if mail else self.honest.step(mail)


def passes_garbage(who: PartyId = "client/0") -> Lie[Liars]:
    """A client that passes on what the next one cannot open."""

    def change(to: PartyId, body: bytes) -> bytes:
        return body if _is_here(body) else b"\xff" * len(body)

    return Lie(
        Coalition.of(who),
        "abort",
        "says that it is there, and passes on what nobody can open",
        lies.each(lambda honest: lies.Alters(honest, change)),
    )


def _is_here(body: bytes) -> bool:
    try:
        return FORMAT.read(body).kind == HERE
    except Malformed:
        return False
