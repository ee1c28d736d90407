"""How vectors sit in polynomials, so that ONE coefficient of a product is a dot product and nothing
else need be decrypted.

Coefficients: u_i at X^i, and the reference folded back (r_0, -r_(N-1) X, ..., -r_1 X^(N-1));
coefficient 0 of the product is <u, r>. CosineSlots: one value a slot of SEAL's batching;
coefficient 0 of the slot-wise product, times N, is the sum of its slots. Squares need slots;
products with public polynomials leave less noise with coefficients, because those polynomials stay
small.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from privfl.crypto.he.lattice import Lattice
from privfl.crypto.he.lattice.parameters import plain_modulus
from privfl.crypto.he.lattice.seal import Passage, context
from privfl.crypto.he.libraries import seal
from privfl.hybrid.encrypted_cosine.forms import plaintext

Chunk = npt.NDArray[np.int64]


class Coefficients:
    """One value a coefficient."""

    factor = 1
    """What coefficient 0 of a product must be multiplied by to be a dot product."""

    def __init__(self, lattice: Lattice) -> None:
        self.lattice, self.t = lattice, plain_modulus(lattice.degree, lattice.plain_bits)

    def vector(self, file: Passage, chunk: Chunk) -> Any:
        """A client's values."""
        return plaintext(file, self.lattice, chunk % self.t)

    def reference(self, file: Passage, chunk: Chunk) -> Any:
        """What is multiplied with them."""
        folded = np.zeros(self.lattice.degree, dtype=np.int64)
        folded[0] = chunk[0]
        np.negative(chunk[:0:-1], out=folded[len(folded) - len(chunk) + 1 :])
        folded += (folded >> 63) & self.t  # residues: entries are shorter than t
        return plaintext(file, self.lattice, folded)

    def values(self, file: Passage, opened: Chunk) -> Chunk:
        """Values mod t, from a polynomial's coefficients mod t."""
        return opened


class CosineSlots:
    """One value a slot."""

    def __init__(self, lattice: Lattice) -> None:
        self.lattice, self.t, self.factor = (
            lattice,
            plain_modulus(lattice.degree, lattice.plain_bits),
            lattice.degree,
        )
        self.encoder = seal.BatchEncoder(context(lattice))

    def vector(self, file: Passage, chunk: Chunk) -> Any:
        """A client's values."""
        plain = seal.Plaintext()
        self.encoder.encode((chunk % self.t).tolist(), plain)
        return plain

    def reference(self, file: Passage, chunk: Chunk) -> Any:
        """What is multiplied with them."""
        return self.vector(file, chunk)

    def values(self, file: Passage, opened: Chunk) -> Chunk:
        """Values mod t, from a polynomial's coefficients mod t."""
        plain = plaintext(file, self.lattice, opened)
        return (
            np.fromiter(self.encoder.decode_int64(plain), dtype=np.int64, count=self.lattice.degree)
            % self.t
        )


def packing(lattice: Lattice) -> Coefficients | CosineSlots:
    """The packing of a parameter set: slots where ciphertexts are squared."""
    return CosineSlots(lattice) if lattice.degree > 4096 else Coefficients(lattice)
