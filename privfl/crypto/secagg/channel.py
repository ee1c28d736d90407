"""Secure aggregation as a channel: the server learns the sum of the surviving clients' updates, and
nothing else.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from privfl.core import (
    Able,
    BadUpdate,
    Bounded,
    ChannelKind,
    ClientId,
    ClientMember,
    ConfigError,
    DpEvent,
    Guarantee,
    HelperMember,
    KeepsSecrets,
    Liars,
    Member,
    Opener,
    Party,
    PartyId,
    Received,
    RoundPlan,
    RowBound,
    Rows,
    ServerMember,
    Silent,
    Total,
    client_party,
)
from privfl.crypto.primitives import backend, fields
from privfl.crypto.secagg import ideal, keys
from privfl.crypto.secagg.client import SecAggClientParty, ring_vector
from privfl.crypto.secagg.graph import Degree
from privfl.crypto.secagg.guarantee import ideal_guarantee, secagg_guarantee
from privfl.crypto.secagg.keys import RoundKeys
from privfl.crypto.secagg.parameters import (
    SecAggParameters,
    SecAggSettings,
    degree_for,
    epoch,
    parameters_of,
    quorum_of,
    unit_l2,
)
from privfl.crypto.secagg.server import SecAggServerParty
from privfl.crypto.secagg.view import SecAggCoalitionView


@dataclass(frozen=True, slots=True)
class SecAgg(SecAggSettings):
    """Masks that cancel (Bonawitz et al. 2017), on a sparse graph (SecAgg+, Bell et al. 2020).

    Every client adds a mask of its own and one for each neighbour, which the neighbour subtracts;
    shares of the seeds and keys let the survivors take off what a dropped client left. The weight
    travels inside the masked vector.

    ``guarantee`` says who reads what and who may lie, as the channel is set. In short:
    ``mode="semi_honest"``: a server that follows the protocol, with up to ``corrupt`` n clients,
    learns the sum over the survivors and nothing else, but with probability 2^-sigma; ONE THAT LIES
    READS SINGLE UPDATES. ``mode="active"``: a server that lies learns at most one sum, of at least
    the quorum of contributions, provided that ``directory`` holds the clients' true identity keys;
    it chooses whose, so with all but one of a quorum it reads that one, and it can always deny
    service. Both: a LYING CLIENT IS NOT STOPPED. It can put any vector of the ring into the sum,
    because nobody sees its input, and by sharing secrets that do not open it can make a round fail.

    Args:
        threshold: how many of the k + 1 shares of a secret open it, as a fraction or a number; None
            is the smallest safe number. The same fraction of the cohort is the quorum: fewer
            contributions are never summed.
        graph: ``"complete"``; ``"k_regular"``, with a degree computed from the next four; or a
            degree.
        corrupt: the fraction of clients that may collude with the server.
        drop: the fraction that may leave during a round.
        sigma, eta: privacy fails with probability 2^-sigma at most, a round within these bounds
            with 2^-eta.
        bits: of one value, sign included; ``ring`` (16, 24, 32; None: the smallest that holds any
            sum) is what travels.
        rounding, rotation: as in `FixedPoint`.
        noise: noise shares added to the integers before masking, for distributed differential
            privacy, drawn from ``noise_source``.
        carry: next round's public keys travel with the last message, which saves an exchange when
            the whole cohort is there again.
        fidelity: ``"ideal"`` sums the same integers at a trusted party, for large sweeps: the same
            total, bit for bit, no cryptography.
        forward_secrecy: forget a round's secrets when its party is made; then a view of colluding
            clients cannot use them either.
        directory: the clients' public identity keys.

    Raises:
        ConfigError: a setting that cannot be; and when a round begins, a sum that could leave the
            ring, a threshold that proves nothing, fewer than 2 clients, or no finite bound.

    >>> SecAgg(graph="k_regular", corrupt=0.05, drop=0.05).degree(1000)
    Degree(k=34, t=18)
    """

    kind: ClassVar[ChannelKind] = ChannelKind("total", takes_noise=True)

    @property
    def able(self) -> Able:
        """Rounding, and noise shares where they are set."""
        return Able(encodes=self.code, noise=None if self.noise is None else self)

    def degree(self, n: int) -> Degree:
        """How many neighbours a client has in a cohort of n, and how many shares open a secret."""
        return degree_for(self, n)

    def parameters(self, plan: RoundPlan) -> SecAggParameters:
        """A round's public parameters: ring, degree, threshold, quorum."""
        return parameters_of(self, plan)

    def client(self, who: ClientId) -> ClientMember:
        """A client with a fresh identity key, whose public half is entered in the directory."""
        if self.fidelity == "ideal":
            return ideal.IdealClientMember(self, who)
        member = SecAggClient(self, who, secrets.token_bytes(32))
        self.directory.enrol(
            client_party(who), signing=backend(self.backend).ed25519_public(member.identity)
        )
        return member

    def server(self) -> ServerMember[Total]:
        """A server, which holds no secret."""
        return ideal.IdealServerMember(self) if self.fidelity == "ideal" else SecAggServer(self)

    def helpers(self) -> Mapping[PartyId, HelperMember]:
        """None; the trusted party where ``fidelity`` is ideal."""
        return {ideal.TRUSTED: ideal.TrustedMember(self)} if self.fidelity == "ideal" else {}

    def row_bound(self, l2: float, d: int) -> RowBound:
        """Rounding makes a contribution longer: its norm is what one client adds to the sum, and
        twice that how far it moves it.
        """
        longest = self.code.inflated(l2, d)
        return RowBound(longest, 2 * longest)

    def decode(self, received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
        """What a coalition can compute from its mail and its members.

        The total, for whoever reads the server's mail; single rows, where so many neighbours
        collude that their shares or their halves of the masks open them; nothing without the
        server's mail.
        """
        if self.fidelity == "ideal":
            return ideal.decode(self, received, members)
        colluding = [member.kept for member in members.values() if isinstance(member, SecAggClient)]
        return SecAggCoalitionView.of(self, received, colluding).opened()

    def describe(self) -> str:
        """Who can read what, who can lie, and what leaks, for the report."""
        return f"Masks that cancel in the sum ({self.mode}). {self.guarantee.describe()}"

    @property
    def guarantee(self) -> Guarantee[Liars]:
        """Who may collude, who may lie and what the lie can do, as this channel is set."""

        def quorum(n: int) -> int:
            return quorum_of(degree_for(self, n), n)

        noise = None if self.noise is None else self.noise.guarantee
        if self.fidelity == "ideal":
            made = ideal_guarantee(ideal.TRUSTED, self.degree, quorum, self.mode)
            return made.under(noise)
        return secagg_guarantee(
            self.parameters,
            self.degree,
            quorum,
            active=self.active,
            forgets=self.forward_secrecy,
            opens=lambda received, kept: SecAggCoalitionView.of(self, received, kept).opened(),
        ).under(noise)

    def noise_event(self, plan: RoundPlan, survivors: int) -> DpEvent | None:
        """What accounts for the noise in a sum of so many survivors; None where there is none."""
        if self.noise is None:
            return None
        return self.noise.event(
            unit_l2(self, plan), plan.d, parameters_of(self, plan).quorum, survivors
        )


@dataclass(repr=False)
class SecAggClient(KeepsSecrets):
    """A client between rounds: its identity key, next round's keys where they travel ahead, and the
    secrets of past rounds.

    Past rounds' secrets are what a curious client would keep, so views of colluding clients need
    them; ``forward_secrecy`` forgets them. Against an active server a round is entered once: under
    one tag no second vector is ever masked.
    """

    channel: SecAggSettings
    who: ClientId
    identity: bytes
    ahead: dict[bytes, RoundKeys] = field(default_factory=dict)
    kept: dict[bytes, tuple[int, RoundKeys]] = field(default_factory=dict)
    entered: set[bytes] = field(default_factory=set)

    def set_up(self) -> Party:
        """Nothing to say: keys are fresh in every round, and identities are in the directory."""
        return Silent()

    def enter(self, plan: RoundPlan, update: Bounded) -> Party:
        """The party of one round.

        Raises:
            ConfigError: as `SecAgg`, or a client that is not in the cohort.
        """
        channel, now = self.channel, parameters_of(self.channel, plan)
        try:
            position = plan.cohort.index(self.who)
        except ValueError:
            raise ConfigError(
                f"round {plan.number}: client {self.who} is not in the cohort."
            ) from None
        library, this = backend(channel.backend), epoch(plan, plan.number)
        own = self.ahead.pop(this, None) or RoundKeys.fresh(library)
        refused, vector, advert = None, None, b""
        if channel.active and this in self.entered:
            refused = (
                f"round {plan.number} was entered before: a replay could subtract two masked"
                " vectors"
            )
        self.entered.add(this)
        try:
            vector = ring_vector(channel, update, plan, now)
        except BadUpdate as bad:
            refused = str(bad)
        if channel.carry:
            following = epoch(plan, plan.number + 1)
            later = self.ahead[following] = RoundKeys.fresh(library)
            advert = later.public
            if channel.active:
                advert += library.sign(
                    self.identity, keys.advertisement(following, self.who, later.public)
                )
        if not channel.forward_secrecy:
            self.kept[now.tag] = (position, own)
        return SecAggClientParty(
            now,
            plan.cohort,
            position,
            own,
            self.identity,
            channel.directory,
            channel.backend,
            this,
            fields.facts(plan),
            vector,
            refused=refused,
            speaks_first=not channel.carry,
            next_advert=advert,
        )


@dataclass(repr=False)
class SecAggServer(KeepsSecrets):
    """The server between rounds: the public keys that came ahead of their round.

    A network adapter that puts members and parties to rest keeps a server's party and member in one
    `sleep`, or the keys that the party collects are lost and the next round calls for them again.
    """

    channel: SecAggSettings
    ahead: dict[bytes, dict[ClientId, bytes]] = field(default_factory=dict)

    def set_up(self) -> Party:
        """Nothing to say."""
        return Silent()

    def enter(self, plan: RoundPlan) -> Opener[Total]:
        """The party of one round.

        Raises:
            ConfigError: as `SecAgg`.
        """
        channel, now = self.channel, parameters_of(self.channel, plan)
        this, following = epoch(plan, plan.number), epoch(plan, plan.number + 1)
        carried = self.ahead.pop(this, {})
        if channel.carry:
            self.ahead = {following: {}}
        collected = self.ahead.get(following, {})
        return SecAggServerParty(
            now,
            plan,
            channel.code,
            channel.directory,
            channel.backend,
            this,
            fields.facts(plan),
            channel.carry,
            carried,
            collected,
        )
