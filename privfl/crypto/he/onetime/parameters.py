"""What describes one-time-pad RLWE before any round, and what of a round follows from its plan: how
integers lie in coefficients, how large sums of short vectors get, how many clients are enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeAlias

from privfl.core import ConfigError, PartyId, RoundPlan, require
from privfl.crypto.encoding import FixedPoint
from privfl.crypto.he.mprlwe.ring import LIMBS, N
from privfl.crypto.he.mprlwe.sampling import ERROR
from privfl.crypto.he.scheme import IntegerCode
from privfl.crypto.he.wire import Topic, digest

P = 65521
"""The field of the shares: the largest prime of 16 bits."""
Q_BITS = 32 * LIMBS
SIGMA = 6.4
"""Standard deviation of the discrete Gaussian."""
TAIL = 9.0
"""How many deviations a sum of discrete Gaussians is given: it goes beyond with probability 2^-57 a
coefficient.
"""
MOST = 40
"""Decryptors at most, where they are drawn among the clients."""
Secrets: TypeAlias = Literal["binomial", "gaussian"]
_WORD = 1 << 32


@dataclass(frozen=True, slots=True)
class Layout:
    """How a round's integers lie in coefficients mod 2^96.

    A coefficient holds ``step`` times the number whose digits to the base ``radix`` are ``slots``
    integers, each moved up by ``top`` so that it is not negative; below ``step`` there is room for
    the sum of all errors, at most ``reach`` long. ``blocks`` polynomials hold a contribution.

    Where there is room above these digits for half the bits of a sum, two coefficients hold one
    integer v more, moved up as well: one of the first ``halves`` polynomials 2^(96 - half_bits) v,
    whose upper bits are cut off, and one of the next as many 2^(96 - sum_bits) v, whose low bits
    lie among the digits and are known from the first. Otherwise ``half_bits`` is 0. Both are linear
    in v, so that a sum shows of them what follows from the sum of all v: sums of low bits and of
    high ones, each by itself, would tell how often clients' low bits carry.
    """

    top: int
    radix: int
    slots: int
    half_bits: int
    step: int
    reach: int
    blocks: int

    @property
    def size(self) -> int:
        """Bytes of an encrypted contribution."""
        return 4 * LIMBS * self.blocks * N

    @property
    def sum_bits(self) -> int:
        """How many bits a sum of moved-up integers has."""
        return (self.radix - 1).bit_length()

    @property
    def halves(self) -> int:
        """How many polynomials of integers lie in halves."""
        return self.blocks // 2 if self.half_bits else 0

    @property
    def whole(self) -> int:
        """How many integers lie in one coefficient each."""
        return self.slots * self.blocks * N

    @property
    def capacity(self) -> int:
        """How many integers a contribution can hold."""
        return self.whole + self.halves * N

    @property
    def weights(self) -> tuple[tuple[int, ...], ...]:
        """For every slot the limbs, lowest first, of what a one in it adds to the coefficient."""
        values = [self.step * self.radix**slot for slot in range(self.slots)]
        return tuple(
            tuple(value >> 32 * limb & _WORD - 1 for limb in range(LIMBS)) for value in values
        )


@dataclass(frozen=True, slots=True)
class OneTimeSettings:
    """What describes the channel before any round; `OneTimeRLWE` says what each field means.

    Raises:
        ConfigError: a setting that cannot be.
    """

    bits: int = 16
    holders: int = 3
    threshold: int = 2
    corrupt: float = 0.1
    min_clients: int | None = None
    secrets: Secrets = "binomial"
    rounding: Literal["nearest", "stochastic"] = "nearest"
    committee: Literal["helpers", "clients"] = "helpers"

    def __post_init__(self) -> None:
        require.within(2, 24, bits=self.bits)
        if self.committee not in ("helpers", "clients"):
            raise ConfigError(f"committee is 'helpers' or 'clients', and is '{self.committee}'.")
        require.within(2, MOST if self.committee == "clients" else 9, holders=self.holders)
        require.within(2, self.holders, threshold=self.threshold)
        require.within(0, 0.9, corrupt=self.corrupt)
        if self.min_clients is not None:
            require.at_least(2, min_clients=self.min_clients)
        if self.secrets not in ("binomial", "gaussian"):
            raise ConfigError(f"secrets is 'binomial' or 'gaussian', and is '{self.secrets}'.")
        if 2 * self.threshold <= self.holders:
            raise ConfigError(
                f"threshold={self.threshold} of holders={self.holders}: two groups of decryptors"
                " that do not meet could open two sums of one round, and their difference is one"
                " client. Choose a threshold of more than half of the holders."
            )
        FixedPoint(self.bits, self.rounding)

    @property
    def code(self) -> FixedPoint:
        """How values become integers."""
        return FixedPoint(self.bits, self.rounding)

    @property
    def scheme(self) -> IntegerCode:
        """The same, with the check that a sum is one of so many contributions."""
        return IntegerCode(self.code)

    @property
    def decryptors(self) -> tuple[PartyId, ...]:
        """The helpers that hold shares of the one-time keys; none where clients are drawn for it in
        the set-up.
        """
        if self.committee == "clients":
            return ()
        return tuple(f"decryptor/{i}" for i in range(self.holders))

    def quorum(self, n: int) -> int:
        """The fewest contributions of a cohort of n that are ever opened: ``min_clients``, or half
        of the cohort, and never fewer than two more than may be corrupt.

        >>> [OneTimeSettings().quorum(n) for n in (2, 6, 100)]
        [2, 3, 50]
        """
        wanted = math.ceil(n / 2) if self.min_clients is None else self.min_clients
        return max(wanted, 2 + math.floor(self.corrupt * n + 1e-9))

    def reach(self, n: int) -> int:
        """How long a coefficient of a sum of n short vectors gets: never longer for binomial ones,
        but with probability 2^-57 for Gaussian ones.

        >>> OneTimeSettings().reach(100), OneTimeSettings(secrets="gaussian").reach(100)
        (2400, 576)
        """
        if self.secrets == "binomial":
            return ERROR * n
        return math.ceil(TAIL * SIGMA * math.sqrt(n))

    def topic(self, plan: RoundPlan) -> Topic:
        """What every message of a round is bound to: these settings, and the round's facts."""
        words = f"{self.bits} {self.holders} {self.threshold} {self.secrets} {self.quorum(plan.n)}"
        if self.committee == "clients":
            words += " clients"
        return Topic.of(plan, digest(b"privfl/onetime/settings/2\x00" + words.encode())[:16])

    def layout(self, plan: RoundPlan) -> Layout:
        """How a round's integers lie in coefficients, with the room proved.

        Raises:
            ConfigError: too few clients for the quorum, too many for the field of the shares or for
                a digit, or no finite bound.

        >>> found = OneTimeSettings().layout(RoundPlan(0, tuple(range(100)), 1_000_000, 1.0))
        >>> found.slots, found.half_bits, found.blocks, found.step
        (3, 12, 70, 9602)
        """
        self.code.scale(plan)
        n = plan.n
        if self.committee == "clients" and n < self.holders:
            raise ConfigError(
                f"one_time_rlwe: {self.holders} decryptors are drawn among the clients, and round"
                f" {plan.number} has a cohort of {n}. Ask more clients, or lower holders."
            )
        if self.quorum(n) > n or n < 2:
            raise ConfigError(
                f"one_time_rlwe: a sum opens from {self.quorum(n)} contributions on (min_clients,"
                f" and 2 more than corrupt={self.corrupt:g} of the cohort), and round"
                f" {plan.number} has a cohort of {n}. Ask more clients, or lower min_clients or"
                " corrupt."
            )
        return _layout(self, n, self.code.length(plan))


@lru_cache(maxsize=64)
def _layout(settings: OneTimeSettings, n: int, length: int) -> Layout:
    reach, top = settings.reach(n), settings.code.top
    if 2 * reach >= P:
        raise ConfigError(
            f"one_time_rlwe: the one-time keys of {n} clients sum to up to {reach}, and shares are"
            f" numbers mod {P}, which holds up to {(P - 1) // 2}. Ask fewer clients."
        )
    radix, step = 2 * n * top + 1, 2 * (2 * reach + 1)
    if radix >= _WORD:
        raise ConfigError(
            f"one_time_rlwe: a sum of {n} contributions of {settings.bits} bits needs digits of"
            f" {radix.bit_length()} bits, and there are 32. Lower bits, or ask fewer clients."
        )
    slots = 0
    while step * radix ** (slots + 1) <= 1 << Q_BITS:
        slots += 1
    half_bits = ((radix - 1).bit_length() + 1) // 2
    if step * radix**slots > 1 << Q_BITS - half_bits:
        half_bits = 0
    polynomials = -(-length // N)
    twice = 2 * slots + (1 if half_bits else 0)
    found = Layout(top, radix, slots, half_bits, step, reach, 2 * polynomials // twice)
    while found.capacity < length:
        found = replace(found, blocks=found.blocks + 1)
    return found
