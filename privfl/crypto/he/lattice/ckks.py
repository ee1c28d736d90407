"""The CKKS channel: approximate sums of real-valued updates, released with flooding noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from privfl.core import (
    Able,
    BadUpdate,
    Bounded,
    ConfigError,
    RoundPlan,
    Stable,
    Total,
    Vector,
    require,
)
from privfl.crypto.encoding import Rounded
from privfl.crypto.he.channel import HomomorphicChannel
from privfl.crypto.he.guarantee import SchemeLies
from privfl.crypto.he.lattice import flooding, frames, parameters
from privfl.crypto.he.lattice.bfv import check_lattice_keys, lattice_lies
from privfl.crypto.he.lattice.keys import Encryption, LatticePublic, LatticeSecret, fresh
from privfl.crypto.he.lattice.parameters import Lattice
from privfl.crypto.he.libraries import seal
from privfl.crypto.he.parameters import Arrangement
from privfl.crypto.he.wire import Numbers, Refused, unpack


@dataclass(frozen=True, slots=True)
class CkksScheme:
    """CKKS with its parameters and its release."""

    lattice: Lattice
    max_clients: int
    encryption: Encryption
    flooding_bits: int
    releases: int
    workers: int

    def generate(self) -> tuple[LatticePublic, LatticeSecret]:
        """A fresh key pair. It is kept in no file: nobody would count the releases that it makes in
        another session.
        """
        public, secret = fresh(self.lattice, self.workers)
        return public, LatticeSecret(
            public, secret, self.encryption, self.flooding_bits, self.releases
        )

    def public(self, data: bytes) -> LatticePublic:
        """Read a public key."""
        return LatticePublic.from_bytes(data, self.lattice, self.workers)

    def secret(self, data: bytes) -> LatticeSecret:
        """Read a secret key."""
        fields = unpack(data)
        if len(fields) != 2:
            raise Refused("not a CKKS secret key")
        frames.secret_words(self.lattice, fields[1])
        return LatticeSecret(
            self.public(bytes(fields[0])),
            bytes(fields[1]),
            self.encryption,
            self.flooding_bits,
            self.releases,
        )

    def encode(self, update: Bounded, plan: RoundPlan) -> Numbers:
        """The weighted update in units of the bound, then the weight in units of the largest:
        float64 [d + 1] within [-1, 1].

        Raises:
            BadUpdate: another length than the plan's, or a weight over the plan's bound.
        """
        if len(update.delta) != plan.d:
            raise BadUpdate(
                f"client {update.client}: a vector of {len(update.delta)} values where {plan.d}"
                " were asked for."
            )
        if not 0 < update.weight <= plan.max_weight:
            raise BadUpdate(
                f"client {update.client}: weight {update.weight} is not in (0, {plan.max_weight}]."
            )
        share = update.weight / plan.max_weight
        numbers = np.empty(plan.d + 1)
        numbers[:-1] = np.clip(
            update.delta.detach().cpu().numpy().astype(np.float64) / plan.l2 * share, -1, 1
        )
        numbers[-1] = share
        return numbers

    def total(self, numbers: Numbers, plan: RoundPlan, count: int) -> Total:
        """The sum, if ``count`` contributions can have made it."""
        if len(numbers) != plan.d + 1 or numbers.dtype != np.float64:
            raise Refused(f"{len(numbers)} numbers where {plan.d + 1} were due")
        noise = flooding.deviation(self.lattice, plan, count, self.flooding_bits, self.releases)
        if not np.abs(numbers).max(initial=0) <= count + 10 * noise or not numbers[-1] > 0:
            raise Refused(f"the decrypted sum is not a sum of {count} contributions")
        value = torch.from_numpy((numbers[:-1] * (plan.l2 * plan.max_weight)).astype(np.float32))
        return Total(value, float(numbers[-1]) * plan.max_weight, count)

    def slack(self, plan: RoundPlan, count: int) -> float:
        """Two machines' rounding: far below the flooding noise, which is the same in both."""
        noise = flooding.deviation(self.lattice, plan, count, self.flooding_bits, self.releases)
        return noise * 2.0**-20

    def headroom(self, plan: RoundPlan) -> None:
        """The sum of the cohort must fit into the modulus.

        Raises:
            ConfigError: no finite bound, or a cohort over ``max_clients``.
        """
        if not plan.l2 < float("inf"):
            raise ConfigError(
                "ckks encodes in units of the bound, so updates need a finite one: set bound to a"
                " clip."
            )
        if plan.n > self.max_clients:
            raise ConfigError(
                f"ckks: a cohort of {plan.n}, and this channel has room for"
                f" max_clients={self.max_clients}: raise it."
            )

    def inflated(self, l2: float, d: int) -> float:
        """Encoding in doubles moves nothing that matters."""
        return l2 * (1 + 1e-6)

    def arrives(self, row: Vector, plan: RoundPlan) -> Vector:
        """The row [d] itself, cut to the bound in every entry; a release's own noise is in no row.

        Raises:
            BadUpdate: another length than the plan's, or NaN: nothing arrives.
        """
        if len(row) != plan.d or bool(torch.isnan(row).any()):
            raise BadUpdate(
                f"a row of {len(row)} values, NaN among them or not {plan.d}: it cannot be encoded."
            )
        return row.detach().cpu().clamp(-plan.l2, plan.l2)

    def stage(self, d: int) -> Stable:
        """Encoding as a stage between a client's row [d] and the rule."""
        return Rounded(lambda l2: self.inflated(l2, d))


@dataclass(frozen=True, slots=True)
class CKKS(HomomorphicChannel):
    """CKKS (Cheon, Kim, Kim, Song 2017) on SEAL through TenSEAL, every release flooded with noise.

    A bare CKKS decryption gives the secret key away (Li and Micciancio 2021), so releases carry
    Gaussian noise for ``flooding_bits`` of statistical security over ``releases`` releases of up to
    ``max_d`` values under one key, which then opens no more. The noise is drawn from the key, the
    sum and the round, so that a sum is released once however many holders of the key open it. The
    parameter set is the cheapest whose noise stays under the rounding error of ``bits``-bit fixed
    point: usually degree 8192 with primes of 60, 60, 60 bits, 64 bytes a value. `error` says what a
    round's noise is. ``BFV`` is exact, smaller and needs none of this.

    Threat model: as `HomomorphicChannel`. Clients pick their own c1, and flooding hides no more
    than honest noise: ONE CLIENT THAT LIES READS THE SECRET KEY off the published sum, and with the
    server then every update. Where clients may lie take `OneTimeRLWE`.

    Raises:
        ConfigError: under 40 bits of flooding, symmetric encryption without a shared key, or a
            precision that no set reaches.

    >>> CKKS().scheme.lattice
    Lattice(scheme='ckks', degree=8192, primes=(60, 60, 60), plain_bits=0, scale_bits=80)
    >>> plan = RoundPlan(0, tuple(range(10)), d=100_000, l2=1.0)
    >>> f"{CKKS().error(plan):.0e}"
    '3e-06'
    """

    bits: int = 16
    max_clients: int = 255
    max_d: int = 1 << 20
    keys: Literal["shared", "authority"] = "authority"
    encryption: Encryption = "public"
    flooding_bits: int = 40
    releases: int = 1000
    min_clients: int | None = None
    verify_sum: bool = True
    workers: int = 1

    def __post_init__(self) -> None:
        seal.require()
        check_lattice_keys("ckks", self.keys, self.encryption)
        require.at_least(
            1,
            workers=self.workers,
            max_clients=self.max_clients,
            max_d=self.max_d,
            releases=self.releases,
        )
        require.at_least(40, flooding_bits=self.flooding_bits)
        require.within(2, 31, bits=self.bits)
        self._lattice()
        self.describe()  # refuses impossible arrangements

    def _lattice(self) -> Lattice:
        largest = RoundPlan(0, tuple(range(self.max_clients)), self.max_d, l2=1.0)
        rounding = 2.0 ** (1 - self.bits) * (self.max_clients / 12) ** 0.5
        for lattice in parameters.ckks(self.max_clients):
            if (
                flooding.deviation(
                    lattice, largest, self.max_clients, self.flooding_bits, self.releases
                )
                <= rounding
            ):
                return lattice
        raise ConfigError(
            f"ckks: no parameter set gives {self.bits} bits with {self.flooding_bits} bits of"
            f" flooding over {self.releases} releases of {self.max_clients} clients; lower one of"
            " them, or take bfv, which is exact."
        )

    @property
    def able(self) -> Able:
        """As every homomorphic channel; sums carry flooding noise."""
        return replace(self._able(), approximate=self.error)

    def error(self, plan: RoundPlan) -> float:
        """Standard deviation of the flooding noise in one value of the weighted sum of the whole
        cohort.
        """
        noise = flooding.deviation(self._lattice(), plan, plan.n, self.flooding_bits, self.releases)
        return noise * plan.l2 * plan.max_weight

    def describe(self) -> str:
        """Who can read what, and what noise the sums carry."""
        largest = self.error(RoundPlan(0, tuple(range(self.max_clients)), self.max_d, l2=1.0))
        return (
            f"{HomomorphicChannel.describe(self)} Sums carry flooding noise of standard deviation"
            f" at most {largest:.1e} x the bound: {self.flooding_bits} bits of statistical security"
            f" over {self.releases} releases."
        )

    @property
    def scheme(self) -> CkksScheme:
        """CKKS with these parameters."""
        lattice = self._lattice()
        return CkksScheme(
            lattice,
            self.max_clients,
            self.encryption,
            self.flooding_bits,
            self.releases,
            self.workers,
        )

    @property
    def own_lies(self) -> SchemeLies:
        """What comes of clients that pick their own c1."""
        return lattice_lies(self.keys)

    @property
    def arrangement(self) -> Arrangement:
        """Who holds which key."""
        return Arrangement(self.keys, self.min_clients, self.verify_sum, releases=self.releases)
