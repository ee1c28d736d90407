"""Products of shared values modulo 2^64 with a dealer's triples (Beaver 1991): elementwise, dot
products, matrices, Gram matrices.

Each function is one party's own computation; what it returns to be opened is sent to all others and
summed. Semi-honest parties of whom one is honest, and a dealer who colludes with nobody. A triple
serves once: used twice, it tells the difference of what it hid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privfl.core import KeepsSecrets, PrivflError
from privfl.crypto.sharing.additive import split_whole, uniform

U64 = npt.NDArray[np.uint64]
Product = Callable[[U64, U64], U64]


class UsedUp(PrivflError, RuntimeError):
    """Correlated randomness that was used before."""


def matmul(x: U64, y: U64) -> U64:
    """Exact matrix product modulo 2^64 by float64 products of 16-bit limbs.

    Limb products are below 2^32, so 2^20 of them add up exactly; the inner dimension is cut there.
    """
    out = np.zeros((x.shape[0], y.shape[1]), dtype=np.uint64)
    for start in range(0, x.shape[1], 1 << 20):
        left = [
            ((x[:, start : start + (1 << 20)] >> np.uint64(16 * i)) & np.uint64(0xFFFF)).astype(
                np.float64
            )
            for i in range(4)
        ]
        right = [
            ((y[start : start + (1 << 20)] >> np.uint64(16 * j)) & np.uint64(0xFFFF)).astype(
                np.float64
            )
            for j in range(4)
        ]
        for i in range(4):
            for j in range(4 - i):
                out += (left[i] @ right[j]).astype(np.uint64) << np.uint64(16 * (i + j))
    return out


@dataclass(repr=False)
class Triple(KeepsSecrets):
    """One party's shares of random a and b and of their product."""

    a: U64
    b: U64
    c: U64
    spent: bool = False

    def mask(self, x: U64, y: U64) -> tuple[U64, U64]:
        """The party's own shares of x - a and y - b, to be opened.

        Raises:
            UsedUp: the triple was used before.
        """
        if self.spent:
            raise UsedUp(
                "a Beaver triple serves once: a second use reveals the difference of what it hides."
            )
        self.spent = True
        return x - self.a, y - self.b

    def product(self, d: U64, e: U64, first: bool, times: Product = np.multiply) -> U64:
        """The party's own share of x times y, from the opened d = x - a and e = y - b; one party
        alone is ``first``.
        """
        share = self.c + times(d, self.b) + times(self.a, e)
        return share + times(d, e) if first else share


def deal(
    parties: int, x: Sequence[int], y: Sequence[int], times: Product = np.multiply
) -> list[Triple]:
    """The dealer's act: a triple for arrays of these shapes.

    >>> one, two = deal(2, (3,), (3,))
    >>> bool(((one.a + two.a) * (one.b + two.b) == one.c + two.c).all())
    True
    """
    a, b = uniform(x), uniform(y)
    whole = (split_whole(a, parties), split_whole(b, parties), split_whole(times(a, b), parties))
    return [Triple(*shares) for shares in zip(*whole, strict=True)]


def dot(x: U64, y: U64) -> U64:
    """Row-wise dot products modulo 2^64: [n, d] and [n, d] or [d] to [n]."""
    products: U64 = np.einsum("nd,nd->n", x, np.broadcast_to(y, x.shape))
    return products


@dataclass(repr=False)
class Square(KeepsSecrets):
    """One party's shares of a random matrix A [n, d] and of A A^T, for the Gram matrix of a shared
    matrix.
    """

    a: U64
    c: U64
    spent: bool = False

    def mask(self, x: U64) -> U64:
        """The party's own share of E = X - A, to be opened: one opening serves all n^2 products.

        Raises:
            UsedUp: it was used before.
        """
        if self.spent:
            raise UsedUp(
                "the mask of a Gram matrix serves once: a second use reveals the difference of what"
                " it hides."
            )
        self.spent = True
        return x - self.a

    def gram(self, e: U64, first: bool) -> U64:
        """The party's own share of X X^T [n, n]: E A^T + A E^T + A A^T, and E E^T once."""
        cross = matmul(e, np.ascontiguousarray(self.a.T))
        share = self.c + cross + cross.T
        return share + matmul(e, np.ascontiguousarray(e.T)) if first else share


def deal_square(parties: int, n: int, d: int) -> list[Square]:
    """The dealer's act: a masked square for a matrix [n, d]."""
    a = uniform((n, d))
    shares = zip(
        split_whole(a, parties),
        split_whole(matmul(a, np.ascontiguousarray(a.T)), parties),
        strict=True,
    )
    return [Square(mine, c) for mine, c in shares]
