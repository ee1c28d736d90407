"""Keys with which somebody who cannot decrypt rotates ciphertexts and brings products back to two
polynomials, as residues of fixed width.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from privfl.core import Buffer
from privfl.crypto.he.lattice.frames import (
    array,
    framed,
    key_head,
    residues,
    secret_key,
    unframed,
    words_start,
)
from privfl.crypto.he.lattice.parameters import Lattice
from privfl.crypto.he.lattice.residues import Words
from privfl.crypto.he.lattice.seal import context, passage
from privfl.crypto.he.libraries import seal
from privfl.crypto.he.wire import Refused

_IDENTITY = 32
_COUNT = struct.Struct("<Q")


def element(lattice: Lattice, step: int) -> int:
    """The Galois element of a rotation to the left by so many slots."""
    return pow(3, step, 2 * lattice.degree)


def _parts(lattice: Lattice) -> int:
    """Pairs of polynomials in one key: one for each prime of a ciphertext."""
    return len(lattice.primes) - 1


def key_bytes(lattice: Lattice) -> int:
    """Bytes of one key as it travels."""
    return 2 * _parts(lattice) * residues(lattice, key=True).size


def generate(lattice: Lattice, secret: bytes, steps: Sequence[int]) -> bytes:
    """The key that brings products back, then one for each rotation, as they travel."""
    made, code = context(lattice), residues(lattice, key=True)
    out: list[bytes] = []
    with passage() as file:
        maker = seal.KeyGenerator(made, secret_key(file, lattice, secret))
        products = seal.RelinKeys()
        maker.create_relin_keys(products)
        out += [code.packed(words) for words in _read(lattice, file.out(products))]
        for step in steps:  # one at a time: all together are hundreds of megabytes
            rotation = seal.GaloisKeys()
            maker.create_galois_keys([element(lattice, step)], rotation)
            out += [code.packed(words) for words in _read(lattice, file.out(rotation))]
    return b"".join(out)


def _read(lattice: Lattice, data: bytes) -> list[Words]:
    """The keys [2 parts, primes, N] in what SEAL itself has just written."""
    body, code = unframed(data), residues(lattice, key=True)
    (count,) = _COUNT.unpack_from(body, _IDENTITY)
    at, found = _IDENTITY + _COUNT.size, []
    head, words = words_start(), 2 * len(code.primes) * lattice.degree
    for _ in range(count):
        (parts,) = _COUNT.unpack_from(body, at)
        at += _COUNT.size
        pairs = []
        for _ in range(parts):
            pair = np.frombuffer(body, dtype="<u8", offset=at + head, count=words)
            pairs.append(pair.reshape(2, len(code.primes), lattice.degree))
            at += head + words * 8
        if pairs:
            found.append(np.concatenate(pairs))
    return found


def load(lattice: Lattice, data: Buffer, steps: Sequence[int]) -> tuple[Any, Any]:
    """SEAL's keys of those that travelled: for products, and for these rotations.

    Raises:
        Refused: another length, or a residue that is not below its prime.
    """
    size = key_bytes(lattice)
    if len(data) != size * (1 + len(steps)):
        raise Refused(f"{len(data)} bytes where {1 + len(steps)} keys of {size} were due")
    view = memoryview(data).cast("B")
    slots = {
        (element(lattice, step) - 1) // 2: number for number, step in enumerate(steps, start=1)
    }
    with passage() as file:
        products = file.into(
            seal.RelinKeys(), context(lattice), framed(_written(lattice, view[:size], {0: 0}, 1))
        )
        rotations = file.into(
            seal.GaloisKeys(),
            context(lattice),
            framed(_written(lattice, view, slots, lattice.degree)),
        )
    return products, rotations


def _written(lattice: Lattice, data: memoryview, slots: dict[int, int], count: int) -> bytes:
    """The members of SEAL's object: ``slots``: which of the keys that travelled lies where."""
    code, size = residues(lattice, key=True), key_bytes(lattice)
    identity = context(lattice).key_parms_id()
    out = [struct.pack("<4Q", *identity), _COUNT.pack(count)]
    for slot in range(count):
        if slot not in slots:
            out.append(_COUNT.pack(0))
            continue
        number = slots[slot]
        words = code.unpacked(data[number * size : (number + 1) * size], 2 * _parts(lattice))
        out.append(_COUNT.pack(_parts(lattice)))
        out += [
            framed(key_head(lattice) + array(words[2 * part : 2 * part + 2]))
            for part in range(_parts(lattice))
        ]
    return b"".join(out)
