"""The BFV channel: exact sums of fixed-point updates, the default of the lattice schemes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from privfl.core import ConfigError, RoundPlan, require
from privfl.crypto.encoding import FixedPoint
from privfl.crypto.he import keyfile
from privfl.crypto.he.channel import HomomorphicChannel
from privfl.crypto.he.guarantee import CHOSEN, PICKS_C1, SchemeLies
from privfl.crypto.he.lattice import frames, parameters
from privfl.crypto.he.lattice.keys import Encryption, LatticePublic, LatticeSecret, fresh
from privfl.crypto.he.lattice.parameters import Lattice
from privfl.crypto.he.libraries import seal
from privfl.crypto.he.parameters import Arrangement
from privfl.crypto.he.scheme import IntegerCode, no_room
from privfl.crypto.he.wire import Refused, unpack


@dataclass(frozen=True, slots=True)
class BfvScheme(IntegerCode):
    """BFV with its parameters."""

    lattice: Lattice
    encryption: Encryption
    workers: int
    key_file: str | None

    def generate(self) -> tuple[LatticePublic, LatticeSecret]:
        """A fresh key pair, or the one in the key file."""
        secret = keyfile.kept(self.key_file, b"bfv", self.secret, self._fresh)
        return secret.public, secret

    def _fresh(self) -> LatticeSecret:
        public, secret = fresh(self.lattice, self.workers)
        return LatticeSecret(public, secret, self.encryption)

    def public(self, data: bytes) -> LatticePublic:
        """Read a public key."""
        return LatticePublic.from_bytes(data, self.lattice, self.workers)

    def secret(self, data: bytes) -> LatticeSecret:
        """Read a secret key."""
        fields = unpack(data)
        if len(fields) != 2:
            raise Refused("not a BFV secret key")
        public = self.public(bytes(fields[0]))
        frames.secret_words(self.lattice, fields[1])
        return LatticeSecret(public, bytes(fields[1]), self.encryption)

    def headroom(self, plan: RoundPlan) -> None:
        """The sum must stay below half of the plaintext modulus."""
        keyfile.fresh_session(self.key_file, plan)
        self.code.scale(plan)
        most = (parameters.plain_modulus(self.lattice.degree, self.lattice.plain_bits) - 1) // (
            2 * self.code.top
        )
        if plan.n > most:
            raise no_room("bfv", plan, self.code.bits, most)


@dataclass(frozen=True, slots=True)
class BFV(HomomorphicChannel):
    """BFV (Fan and Vercauteren 2012) on SEAL through TenSEAL: exact sums of fixed-point updates, 10
    bytes a value. Ciphertexts of the default parameters are made by `ring_encryption`.

    The parameter set is the smallest that holds sums of ``max_clients`` values of ``bits`` bits, at
    128-bit security. ``encryption`` is ``"public"``, or, where ``keys="shared"`` (all clients trust
    each other), ``"symmetric"`` or ``"seeded"``, which is 5 bytes a value on the way to the server.
    ``workers`` processes encrypt and decrypt (threads, where `ring_encryption` encrypts).
    ``key_file`` keeps the secret key, owner-only, with whoever makes it.

    Threat model: as `HomomorphicChannel`. Clients pick their own c1: ONE CLIENT THAT LIES, WITH THE
    SERVER, READS THE SECRET KEY off the decryptor's answer, and then every update. Where clients
    may lie take `OneTimeRLWE`.

    Raises:
        ConfigError: settings that no parameter set holds, or symmetric encryption without a shared
            key.

    >>> BFV().scheme.lattice.primes
    (40, 40)
    """

    bits: int = 16
    max_clients: int = 255
    keys: Literal["shared", "authority"] = "authority"
    encryption: Encryption = "public"
    min_clients: int | None = None
    verify_sum: bool = True
    rounding: Literal["nearest", "stochastic"] = "nearest"
    workers: int = 1
    key_file: str | None = None

    def __post_init__(self) -> None:
        seal.require()
        check_lattice_keys("bfv", self.keys, self.encryption)
        require.at_least(1, workers=self.workers, max_clients=self.max_clients)
        parameters.bfv(FixedPoint(self.bits, self.rounding).bits, self.max_clients)
        self.describe()  # refuses impossible arrangements

    @property
    def scheme(self) -> BfvScheme:
        """BFV with these parameters."""
        code = FixedPoint(self.bits, self.rounding)
        return BfvScheme(
            code,
            parameters.bfv(self.bits, self.max_clients),
            self.encryption,
            self.workers,
            self.key_file,
        )

    @property
    def own_lies(self) -> SchemeLies:
        """What comes of clients that pick their own c1."""
        return lattice_lies(self.keys)

    @property
    def arrangement(self) -> Arrangement:
        """Who holds which key."""
        return Arrangement(self.keys, self.min_clients, self.verify_sum)


def check_lattice_keys(name: str, keys: str, encryption: str) -> None:
    """Refuse key arrangements that SEAL's schemes do not have.

    Raises:
        ConfigError: and what to take instead.
    """
    if keys not in ("shared", "authority"):
        raise ConfigError(
            f"{name}: keys is 'shared' or 'authority', and is '{keys}'; for keys that nobody holds"
            " alone take mp_rlwe."
        )
    if encryption not in ("public", "symmetric", "seeded"):
        raise ConfigError(
            f"{name}: encryption is 'public', 'symmetric' or 'seeded', and is '{encryption}'."
        )
    if encryption != "public" and keys != "shared":
        raise ConfigError(
            f"{name}: encryption='{encryption}' needs the secret key in every client: set"
            " keys='shared', or encryption='public'."
        )


def lattice_lies(keys: str) -> SchemeLies:
    """The lies of SEAL's schemes: clients that share the key need not take it."""
    return SchemeLies(says_one=CHOSEN, aloud="" if keys == "shared" else PICKS_C1)
