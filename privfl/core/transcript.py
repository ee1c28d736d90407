"""All that happened in a round, and exactly what one adversary saw of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from privfl.core.channel import Channel
from privfl.core.drive import Carried
from privfl.core.errors import ConfigError, NotVisible
from privfl.core.judgement import Judgement
from privfl.core.letters import Message
from privfl.core.opened import Rows, Total
from privfl.core.privacy import Charge
from privfl.core.protocol import Member
from privfl.core.types import ClientId, PartyId, Received, Vector, client_party
from privfl.core.update import RoundPlan, Update


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that went wrong in a round without ending it: what, to whom, at which stage."""

    stage: str
    what: str
    client: ClientId | None = None


@dataclass(frozen=True, slots=True)
class Adversary:
    """Who looks: a name and the parties whose mail and members it holds.

    ``outsider`` holds none and taps every wire; ``server``; ``client/3`` (or ``client(3)``);
    ``server/1`` or any other helper; ``key_holder``, whoever can decrypt; ``colluders(server,
    client/3)``, several together.

    Raises:
        ConfigError: no such adversary.

    >>> Adversary.parse("colluders(server, client/3)").parties == {"server", "client/3"}
    True
    """

    name: str
    parties: frozenset[PartyId]

    @classmethod
    def parse(cls, text: str) -> Adversary:
        """Read an adversary's name."""
        name = re.sub(r"client\((\d+)\)", r"client/\1", text.replace(" ", ""))
        inner = re.fullmatch(r"colluders\((.+)\)", name)
        parties = inner.group(1).split(",") if inner else [name]
        for party in parties:
            if not re.fullmatch(r"outsider|server|key_holder|client/\d+|[a-z_]+/\d+|dealer", party):
                raise ConfigError(
                    f"no adversary is called '{text}': use outsider, server, client(3), key_holder,"
                    " or colluders(server, client(3))."
                )
        return cls(name, frozenset(parties) - {"outsider"})


@dataclass(frozen=True, slots=True)
class View:
    """What ONE adversary saw of a round: inference attacks take this and nothing else.

    ``before`` and ``after`` are the model [d] around the round (every participant and every tap on
    the broadcast has them). ``opened`` is what the adversary could really compute from its own mail
    and keys, by part; ``disclosed`` what the protocol leaked to it by name. ``mail`` is what its
    parties received, ``wire`` the sizes (and, for taps, bodies) of all messages. ``own`` are the
    updates of its own clients. ``extra`` are the vectors that are broadcast beside the model before
    the round, by name, and ``extra_after`` those beside the model after it: control variates,
    running statistics. ``facts`` are public: clip, noise, learning rate, local steps, the
    forward model of an adaptive attack. ``bases`` are the models [d] of the clients of an
    asynchronous round that began with an older one than ``before``, and ``scales`` by what their
    bounded updates were multiplied for that: both are public, because who was sent what when is.
    ``heard`` are by part the clients whose updates are in what was opened: who spoke is on the
    wire.
    """

    adversary: str
    plan: RoundPlan
    before: Vector
    after: Vector
    opened: Mapping[str, Rows | Total]
    disclosed: Mapping[str, Tensor] = field(default_factory=dict)
    mail: Received = field(default_factory=dict, repr=False)
    wire: tuple[Message, ...] = field(default=(), repr=False)
    own: Mapping[ClientId, Update] = field(default_factory=dict, repr=False)
    facts: Mapping[str, Any] = field(default_factory=dict)
    bases: Mapping[ClientId, Vector] = field(default_factory=dict, repr=False)
    scales: Mapping[ClientId, float] = field(default_factory=dict)
    extra: Mapping[str, Vector] = field(default_factory=dict, repr=False)
    extra_after: Mapping[str, Vector] = field(default_factory=dict, repr=False)
    heard: Mapping[str, tuple[ClientId, ...]] = field(default_factory=dict)

    def among(self, part: str = "delta") -> tuple[ClientId, ...]:
        """The clients whose updates are in what was opened of a part; the whole cohort where
        nothing says who dropped out.
        """
        return self.heard.get(part, self.plan.cohort)

    def own_among(self, part: str = "delta") -> Mapping[ClientId, Update]:
        """The adversary's own updates that are in what was opened of a part: not those of its
        clients that dropped out.
        """
        there = set(self.among(part))
        return {client: update for client, update in self.own.items() if client in there}

    def base(self, client: ClientId | None) -> Vector:
        """The model [d] that a client trained from; ``before`` where that is nobody's in
        particular.
        """
        return self.before if client is None else self.bases.get(client, self.before)

    def scale(self, client: ClientId | None) -> float:
        """By what a client's bounded update was multiplied; 1 where nothing is known of it."""
        return 1.0 if client is None else self.scales.get(client, 1.0)

    @property
    def rows(self) -> Rows:
        """Every client's update.

        Raises:
            NotVisible: this adversary cannot read single updates.
        """
        seen = self.opened.get("delta")
        if not isinstance(seen, Rows):
            has = "only their sum" if isinstance(seen, Total) else "none of them"
            raise NotVisible(
                f"{self.adversary} cannot read single updates in round {self.plan.number}; it reads"
                f" {has}."
            )
        return seen

    @property
    def total(self) -> Total:
        """The weighted sum of the updates, from whatever is visible.

        Raises:
            NotVisible: this adversary reads neither rows nor a sum.
        """
        seen = self.opened.get("delta")
        if isinstance(seen, Rows):
            return Total(seen.weights @ seen.values, float(seen.weights.sum()), seen.n)
        if seen is None:
            raise NotVisible(
                f"{self.adversary} can read nothing of the updates of round {self.plan.number}."
            )
        return seen


@dataclass(frozen=True, slots=True)
class Transcript:
    """All that happened in a round, by stage. Everything here is the simulator's: attacks get a
    `View` of it.

    ``updates`` is what training handed out (empty unless the round was kept whole), ``carried``
    what came of its protocol runs, by part, ``seconds`` wall time by stage, ``charges`` what the
    round spent, ``incidents`` what went wrong, ``fired`` what the defences did, in words,
    ``judgements`` what they made of each client. ``liars`` are the clients through which an
    attacker acted: scorers hold judgements against them, and no rule is told. ``plans`` are
    those of all parts (empty: of ``delta`` alone, which is ``plan``). ``bases`` and
    ``scales`` are as in `View`; ``staleness`` is by client how many versions old its base was, and
    ``time`` the simulated time when the round was full (None: no time was simulated). ``extra`` and
    ``extra_after`` are the vectors that are broadcast beside the two models.
    """

    plan: RoundPlan
    before: Vector = field(repr=False)
    after: Vector = field(repr=False)
    carried: Carried[Rows] | Carried[Total] | Carried[Rows | Total] = field(repr=False)
    updates: Mapping[ClientId, Update] = field(default_factory=dict, repr=False)
    seconds: Mapping[str, float] = field(default_factory=dict)
    charges: tuple[Charge, ...] = ()
    incidents: tuple[Incident, ...] = ()
    fired: Mapping[str, str] = field(default_factory=dict)
    judgements: tuple[Judgement, ...] = ()
    liars: tuple[ClientId, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    channel: Channel[Any] | None = field(default=None, repr=False)
    members: Mapping[PartyId, Member] = field(default_factory=dict, repr=False)
    plans: Mapping[str, RoundPlan] = field(default_factory=dict)
    bases: Mapping[ClientId, Vector] = field(default_factory=dict, repr=False)
    scales: Mapping[ClientId, float] = field(default_factory=dict)
    staleness: Mapping[ClientId, int] = field(default_factory=dict)
    time: float | None = None
    extra: Mapping[str, Vector] = field(default_factory=dict, repr=False)
    extra_after: Mapping[str, Vector] = field(default_factory=dict, repr=False)

    @property
    def bytes_sent(self) -> int:
        """All bytes that travelled in the round's protocol runs."""
        return self.carried.bytes_sent()

    def view(self, adversary: str | Adversary) -> View:
        """Exactly what an adversary saw.

        Raises:
            NotVisible: the round's messages were not kept, or the channel has no such party.
        """
        who = Adversary.parse(adversary) if isinstance(adversary, str) else adversary
        if self.channel is None:
            raise NotVisible(
                f"round {self.plan.number} was not kept whole: set audit.keep to a list with this"
                " round, or to 'all'."
            )
        holders = self._key_holders(self.channel) if "key_holder" in who.parties else frozenset()
        parties = (who.parties - {"key_holder"}) | holders
        known = (
            set(self.members) | {client_party(client) for client in self.plan.cohort} | {"server"}
        )
        for party in sorted(parties - known):
            raise NotVisible(f"nobody called '{party}' took part in round {self.plan.number}.")
        tapped = not parties  # an outsider taps every wire; what is sealed on it stays sealed
        mine = {party: self.members[party] for party in parties if party in self.members}
        opened: dict[str, Rows | Total] = {}
        mail: dict[PartyId, list[Any]] = {}
        for part in self.carried.opened:
            received = self.carried.received(self.members if tapped else parties, part, parties)
            seen = self.channel.decode(received, mine)
            if seen is not None:
                opened[part] = seen
            for party, mails in received.items():
                mail.setdefault(party, []).extend(mails)
        wire = tuple(
            x if tapped else Message(x.exchange, x.sender, x.receiver, x.size)
            for x in self.carried.messages
        )
        main = self.carried.opened["delta"]
        tells = main is not None and bool(parties.intersection(self.channel.able.told))
        disclosed = main.disclosed if main is not None and tells else {}
        own = {c: u for c, u in self.updates.items() if client_party(c) in parties}
        return View(
            who.name,
            self.plan,
            self.before,
            self.after,
            opened,
            disclosed,
            mail,
            wire,
            own,
            self.facts,
            self.bases,
            self.scales,
            self.extra,
            self.extra_after,
            {p: o.survivors for p, o in self.carried.opened.items() if o is not None},
        )

    def _key_holders(self, channel: Channel[Any]) -> frozenset[PartyId]:
        holders = channel.able.key_holders
        if holders is None:
            raise NotVisible("nobody holds a decryption key on this channel.")
        return frozenset(holders(self.plan.cohort))

    def clients_seen(self) -> tuple[ClientId, ...]:
        """The clients whose contribution was opened."""
        main = self.carried.opened["delta"]
        return () if main is None else main.survivors

    def blamed(self) -> tuple[PartyId, ...]:
        """Whom aborting parties blame."""
        return tuple(
            a.blamed
            for aborts in self.carried.aborts.values()
            for a in aborts.values()
            if a.blamed is not None
        )


def dropped(plan: RoundPlan, survivors: tuple[ClientId, ...]) -> tuple[ClientId, ...]:
    """The clients of the cohort that are not among the survivors.

    >>> dropped(RoundPlan(0, (1, 2, 3), d=1, l2=1.0), (1, 3))
    (2,)
    """
    there = set(survivors)
    return tuple(client for client in plan.cohort if client not in there)
