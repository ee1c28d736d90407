"""How ciphertexts and keys of the lattice schemes travel: residues of fixed width, little-endian,
as many bytes a residue as its prime has (5 for a prime of 40 bits), under a head of our own.

A length is exact and every residue is below its prime, or the bytes are refused before anything
else looks at them. Nothing in them says how long something is, so nothing can lie about it, and
they do not hang on a version of SEAL.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from privfl.core import Buffer
from privfl.crypto.he.wire import Parts, Refused

Words: TypeAlias = npt.NDArray[np.uint64]
"""Residues [polynomials, primes, N]."""
Form: TypeAlias = Literal["whole", "seeded"]
SEED = 64
"""Bytes of the seed from which the second polynomial of a seeded ciphertext is drawn."""
_HEAD = struct.Struct("<4sBBH")
_MAGIC, _VERSION = b"PFLR", 1
_FORMS: tuple[Form, ...] = ("whole", "seeded")


@dataclass(frozen=True, slots=True)
class Residues:
    r"""Polynomials of degree below ``degree`` modulo each of ``primes``, as bytes.

    >>> code = Residues(degree=2, primes=(257,))
    >>> code.packed(np.array([[[1, 256]]], dtype=np.uint64)).hex()
    '01000001'
    >>> code.unpacked(b"\x01\x00\x01\x01", polynomials=1)
    Traceback (most recent call last):
        ...
    privfl.crypto.he.wire.Refused: a residue that is not below its prime
    """

    degree: int
    primes: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of one polynomial."""
        return self.degree * sum(map(_width, self.primes))

    def packed(self, words: Words) -> bytes:
        """Polynomials [polynomials, primes, N], one after the other."""
        return b"".join(
            _narrowed(words[i, j], _width(prime))
            for i in range(len(words))
            for j, prime in enumerate(self.primes)
        )

    def unpacked(self, data: Buffer, polynomials: int) -> Words:
        """Polynomials [polynomials, primes, N].

        Raises:
            Refused: another length, or a residue that is not below its prime.
        """
        if len(data) != polynomials * self.size:
            raise Refused(f"{len(data)} bytes where {polynomials * self.size} were due")
        raw, start = np.frombuffer(data, dtype=np.uint8), 0
        words = np.empty((polynomials, len(self.primes), self.degree), dtype=np.uint64)
        for i in range(polynomials):
            for j, prime in enumerate(self.primes):
                width = _width(prime)
                end = start + self.degree * width
                _widened(raw[start:end], width, words[i, j])
                start = end
                if words[i, j].max() >= prime:
                    raise Refused("a residue that is not below its prime")
        return words


def _width(prime: int) -> int:
    return -(-prime.bit_length() // 8)


@lru_cache(maxsize=8)
def _pieces(width: int) -> np.dtype[np.void]:
    """A number of so many bytes as words of 4, 2 and 1 of them, or one of 8: to move these is
    faster than to move bytes. Each is named by where it begins.
    """
    starts, sizes = list[int](), list[int]()
    for size in (8, 4, 2, 1):
        if width - sum(sizes) >= size:
            starts.append(sum(sizes))
            sizes.append(size)
    return np.dtype(
        {
            "names": [str(start) for start in starts],
            "formats": [f"<u{size}" for size in sizes],
            "offsets": starts,
            "itemsize": width,
        }
    )


def _narrowed(words: Words, width: int) -> bytes:
    wide = words.astype("<u8", copy=False)
    out = np.empty(len(wide), dtype=_pieces(width))
    for name in out.dtype.names or ():
        out[name] = wide >> np.uint64(8 * int(name))
    return out.tobytes()


def _widened(raw: npt.NDArray[np.uint8], width: int, words: Words) -> None:
    narrow = raw.view(_pieces(width))
    first, *others = reversed(narrow.dtype.names or ())
    np.left_shift(narrow[first], 8 * int(first), out=words, dtype=np.uint64)
    for name in others:
        words |= narrow[name].astype(np.uint64) << np.uint64(8 * int(name))


def body_of(form: Form, chunks: Sequence[Buffer]) -> bytes:
    """A contribution's ciphertexts of one form, under one head."""
    return b"".join([_HEAD.pack(_MAGIC, _VERSION, _FORMS.index(form), 0), *chunks])


def chunks_of(
    ciphertext: Parts, sizes: dict[Form, int], count: int
) -> tuple[Form, list[memoryview]]:
    """The ``count`` ciphertexts of a contribution, and which form they have; ``sizes``: the bytes
    of one, by form.

    Raises:
        Refused: no head of this version, or another length.
    """
    view = memoryview(ciphertext[0]).cast("B") if len(ciphertext) == 1 else memoryview(b"")
    if len(view) < _HEAD.size:
        raise Refused("not a lattice ciphertext: cut short")
    magic, version, number, rest = _HEAD.unpack_from(view)
    if (magic, version, rest) != (_MAGIC, _VERSION, 0) or number >= len(_FORMS):
        raise Refused("not a lattice ciphertext of this version")
    form = _FORMS[number]
    size, view = sizes[form], view[_HEAD.size :]
    if len(view) != count * size:
        raise Refused(f"{len(view)} bytes where {count} ciphertexts of {size} were due")
    return form, [view[i : i + size] for i in range(0, len(view), size)]
