"""What a contribution must satisfy, as arithmetic over Field64 (Rothblum, Omri, Chen, Talwar 2023,
figures 1 and 2; draft-chen-cfrg-vdaf-pine).

A measurement is the vector x [dimension], the bits of v = |x|^2 and of u = bound^2 - v, for each of
``checks`` random products y the bits of y + B - 1 and one that says that y is in its range, and
the bits of a weight. Beside it stand the products themselves, which nobody sends: every verifier
computes them from its share of x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from privfl.core import ConfigError, require
from privfl.crypto.sharing.pine.field64 import Field64, P, multiply, powers, subtract, total
from privfl.crypto.sharing.pine.flp import Gadget, fewest

_SHARE = {1: 1, 2: pow(2, P - 2, P)}
"""What a constant counts for at the prover, who has the whole, and at each of two verifiers."""


class OutOfRange(Exception):
    """Too few random products of an honest vector were in their range: try other coins."""


@dataclass(frozen=True, slots=True)
class Circuit:
    """The rules for one kind of contribution.

    Args:
        dimension: values in the vector.
        bound: C, the largest norm, in integer units.
        weight_bits: of the weight beside the vector; 0 in the draft, which has none.
        checks, successes: random products, and how many must be in their range.
        alpha: how many norms wide that range is.
        chunk, norm_chunk: inputs of one call of each gadget; None: what makes proofs shortest.

    Raises:
        ConfigError: a bound for which the field is too small (lemma 3.3 and figure 1 of the paper).

    >>> Circuit(dimension=1000, bound=2**15).length
    3162
    """

    dimension: int
    bound: int
    weight_bits: int = 0
    checks: int = 100
    successes: int = 100
    alpha: float = 8.7
    chunk: int | None = None
    norm_chunk: int | None = None

    def __post_init__(self) -> None:
        require.at_least(1, dimension=self.dimension, bound=self.bound, checks=self.checks)
        require.at_least(0, weight_bits=self.weight_bits)
        square, reach = self.bound**2, self.reach
        if 3 * square + 2 >= P or 2600 * reach > P or reach**2 > 4000 * P:
            raise ConfigError(
                f"a norm of {self.bound} steps is too large to be proved over Field64: lower bits."
            )

    @property
    def reach(self) -> int:
        """B, a power of two: products are in their range from -B + 1 to B."""
        return 1 << math.ceil(self.alpha * self.bound).bit_length()

    @property
    def norm_bits(self) -> int:
        """Bits of v and of u."""
        return (self.bound**2).bit_length()

    @property
    def product_bits(self) -> int:
        """Bits of a product in its range."""
        return (2 * self.reach - 1).bit_length()

    @property
    def committed(self) -> int:
        """Elements of a measurement that are fixed before the coins: the vector, v and u."""
        return self.dimension + 2 * self.norm_bits

    @property
    def bits(self) -> int:
        """Elements of a measurement that must be bits."""
        return 2 * self.norm_bits + (self.product_bits + 1) * self.checks + self.weight_bits

    @property
    def length(self) -> int:
        """Elements of a measurement."""
        return self.dimension + self.bits

    @property
    def norm_gadget(self) -> Gadget:
        """Squares of the vector's values."""
        chunk = self.norm_chunk or fewest(self.dimension, kind="squares")
        return Gadget("squares", -(-self.dimension // chunk), chunk)

    @property
    def rest_gadget(self) -> Gadget:
        """Products: of each bit with itself less one, and of products' errors with their bits."""
        chunk = self._chunk
        calls = -(-self.bits // chunk) - (-self.checks // chunk)
        return Gadget("products", calls, 2 * chunk)

    @property
    def _chunk(self) -> int:
        return self.chunk or fewest(self.bits, self.checks, kind="products")

    def with_norm(self, vector: Field64) -> Field64:
        """The vector with the bits of v and u [committed]; beyond the bound these are of another
        number, and no proof of them holds.
        """
        v = int(total(multiply(vector, vector)))
        u = (self.bound**2 - v) % P
        return np.concatenate([vector, _bits(v, self.norm_bits), _bits(u, self.norm_bits)])

    def with_products(self, committed: Field64, products: Field64, weight: int) -> Field64:
        """The whole measurement [length].

        Raises:
            OutOfRange: fewer than ``successes`` products are in their range.
        """
        parts, good = [committed], 0
        for product in products.tolist():
            moved = (product + self.reach - 1) % P
            succeeds = moved < 2 * self.reach and good < self.successes
            good += succeeds
            parts.append(_bits(moved, self.product_bits))
            parts.append(np.array([succeeds], dtype=np.uint64))
        if good != self.successes:
            raise OutOfRange(f"{good} of {self.checks} products are in their range")
        return np.concatenate([*parts, _bits(weight, self.weight_bits)])

    def contribution(self, measurement: Field64) -> Field64:
        """What is added up: the vector, and behind it the weight where there is one."""
        vector = measurement[: self.dimension]
        if not self.weight_bits:
            return vector
        weight = _numbers(measurement[-self.weight_bits :].reshape(1, -1))
        return np.concatenate([vector, weight])

    def norm_wires(self, measurement: Field64) -> Field64:
        """The inputs of the norm's gadget [calls, arity]."""
        return _chunks(measurement[: self.dimension], self.norm_gadget.arity)

    def norm_output(self, measurement: Field64, outputs: Field64) -> int:
        """The claimed v less the sum of the squares: zero, or the norm is another one."""
        v = _number(measurement[self.dimension : self.dimension + self.norm_bits])
        return (v - int(total(outputs))) % P

    def rest_wires(
        self, measurement: Field64, products: Field64, coins: Field64, shares: int
    ) -> Field64:
        """The inputs of the other gadget [calls, arity], from joint coins [3]."""
        chunk, one = self._chunk, np.uint64(_SHARE[shares])
        bits = measurement[self.dimension :]
        left = multiply(bits, powers(int(coins[0]), len(bits)))
        checked = np.stack(
            [_chunks(left, chunk), _chunks(subtract(bits, np.full_like(bits, one)), chunk)], axis=2
        )
        table = self._by_check(measurement)
        shift = multiply(np.full(1, self.reach - 1, dtype=np.uint64), np.full(1, one))
        claimed = subtract(_numbers(table[:, :-1]), np.broadcast_to(shift, self.checks))
        errors = multiply(subtract(products, claimed), powers(int(coins[1]), self.checks))
        tested = np.stack([_chunks(errors, chunk), _chunks(table[:, -1], chunk)], axis=2)
        return np.concatenate([checked, tested]).reshape(-1, 2 * chunk)

    def rest_output(
        self, measurement: Field64, outputs: Field64, coins: Field64, shares: int
    ) -> int:
        """Zero where every bit is one, v + u = bound^2, products are what they are said to be and
        enough are in their range; but with small chance over the coins nothing else.
        """
        one, calls = _SHARE[shares], -(-self.bits // self._chunk)
        d, n = self.dimension, self.norm_bits
        in_range = _number(measurement[d : d + n]) + _number(measurement[d + n : d + 2 * n])
        good = int(total(self._by_check(measurement)[:, -1]))
        last = int(coins[2])
        return (
            int(total(outputs[:calls]))
            + last * (in_range - self.bound**2 * one)
            + last**2 * int(total(outputs[calls:]))
            + last**3 * (good - self.successes * one)
        ) % P

    def _by_check(self, measurement: Field64) -> Field64:
        table = measurement[self.committed : self.length - self.weight_bits]
        return table.reshape(self.checks, self.product_bits + 1)


def _bits(value: int, n: int) -> Field64:
    return np.array([value >> i & 1 for i in range(n)], dtype=np.uint64)


def _number(bits: Field64) -> int:
    return int(_numbers(bits.reshape(1, -1))[0])


def _numbers(bits: Field64) -> Field64:
    """The numbers [n] that rows of shares of bits [n, bits] stand for."""
    return total(multiply(bits, powers(2, bits.shape[1])[None]), axis=1)


def _chunks(values: Field64, chunk: int) -> Field64:
    """Rows of that length, the last one filled up with zeros."""
    padded = np.zeros(-(-len(values) // chunk) * chunk, dtype=np.uint64)
    padded[: len(values)] = values
    return padded.reshape(-1, chunk)
