"""Plaintexts and the secret key of SEAL as plain arrays."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from privfl.crypto.he.lattice import Lattice
from privfl.crypto.he.lattice.frames import (
    array,
    ciphertext,
    framed,
    residues,
    secret_words,
    words_of,
)
from privfl.crypto.he.lattice.seal import Passage, context
from privfl.crypto.he.libraries import seal


def plaintext(file: Passage, lattice: Lattice, coefficients: npt.NDArray[Any]) -> Any:
    """A plaintext with these coefficients, residues mod t."""
    body = bytes(32) + struct.pack("<Qd", len(coefficients), 1.0) + array(coefficients)
    return file.into(seal.Plaintext(), context(lattice), framed(body))


def coefficients(plain: Any, degree: int) -> npt.NDArray[np.int64]:
    """A plaintext's coefficients [N]."""
    out = np.zeros(degree, dtype=np.int64)
    count = min(plain.coeff_count(), degree)
    out[:count] = [plain[i] for i in range(count)]
    return out


def secret_polynomial(file: Passage, lattice: Lattice, key: bytes) -> npt.NDArray[np.int64]:
    """The ternary coefficients [N] of a secret key: SEAL keeps their transform, and turns it back
    as part of a ciphertext.
    """
    degree, moduli = lattice.degree, residues(lattice).primes
    words = np.zeros((2, len(moduli), degree), dtype=np.uint64)
    words[0, :, 0] = 1
    words[1] = secret_words(lattice, key)[0, : len(moduli)]
    carrier = ciphertext(file, lattice, words, ntt=True)
    seal.Evaluator(context(lattice)).transform_from_ntt_inplace(carrier)
    found = words_of(file, lattice, carrier)[1, 0].astype(np.int64)
    small: npt.NDArray[np.int64] = np.where(found > 1, found - moduli[0], found)
    return small
