"""Packed Shamir sharing of whole vectors modulo 2^31 - 1: one polynomial hides several values,
numpy does the arithmetic.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privfl.core import ConfigError, require

P = 2**31 - 1
Field = npt.NDArray[np.uint64]


def _random(shape: tuple[int, int]) -> Field:
    """Uniform elements, by rejecting the one 31-bit word that is no element."""
    words = _words(shape[0] * shape[1])
    while (bad := words == P).any():
        words[bad] = _words(int(bad.sum()))
    return words.reshape(shape)


def _words(n: int) -> Field:
    return np.frombuffer(secrets.token_bytes(4 * n), dtype="<u4").astype(np.uint64) & np.uint64(P)


def _lagrange(known: Sequence[int], wanted: Sequence[int]) -> Field:
    """Rows that take the values at the known points to the values at the wanted ones."""
    rows = []
    for x in wanted:
        row = []
        for i, a in enumerate(known):
            top = bottom = 1
            for j, b in enumerate(known):
                if i != j:
                    top, bottom = top * (x - b) % P, bottom * (a - b) % P
            row.append(top * pow(bottom, -1, P) % P)
        rows.append(row)
    return np.array(rows, dtype=np.uint64)


def _product(matrix: Field, values: Field) -> Field:
    """Matrix [r, s] times values [s, m], reduced after every product: each fits in 62 bits."""
    out = np.zeros((matrix.shape[0], values.shape[1]), dtype=np.uint64)
    for column, row in zip(matrix.T, values, strict=True):
        out = (out + column[:, None] * row) % P
    return out


@dataclass(frozen=True, slots=True)
class PackedShamir:
    """Shares for ``n`` holders with ``pack`` values in one polynomial: each share is 1/pack as long
    as the vector (Franklin, Yung 1992).

    Any ``t`` shares tell nothing, any t + pack give everything back. The sum of shares is a share
    of the sum. Honest holders only.

    Raises:
        ConfigError: t + pack > n, or something below 1.

    >>> sharing = PackedShamir(t=1, n=5, pack=3)
    >>> shares = sharing.share(np.arange(7))
    >>> sharing.reconstruct({i: shares[i] for i in (0, 2, 3, 4)}, length=7)
    array([0, 1, 2, 3, 4, 5, 6])
    """

    t: int
    n: int
    pack: int = 1

    def __post_init__(self) -> None:
        require.at_least(1, t=self.t, pack=self.pack)
        if self.t + self.pack > self.n:
            raise ConfigError(
                f"t + pack = {self.t + self.pack} shares would be needed of n = {self.n}: lower t"
                " or pack."
            )

    def _slots(self) -> range:
        """The points that hold the values; holders sit at 1..n."""
        return range(P - self.pack, P)

    def share(self, values: npt.NDArray[np.int64]) -> Field:
        """Shares [n, ceil(d / pack)] of integers modulo 2^31 - 1 [d]."""
        blocks = -(-len(values) // self.pack)
        secret = np.zeros(blocks * self.pack, dtype=np.uint64)
        secret[: len(values)] = np.mod(values, P)
        noise = _random((self.t, blocks))
        known = [*self._slots(), *range(1, self.t + 1)]
        matrix = _lagrange(known, range(self.t + 1, self.n + 1))
        rest = _product(matrix, np.concatenate([secret.reshape(blocks, self.pack).T, noise]))
        return np.concatenate([noise, rest])

    def reconstruct(self, shares: Mapping[int, Field], length: int) -> npt.NDArray[np.int64]:
        """The values [length] from t + pack shares or more, by holder 0..n-1.

        Raises:
            ConfigError: too few shares, or of a holder that there is not.
        """
        strangers = [holder for holder in sorted(shares) if not 0 <= holder < self.n]
        if strangers:
            raise ConfigError(
                f"holder {strangers[0]} of {self.n}: holders are numbered 0 to {self.n - 1}."
            )
        need = self.t + self.pack
        if len(shares) < need:
            raise ConfigError(f"{len(shares)} shares where {need} of {self.n} are needed.")
        some = sorted(shares)[:need]
        values = _product(
            _lagrange([i + 1 for i in some], self._slots()), np.stack([shares[i] for i in some])
        )
        return values.T.reshape(-1)[:length].astype(np.int64)
