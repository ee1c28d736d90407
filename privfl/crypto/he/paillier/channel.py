"""The Paillier channel: exact sums of packed fixed-point updates under a 3072-bit key."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from privfl.core import ConfigError, Examples, PartyId, RoundPlan, require
from privfl.crypto.encoding import FixedPoint
from privfl.crypto.he import keyfile
from privfl.crypto.he.channel import HomomorphicChannel
from privfl.crypto.he.guarantee import SchemeLies
from privfl.crypto.he.libraries import gmpy2
from privfl.crypto.he.lies import all_of_them, answers_anew, combined, two_sums
from privfl.crypto.he.paillier import threshold as shamir
from privfl.crypto.he.paillier.keys import PaillierPublic, PaillierSecret, generate
from privfl.crypto.he.paillier.lies import moves_the_sum
from privfl.crypto.he.paillier.packing import Slots
from privfl.crypto.he.paillier.threshold import PaillierShare
from privfl.crypto.he.parameters import Arrangement, Keys
from privfl.crypto.he.scheme import IntegerCode, PublicKey, SecretKey, no_room
from privfl.crypto.he.wire import Numbers, Parts, Refused


@dataclass(frozen=True, slots=True)
class PaillierScheme(IntegerCode):
    """Paillier with its parameters; ``key_file`` is where the key's maker keeps it between
    sessions.
    """

    key_bits: int
    exponent_bits: int | None
    threads: int
    least_bits: int
    key_file: str | None
    holders: int = 0
    """Of a key that is split; 0 where it is not."""

    def generate(self) -> tuple[PaillierPublic, PaillierSecret]:
        """A fresh key pair, or the one in the key file; a new key goes into the file where one is
        named.
        """
        secret = keyfile.kept(self.key_file, b"paillier", self.secret, self._fresh)
        return secret.public, secret

    def _fresh(self) -> PaillierSecret:
        safe = self.holders > 0
        return generate(self.key_bits, self.code.bits, self.exponent_bits, self.threads, safe=safe)

    def public(self, data: bytes) -> PaillierPublic:
        """Read a public key of this value width."""
        public = self._fitting(PaillierPublic.from_bytes(data, self.threads, self.least_bits))
        if len(public.checks) != (self.holders + 1 if self.holders else 0):
            raise Refused("a Paillier key with checks for another number of shares")
        return public

    def secret(self, data: bytes) -> PaillierSecret:
        """Read a secret key of this value width."""
        secret = PaillierSecret.from_bytes(data, self.threads, self.least_bits)
        self._fitting(secret.public)
        return secret

    def _fitting(self, public: PaillierPublic) -> PaillierPublic:
        if public.bits != self.code.bits or public.n.bit_length() < self.key_bits:
            said = f"{public.n.bit_length()} bits for values of {public.bits}"
            raise Refused(
                f"a Paillier key of {said}, where {self.key_bits} for {self.code.bits} are"
                " asked for"
            )
        return public

    def headroom(self, plan: RoundPlan) -> None:
        """Slots widen with the cohort, so only absurd cohorts do not fit."""
        keyfile.fresh_session(self.key_file, plan)
        self.code.scale(plan)
        slots = Slots.of(self.code.top, max(plan.n, 1), self.key_bits - 1)
        if slots.width > 7 or slots.count < 1:
            raise no_room(
                "paillier",
                plan,
                self.code.bits,
                (1 << min(56, self.key_bits - 1)) // (2 * self.code.top),
            )

    def split(
        self, secret: SecretKey, holders: int, threshold: int
    ) -> tuple[PaillierPublic, list[PaillierShare]]:
        """Shamir shares, and the public key with what their parts are checked against.

        Raises:
            ConfigError: another scheme's key, or one that is not of safe primes.
        """
        if not isinstance(secret, PaillierSecret):
            raise ConfigError("only a Paillier key is split here.")
        return shamir.split(secret, holders, threshold)

    def share(self, data: bytes) -> PaillierShare:
        """Read a share."""
        return PaillierShare.from_bytes(data, self.threads, self.least_bits)

    def proven(
        self, public: PublicKey, ciphertext: Parts, part: Parts, index: int, plan: RoundPlan
    ) -> None:
        """Refuse what is not this holder's part.

        Raises:
            ConfigError: another scheme's key.
            Refused: another form, or a proof that does not hold.
        """
        if not isinstance(public, PaillierPublic):
            raise ConfigError("only a Paillier key is used here.")
        shamir.proven(public, ciphertext, part, index, plan)

    def combine(
        self,
        public: PublicKey,
        partials: Mapping[PartyId, Parts],
        plan: RoundPlan,
        count: int,
        threshold: int,
    ) -> Numbers | None:
        """The sum, from enough parts.

        Raises:
            ConfigError: another scheme's key.
        """
        if not isinstance(public, PaillierPublic):
            raise ConfigError("only a Paillier key is used here.")
        return shamir.combine(public, shamir.parts_in_order(partials), plan, count, threshold)


@dataclass(frozen=True, slots=True)
class Paillier(HomomorphicChannel):
    """Packed Paillier: every update in 24-bit slots (16-bit values, up to 256 clients) of 3072-bit
    plaintexts, 6.05 bytes a value.

    Sums are exact in fixed point. It suits up to about 10^5 parameters; for more, take ``BFV``. Who
    can decrypt is ``keys``: see ``describe()``. ``exponent_bits`` shortens the blinding exponent
    below half of the modulus, which assumes that short powers of h_s look random (Damgård, Jurik,
    Nielsen 2010, section 4.2). Arithmetic is GMP's and not constant-time: an observer of the
    machine's own timing is out of scope. ``key_file`` keeps the secret key, owner-only, with
    whoever makes it.

    Raises:
        ConfigError: a modulus under 2048 bits, or impossible settings. 2048 itself warns: it is
            under 128-bit security.

    >>> Paillier(keys="threshold").guarantee.read_by()
    'any 2 of 3 decryptors'
    """

    examples: ClassVar[Examples] = {"": {"bits": 8, "key_bits": 512, "insecure_for_tests": True}}

    bits: int = 16
    keys: Keys = "authority"
    key_bits: int = 3072
    min_clients: int | None = None
    verify_sum: bool = True
    holders: int = 3
    threshold: int = 2
    rounding: Literal["nearest", "stochastic"] = "nearest"
    exponent_bits: int | None = None
    threads: int = 1
    key_file: str | None = None
    insecure_for_tests: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        gmpy2.require()
        if self.key_bits % 2 or self.key_bits < self._least_bits:
            raise ConfigError(
                f"key_bits={self.key_bits}: a Paillier modulus has an even number of bits, at least"
                " 2048; 3072 is the default."
            )
        if self._least_bits <= self.key_bits < 3072 and not self.insecure_for_tests:
            warnings.warn(
                f"a Paillier modulus of {self.key_bits} bits is under 128-bit security; use 3072.",
                UserWarning,
                stacklevel=2,
            )
        if self.exponent_bits is not None and not self.insecure_for_tests:
            require.within(256, self.key_bits // 2, exponent_bits=self.exponent_bits)
        require.at_least(1, threads=self.threads)
        if self.keys == "threshold" and self.key_file is not None:
            raise ConfigError(
                "keys='threshold' means that nobody keeps the whole key, and key_file would: leave"
                " key_file out."
            )
        FixedPoint(self.bits, self.rounding)
        self.describe()  # refuses impossible arrangements

    @property
    def _least_bits(self) -> int:
        return 256 if self.insecure_for_tests else 2048

    @property
    def scheme(self) -> PaillierScheme:
        """Paillier with these parameters."""
        code = FixedPoint(self.bits, self.rounding)
        return PaillierScheme(
            code,
            self.key_bits,
            self.exponent_bits,
            self.threads,
            self._least_bits,
            self.key_file,
            self.holders if self.keys == "threshold" else 0,
        )

    @property
    def own_lies(self) -> SchemeLies:
        """What a holder of a share can do."""
        if self.keys != "threshold":
            return SchemeLies()
        return SchemeLies(
            moves=moves_the_sum,
            says="moves its part, and is named because no proof fits it",
            proven=True,
            twice=two_sums(all_of_them, combined, answers_anew),
        )

    @property
    def arrangement(self) -> Arrangement:
        """Who holds which key."""
        split = self.keys == "threshold"
        return Arrangement(
            self.keys,
            self.min_clients,
            self.verify_sum,
            self.holders if split else 1,
            self.threshold if split else 1,
        )
