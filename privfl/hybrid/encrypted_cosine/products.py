"""What the server computes on ciphertexts: dot products with public vectors, squares, a weighted
sum. It reads none of them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from privfl.core import Buffer, ClientId
from privfl.crypto.he.lattice import Lattice, LatticePublic
from privfl.crypto.he.lattice.frames import (
    ciphertext,
    closed,
    hiding,
    load,
    public_key,
    residues,
    secret_key,
)
from privfl.crypto.he.lattice.residues import Words
from privfl.crypto.he.lattice.seal import BAD_BYTES, Passage, context, passage
from privfl.crypto.he.libraries import seal
from privfl.crypto.he.wire import Refused
from privfl.crypto.primitives import backend, derive, keystream_words
from privfl.hybrid.encrypted_cosine.forms import coefficients, plaintext
from privfl.hybrid.encrypted_cosine.packing import Coefficients, CosineSlots, packing

Integers = npt.NDArray[np.int64]
Directions = Callable[[int], Integers]
"""Chunk number -> the public vectors' entries in it [directions, N or fewer]."""
AGGREGATE_FLOOD = 61
"""The aggregate's noise is drawn in 64-bit words."""


def encrypted(public: LatticePublic, integers: Integers) -> list[Buffer]:
    """A client's vector [d], chunk by chunk.

    Raises:
        HostileKey: the public key is one whose ciphertexts hide nothing.
    """
    lattice = public.lattice
    pack, chunks = packing(lattice), []
    with passage() as file:
        encryptor = _encryptor(file, public)
        for start in range(0, len(integers), lattice.degree):
            sealed = seal.Ciphertext()
            encryptor.encrypt(pack.vector(file, integers[start : start + lattice.degree]), sealed)
            chunks.append(closed(file, lattice, sealed))
    return list(hiding(chunks))


def _encryptor(file: Passage, public: LatticePublic) -> Any:
    return seal.Encryptor(context(public.lattice), public_key(file, public.lattice, public.public))


@dataclass(frozen=True, slots=True)
class Products:
    """Per client and direction an encrypted product whose coefficient 0 is the score (None: the
    direction is zero); squares; who failed.
    """

    dots: Mapping[ClientId, Sequence[Any]]
    squares: Mapping[ClientId, Any]
    refused: Mapping[ClientId, str]


def products(
    lattice: Lattice,
    chunks: Mapping[ClientId, Sequence[Buffer]],
    directions: Directions,
    *,
    square: bool,
) -> Products:
    """Multiply every client's chunks with the public vectors, and sum over the chunks: one inverse
    transform a score.
    """
    pack, evaluator = packing(lattice), seal.Evaluator(context(lattice))
    dots: dict[ClientId, list[Any]] = {client: [] for client in chunks}
    squares: dict[ClientId, Any] = {}
    refused: dict[ClientId, str] = {}
    with passage() as file:
        for number in range(min(map(len, chunks.values()), default=0)):
            public = [_transformed(file, evaluator, pack, part) for part in directions(number)]
            for client, bodies in chunks.items():
                if client in refused:
                    continue
                try:
                    sealed = load(file, lattice, bodies[number])
                    if square:
                        squares[client] = _plus(
                            evaluator, squares.get(client), _square(evaluator, sealed)
                        )
                    evaluator.transform_to_ntt_inplace(sealed)
                    sums = dots[client] or [None] * len(public)
                    dots[client] = [
                        _plus(evaluator, s, _times(evaluator, sealed, p))
                        for s, p in zip(sums, public, strict=True)
                    ]
                except (Refused, *BAD_BYTES) as error:
                    refused[client] = f"its ciphertext cannot be used: {error}"
    kept = {client: sums for client, sums in dots.items() if client not in refused}
    for sums in kept.values():
        for product in sums:
            if product is not None:
                evaluator.transform_from_ntt_inplace(product)
    return Products(kept, squares, refused)


def _transformed(
    file: Passage, evaluator: Any, pack: Coefficients | CosineSlots, part: Integers
) -> Any:
    if not part.any():
        return None
    plain = seal.Plaintext()
    evaluator.transform_to_ntt(
        pack.reference(file, part), context(pack.lattice).first_parms_id(), plain
    )
    return plain


def _times(evaluator: Any, sealed: Any, plain: Any) -> Any:
    if plain is None:
        return None
    product = seal.Ciphertext()
    evaluator.multiply_plain(sealed, plain, product)
    return product


def _square(evaluator: Any, sealed: Any) -> Any:
    product = seal.Ciphertext()
    evaluator.square(sealed, product)
    return product


def _plus(evaluator: Any, total: Any, term: Any) -> Any:
    if total is None or term is None:
        return term if total is None else total
    evaluator.add_inplace(total, term)
    return total


def zero(public: LatticePublic) -> Any:
    """A fresh encryption of zero."""
    with passage() as file:
        fresh = seal.Ciphertext()
        _encryptor(file, public).encrypt_zero(fresh)
        return fresh


def weighted_sum(
    public: LatticePublic,
    chunks: Mapping[ClientId, Sequence[Buffer]],
    weights: Mapping[ClientId, int],
    masks: Integers,
    flood_bits: int,
) -> list[Buffer]:
    """The encrypted weighted sum, chunk by chunk: under a fresh encryption of zero, masked [chunks,
    N], its noise drowned.
    """
    lattice, summed = public.lattice, []
    evaluator = seal.Evaluator(context(lattice))
    with passage() as file:
        encryptor = _encryptor(file, public)
        constants = {
            client: plaintext(file, lattice, np.array([weight]))
            for client, weight in weights.items()
            if weight
        }
        for number, mask in enumerate(masks):
            total = seal.Ciphertext()
            encryptor.encrypt_zero(total)
            for client, constant in constants.items():
                term = load(file, lattice, chunks[client][number])
                evaluator.multiply_plain_inplace(term, constant)
                evaluator.add_inplace(total, term)
            evaluator.add_plain_inplace(total, plaintext(file, lattice, mask))
            evaluator.add_inplace(
                total, ciphertext(file, lattice, _flood(lattice, min(flood_bits, AGGREGATE_FLOOD)))
            )
            summed.append(closed(file, lattice, total))
    return list(summed)


def _flood(lattice: Lattice, bits: int) -> Words:
    """Noise uniform in +-2^bits on every coefficient of c0, as residues; nothing on c1."""
    words = keystream_words(secrets.token_bytes(32), lattice.degree, "<u8", backend()).astype(
        np.uint64, copy=False
    )
    noise = (words >> np.uint64(63 - bits)).astype(np.int64) - (1 << bits)
    primes = residues(lattice).primes
    out = np.zeros((2, len(primes), lattice.degree), dtype=np.uint64)
    for row, prime in enumerate(primes):
        out[0, row] = noise % prime
    return out


def opened(lattice: Lattice, key: bytes, chunks: Sequence[Buffer]) -> Integers:
    """What a key holder decrypts: coefficients mod t [chunks, N].

    Raises:
        Refused: no ciphertexts of this parameter set.
    """
    made, found = context(lattice), []
    with passage() as file:
        decryptor = seal.Decryptor(made, secret_key(file, lattice, key))
        for chunk in chunks:
            plain = seal.Plaintext()
            decryptor.decrypt(load(file, lattice, chunk), plain)
            found.append(coefficients(plain, lattice.degree))
    return np.array(found, dtype=np.int64).reshape(len(chunks), lattice.degree)


def values(lattice: Lattice, polynomials: Integers) -> Integers:
    """Values mod t, from polynomials' coefficients mod t [chunks, N]."""
    pack = packing(lattice)
    with passage() as file:
        return np.concatenate([pack.values(file, part) for part in polynomials])


def uniform(seed: bytes, purpose: str, n: int, t: int) -> Integers:
    """``n`` numbers uniform mod t from a seed: words of as many bits as t has, those that are not
    below it left out.
    """
    found, block = np.empty(0, dtype=np.int64), 0
    keep = np.uint32((1 << t.bit_length()) - 1)
    while len(found) < n:
        key = derive(seed, b"privfl/encrypted-cosine", purpose, block.to_bytes(4, "little"))
        words = (
            keystream_words(key, n - len(found) + 64, "<u4", backend()).astype(
                np.uint32, copy=False
            )
            & keep
        )
        found, block = np.concatenate([found, words[words < t].astype(np.int64)]), block + 1
    return found[:n]


def signs(seed: bytes, number: int, rows: int, columns: int) -> Integers:
    """Chunk ``number`` of ``rows`` random vectors with entries -1, 0, 0, 1.

    Zeros matter: with -1 and 1 alone, two coordinates of t/2 would cancel modulo t in every one of
    them.
    """
    key = derive(seed, b"privfl/encrypted-cosine", "signs", number.to_bytes(4, "little"))
    width = -(-columns // 4)
    pairs = keystream_words(key, rows * width, np.uint8, backend()).reshape(rows, width)
    bits = np.unpackbits(pairs.astype(np.uint8, copy=False), axis=1).astype(np.int64)
    drawn: Integers = (bits[:, 0::2] - bits[:, 1::2])[:, :columns]
    return drawn
