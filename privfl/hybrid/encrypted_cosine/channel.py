"""Encrypted similarity as a channel: who takes part, what may be asked of it, and what coalitions
read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from privfl.aggregators import CosineFilter, FLTrust
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
from privfl.crypto.he.libraries import seal
from privfl.hybrid.encrypted_cosine.encoding import UnitVectors
from privfl.hybrid.encrypted_cosine.guarantee import cosine_guarantee
from privfl.hybrid.encrypted_cosine.keys import KEY_HOLDER, Ring
from privfl.hybrid.encrypted_cosine.members import CosineClient, CosineServer, KeyHolder
from privfl.hybrid.encrypted_cosine.parameters import CosineSettings
from privfl.hybrid.encrypted_cosine.view import decoded


@dataclass(frozen=True, slots=True)
class EncryptedCosine(CosineSettings):
    """Clients are weighed by their similarity to a public direction, under encryption (PEFL: Liu et
    al. 2021; ShieldFL: Ma et al. 2022).

    Clients send unit vectors, encrypted under the key of ``key_holder`` (BFV on SEAL). The server
    multiplies the ciphertexts with a public reference and with random signs drawn after the upload,
    learns one masked score a product through the key holder, weighs clients as ``rule`` says, adds
    up the weighted ciphertexts, and learns that one sum, masked on its way through the key holder.

    Guarantee. Server and key holder are honest but curious and do NOT collude: the server reads
    what is disclosed (each client's cosine, estimated or exact norm, ``projections`` random
    projections, weight; with Pearson its sum of entries) and the sum; the key holder reads numbers
    uniform mod t, whatever the updates are, and who took part. The noise around a score, and around
    a coefficient of the sum, is drowned to a statistical distance of at most 2^-40 (2^-36 around an
    exact norm). TOGETHER THEY READ EVERY UPDATE. A LYING SERVER READS one client a round: the key
    holder counts questions and refuses replays, small sums and a second sum, but cannot see what a
    question asks or which weights a sum has. A lying key holder cannot move the sum by more than
    rounding, which disagrees with the scores; by lying about few scores it can push clients out of
    the sum, unless it meets a question of known answer. Clients may lie: a vector's length gains no
    trust, one that is too long is excluded by name. PEFL shows its cloud every gradient (Schneider
    et al. 2024) and ShieldFL masks a client's vector and the last aggregate alike (Wu et al. 2025);
    here a mask serves once.

    With exact norms the result is the rule's on unit vectors: FLTrust scales them to the root's
    length, the filter to the plan's bound. Nearly all weight on one client opens that client: what
    counts fewer than ``min_clients`` stays closed.

    Args:
        rule: FLTrust, whose root update is public to the server, or CosineFilter with a reference
            that needs no rows.
        reference: "rule" asks the rule; "previous" takes the last aggregate (in a session's first
            round all count alike).
        similarity: "pearson" centres the reference and takes each vector's mean out of its length.
        norms: "exact" squares ciphertexts: a length is 1 but for rounding, or 3 and more (0.5 % of
            those pass 16 projections). "projections" bounds a length to about 1.7 (certain beyond
            2.8, 99 %), at half of the cost; cosines are then off by 18 % at 16.
        projections: random sign vectors with entries -1, 0, 0, 1.
        plain_bits: of the modulus t; vectors get the length 2^((plain_bits - 2) / 2).

    Raises:
        ConfigError: a reference that reads the rows, or numbers out of range.

    >>> EncryptedCosine().setting.unit
    16384
    >>> EncryptedCosine().helpers
    ('key_holder',)
    """

    examples: ClassVar[Examples] = {
        "": {"rule": FLTrust, "plain_bits": 20, "projections": 4},
        "cosine_filter": {"rule": CosineFilter, "reference": "previous", "projections": 4},
    }
    kind: ClassVar[ChannelKind] = ChannelKind("total", runs=(FLTrust, CosineFilter))

    def __post_init__(self) -> None:
        seal.require()
        CosineSettings.__post_init__(self)

    @property
    def able(self) -> Able:
        """UnitVectors arrive; the server is told the model, for its reference."""
        return Able(
            encodes=self.encoding,
            fewest=lambda n: self.min_clients,
            hosts=self.rule,
            key_holders=lambda cohort: (KEY_HOLDER,),
            informed=True,
            keyed=True,
        )

    @property
    def encoding(self) -> UnitVectors:
        """What arrives of a row."""
        rule = self.rule
        if isinstance(rule, FLTrust) and not self.remembers:
            return UnitVectors(self.setting, rule.root_l2)
        return UnitVectors(self.setting, None)

    @property
    def helpers(self) -> tuple[PartyId, ...]:
        """The key holder."""
        return (KEY_HOLDER,)

    def client(self, who: ClientId, identity: PartyKeys, directory: KnownKeys) -> CosineClient:
        """A client that encrypts and signs.

        Raises:
            ConfigError: another party's keys.
        """
        return CosineClient(self._ring(client_party(who), identity, directory))

    def server(self, identity: PartyKeys, directory: KnownKeys) -> CosineServer:
        """The server, which computes on ciphertexts; raises as `client`."""
        return CosineServer(self, self._ring("server", identity, directory))

    def helper(self, who: PartyId, identity: PartyKeys, directory: KnownKeys) -> KeyHolder:
        """The key holder.

        Raises:
            ConfigError: as `client`, or there is no such helper.
        """
        if who != KEY_HOLDER:
            raise no_helper("encrypted_cosine", who, self.helpers)
        return KeyHolder(self._ring(KEY_HOLDER, identity, directory))

    def _ring(self, who: PartyId, identity: PartyKeys, directory: KnownKeys) -> Ring:
        refuse_others_keys(who, identity)
        return Ring(who, self.setting, identity, directory)

    @property
    def guarantee(self) -> Guarantee[Liars]:
        """Who may collude, who may lie and what the lie can do, as this channel is set."""
        return cosine_guarantee(self.setting)

    def describe(self) -> str:
        """Who can read what, who can lie, and what leaks, for the report."""
        return f"Similarity under encryption. {self.guarantee.describe()}"

    def decode(self, received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
        """The sum to the server; every row (its direction, as long as the bound) to server and key
        holder together; nothing to others.
        """
        rings = {
            who: member.ring
            for who, member in members.items()
            if isinstance(member, CosineServer | KeyHolder | CosineClient)
        }
        return decoded(self.setting, received, rings)
