"""The multi-party RLWE channel: no key that anybody holds, exact sums. Experimental, and
unaudited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from privfl.core import (
    ClientId,
    KnownKeys,
    Member,
    PartyId,
    PartyKeys,
    Received,
    RoundPlan,
    Rows,
    Total,
    client_party,
    require,
)
from privfl.crypto.encoding import FixedPoint
from privfl.crypto.he.channel import HomomorphicChannel
from privfl.crypto.he.guarantee import CHOSEN, PICKS_C1, SchemeLies
from privfl.crypto.he.lies import two_sums
from privfl.crypto.he.mprlwe.keys import pieces, smudging_distance
from privfl.crypto.he.mprlwe.lies import (
    answers_anew,
    combined,
    moves_the_sum,
    opens_one,
    request_pieces,
)
from privfl.crypto.he.mprlwe.members import JointClient, JointDecryptor, JointServer
from privfl.crypto.he.mprlwe.scheme import JointScheme
from privfl.crypto.he.mprlwe.view import opened
from privfl.crypto.he.parameters import Arrangement


@dataclass(frozen=True, slots=True)
class MultiPartyRLWE(HomomorphicChannel):
    """Additive-key RLWE (after Mouchet, Troncoso-Pastoriza, Bossuat, Hubaux 2021, with BFV-style
    packing): 16 bytes a value, exact sums.

    EXPERIMENTAL AND UNAUDITED: our own cryptography, in numpy and torch, not constant-time.
    ``holders`` decryptors (3 to 5) make a joint key by commit-then-reveal; the secret exists only
    in pieces, any ``threshold`` decryptors hold all of them, and fewer decrypt to noise. Ring
    degree 4096 and q = 2^96 with ternary secrets: within the 128-bit limit (109 bits) of the
    homomorphic encryption standard. Each part of a decryption carries Gaussian noise of standard
    deviation 2^``smudge_bits``, which hides the key over ``releases`` sums (every part of a round
    is one): `smudging_distance` says how well, rounds that it does not hide to 2^-40 are refused,
    and after so many sums decryptors open no more. Headroom counts truncation, noise and smudging;
    docs/mp-rlwe.md derives it.

    Threat model: as `HomomorphicChannel`. ``threshold`` - 1 decryptors that collude with the server
    cannot decrypt what the honest ones refuse, but 2 ``threshold`` - ``holders`` of them have two
    overlapping sums opened, and read their difference. ONE CLIENT THAT LIES READS THE JOINT KEY:
    it picks its own c1, and reads the key off the published sum; with the server it then reads
    every update. For experiments; take `OneTimeRLWE`. With ``verify_sum=False`` the server takes
    the key alone: one chosen ciphertext through the decryptors gives it away.

    Raises:
        ConfigError: impossible numbers of decryptors, or smudging out of range.

    >>> MultiPartyRLWE(holders=3, threshold=3).guarantee.read_by()
    'server with any 3 of 3 decryptors'
    """

    bits: int = 16
    holders: int = 3
    threshold: int = 2
    smudge_bits: int = 67
    releases: int = 1000
    min_clients: int | None = None
    verify_sum: bool = True
    rounding: Literal["nearest", "stochastic"] = "nearest"

    def __post_init__(self) -> None:
        require.within(3, 5, holders=self.holders)
        require.within(40, 76, smudge_bits=self.smudge_bits)
        require.at_least(1, releases=self.releases)
        require.within(2, 24, bits=self.bits)
        FixedPoint(self.bits, self.rounding)
        self.describe()  # refuses impossible arrangements

    @property
    def scheme(self) -> JointScheme:
        """The scheme with these parameters."""
        return JointScheme(
            FixedPoint(self.bits, self.rounding),
            len(pieces(self.holders, self.threshold)),
            self.smudge_bits,
            self.releases,
            self.holders - self.threshold + 1,
        )

    @property
    def own_lies(self) -> SchemeLies:
        """What a holder of pieces of the key can do, and a server whose sums nobody verifies."""
        request = request_pieces(self.holders, self.threshold)
        return SchemeLies(
            moves=moves_the_sum,
            says="moves its part, which nothing proves right",
            one=opens_one,
            says_one=CHOSEN,
            twice=two_sums(request, combined, answers_anew),
            aloud=PICKS_C1,
        )

    @property
    def arrangement(self) -> Arrangement:
        """Who holds which key."""
        return Arrangement(
            "joint",
            self.min_clients,
            self.verify_sum,
            self.holders,
            self.threshold,
            self.releases,
        )

    def describe(self) -> str:
        """Who can read what, who can lie, and what leaks, for the report."""
        return f"Experimental and unaudited. {HomomorphicChannel.describe(self)}"

    def client(self, who: ClientId, identity: PartyKeys, directory: KnownKeys) -> JointClient:
        """A client that encrypts and signs; raises as `keyring`."""
        return JointClient(self.keyring(client_party(who), identity, directory))

    def server(self, identity: PartyKeys, directory: KnownKeys) -> JointServer:
        """A server that adds what it cannot read; raises as `keyring`."""
        return JointServer(self.keyring("server", identity, directory))

    def helper(self, who: PartyId, identity: PartyKeys, directory: KnownKeys) -> JointDecryptor:
        """A decryptor.

        Raises:
            ConfigError: as `keyring`, or there is no such helper.
        """
        self._known(who)
        index = self.arrangement.decryptors.index(who)
        return JointDecryptor(self.keyring(who, identity, directory), index, self.smudge_bits)

    def smudging_distance(self, plan: RoundPlan) -> float:
        """Statistical distance between all parts of decryptions under one key and the same made
        without it: over all coefficients, all ``releases`` rounds like this one, and all holders
        that answer for a piece. Rounds for which it is over 2^-40 are refused.
        """
        shows = self.holders - self.threshold + 1
        return smudging_distance(plan, self.scheme.count, self.smudge_bits, self.releases, shows)

    def decode(self, received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
        """Every row, for enough decryptors with the server; the sum, for the server; nothing, for
        anybody else.
        """
        return opened(self.scheme, received, members)
