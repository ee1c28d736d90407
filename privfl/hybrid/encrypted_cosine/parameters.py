"""The numbers that everybody agrees on: what describes the channel before any round, the lattice,
the units of clients, references and weights, the width of the noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from privfl.aggregators import CosineFilter, FLTrust
from privfl.aggregators.cosine_filter import median_of_rows
from privfl.core import BadUpdate, ConfigError, Context, RoundPlan, Rows, Vector, require
from privfl.crypto.he.lattice import Lattice
from privfl.crypto.he.lattice.parameters import plain_modulus

Norms = Literal["projections", "exact"]
Similarity = Literal["cosine", "pearson"]
Integers = npt.NDArray[np.int64]

PROBES = 2
"""Queries a round whose answers the server knows: a key holder that lies about some meets one of
them.
"""
REJECTED = 3.719
"""Standard normal quantile of 1 - 1e-4: how rarely an honest client's projections look too long."""


@dataclass(frozen=True, slots=True)
class CosineParameters:
    """What follows from the channel's options; public.

    Clients send unit vectors times ``unit``; references have the same length, so that a score is
    below half of the plaintext modulus t even for a vector twice as long as allowed. Integer
    weights of a round add up to about ``weights``, which leaves the same slack.
    """

    plain_bits: int
    norms: Norms
    similarity: Similarity
    projections: int
    min_clients: int

    @property
    def lattice(self) -> Lattice:
        """Degree 4096 where products with public polynomials are all; 8192 where ciphertexts are
        squared and the noise still drowned.

        The last prime is used up inside of encryption, so it is small and the others carry data.
        """
        degree, primes = (
            (4096, (47, 46, 16)) if self.norms == "projections" else (8192, (60, 59, 17))
        )
        return Lattice("bfv", degree, primes, self.plain_bits)

    @property
    def t(self) -> int:
        """The plaintext modulus, a prime."""
        return plain_modulus(self.lattice.degree, self.plain_bits)

    @property
    def unit(self) -> int:
        """The length of a client's integer vector, and of a reference."""
        return 1 << (self.plain_bits - 2) // 2

    @property
    def weights(self) -> int:
        """What a round's integer weights add up to."""
        return self.t // (4 * self.unit)

    @property
    def flood_bits(self) -> int:
        """Noise uniform in +-2^this is added before anything is decrypted: the widest that leaves
        decryption exact.
        """
        return self.lattice.q_bits - self.plain_bits - 2

    @property
    def directions(self) -> int:
        """Dot products a client: with the reference, the random signs, and for Pearson the constant
        vector.
        """
        return 1 + self.projections + (self.similarity == "pearson")

    def chunks(self, plan: RoundPlan) -> int:
        """Ciphertexts a client."""
        return -(-plan.d // self.lattice.degree)

    def centred(self, numbers: Integers) -> Integers:
        """Residues as numbers in (-t/2, t/2)."""
        residues = numbers % self.t
        centred: Integers = np.where(residues > self.t // 2, residues - self.t, residues)
        return centred

    @property
    def longest(self) -> float:
        """The largest squared length, in units, that random projections may show: the 1 - 1e-4
        quantile of chi^2_k / k (Wilson-Hilferty).

        >>> round(CosineParameters(31, "projections", "cosine", 16, 2).longest, 2)
        2.89
        """
        spread = 2 / (9 * self.projections)
        return (1 - spread + REJECTED * math.sqrt(spread)) ** 3


def previous_aggregate(rows: Rows, context: Context) -> Vector:
    """The last round's result, as a reference of `CosineFilter` inside `EncryptedCosine`, whose
    server keeps it.

    Raises:
        BadUpdate: asked outside of that channel, where nobody keeps it.
    """
    raise BadUpdate(
        "previous_aggregate is a reference of channel 'encrypted_cosine' only: elsewhere nobody"
        " keeps the last aggregate."
    )


@dataclass(frozen=True, slots=True)
class CosineSettings:
    """What describes encrypted similarity before any round; `EncryptedCosine` says what each field
    means.

    Raises:
        ConfigError: a setting that cannot be.
    """

    rule: FLTrust | CosineFilter = field(
        default_factory=lambda: CosineFilter(reference=previous_aggregate)
    )
    reference: Literal["rule", "previous"] = "rule"
    similarity: Similarity = "cosine"
    norms: Norms = "exact"
    projections: int = 16
    min_clients: int = 2
    plain_bits: int = 31

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("reference", self.reference, ("rule", "previous")),
            ("similarity", self.similarity, ("cosine", "pearson")),
            ("norms", self.norms, ("projections", "exact")),
        ):
            if value not in allowed:
                raise ConfigError(
                    f"encrypted_cosine: {name} is '{allowed[0]}' or '{allowed[1]}', and is"
                    f" '{value}'."
                )
        require.within(20, 31, plain_bits=self.plain_bits)
        require.within(1, 64, projections=self.projections)
        require.at_least(2, min_clients=self.min_clients)
        if (
            self.reference == "rule"
            and isinstance(self.rule, CosineFilter)
            and self.rule.reference is median_of_rows
        ):
            raise ConfigError(
                "encrypted_cosine: cosine_filter's own reference is the median of the rows, which"
                " nobody here can read: set channel.reference to 'previous', or give the filter a"
                " reference trained on the server's own data."
            )

        if isinstance(self.rule, CosineFilter) and self.rule.bound is not None:
            raise ConfigError(
                "encrypted_cosine: every row has one length, so cosine_filter has nothing to cut to"
                f" bound={self.rule.bound:g}: leave it out."
            )

    @property
    def setting(self) -> CosineParameters:
        """The numbers that follow."""
        return CosineParameters(
            self.plain_bits, self.norms, self.similarity, self.projections, self.min_clients
        )

    @property
    def remembers(self) -> bool:
        """Whether the reference is the last aggregate."""
        return self.reference == "previous" or (
            isinstance(self.rule, CosineFilter) and self.rule.reference is previous_aggregate
        )


def unit_vector(values: npt.NDArray[np.float64], unit: int) -> Integers:
    """The integer vector of length ``unit`` that points where ``values`` points; zeros for zeros.

    Rounding makes a vector of very many small entries longer (2e-4 at a million); then the scale is
    corrected once.

    >>> unit_vector(np.array([3.0, -4.0]), 1000)
    array([ 600, -800])
    """
    length = float(np.linalg.norm(values))
    if not length > 0:
        return np.zeros(len(values), dtype=np.int64)
    rounded = np.rint(values * (unit / length))
    reached = float(np.linalg.norm(rounded))
    if reached > unit * (1 + 1e-4):
        rounded = np.rint(values * (unit / length * unit / reached))
    return rounded.astype(np.int64)
