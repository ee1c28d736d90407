"""Masks: AES-128-CTR keystreams added to vectors over the integers mod 2^16 or 2^32, in place,
block by block.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from privfl.crypto.primitives.backend import Backend, Keystream

Words: TypeAlias = npt.NDArray[np.uint16] | npt.NDArray[np.uint32] | npt.NDArray[np.uint64]
_BLOCK = 1 << 17
"""Bytes of keystream at a time: a block of the vector and one of noise stay in the second-level
cache together.
"""
_TAIL = 16
_COUNTER = (2).to_bytes(4, "big")


def _split(seed: bytes) -> tuple[bytes, bytes]:
    """A 32-byte seed is a key and a secret nonce (the last 4 bytes are spare): no table built
    against one nonce serves two seeds.

    The counter begins where AES-GCM's does, because libraries make that keystream fastest; 64 GiB
    later it would leave its 32 bits.
    """
    if len(seed) != 32:
        raise ValueError(f"a mask seed has 32 bytes, and this has {len(seed)}.")
    return seed[:16], seed[16:28] + _COUNTER


def _open(seed: bytes, library: Backend) -> Keystream:
    return library.keystream(*_split(seed))


def keystream(key: bytes, library: Backend) -> Keystream:
    """AES-CTR under a key [16 or 32 bytes] that serves nothing else, from the counter that AES-GCM
    begins with.
    """
    return library.keystream(key, bytes(12) + _COUNTER)


def next_words(stream: Keystream, n: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The next ``n`` words of a keystream."""
    kind = np.dtype(dtype)
    raw = np.empty(n * kind.itemsize + _TAIL, dtype=np.uint8)
    stream.fill(raw, n * kind.itemsize)
    return raw[:-_TAIL].view(kind)


def mask(values: Words, seeds: Iterable[tuple[bytes, int]], library: Backend) -> None:
    """Add (sign +1) or subtract (sign -1) the expansion of every 32-byte seed to ``values``, in
    place, modulo the word.

    >>> from privfl.crypto.primitives import backend
    >>> x = np.arange(5, dtype=np.uint32)
    >>> mask(x, [(b"k" * 32, 1)], backend()); mask(x, [(b"k" * 32, -1)], backend()); x
    array([0, 1, 2, 3, 4], dtype=uint32)
    """
    if 0 < values.nbytes <= _BLOCK:
        for seed, sign in seeds:
            key, counter = _split(seed)
            raw = library.keystream_of(key, counter, values.nbytes)
            noise = np.frombuffer(raw, dtype=values.dtype)
            (np.add if sign > 0 else np.subtract)(values, noise, out=values)
        return
    streams = [(_open(seed, library), np.add if sign > 0 else np.subtract) for seed, sign in seeds]
    words = _BLOCK // values.itemsize
    block = np.empty(_BLOCK + _TAIL, dtype=np.uint8)
    noise = block[:-_TAIL].view(values.dtype)
    for start in range(0, len(values), words):
        part = values[start : start + words]
        for stream, apply in streams:
            stream.fill(block, part.nbytes)
            apply(part, noise[: len(part)], out=part)


def keystream_words(
    seed: bytes, n: int, dtype: npt.DTypeLike, library: Backend
) -> npt.NDArray[np.generic]:
    """The first ``n`` words of a seed's expansion."""
    return next_words(_open(seed, library), n, dtype)


def fresh_words(library: Backend) -> Callable[[int], npt.NDArray[np.uint32]]:
    """Random 32-bit words, so many at each call: a keystream under a key from the operating system,
    ten times as fast as its own.
    """
    stream = _open(secrets.token_bytes(32), library)

    def draw(n: int) -> npt.NDArray[np.uint32]:
        return next_words(stream, n, "<u4")

    return draw
