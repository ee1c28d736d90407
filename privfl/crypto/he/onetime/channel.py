"""One-time-pad RLWE as a channel: one message of a client, decryptors that hold shares of keys
which serve once, exact sums.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from privfl.core import (
    Able,
    ChannelKind,
    ClientId,
    Examples,
    Guarantee,
    KnownKeys,
    Liars,
    Member,
    PartyId,
    PartyKeys,
    Received,
    Rows,
    Total,
    client_party,
    no_helper,
    refuse_others_keys,
)
from privfl.crypto.he.onetime.guarantee import one_time_guarantee
from privfl.crypto.he.onetime.members import OneTimeClient, OneTimeDecryptor, OneTimeServer
from privfl.crypto.he.onetime.parameters import OneTimeSettings
from privfl.crypto.he.onetime.view import opened

UNAUDITED = "One-time-pad RLWE is our own code, unaudited, and not constant-time."


@dataclass(frozen=True, slots=True)
class OneTimeRLWE(OneTimeSettings):
    """One-time pads of ring learning with errors, whose keys are dealt to decryptors in shares
    (after Stevens et al. 2021, and ACORN: Bell et al. 2023).

    Every client hides its integers under a pad of its own, and deals the short key of that pad to
    ``holders`` decryptors, any ``threshold`` of whom open the sum of the keys of one set of clients
    a round, and with it the sum of the updates. docs/one-time-rlwe.md has scheme, bounds and
    proofs.

    b = a s + e + step * digits in the ring of degree 4096 mod 2^96: a is public and follows from
    the round, s and e are short, fresh, and serve once. The key travels in Shamir's shares mod
    65521 with a proof that they lie on one polynomial. 3 to 4 bytes a value and 25 kB, one message,
    exact sums; clients may leave whenever they like.

    Threat model. ``threshold`` - 1 decryptors that collude with the server and with all but two of
    the clients summed read the sum and nothing else. Clients, decryptors and the server may lie: a
    client picks no public polynomial, so nothing that it sends makes a sum that tells more of the
    others; nobody but the server sees another's contribution, and nobody can copy or shift one (a
    copy does not fit the dealing that comes with it, and the round ends); a decryptor cannot move a
    sum, and one that answers something else is named where enough others are there. Not stopped: a
    client whose update is too long, one that ends the round without being named, 2 ``threshold`` -
    ``holders`` decryptors that have two overlapping sums opened, and what the sum itself tells.
    Unaudited, and not constant-time.

    ``committee="clients"``: no helpers; in the set-up the clients draw ``holders`` of themselves by
    a coin that nobody steers, and a client that is drawn is a decryptor for the session. A round is
    three exchanges, in which clients that are not drawn speak once, and any client may leave at any
    time as long as ``threshold`` of the drawn ones stay. Rounds have to ask those who took part in
    the set-up. ``guarantee`` says how likely the draw falls on too many corrupt clients: with 32
    drawn of 1,000, a threshold of 24 and 5 % corrupt 2^-42 for two overlapping sums.

    Args:
        bits: of one value, sign included.
        holders: how many decryptors there are, 2 to 9; 2 to 40 clients.
        threshold: how many of them open a sum, more than half.
        corrupt: the fraction of the cohort that may collude: sums of fewer than 2 more stay closed.
        min_clients: sums of fewer stay closed as well; None: of fewer than half of the cohort.
        secrets: ``"binomial"`` (centred, at most 24) bounds the error in the worst case; for
            ``"gaussian"`` (discrete, deviation 6.4) the theorem holds by which the sum of the keys
            may be shown, and a sum fails with probability 2^-57 a coefficient.
        rounding: as in `FixedPoint`.
        committee: who the decryptors are: ``"helpers"``, or ``"clients"`` that are drawn.

    Raises:
        ConfigError: a setting that cannot be; and when a round begins, fewer clients than a sum
            needs, so many that a sum does not fit, or no finite bound.

    >>> OneTimeRLWE(holders=3, threshold=2).guarantee.read_by()
    'server with any 2 of 3 decryptors'
    """

    examples: ClassVar[Examples] = {"": {"bits": 8}}
    kind: ClassVar[ChannelKind] = ChannelKind("total")

    @property
    def able(self) -> Able:
        """Rounding, the quorum, and who can open."""
        return Able(
            encodes=self.scheme,
            rounds_off=self.code.error,
            fewest=self.quorum,
            key_holders=self.key_holders,
            keyed=True,
            warnings=(UNAUDITED,),
        )

    @property
    def guarantee(self) -> Guarantee[Liars]:
        """Who may collude, who may lie and what the lie can do, as this channel is set."""
        return one_time_guarantee(self)

    @property
    def helpers(self) -> tuple[PartyId, ...]:
        """The decryptors, where they are no clients."""
        return self.decryptors

    def key_holders(self, cohort: Collection[ClientId]) -> Collection[PartyId]:
        """The smallest coalition whose shares give everybody's key; of clients that are drawn, as
        many of the cohort.
        """
        if self.committee == "clients":
            return tuple(client_party(client) for client in sorted(cohort)[: self.threshold])
        return self.decryptors[: self.threshold]

    def client(self, who: ClientId, identity: PartyKeys, directory: KnownKeys) -> OneTimeClient:
        """A client, which signs, and seals shares to the decryptors in the directory.

        Raises:
            ConfigError: another party's keys.
        """
        refuse_others_keys(client_party(who), identity)
        return OneTimeClient(self, identity, directory)

    def server(self, identity: PartyKeys, directory: KnownKeys) -> OneTimeServer:
        """A server, which adds what it cannot read.

        Raises:
            ConfigError: another party's keys.
        """
        refuse_others_keys("server", identity)
        return OneTimeServer(self, identity, directory)

    def helper(self, who: PartyId, identity: PartyKeys, directory: KnownKeys) -> OneTimeDecryptor:
        """A decryptor.

        Raises:
            ConfigError: another party's keys, or there is no such helper.
        """
        if who not in self.helpers:
            raise no_helper("one_time_rlwe", who, self.helpers)
        refuse_others_keys(who, identity)
        return OneTimeDecryptor(self, identity, directory)

    def describe(self) -> str:
        """Who can read what, who can lie, and what leaks, for the report."""
        return f"One-time keys, dealt to decryptors. {UNAUDITED} {self.guarantee.describe()}"

    def decode(self, received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
        """Every row, for enough decryptors with the server; the sum, for the server; nothing, for
        anybody else.
        """
        return opened(self, received, members)
