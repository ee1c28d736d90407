"""BFV encryption with our own ring arithmetic, into the residues that SEAL's own encryption gives.

The scheme is SEAL's to the letter (Fan and Vercauteren 2012; Microsoft SEAL 4): a public-key
ciphertext is (p u + e) / q' rounded, plus round(q m / t), where p is the public key modulo q q', u
is ternary, e centred binomial of 21 and 21 bits; a symmetric one is (- a s - e + round(q m / t), a)
with a uniform modulo q. Only who multiplies differs: here complex transforms in double precision,
of halves of at most 20 bits, whose products stay below 2^33 and are exact after rounding.

A public key is taken apart as p = h q' + r, so that (p u + e) / q' = h u + (r u + e) / q', where
every number is a whole one below 2^53: nothing is approximated.

Coefficients lie in memory as in `mprlwe.ring`: 0, N/2, 1, N/2 + 1, ...
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from privfl.crypto.he.lattice import frames
from privfl.crypto.he.lattice.parameters import Lattice, plain_modulus
from privfl.crypto.he.lattice.residues import Residues, Words
from privfl.crypto.he.lattice.slots import Doubles, PlaintextSlots, coefficients, times
from privfl.crypto.he.mprlwe.ring import N, Small
from privfl.crypto.he.mprlwe.sampling import Stream
from privfl.crypto.he.wire import HostileKey, Numbers, Refused

Spectra = npt.NDArray[np.complex128]
"""Folded transforms [..., N / 2]."""
BLOCK = 8
"""Polynomials worked on at once: they stay in the cache."""
_HALF = 20
_TWIST: Spectra = np.exp(1j * math.pi / N * np.arange(N // 2))
_UNTWIST = _TWIST.conj()


def fits(lattice: Lattice) -> bool:
    """Whether the numbers of this parameter set are as short as this arithmetic takes them: so is
    the channel's default. Others are SEAL's work.
    """
    return (
        lattice.scheme == "bfv"
        and lattice.degree == N
        and lattice.primes == (2 * _HALF, 2 * _HALF)
        and lattice.plain_bits <= 24
    )


def by_public_key(lattice: Lattice, key: bytes, numbers: Numbers) -> list[bytes]:
    """Ciphertexts as they travel, under a public key as it travels.

    Raises:
        Refused: the key is none, or a number has no room.
    """
    spectra, stream = _public_spectra(lattice, key), Stream()
    code, closed = frames.residues(lattice), list[bytes]()
    for start in range(0, len(numbers), BLOCK * N):
        some = numbers[start : start + BLOCK * N]
        k = -(-len(some) // N)
        first, second = public_pair(lattice, spectra, stream.ternary(k), _errors(stream, 2 * k))
        first += message(lattice, some)
        closed += _closed(code, first, second)
    return closed


def by_secret_key(lattice: Lattice, key: bytes, numbers: Numbers) -> list[bytes]:
    """Ciphertexts as they travel, under a secret key as it travels.

    Raises:
        Refused: the key is none, or a number has no room.
        HostileKey: the key is not ternary.
    """
    secret, stream = _secret_spectrum(lattice, key), Stream()
    code, closed = frames.residues(lattice), list[bytes]()
    for start in range(0, len(numbers), BLOCK * N):
        some = numbers[start : start + BLOCK * N]
        k = -(-len(some) // N)
        uniform = _uniform(stream, k, code.primes[0])
        low, high = _halves(uniform)
        first = _products(_spectra(low), secret)
        first += _products(_spectra(high), secret) * 2.0**_HALF
        first += _errors(stream, k)
        np.negative(first, out=first)
        first += message(lattice, some)
        closed += _closed(code, first, uniform)
    return closed


def public_pair(
    lattice: Lattice, spectra: Spectra, ternary: Small, errors: Small
) -> tuple[Doubles, Doubles]:
    """Encryptions of zero, two polynomials [k, N] each within 2^52 of zero: their residues modulo q
    are the ciphertext; u [k, N], errors [2 k, N],
    those of the first polynomials before those of the second.
    """
    _, last = frames.residues(lattice, key=True).primes
    turned = _spectra(ternary.astype(np.float64))
    pair = []
    for key, noise in zip(spectra, np.split(errors, 2), strict=True):
        high, low, high_rest, low_rest = (_products(turned, part) for part in key)
        high *= 2.0**_HALF
        high += low
        high_rest *= 2.0**_HALF
        high_rest += low_rest
        high_rest += noise
        high_rest += last // 2
        high_rest /= last  # a quotient below 2^12 of numbers below 2^40 is floored exactly
        high += np.floor(high_rest, out=high_rest)
        pair.append(high)
    return pair[0], pair[1]


def message(lattice: Lattice, numbers: Numbers) -> Doubles:
    """round(q m / t) for the polynomials m [k, N] whose slots hold these numbers, modulo q.

    Raises:
        Refused: a number that the plaintext modulus has no room for.
    """
    (modulus,) = frames.residues(lattice).primes
    plain = plain_modulus(lattice.degree, lattice.plain_bits)
    largest = max(int(numbers.max()), -int(numbers.min()))
    if largest > plain // 2:
        raise Refused(f"a number of magnitude {largest} where at most {plain // 2} fits")
    values = PlaintextSlots.of(plain).coefficients(numbers)
    rest = values * (modulus % plain)
    rest += (plain + 1) // 2
    rest /= plain
    values *= modulus // plain
    values += np.floor(rest, out=rest)
    return values.reshape(-1, 2, N // 2).swapaxes(1, 2).reshape(-1, N)


@lru_cache(maxsize=4)
def _public_spectra(lattice: Lattice, key: bytes) -> Spectra:
    """Of both polynomials of a public key p = h q' + r the halves of h and of r, [2, 4, N / 2]."""
    code = frames.residues(lattice, key=True)
    first, last = code.primes
    words = code.unpacked(key, 2)
    rests = coefficients(words[:, 1], last)
    apart = coefficients(words[:, 0], first) + np.uint64(2 * first) - rests
    apart %= np.uint64(first)
    quotients = times(apart, np.uint64(pow(last, -1, first)), first)
    quotients += rests > last // 2  # a rest past the middle is one of the next multiple, negative
    parts = [
        half
        for values, prime in ((quotients, first), (rests, last))
        for half in reversed(_halves(_memory_order(_centred(values, prime))))
    ]
    return _spectra(np.stack(parts, axis=1))


def _secret_spectrum(lattice: Lattice, key: bytes) -> Spectra:
    """Of the secret key modulo the first prime, [1, N / 2]. Products with one that is not ternary
    would not be exact, and residues that are none would convict who sends them.
    """
    prime = frames.residues(lattice, key=True).primes[0]
    values = coefficients(frames.secret_words(lattice, key)[:, 0], prime)
    small = _centred(values, prime)
    if np.abs(small).max() > 1:
        raise HostileKey("a secret key whose coefficients are not all -1, 0 or 1")
    return _spectra(_memory_order(small))


def _centred(words: npt.NDArray[np.uint64], prime: int) -> Doubles:
    values = words.astype(np.float64)
    values[values > prime // 2] -= prime
    return values


def _memory_order(values: Doubles) -> Doubles:
    return values.reshape(-1, 2, N // 2).swapaxes(1, 2).reshape(values.shape)


def _halves(values: Doubles) -> tuple[Doubles, Doubles]:
    """Low, high: whole numbers within 2^19 of zero with value = low + 2^20 high."""
    high = np.rint(values * 2.0**-_HALF)
    return values - high * 2.0**_HALF, high


def _spectra(values: Doubles) -> Spectra:
    folded: Spectra = np.ascontiguousarray(values).view(np.complex128) * _TWIST
    np.fft.fft(folded, out=folded)
    return folded


def _products(left: Spectra, right: Spectra) -> Doubles:
    """The exact coefficients [k, N] of products that stay below 2^33: transforms are off by a few
    2^-52 of them.
    """
    folded = left * right
    np.fft.ifft(folded, out=folded)
    folded *= _UNTWIST
    values = folded.view(np.float64)
    return np.rint(values, out=values)


def _errors(stream: Stream, k: int) -> Small:
    """As SEAL draws them, [k, N]: the set bits of 21, less those of 21 more; deviation 3.24."""
    raw = stream.words(6 * k * N, np.uint8).reshape(2, 3, k, N)
    raw[:, 2] &= 0x1F
    counts = np.bitwise_count(raw).view(np.int8)
    errors: Small = counts[0, 0] + counts[0, 1]
    errors += counts[0, 2]
    for some in counts[1]:
        errors -= some
    return errors


def _uniform(stream: Stream, k: int, prime: int) -> Doubles:
    """Uniform modulo a prime, [k, N], by rejection."""
    mask = np.uint64((1 << prime.bit_length()) - 1)
    words = stream.words(k * N, "<u8") & mask
    while (again := np.flatnonzero(words >= prime)).size:
        words[again] = stream.words(again.size, "<u8") & mask
    return words.astype(np.float64).reshape(k, N)


def _closed(code: Residues, first: Doubles, second: Doubles) -> list[bytes]:
    """Pairs of polynomials [k, N] as they travel."""
    (prime,) = code.primes
    words: Words = np.empty((2, len(first), 2, N // 2), dtype=np.uint64)
    for place, values in enumerate((first, second)):
        quotient = values / prime
        np.floor(quotient, out=quotient)
        quotient *= prime
        rest = np.subtract(values, quotient, out=quotient)  # exact: both are below 2^53
        words[place] = rest.reshape(-1, N // 2, 2).swapaxes(1, 2)
    whole = words.reshape(2, len(first), 1, N)
    return [code.packed(whole[:, i]) for i in range(len(first))]
