"""Encrypted similarity without its mail, and its peer, the bare sum: both on SEAL's BFV, from
values to values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tenseal.sealapi as seal

from privfl.crypto.he.lattice import Lattice
from privfl.crypto.he.lattice.frames import public_key, secret_key
from privfl.crypto.he.lattice.keys import fresh
from privfl.crypto.he.lattice.seal import context, passage
from privfl.hybrid.encrypted_cosine.forms import secret_polynomial
from privfl.hybrid.encrypted_cosine.parameters import CosineParameters, unit_vector
from privfl.hybrid.encrypted_cosine.products import (
    encrypted,
    opened,
    products,
    signs,
    uniform,
    values,
    weighted_sum,
)
from privfl.hybrid.encrypted_cosine.queries import Answering, from_bytes, question, to_bytes

Floats = npt.NDArray[np.float64]


class BfvSum:
    """Encode in slots, encrypt under the public key, add, decrypt, decode; everything stays in
    memory.
    """

    def __init__(self, lattice: Lattice, rows: Floats, unit: int) -> None:
        self.degree, made = lattice.degree, context(lattice)
        self.rows = [np.rint(row * unit).astype(np.int64) for row in rows]
        public, secret = fresh(lattice, 1)
        self.encoder, self.evaluator = seal.BatchEncoder(made), seal.Evaluator(made)
        with passage() as file:
            self.encryptor = seal.Encryptor(made, public_key(file, lattice, public.public))
            self.decryptor = seal.Decryptor(made, secret_key(file, lattice, secret))
        self.sent: list[list[Any]] = []

    def clients(self) -> None:
        """Encode and encrypt."""
        self.sent = [
            [self._closed(row[i : i + self.degree]) for i in range(0, len(row), self.degree)]
            for row in self.rows
        ]

    def _closed(self, chunk: npt.NDArray[np.int64]) -> Any:
        plain, ciphertext = seal.Plaintext(), seal.Ciphertext()
        self.encoder.encode(chunk.tolist(), plain)
        self.encryptor.encrypt(plain, ciphertext)
        return ciphertext

    def servers(self) -> npt.NDArray[np.int64]:
        """Add, decrypt, decode."""
        found = []
        for chunks in zip(*self.sent, strict=True):
            total, plain = seal.Ciphertext(), seal.Plaintext()
            self.evaluator.add_many(list(chunks), total)
            self.decryptor.decrypt(total, plain)
            found.append(np.array(self.encoder.decode_int64(plain)))
        return np.concatenate(found)

    def __call__(self) -> npt.NDArray[np.int64]:
        """All of it."""
        self.clients()
        return self.servers()


class Similarity:
    """Encode, encrypt, compare with a reference and with random signs, square where norms are
    exact, sum by weights, decrypt.
    """

    def __init__(self, setting: CosineParameters, rows: Floats) -> None:
        self.setting, self.rows = setting, rows
        self.public, self.secret = fresh(setting.lattice, 1)
        with passage() as file:
            self.answering = Answering(
                setting.lattice, secret_polynomial(file, setting.lattice, self.secret)
            )
        self.reference = unit_vector(rows.sum(axis=0), setting.unit)
        self.sent: dict[int, list[Any]] = {}

    def clients(self) -> None:
        """Scale, round, encrypt, serialise."""
        self.sent = {
            i: encrypted(self.public, unit_vector(row, self.setting.unit))
            for i, row in enumerate(self.rows)
        }

    def _directions(self, number: int) -> npt.NDArray[np.int64]:
        part = self.reference[number * self.setting.lattice.degree :][: self.setting.lattice.degree]
        return np.concatenate(
            [signs(bytes(32), number, self.setting.projections, len(part)), part[None]]
        )

    def _ask(self, asked: list[Any]) -> npt.NDArray[np.int64]:
        lattice = self.setting.lattice
        words = np.stack(
            [question(lattice, product, 1, self.setting.flood_bits) for product in asked]
        )
        return self.answering.answers(
            from_bytes(lattice, memoryview(to_bytes(lattice, words)), words.shape[1])
        )

    def servers(self) -> npt.NDArray[np.int64]:
        """CosineScores, norms, weighted sum, decryption."""
        setting, lattice = self.setting, self.setting.lattice
        exact = setting.norms == "exact"
        computed = products(lattice, self.sent, self._directions, square=exact)
        self._ask([product for sums in computed.dots.values() for product in sums])
        if exact:
            self._ask(list(computed.squares.values()))
        chunks = len(self.sent[0])
        masks = uniform(bytes(32), "mask", chunks * lattice.degree, setting.t).reshape(
            chunks, lattice.degree
        )
        weights = dict.fromkeys(self.sent, setting.weights // len(self.sent))
        summed = weighted_sum(self.public, self.sent, weights, masks, setting.flood_bits)
        found = values(lattice, (opened(lattice, self.secret, summed) - masks) % setting.t)
        return setting.centred(found[: self.rows.shape[1]])

    def __call__(self) -> npt.NDArray[np.int64]:
        """All of it."""
        self.clients()
        return self.servers()
