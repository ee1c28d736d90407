"""A chain of clients as a channel: the server learns the sum, and a client's two neighbours
together learn what it added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from privfl.core import (
    Able,
    ChannelKind,
    ClientId,
    ClientMember,
    Examples,
    Guarantee,
    HelperMember,
    KnownKeys,
    Liars,
    Member,
    PartyId,
    PartyKeys,
    Received,
    Rows,
    ServerMember,
    Total,
    client_party,
    no_helper,
    refuse_others_keys,
)
from privfl.crypto.chain.guarantee import chain_guarantee
from privfl.crypto.chain.members import ChainClient, ChainServer
from privfl.crypto.chain.parameters import ChainSettings
from privfl.crypto.chain.view import OwnSums, decode
from privfl.crypto.primitives import Words, backend


@dataclass(frozen=True, slots=True)
class Chain(ChainSettings):
    """Each client adds its vector to the sum that its neighbour passed on, and passes it on (Li et
    al. 2020, chained secure multiparty computing; a ring all-reduce with a mask).

    Clients say that they are there; the server names the chain, which is the cohort's order, and
    seals a random seed to its first client. The first adds its vector to the seed's expansion,
    every next one its own to what it was passed, in a ring modulo 2^ring, and the last sends the
    sum to the server, which takes the mask off. Every sum is sealed to its one receiver, and bound
    to the round and to the whole chain, so that a server alone that tells clients of different
    chains opens one sum at most: a quorum is more than half.

    ``guarantee`` says who reads what and who may lie. In short: nobody reads an update alone, and
    THE TWO NEIGHBOURS OF A CLIENT TOGETHER READ ITS UPDATE, the server being the neighbour of the
    first and the last. That is far less than secure aggregation holds (`SecAgg`), which costs about
    the same bytes for long updates. LYING CLIENTS ARE NOT STOPPED: nobody sees an input.

    Who is not there when the round begins is passed over. A client that goes after that ends the
    round, where the next sum would be: the server says whose it is, and blames nobody, because its
    neighbour can have sent it nothing. Every client sends one vector and one to four letters of 28
    or 36 bytes; a chain of n takes n + 3 exchanges ONE AFTER THE OTHER.

    Args:
        threshold: the fraction of the cohort below which nothing is summed (never half of it or
            fewer, and never fewer than 3).
        bits, rounding, rotation: as in `FixedPoint`; ``ring`` (16, 24, 32; None: the smallest that
            holds any sum) is what travels.
        history: for how many rounds of a part members keep what they added: audits of older rounds
            see less than a coalition could that kept more.

    Raises:
        ConfigError: a setting that cannot be; and when a round begins, a sum that could leave the
            ring, fewer than 3 clients or more than 900, or no finite bound.

    >>> Chain().guarantee.liars()
    {'server': 'shift', 'a client': 'shift'}
    """

    examples: ClassVar[Examples] = {"": {"bits": 8}}
    kind: ClassVar[ChannelKind] = ChannelKind("total")

    @property
    def able(self) -> Able:
        """Rounding, and the quorum."""
        return Able(
            encodes=self.code,
            rounds_off=self.code.error,
            fewest=self.quorum,
            keyed=True,
            joins=True,
        )

    @property
    def guarantee(self) -> Guarantee[Liars]:
        """Who may collude, who may lie and what the lie can do."""
        return chain_guarantee(self.quorum).needing(self.threshold)

    def describe(self) -> str:
        """Who can read what, who can lie, and what leaks, for the report."""
        return f"Sums that clients pass on in a chain. {self.guarantee.describe()}"

    @property
    def helpers(self) -> tuple[PartyId, ...]:
        """None."""
        return ()

    def client(self, who: ClientId, identity: PartyKeys, directory: KnownKeys) -> ClientMember:
        """A client, which seals what it passes on to the next one's key in the directory.

        Raises:
            ConfigError: another party's keys.
        """
        refuse_others_keys(client_party(who), identity)
        return ChainClient(self, who, identity, directory)

    def server(self, identity: PartyKeys, directory: KnownKeys) -> ServerMember[Total]:
        """The server, which learns the sum.

        Raises:
            ConfigError: another party's keys.
        """
        refuse_others_keys("server", identity)
        return ChainServer(self, identity, directory)

    def helper(self, who: PartyId, identity: PartyKeys, directory: KnownKeys) -> HelperMember:
        """There is none.

        Raises:
            ConfigError: always.
        """
        raise no_helper("chain", who, ())

    def decode(self, received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
        """The total to the server; the row of a client to its two neighbours; nothing to a tap."""
        keys: dict[PartyId, PartyKeys] = {}
        seeds: dict[bytes, bytes] = {}
        added: dict[bytes, dict[ClientId, tuple[int, Words]]] = {}
        for who, member in members.items():
            if isinstance(member, ChainClient):
                keys[who] = member.identity
                for rounds in member.added.values():
                    for tag, (place, words) in rounds.items():
                        added.setdefault(tag, {})[member.who] = place, words
            elif isinstance(member, ChainServer):
                keys[who] = member.identity
                for part in member.seeds.values():
                    seeds |= part
        return decode(self.code, received, OwnSums(keys, seeds, added), backend(self.backend))
