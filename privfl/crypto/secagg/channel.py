"""Secure aggregation as a channel: the server learns the sum of the surviving clients' updates, and
nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from privfl.core import (
    Able,
    ChannelKind,
    ClientId,
    ClientMember,
    ConfigError,
    DpEvent,
    Examples,
    Guarantee,
    HelperMember,
    KnownKeys,
    Liars,
    Member,
    PartyId,
    PartyKeys,
    Received,
    RoundPlan,
    Rows,
    ServerMember,
    Total,
    client_party,
    no_helper,
    refuse_others_keys,
)
from privfl.crypto.secagg import ideal
from privfl.crypto.secagg.graph import Degree
from privfl.crypto.secagg.guarantee import ideal_guarantee, secagg_guarantee
from privfl.crypto.secagg.members import SecAggClient, SecAggServer
from privfl.crypto.secagg.parameters import (
    SecAggParameters,
    SecAggSettings,
    degree_for,
    figures_of,
    parameters_of,
    quorum_of,
    unit_l2,
)
from privfl.crypto.secagg.replay import KnownAhead
from privfl.crypto.secagg.view import SecAggCoalitionView


@dataclass(frozen=True, slots=True)
class SecAgg(SecAggSettings):
    """Masks that cancel (Bonawitz et al. 2017), on a sparse graph (SecAgg+, Bell et al. 2020).

    Every client adds a mask of its own and one for each neighbour, which the neighbour subtracts;
    shares of the seeds and keys let the survivors take off what a dropped client left. The weight
    travels inside the masked vector, in words of its own.

    ``guarantee`` says who reads what and who may lie, as the channel is set. In short:
    ``mode="semi_honest"``: a server that follows the protocol, with up to ``corrupt`` n clients,
    learns the sum over the survivors and nothing else, but with probability 2^-sigma; ONE THAT LIES
    READS SINGLE UPDATES. ``mode="active"``: a server that lies learns at most one sum, of at least
    the quorum of contributions, provided that the directory holds the clients' true identity keys:
    every client draws its share holders from the whole cohort before it is told a key, and gives a
    share only after t of its holders confirmed that they were told the same. The server chooses
    whose contributions are summed, so with all but one of a quorum it reads that one, and it can
    always deny service. Both: a LYING CLIENT IS NOT STOPPED. It can put any vector of the ring into
    the sum, because nobody sees its input, and by sharing secrets that do not open it can make a
    round fail.

    Args:
        threshold: how many of the k + 1 shares of a secret open it, as a fraction or a number; None
            is the smallest safe number. The same fraction of the cohort is the quorum: fewer
            contributions are never summed. In active mode on a sparse graph the quorum is lower,
            because a server can ask none but clients who drew each other: 55 of 100, not 71, with
            5 % corrupt.
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
            the whole cohort is there again. Views of the server's mail reach back 64 rounds. No
            member may wake from an older copy of its state: it would use keys twice.
        fidelity: ``"ideal"`` sums the same integers at a trusted party, for large sweeps: the same
            total, bit for bit, no cryptography.
        forward_secrecy: clients forget a round's secrets when its party is made. False keeps them,
            as a curious client would: then a view of colluding clients computes what they read. In
            active mode it covers no client that was counted out: the server learns its key of the
            round, and who takes its identity key as well reads a vector of its that came too late.

    Raises:
        ConfigError: a setting that cannot be; and when a round begins, a sum that could leave the
            ring, a threshold that proves nothing, fewer than 2 clients, or no finite bound.

    >>> SecAgg(graph="k_regular", corrupt=0.05, drop=0.05).degree(1000)
    Degree(k=34, t=18)
    """

    examples: ClassVar[Examples] = {"": {"bits": 8}, "rotated": {"bits": 8, "rotation": True}}
    kind: ClassVar[ChannelKind] = ChannelKind("total", takes_noise=True)

    @property
    def able(self) -> Able:
        """Rounding, the quorum, noise shares where they are set, and keys against an active
        server.
        """
        return Able(
            streams=True,
            encodes=self.code,
            rounds_off=self.code.error,
            fewest=self.fewest,
            noise=None if self.noise is None else self,
            seeded=self.noise is not None and self.noise_source.repeatable,
            keyed=self.active,
            joins=True,
            carries=self.carry,
        )

    def degree(self, n: int) -> Degree:
        """How many neighbours a client has in a cohort of n, and how many shares open a secret."""
        return degree_for(self, n)

    def fewest(self, n: int) -> int:
        """The quorum of a cohort of n; raises as `degree_for`."""
        return 2 if n < 2 else quorum_of(self, n)

    def parameters(self, plan: RoundPlan) -> SecAggParameters:
        """A round's public parameters: ring, degree, threshold, quorum."""
        return parameters_of(self, plan)

    @property
    def helpers(self) -> tuple[PartyId, ...]:
        """None; the trusted party where ``fidelity`` is ideal."""
        return (ideal.TRUSTED,) if self.fidelity == "ideal" else ()

    def client(self, who: ClientId, identity: PartyKeys, directory: KnownKeys) -> ClientMember:
        """A client; against an active server it signs, and knows the others by the directory.

        Raises:
            ConfigError: another party's keys.
        """
        if self.fidelity == "ideal":
            return ideal.IdealClientMember(self, who)
        refuse_others_keys(client_party(who), identity)
        return SecAggClient(self, who, identity, directory)

    def server(self, identity: PartyKeys, directory: KnownKeys) -> ServerMember[Total]:
        """A server, which holds no secret, and knows the clients by the directory."""
        if self.fidelity == "ideal":
            return ideal.IdealServerMember(self)
        return SecAggServer(self, directory)

    def helper(self, who: PartyId, identity: PartyKeys, directory: KnownKeys) -> HelperMember:
        """The trusted party of the ideal functionality, which needs no keys.

        Raises:
            ConfigError: there is no such helper.
        """
        if who not in self.helpers:
            raise no_helper("secagg", who, self.helpers)
        return ideal.TrustedMember(self)

    def decode(self, received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
        """What a coalition can compute from its mail and its members.

        The total, for whoever reads the server's mail; single rows, where so many neighbours
        collude that their shares or their halves of the masks open them; nothing without the
        server's mail.
        """
        if self.fidelity == "ideal":
            return ideal.decode(self, received, members)
        colluding = [member.kept for member in members.values() if isinstance(member, SecAggClient)]
        known = KnownAhead()
        for member in members.values():
            if isinstance(member, SecAggClient):
                known = replace(known, directory=member.directory)
            elif isinstance(member, SecAggServer):
                known = KnownAhead(member.directory, member.began, member.forgot)
                break
        return SecAggCoalitionView.of(self, received, colluding, known).opened()

    def describe(self) -> str:
        """Who can read what, who can lie, and what leaks, for the report."""
        what = f"Masks that cancel in the sum ({self.mode})"
        if self.fidelity == "ideal":
            what = f"NO SECURE AGGREGATION RAN: a trusted party in its place ({self.mode})"
        return f"{what}. {self.guarantee.describe()}"

    @property
    def guarantee(self) -> Guarantee[Liars]:
        """Who may collude, who may lie and what the lie can do, as this channel is set."""

        def quorum(n: int) -> int:
            return quorum_of(self, n)

        noise = None if self.noise is None else self.noise.guarantee
        share = self.threshold if isinstance(self.threshold, float) else None
        if self.fidelity == "ideal":
            made = ideal_guarantee(ideal.TRUSTED, self.degree, quorum, self.mode, self.corrupt)
            return made.needing(share).under(noise)
        return (
            secagg_guarantee(
                self.parameters,
                self.degree,
                quorum,
                active=self.active,
                forgets=self.forward_secrecy,
                corrupt=self.corrupt,
                figures=lambda n: figures_of(self, n),
                opens=lambda received, kept: SecAggCoalitionView.of(self, received, kept).opened(),
            )
            .needing(share)
            .under(noise)
        )

    def noise_event(
        self, plan: RoundPlan, survivors: int | None = None, colluders: int = 0
    ) -> DpEvent | None:
        """What accounts for the noise in a sum of so many survivors (of a quorum, the fewest that
        are ever summed, unless said), less the shares of those who collude; None where there is
        none.

        Raises:
            ConfigError: nobody but colluders would be left.
        """
        if self.noise is None:
            return None
        quorum = parameters_of(self, plan).quorum
        honest = (survivors or quorum) - colluders
        if honest < 1:
            raise ConfigError(
                f"{colluders} colluding clients know every share of the noise in a sum of"
                f" {survivors or quorum}, the fewest that is opened: raise the threshold, or lower"
                f" threat.colluders to {(survivors or quorum) - 1} at most."
            )
        return self.noise.event(unit_l2(self, plan), plan.d, quorum, honest)
