"""SEAL's objects from residues and back. SEAL is handed only what is framed here: it reads no byte
that says how long or of what kind something is unless this file wrote it.

Its serial form (version 4): a head of 16 bytes (magic number, length of the head, version,
compression, total length), the members of an object, and its words as an array with a head of its
own. What SEAL writes it compresses, and there is no way to ask it not to; so its own output, and
nothing else, is unzipped here.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from privfl.core import Buffer, ConfigError
from privfl.crypto.he.lattice.parameters import Lattice
from privfl.crypto.he.lattice.residues import SEED, Form, Residues, Words
from privfl.crypto.he.lattice.seal import Passage, context, passage
from privfl.crypto.he.libraries import seal, zstandard
from privfl.crypto.he.wire import HostileKey, Refused

_HEAD = struct.Struct("<HBBBBHQ")
_MEMBERS = struct.Struct("<4Q?QQQdQ")
_KEY = struct.Struct("<4QQd")
_BLAKE2XB = 1
"""SEAL's number of the generator that expands seeds."""


@lru_cache(maxsize=16)
def residues(lattice: Lattice, *, key: bool = False) -> Residues:
    """How polynomials of ciphertexts travel, or, with one prime more, those of keys."""
    found = seal.CoeffModulus.Create(lattice.degree, list(lattice.primes))
    primes = tuple(prime.value() for prime in found)
    return Residues(lattice.degree, primes if key else primes[:-1])


def sizes(lattice: Lattice) -> dict[Form, int]:
    """Bytes of one ciphertext, by form."""
    one = residues(lattice).size
    return {"whole": 2 * one, "seeded": one + SEED}


@lru_cache(maxsize=1)
def _version() -> tuple[int, int]:
    """Of the library that is loaded: its loaders refuse heads of others."""
    with passage() as file:
        _, _, major, minor, *_ = _HEAD.unpack_from(file.out(seal.Plaintext("1")))
    return major, minor


def framed(body: bytes) -> bytes:
    """An object's members under a head that says: not compressed."""
    return _HEAD.pack(0xA15E, _HEAD.size, *_version(), 0, 0, _HEAD.size + len(body)) + body


def array(words: npt.NDArray[Any]) -> bytes:
    """An array of 64-bit words, framed."""
    return framed(struct.pack("<Q", words.size) + words.astype("<u8", copy=False).tobytes())


def unframed(data: bytes) -> bytes:
    """The members of an object that SEAL itself has just written.

    Raises:
        ConfigError: SEAL compresses in a way that is not known here.
    """
    *_, compression, _, _ = _HEAD.unpack_from(data)
    if compression == 2:
        plain: bytes = zstandard.ZstdDecompressor().decompressobj().decompress(data[_HEAD.size :])
        return plain
    if compression == 1:
        return zlib.decompress(data[_HEAD.size :])
    if compression == 0:
        return data[_HEAD.size :]
    raise ConfigError(f"SEAL compressed in a way {compression} that privfl does not know.")


def _members(lattice: Lattice, primes: int, parms_id: list[int], *, ntt: bool) -> bytes:
    scale = 2.0**lattice.scale_bits if lattice.scheme == "ckks" else 1.0
    return _MEMBERS.pack(*parms_id, ntt, 2, lattice.degree, primes, scale, 1)


def ciphertext(file: Passage, lattice: Lattice, words: Words, *, ntt: bool | None = None) -> Any:
    """A ciphertext of a sum from its residues [2, primes, N]; ``ntt`` None: in the form that the
    scheme encrypts to.
    """
    made, form = context(lattice), lattice.scheme == "ckks" if ntt is None else ntt
    head = _members(lattice, words.shape[1], made.first_parms_id(), ntt=form)
    return file.into(seal.Ciphertext(), made, framed(head + array(words)))


def words_of(file: Passage, lattice: Lattice, item: Any) -> Words:
    """The residues [2, primes, N] of a ciphertext that SEAL holds."""
    body = unframed(file.out(item))
    primes, start = len(residues(lattice).primes), _MEMBERS.size + _HEAD.size + 8
    words = np.frombuffer(body, dtype="<u8", offset=start, count=2 * primes * lattice.degree)
    return words.reshape(2, primes, lattice.degree)


def closed(file: Passage, lattice: Lattice, item: Any) -> bytes:
    """A ciphertext that SEAL holds, as it travels."""
    return residues(lattice).packed(words_of(file, lattice, item))


def closed_seeded(file: Passage, lattice: Lattice, item: Any) -> bytes:
    """A seeded ciphertext that SEAL has made, as it travels: one polynomial, then the seed of the
    other.

    Raises:
        ConfigError: SEAL seeds another generator than the one that is known here.
    """
    code, body = residues(lattice), unframed(file.out(item))
    start, count = _MEMBERS.size + _HEAD.size + 8, len(code.primes) * lattice.degree
    first = np.frombuffer(body, dtype="<u8", offset=start, count=count)
    record = body[start + 8 * count + _HEAD.size :]
    if len(record) != 1 + SEED or record[0] != _BLAKE2XB:
        raise ConfigError("SEAL seeds a generator that privfl does not know.")
    return code.packed(first.reshape(1, -1, lattice.degree)) + record[1:]


def opened(lattice: Lattice, data: Buffer) -> Words:
    """The residues [2, primes, N] of a whole ciphertext that travelled.

    Raises:
        Refused: another length, a residue that is not below its prime, or a ciphertext that hides
            nothing.
    """
    words = residues(lattice).unpacked(data, 2)
    if not words[1].any():
        raise Refused("a ciphertext that hides nothing")
    return words


def hiding(made: list[bytes]) -> list[bytes]:
    """Ciphertexts that were just made under somebody's public key, as they travel. To send one that
    `opened` refuses would show the message, and convict who sends it instead of the key's maker.

    Raises:
        HostileKey: the second polynomial of one is zero.
    """
    if not all(any(memoryview(chunk)[len(chunk) // 2 :]) for chunk in made):
        raise HostileKey("under this public key a ciphertext hides nothing")
    return made


def _last(lattice: Lattice) -> Residues:
    """How polynomials travel of ciphertexts that are left with the first prime alone."""
    return Residues(lattice.degree, residues(lattice).primes[:1])


def closed_last(file: Passage, lattice: Lattice, item: Any) -> bytes:
    """A ciphertext that SEAL holds under the first prime alone, as it travels."""
    return _last(lattice).packed(words_under_last(file, item).reshape(2, 1, lattice.degree))


def words_under_last(file: Passage, item: Any) -> Words:
    """The words [polynomials N] of a ciphertext that SEAL holds under the first prime alone."""
    body, count = unframed(file.out(item)), item.size() * item.poly_modulus_degree()
    return np.frombuffer(body, dtype="<u8", offset=words_start() - _HEAD.size, count=count)


def opened_last(file: Passage, lattice: Lattice, data: Buffer, scale: float) -> Any:
    """SEAL's ciphertext of one that travelled under the first prime alone.

    Raises:
        Refused: another length, a residue that is not below the prime, or a ciphertext that hides
            nothing.
    """
    made, words = context(lattice), _last(lattice).unpacked(data, 2)
    if not words[1].any():
        raise Refused("a ciphertext that hides nothing")
    head = _MEMBERS.pack(*made.last_parms_id(), True, 2, lattice.degree, 1, scale, 1)
    return file.into(seal.Ciphertext(), made, framed(head + array(words)))


def expanded(file: Passage, lattice: Lattice, data: Buffer) -> Any:
    """SEAL's ciphertext of a seeded one that travelled, its second polynomial drawn from the seed.

    Raises:
        Refused: as `opened`.
    """
    made, code = context(lattice), residues(lattice)
    first = code.unpacked(data[:-SEED], 1)
    head = _members(lattice, len(code.primes), made.first_parms_id(), ntt=lattice.scheme == "ckks")
    seed = framed(bytes([_BLAKE2XB]) + bytes(data[-SEED:]))
    return file.into(seal.Ciphertext(), made, framed(head + array(first) + seed))


def load(file: Passage, lattice: Lattice, data: Buffer) -> Any:
    """SEAL's ciphertext of a whole one that travelled.

    Raises:
        Refused: as `opened`.
    """
    return ciphertext(file, lattice, opened(lattice, data))


def public_key(file: Passage, lattice: Lattice, data: Buffer) -> Any:
    """SEAL's public key of one that travelled.

    Raises:
        Refused: another length, or a residue that is not below its prime.
    """
    words = residues(lattice, key=True).unpacked(data, 2)
    body = key_head(lattice) + array(words)
    return file.into(seal.PublicKey(), context(lattice), framed(body))


def key_head(lattice: Lattice) -> bytes:
    """The members of a pair of polynomials of a key, without its words."""
    return _MEMBERS.pack(
        *context(lattice).key_parms_id(), True, 2, lattice.degree, len(lattice.primes), 1.0, 1
    )


def words_start() -> int:
    """Where the words of a framed pair of polynomials begin."""
    return _HEAD.size + _MEMBERS.size + _HEAD.size + 8


def secret_words(lattice: Lattice, data: Buffer) -> Words:
    """The residues [1, primes, N] of a secret key that travelled, in the transform that SEAL keeps.

    Raises:
        Refused: as `public_key`.
    """
    return residues(lattice, key=True).unpacked(data, 1)


def secret_key(file: Passage, lattice: Lattice, data: Buffer) -> Any:
    """SEAL's secret key of one that travelled or lay in a file.

    Raises:
        Refused: as `public_key`.
    """
    made, words = context(lattice), secret_words(lattice, data)
    head = _KEY.pack(*made.key_parms_id(), words.size, 1.0)
    return file.into(seal.SecretKey(), made, framed(head + array(words)))


def generate(lattice: Lattice) -> tuple[bytes, bytes]:
    """A fresh key pair as it travels: public, secret."""
    keys, code = seal.KeyGenerator(context(lattice)), residues(lattice, key=True)
    public, shape = seal.PublicKey(), (-1, len(code.primes), lattice.degree)
    keys.create_public_key(public)
    with passage() as file:
        pair, alone = (unframed(file.out(item)) for item in (public, keys.secret_key()))
    starts = _MEMBERS.size + _HEAD.size + 8, _KEY.size + _HEAD.size + 8
    first, second = (
        np.frombuffer(body, dtype="<u8", offset=start).reshape(shape)
        for body, start in zip((pair, alone), starts, strict=True)
    )
    return code.packed(first), code.packed(second)
