"""Words of a ring of 32, 40 or 64 bits, held in 64: on the wire, as signed integers, and as streams
from seeds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from privfl.core import Buffer
from privfl.crypto.primitives import Backend
from privfl.crypto.primitives.backend import Keystream
from privfl.crypto.primitives.fields import Malformed

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
_TAIL = 16


def ring_mask(ring: int) -> np.uint64:
    """The bits of the ring.

    >>> hex(ring_mask(40))
    '0xffffffffff'
    """
    return np.uint64((1 << ring) - 1)


def packed_size(ring: int, length: int) -> int:
    """Bytes of so many words on the wire."""
    return ring // 8 * length


def pack(words: U64, ring: int) -> bytes:
    """Little-endian: the low 32 bits of all words, then, in a ring of 40, the upper 8 of all.

    >>> pack(np.array([2**40 - 1, 1], dtype=np.uint64), 40).hex()
    'ffffffff01000000ff00'
    """
    if ring == 64:
        return words.astype("<u8", copy=False).tobytes()
    low = words.astype("<u4").tobytes()
    return low if ring == 32 else low + (words >> np.uint64(32)).astype(np.uint8).tobytes()


def pack_into(out: npt.NDArray[np.uint8], ring: int, start: int, words: U64) -> None:
    """Write words from the ``start`` on of a vector that is packed in ``out``, as `pack` packs all.

    >>> whole = np.empty(10, dtype=np.uint8)
    >>> for at, word in enumerate([2**40 - 1, 1]):
    ...     pack_into(whole, 40, at, np.array([word], dtype=np.uint64))
    >>> whole.tobytes().hex()
    'ffffffff01000000ff00'
    """
    length, stop = len(out) * 8 // ring, start + len(words)
    if ring == 64:
        out.view("<u8")[start:stop] = words
        return
    out[: 4 * length].view("<u4")[start:stop] = words
    if ring == 40:
        out[4 * length :][start:stop] = words >> np.uint64(32)


def unpack(body: Buffer, ring: int, length: int, out: U64 | None = None) -> U64:
    """What `pack` packed.

    Raises:
        Malformed: not exactly ``length`` words.
    """
    if len(body) != packed_size(ring, length):
        raise Malformed(
            f"a vector of {len(body)} bytes where {packed_size(ring, length)} were asked for"
        )
    words = np.empty(length, dtype=np.uint64) if out is None else out
    if ring == 40:
        np.copyto(words, np.frombuffer(body, dtype=np.uint8, offset=4 * length))
        np.left_shift(words, np.uint64(32), out=words)
        np.bitwise_or(words, np.frombuffer(body, dtype="<u4", count=length), out=words)
    else:
        np.copyto(words, np.frombuffer(body, dtype=f"<u{ring // 8}"))
    return words


def signed(words: U64, ring: int) -> I64:
    """Ring elements as integers around zero; bits above the ring are ignored.

    >>> signed(np.array([2**40 - 1, 5], dtype=np.uint64), 40).tolist()
    [-1, 5]
    """
    up = np.uint64(64 - ring)
    lifted: I64 = (words << up).view(np.int64) >> np.int64(64 - ring)
    return lifted


def stream(seed: bytes, library: Backend, skip: int = 0) -> Keystream:
    """The keystream that a 32-byte seed stands for: AES-128-CTR under its first 16 bytes, from a
    nonce of its next 12; without its first ``skip`` bytes, a multiple of 16.

    >>> from privfl.crypto.primitives import backend
    >>> whole, rest = draw(stream(bytes(32), backend()), 6), stream(bytes(32), backend(), 16)
    >>> whole[2:].tolist() == draw(rest, 4).tolist()
    True
    """
    counter = 2 + skip // 16
    return library.keystream(seed[:16], seed[16:28] + counter.to_bytes(4, "big"))


def stream_from(seed: bytes, library: Backend, word: int) -> Keystream:
    """The keystream of a seed from one of its words on.

    >>> from privfl.crypto.primitives import backend
    >>> draw(stream_from(bytes(32), backend(), 3), 2).tolist() == (
    ...     draw(stream(bytes(32), backend()), 5)[3:].tolist())
    True
    """
    source = stream(seed, library, 8 * (word - word % 2))
    draw(source, word % 2)
    return source


def draw(source: Keystream, length: int) -> U64:
    """The stream's next words."""
    raw = np.empty(8 * length + _TAIL, dtype=np.uint8)
    source.fill(raw, 8 * length)
    return raw[: 8 * length].view("<u8").astype(np.uint64, copy=False)


def expand(seed: bytes, length: int, library: Backend) -> U64:
    """The first words of a seed's stream."""
    return draw(stream(seed, library), length)
