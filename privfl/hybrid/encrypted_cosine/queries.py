"""One decrypted number a question: a product's coefficient 0, cut out of its ciphertext, masked and
flooded.

A ciphertext (c0, c1, ..) of the key s gives coefficient 0 of its plaintext as c0[0] + <c1, s~> + ..
mod q, where s~ is s folded back. So the key holder is handed c0[0] and c1 and none of the other
coefficients of c0: it CANNOT decrypt the rest of the product, which would show it the vector (d <=
N: the quotient of two polynomials). What it decrypts is the score plus a mask uniform mod t, and
the noise around it is drowned, because that noise knows the vector too: SEAL rounds q u / t, and
the fraction travels in it. Then all is scaled down to one prime, which makes it a third as long and
is arithmetic on what is already safe.
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import numpy.typing as npt

from privfl.core import KeepsSecrets
from privfl.crypto.he.lattice import Lattice
from privfl.crypto.he.lattice.frames import residues, words_under_last
from privfl.crypto.he.lattice.parameters import plain_modulus
from privfl.crypto.he.lattice.residues import Words
from privfl.crypto.he.lattice.seal import context, passage
from privfl.crypto.he.libraries import seal
from privfl.crypto.he.wire import Refused

Integers = npt.NDArray[np.int64]
_HALF = 24
"""Words are split here, so that sums of products with the key and its square stay below 2^63."""


def question(lattice: Lattice, product: Any, mask: int, flood_bits: int) -> Words:
    """What the key holder is handed of a product [1 + N; 1 + 2 N after squaring]: words below the
    first prime. It consumes the product.
    """
    moduli, degree = residues(lattice).primes, lattice.degree
    whole = product.dyn_array()
    body = _from_residues([whole[i * degree] for i in range(len(moduli))], moduli)
    q, t = (
        int(np.prod([int(p) for p in moduli], dtype=object)),
        plain_modulus(degree, lattice.plain_bits),
    )
    body += (q * mask + t // 2) // t + secrets.randbits(flood_bits + 1) - (1 << flood_bits)
    evaluator = seal.Evaluator(context(lattice))
    while product.coeff_modulus_size() > 1:
        evaluator.mod_switch_to_next_inplace(product)
    out = np.empty(1 + (product.size() - 1) * degree, dtype=np.uint64)
    out[0] = (body * moduli[0] + q // 2) // q % moduli[0]
    with passage() as file:  # SEAL's own arrays are read a word at a time, which took far longer
        out[1:] = words_under_last(file, product)[degree:]
    return out


def _from_residues(residues: list[int], moduli: tuple[int, ...]) -> int:
    """The number mod q with these residues (Chinese remainder theorem)."""
    number, modulus = 0, 1
    for residue, prime in zip(residues, moduli, strict=True):
        number += modulus * ((residue - number) * pow(modulus, -1, prime) % prime)
        modulus *= prime
    return number


class Answering(KeepsSecrets):
    """The key as it answers questions: its polynomial and its square, folded back."""

    def __init__(self, lattice: Lattice, secret: Integers) -> None:
        self.lattice = lattice
        square = np.rint(
            np.fft.irfft(np.fft.rfft(secret, 4 * len(secret)) ** 2, 4 * len(secret))
        ).astype(np.int64)
        wrapped = square[: len(secret)] - square[len(secret) : 2 * len(secret)]
        self.once, self.twice = _folded(secret), np.concatenate([_folded(secret), _folded(wrapped)])

    def answers(self, asked: Words) -> Integers:
        """The masked scores mod t, one a question [n, 1 + N] or [n, 1 + 2 N].

        Raises:
            Refused: questions of another form.
        """
        degree, prime = self.lattice.degree, residues(self.lattice).primes[0]
        if asked.shape[1] not in (1 + degree, 1 + 2 * degree) or (
            asked.size and int(asked.max()) >= prime
        ):
            raise Refused("not questions of this parameter set")
        key = self.once if asked.shape[1] == 1 + degree else self.twice
        t = plain_modulus(degree, self.lattice.plain_bits)
        words = asked[:, 1:]
        low = (words & np.uint64((1 << _HALF) - 1)).astype(np.int64) @ key
        high = (words >> np.uint64(_HALF)).astype(np.int64) @ key
        found = []
        for first, below, above in zip(
            asked[:, 0].tolist(), low.tolist(), high.tolist(), strict=True
        ):
            inner = (first + below + (above << _HALF)) % prime
            found.append((t * inner + prime // 2) // prime % t)
        return np.array(found, dtype=np.int64)


def _folded(polynomial: Integers) -> Integers:
    """(s_0, -s_(N-1), ..., -s_1): the dot product with it is coefficient 0 of the negacyclic
    product with s.
    """
    out = -np.roll(polynomial[::-1], 1)
    out[0] = polynomial[0]
    return out


def to_bytes(lattice: Lattice, asked: Words) -> bytes:
    """Questions as they travel: as many bytes a word as the first prime has."""
    width = -(-lattice.primes[0] // 8)
    return np.ascontiguousarray(
        asked.astype("<u8", copy=False).view(np.uint8).reshape(*asked.shape, 8)[..., :width]
    ).tobytes()


def from_bytes(lattice: Lattice, body: memoryview, words: int) -> Words:
    """Questions of so many words each.

    Raises:
        Refused: another length.
    """
    width = -(-lattice.primes[0] // 8)
    if len(body) % (width * words):
        raise Refused("questions are cut short")
    asked = np.zeros((len(body) // (width * words), words, 8), dtype=np.uint8)
    asked[..., :width] = np.frombuffer(body, dtype=np.uint8).reshape(-1, words, width)
    return asked.view("<u8")[..., 0].astype(np.uint64, copy=False)
