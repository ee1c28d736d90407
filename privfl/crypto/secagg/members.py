"""Clients and the server between rounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from privfl.core import (
    BadUpdate,
    Bounded,
    ClientId,
    ConfigError,
    KeepsSecrets,
    KnownKeys,
    Opener,
    Party,
    PartyKeys,
    RoundPlan,
    Silent,
    Total,
)
from privfl.crypto.primitives import Words, backend, fields
from privfl.crypto.secagg import keys
from privfl.crypto.secagg.client import SecAggClientParty, ring_vector
from privfl.crypto.secagg.keys import RoundKeys
from privfl.crypto.secagg.pairs import LastingPairs, Pairs
from privfl.crypto.secagg.parameters import SecAggSettings, epoch, parameters_of
from privfl.crypto.secagg.server import SecAggServerParty

KEPT = 64
"""Of how many rounds a server remembers which keys came ahead of them."""


@dataclass(repr=False)
class SecAggClient(KeepsSecrets):
    """A client between rounds: its identity key, by part the next round's keys where they travel
    ahead, and the secrets of past rounds.

    Past rounds' secrets are what a curious client would keep, so views of colluding clients need
    them; ``forward_secrecy`` forgets them. Against an active server a round is entered once: under
    one tag no second vector is ever masked. A member that is woken from an older copy of its state
    does not know what it entered since, and is not refused: with ``carry`` it masks a second vector
    under the same keys, and a server that sees both reads their difference.
    """

    settings: SecAggSettings
    who: ClientId
    identity: PartyKeys
    directory: KnownKeys
    ahead: dict[str, tuple[bytes, RoundKeys]] = field(default_factory=dict)
    kept: dict[bytes, Pairs] = field(default_factory=dict)
    entered: set[bytes] = field(default_factory=set)
    lasting: LastingPairs = field(init=False)

    def __post_init__(self) -> None:
        self.lasting = LastingPairs(self.identity)

    def set_up(self) -> Party:
        """Nothing to say: keys are fresh in every round, and identities are in the directory."""
        return Silent()

    def enter(self, plan: RoundPlan, update: Bounded) -> Party:
        """The party of one round.

        Raises:
            ConfigError: as `SecAgg`, or a client that is not in the cohort.
        """
        party = self._party(plan)
        try:
            party.vector = ring_vector(self.settings, update, plan, party.parameters)
        except BadUpdate as bad:
            party.refused = str(bad)
        return party

    def enter_later(self, plan: RoundPlan, update: Callable[[], Bounded | None]) -> Party:
        """The party of one round, whose update is made when the masked vector is due
        (`core.streaming.EntersLater`): who has none then drops out once it has shared keys, and has
        not entered: it masked nothing, and another time its keys are fresh.

        Raises:
            ConfigError: as `enter`.
        """
        party, settings = self._party(plan), self.settings
        now = party.parameters

        def vector() -> Words | None:
            made = update()
            if made is None:
                self.entered.discard(epoch(plan, plan.number))
                return None
            return ring_vector(settings, made, plan, now)

        party.later = vector
        return party

    def _party(self, plan: RoundPlan) -> SecAggClientParty:
        """The party of one round, without its vector."""
        settings, now = self.settings, parameters_of(self.settings, plan)
        try:
            position = plan.cohort.index(self.who)
        except ValueError:
            raise ConfigError(
                f"round {plan.number}: client {self.who} is not in the cohort."
            ) from None
        library, this = backend(settings.backend), epoch(plan, plan.number)
        due, own = self.ahead.pop(plan.part, (b"", None))
        if own is None or due != this:
            own = RoundKeys.fresh(library, active=settings.active)
        refused, advert = None, b""
        if settings.active and this in self.entered:
            refused = (
                f"round {plan.number} was entered before: a replay could subtract two masked"
                " vectors"
            )
        self.entered.add(this)
        if settings.carry:
            following = epoch(plan, plan.number + 1)
            later = RoundKeys.fresh(library, active=settings.active)
            self.ahead[plan.part] = following, later
            advert = later.public
            if settings.active:
                advert += self.identity.sign(keys.advertisement(following, self.who, later.public))
        pairs = Pairs(
            now, plan.cohort, position, own, self.lasting, self.directory, settings.backend
        )
        if not settings.forward_secrecy:
            self.kept[now.tag] = pairs
        return SecAggClientParty(
            pairs,
            self.identity,
            this,
            fields.facts(plan),
            None,
            refused=refused,
            speaks_first=not settings.carry,
            next_advert=advert,
        )


@dataclass(repr=False)
class SecAggServer(KeepsSecrets):
    """The server between rounds: by part the public keys that came ahead of the next round, and of
    the last `KEPT` rounds and parts, by tag and place, those that it began with, and whose: a view
    of its mail cannot do without. ``forgot`` are the tags of the others.

    A network adapter that puts members and parties to rest keeps a server's party and member in one
    `sleep`, or the keys that the party collects are lost and the next round calls for them again.
    """

    settings: SecAggSettings
    directory: KnownKeys
    ahead: dict[str, tuple[bytes, dict[ClientId, bytes]]] = field(default_factory=dict)
    began: dict[bytes, dict[int, tuple[ClientId, bytes]]] = field(default_factory=dict)
    forgot: set[bytes] = field(default_factory=set)

    def set_up(self) -> Party:
        """Nothing to say."""
        return Silent()

    def enter(self, plan: RoundPlan) -> Opener[Total]:
        """The party of one round.

        Raises:
            ConfigError: as `SecAgg`.
        """
        settings, now = self.settings, parameters_of(self.settings, plan)
        this, following = epoch(plan, plan.number), epoch(plan, plan.number + 1)
        due, carried = self.ahead.pop(plan.part, (b"", {}))
        carried, collected = carried if due == this else {}, dict[ClientId, bytes]()
        if settings.carry:
            self.ahead[plan.part] = following, collected
            self.began[now.tag] = {
                place: (client, carried[client])
                for place, client in enumerate(plan.cohort)
                if client in carried
            }
            while len(self.began) > KEPT:
                oldest = next(iter(self.began))
                del self.began[oldest]
                self.forgot.add(oldest)
        return SecAggServerParty(
            now,
            plan,
            settings.code,
            self.directory,
            settings.backend,
            this,
            fields.facts(plan),
            settings.carry,
            carried,
            collected,
        )
