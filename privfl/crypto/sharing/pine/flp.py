"""Fully linear proofs that a sum of products is what it is said to be (Boneh, Boyle,
Corrigan-Gibbs, Gilboa, Ishai 2019; FlpBBCGGI19 of draft-irtf-cfrg-vdaf-11 with one gadget).

A gadget adds up products of its wires, all wires squared or neighbours multiplied. Its calls are
the rows of a table [calls, arity]; column j is wire j. Each wire's inputs, behind a random first
one, are a polynomial's values at the roots of unity of order P; the gadget of these polynomials is
a polynomial too, whose coefficients are the proof. Who holds shares of the inputs and of the proof
computes shares of both sides at one random point, and their sums tell whether they agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from privfl.core import PrivflError
from privfl.crypto.sharing.pine import ntt
from privfl.crypto.sharing.pine.field64 import (
    Field64,
    P,
    add,
    inverse,
    multiply,
    power,
    powers,
    subtract,
    total,
)


class RootOfUnity(PrivflError):
    """The random point is one of those where a wire's polynomial is an input itself."""


@dataclass(frozen=True, slots=True)
class Gadget:
    """The sum of the products of its wires, called so often.

    >>> Gadget("squares", calls=3, arity=5).proof
    12
    """

    kind: Literal["squares", "products"]
    calls: int
    arity: int

    @property
    def points(self) -> int:
        """P: the least power of two above the number of calls."""
        return 1 << self.calls.bit_length()

    @property
    def proof(self) -> int:
        """Elements of a proof: the wires' first inputs, and the gadget polynomial."""
        return self.arity + 2 * self.points - 1

    @property
    def verifier(self) -> int:
        """Elements of what a verifier says: the circuit's output, the wires and the gadget
        polynomial at a random point.
        """
        return self.arity + 2

    def __call__(self, wires: Field64) -> Field64:
        """The gadget's values [n] on inputs [n, arity]."""
        if self.kind == "squares":
            return total(multiply(wires, wires), axis=1)
        return total(multiply(wires[:, ::2], wires[:, 1::2]), axis=1)

    def prove(self, wires: Field64, first: Field64) -> Field64:
        """The proof [proof] for these inputs [calls, arity], from random first ones [arity]."""
        n = self.points
        at_roots = np.zeros((n, self.arity), dtype=np.uint64)
        at_roots[0], at_roots[1 : self.calls + 1] = first, wires
        between = ntt.values(ntt.shifted(ntt.interpolated(at_roots), ntt.root(2 * n)))
        doubled = np.empty(2 * n, dtype=np.uint64)
        doubled[::2], doubled[1::2] = self(at_roots), self(between)
        return np.concatenate([first, ntt.interpolated(doubled)[: 2 * n - 1]])

    def outputs(self, proof: Field64) -> Field64:
        """What a proof, or a share of it, says that the calls give [calls]."""
        n, polynomial = self.points, proof[self.arity :]
        folded = polynomial[:n].copy()
        folded[: n - 1] = add(folded[: n - 1], polynomial[n:])
        return ntt.values(folded)[1 : self.calls + 1]

    def query(self, wires: Field64, proof: Field64, point: int, output: int) -> Field64:
        """What a verifier says [verifier] of its shares of inputs and proof, and of the circuit's
        ``output``, at this random point.

        Raises:
            RootOfUnity: the point would open an input; one in 2^64 / P is of that kind.
        """
        polynomial = proof[self.arity :]
        lagrange = self._lagrange(point)
        at_point = total(multiply(wires, lagrange[1:, None]))
        at_point = add(at_point, multiply(proof[: self.arity], lagrange[:1]))
        gadget = total(multiply(polynomial, powers(point, len(polynomial))))
        return np.concatenate([np.array([output], dtype=np.uint64), at_point, gadget.reshape(1)])

    def _lagrange(self, point: int) -> Field64:
        """How much each of the first calls + 1 values at the roots of unity counts at a point."""
        n = self.points
        vanishing = (power(point, n) - 1) % P
        if vanishing == 0:
            raise RootOfUnity("a proof's random point is a root of unity: nothing is said of it.")
        roots = powers(ntt.root(n), self.calls + 1)
        apart = inverse(subtract(np.full(len(roots), point, dtype=np.uint64), roots))
        scale = vanishing * power(n, P - 2) % P
        return multiply(multiply(roots, apart), np.full(len(roots), scale, dtype=np.uint64))

    def holds(self, verifier: Field64) -> bool:
        """Whether the sum of all verifiers' words says that the circuit's output is zero and the
        gadget polynomial the gadget of the wires.
        """
        return int(verifier[0]) == 0 and bool(
            self(verifier[1:-1].reshape(1, -1))[0] == verifier[-1]
        )


@lru_cache(maxsize=256)
def fewest(*inputs: int, kind: Literal["squares", "products"]) -> int:
    """The length of a chunk, so that a proof over these many inputs (each list of them in chunks of
    its own) is shortest.

    >>> fewest(100_000, kind="squares")
    393
    """
    wires = 1 if kind == "squares" else 2
    best: tuple[int, int] | None = None
    points = 2
    while points <= 4 * max(inputs):
        chunk = next(
            (
                c
                for c in range(-(-sum(inputs) // (points - 1)), max(inputs) + 1)
                if sum(-(-n // c) for n in inputs) < points
            ),
            None,
        )
        if chunk is not None:
            cost = (wires * chunk + 2 * points, chunk)
            best = cost if best is None else min(best, cost)
        points *= 2
    return max(inputs) if best is None else best[1]
