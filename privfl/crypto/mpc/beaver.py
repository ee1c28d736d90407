"""Elementwise products of shared values modulo 2^64 with a dealer's triples (Beaver 1991).

Each function is one party's own computation; what it returns to be opened is sent to all others and
summed. Semi-honest parties of whom one is honest, and a dealer who colludes with nobody. A triple
serves once: used twice, it tells the difference of what it hid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privfl.core import KeepsSecrets, PrivflError

U64 = npt.NDArray[np.uint64]


class UsedUp(PrivflError, RuntimeError):
    """Correlated randomness that was used before."""


@dataclass(repr=False)
class Triple(KeepsSecrets):
    """One party's shares of random a and b and of their product.

    >>> two, six = np.array([2], dtype=np.uint64), np.array([6], dtype=np.uint64)
    >>> one, other = Triple(two, two, six), Triple(two, two, six + np.uint64(4))  # 4 * 4 = 6 + 10
    >>> (d0, e0), (d1, e1) = one.mask(six, six), other.mask(two, two)  # of 8 and 8
    >>> d, e = d0 + d1, e0 + e1
    >>> (one.product(d, e, first=True) + other.product(d, e, first=False)).tolist()
    [64]
    """

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

    def product(self, d: U64, e: U64, first: bool) -> U64:
        """The party's own share of x times y, from the opened d = x - a and e = y - b; one party
        alone is ``first``.
        """
        share: U64 = self.c + d * self.b + self.a * e
        return share + d * e if first else share
