"""CKKS through TenSEAL, as NVFlare and tutorials set it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import numpy as np

from benchmarks.he.values import CLIENTS, SAMPLE, D, rows


class Peer:
    """CKKS through TenSEAL: a context, a million values, and the three steps of a round."""

    def __init__(self, degree: int, primes: list[int], symmetric: bool) -> None:
        import tenseal

        self.tenseal = tenseal
        how = tenseal.ENCRYPTION_TYPE.SYMMETRIC if symmetric else tenseal.ENCRYPTION_TYPE.ASYMMETRIC
        self.context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS, degree, coeff_mod_bit_sizes=primes, encryption_type=how
        )
        self.context.global_scale = 2.0**40
        self.values = rows(D)[1]
        self.body: bytes = self.encrypt()
        self.total = tenseal.ckks_vector_from(self.context, self.body)

    def encrypt(self) -> bytes:
        with quiet():
            return bytes(self.tenseal.ckks_vector(self.context, self.values).serialize())

    def add(self) -> None:
        self.total += self.tenseal.ckks_vector_from(self.context, self.body)

    def decrypt(self) -> object:
        return np.array(self.tenseal.ckks_vector_from(self.context, self.body).decrypt())

    def error(self) -> float:
        """The largest error of a sum of 100 clients, each freshly encrypted."""
        part = self.values[:SAMPLE]
        with quiet():
            total = self.tenseal.ckks_vector(self.context, part)
            for _ in range(CLIENTS - 1):
                total += self.tenseal.ckks_vector(self.context, part)
        return float(np.abs(np.array(total.decrypt()) - CLIENTS * part).max())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """TenSEAL prints a warning about long vectors each time."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def nvflare() -> Peer:
    return Peer(8192, [60, 40, 40], symmetric=True)
