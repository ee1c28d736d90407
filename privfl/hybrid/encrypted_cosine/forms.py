"""SEAL's objects as plain arrays. The binding builds plaintexts from text and lists only; its
serial form takes whole arrays.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import tenseal.sealapi as seal

from privfl.crypto.he.lattice import Lattice
from privfl.crypto.he.lattice.seal import Passage, context, passage

Words = npt.NDArray[np.uint64]


@lru_cache(maxsize=1)
def _version() -> bytes:
    """Magic number, length of a head and version of the library that is loaded."""
    with passage() as file:
        return file.out(seal.Plaintext("1"))[:5]


def _framed(body: bytes) -> bytes:
    return _version() + bytes(3) + struct.pack("<Q", 16 + len(body)) + body  # not compressed


def _array(words: npt.NDArray[Any]) -> bytes:
    return _framed(struct.pack("<Q", words.size) + words.astype("<u8", copy=False).tobytes())


def plaintext(file: Passage, lattice: Lattice, coefficients: npt.NDArray[Any]) -> Any:
    """A plaintext with these coefficients, residues mod t."""
    body = bytes(32) + struct.pack("<Qd", len(coefficients), 1.0) + _array(coefficients)
    return file.into(seal.Plaintext(), context(lattice), _framed(body))


def ciphertext(file: Passage, lattice: Lattice, words: Words, *, ntt: bool = False) -> Any:
    """A ciphertext from its polynomials [2, primes, N], residues."""
    made = context(lattice)
    size, primes, degree = words.shape
    head = struct.pack("<4Q?QQQdQ", *made.first_parms_id(), ntt, size, degree, primes, 1.0, 1)
    return file.into(seal.Ciphertext(), made, _framed(head + _array(words)))


def coefficients(plain: Any, degree: int) -> npt.NDArray[np.int64]:
    """A plaintext's coefficients [N]."""
    out = np.zeros(degree, dtype=np.int64)
    count = min(plain.coeff_count(), degree)
    out[:count] = [plain[i] for i in range(count)]
    return out


@lru_cache(maxsize=8)
def primes(lattice: Lattice) -> tuple[int, ...]:
    """The primes of a ciphertext that travels: all but the last."""
    found = seal.CoeffModulus.Create(lattice.degree, list(lattice.primes))
    return tuple(prime.value() for prime in found)[:-1]


def secret_polynomial(file: Passage, lattice: Lattice, key: bytes) -> npt.NDArray[np.int64]:
    """The ternary coefficients [N] of a secret key: SEAL keeps their transform, and turns it back
    as part of a ciphertext.
    """
    degree, moduli = lattice.degree, primes(lattice)
    kept = file.into(
        seal.SecretKey(), context(lattice), key
    )  # what data() returns lives no longer than this
    held = kept.data()
    words = np.zeros((2, len(moduli), degree), dtype=np.uint64)
    words[0, :, 0] = 1
    words[1] = np.array([held[i] for i in range(len(moduli) * degree)], dtype=np.uint64).reshape(
        len(moduli), degree
    )
    carrier = ciphertext(file, lattice, words, ntt=True)
    seal.Evaluator(context(lattice)).transform_from_ntt_inplace(carrier)
    array = carrier.dyn_array()
    start = len(moduli) * degree
    residues = np.array([array[i] for i in range(start, start + degree)], dtype=np.int64)
    small: npt.NDArray[np.int64] = np.where(residues > 1, residues - moduli[0], residues)
    return small
