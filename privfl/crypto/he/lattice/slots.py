"""BFV's slots as SEAL lays them out: N integers become the one polynomial modulo t that takes them
as values at the odd powers of a root of unity (Smart and Vercauteren 2014), and N residues that
SEAL keeps transformed become coefficients again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from privfl.crypto.he.wire import Numbers

Doubles = npt.NDArray[np.float64]
"""Whole numbers below 2^53 in double precision, which its arithmetic keeps exact."""
_SIDE = 64


def root(prime: int, order: int) -> int:
    """The least primitive root of unity of this order, a power of two, modulo a prime: the one that
    SEAL takes.

    >>> root(17, 8)
    2
    """
    base = next(
        found
        for x in range(2, prime)
        if pow(found := pow(x, (prime - 1) // order, prime), order // 2, prime) == prime - 1
    )
    step, least, power = base * base % prime, base, base
    for _ in range(order // 2 - 1):
        power = power * step % prime
        least = min(least, power)
    return least


@lru_cache(maxsize=8)
def _powers(prime: int, degree: int) -> npt.NDArray[np.uint64]:
    """The inverse root's powers in the order of reversed bits, as its butterflies use them."""
    inverse = pow(root(prime, 2 * degree), -1, prime)
    powers = np.empty(degree, dtype=np.uint64)
    value = 1
    for i in _reversed(degree):
        powers[i] = value
        value = value * inverse % prime
    return powers


def _reversed(count: int) -> npt.NDArray[np.int64]:
    """0, 1, ... with their bits in reverse."""
    order = np.zeros(1, dtype=np.int64)
    while len(order) < count:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order


def times(
    left: npt.NDArray[np.uint64], right: npt.NDArray[np.uint64] | np.uint64, prime: int
) -> npt.NDArray[np.uint64]:
    """Products modulo a prime of at most 50 bits: the quotient in double precision is off by one at
    most, and the rest is exact modulo 2^64.
    """
    modulus = np.uint64(prime)
    quotient = (left.astype(np.float64) * np.asarray(right, dtype=np.float64) / prime).astype(
        np.uint64
    )
    rest = left * right - quotient * modulus
    rest = np.minimum(rest, rest + modulus)  # a negative rest wraps
    return np.minimum(rest, rest - modulus)


def coefficients(values: npt.NDArray[np.uint64], prime: int) -> npt.NDArray[np.uint64]:
    """The polynomials [..., N] modulo X^N + 1 and a prime of at most 50 bits whose transform in
    SEAL's order this is.
    """
    degree, modulus = values.shape[-1], np.uint64(prime)
    powers, out, groups = _powers(prime, degree), values, degree // 2
    while groups:
        pairs = out.reshape(*values.shape[:-1], groups, 2, -1)
        low, high = pairs[..., 0, :], pairs[..., 1, :]
        total, apart = low + high, low + (modulus - high)
        turned = times(np.minimum(apart, apart - modulus), powers[groups : 2 * groups, None], prime)
        out = np.stack([np.minimum(total, total - modulus), turned], axis=-2)
        groups //= 2
    return times(out.reshape(values.shape), np.uint64(pow(degree, -1, prime)), prime)


@dataclass(frozen=True, slots=True)
class PlaintextSlots:
    """The way from N = 4096 slots to coefficients modulo a prime t below 2^24: two products with
    matrices of 64 x 64 (Bailey 1990's four steps), whose sums of 64 products of 23 bits each are
    below 2^53 and so exact in double precision.

    >>> import numpy as np
    >>> PlaintextSlots.of(40961).coefficients(np.full(4096, 7))[0, :3].tolist()
    [7.0, 0.0, 0.0]
    """

    prime: int
    places: npt.NDArray[np.int64]
    columns: Doubles
    turns: Doubles
    rows: Doubles

    @classmethod
    @lru_cache(maxsize=8)
    def of(cls, prime: int) -> PlaintextSlots:
        """The tables of a plaintext modulus."""
        degree = _SIDE * _SIDE
        inverse = pow(root(prime, 2 * degree), -1, prime)
        powers = np.empty(2 * degree, dtype=np.float64)
        value = 1
        for i in range(2 * degree):
            powers[i] = value if 2 * value < prime else value - prime
            value = value * inverse % prime
        one, two = np.arange(_SIDE)[:, None], np.arange(_SIDE)[None, :]
        columns = powers[2 * _SIDE * one * two % (2 * degree)]
        turns = powers[(2 * one + 1) * two % (2 * degree)]
        rows = powers[(2 * _SIDE * one * two + _SIDE * one) % (2 * degree)]
        scaled = [[int(x) * pow(degree, -1, prime) % prime for x in row] for row in rows]
        rows = np.array([[x if 2 * x < prime else x - prime for x in row] for row in scaled], float)
        return cls(prime, _places(degree), columns, turns, rows)

    def coefficients(self, numbers: Numbers) -> Doubles:
        """Polynomials [blocks, N], within t / 2 and a little more of zero, of numbers [blocks N or
        less], each within t / 2; slots that are not filled hold zero.
        """
        degree = _SIDE * _SIDE
        blocks = -(-len(numbers) // degree)
        filled = np.zeros(blocks * degree)
        filled[: len(numbers)] = numbers
        spread = filled.reshape(blocks, degree)[:, self.places].reshape(-1, _SIDE)
        halfway = self._reduced(spread @ self.columns).reshape(blocks, _SIDE, _SIDE)
        halfway *= self.turns
        return self._reduced(self.rows @ self._reduced(halfway)).reshape(blocks, degree)

    def _reduced(self, values: Doubles) -> Doubles:
        quotient = values * (1.0 / self.prime)
        np.rint(quotient, out=quotient)
        quotient *= self.prime
        values -= quotient
        return values


def _places(degree: int) -> npt.NDArray[np.int64]:
    """Which slot holds the value at the root's power 2 (64 j + i) + 1, at place 64 i + j: the first
    half of the slots are at the powers of 3, the second at their inverses.
    """
    slot, power = np.empty(degree, dtype=np.int64), 1
    for i in range(degree // 2):
        slot[(power - 1) // 2] = i
        slot[(2 * degree - power - 1) // 2] = i + degree // 2
        power = power * 3 % (2 * degree)
    return np.ascontiguousarray(slot.reshape(_SIDE, _SIDE).T).reshape(-1)
