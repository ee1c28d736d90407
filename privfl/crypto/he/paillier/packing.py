"""Many fixed-point values in one Paillier plaintext: whole-byte slots, offset so that none is
negative, wide enough for every sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privfl.crypto.he.wire import Numbers


@dataclass(frozen=True, slots=True)
class Slots:
    """Slots of ``width`` bytes, ``count`` of them in a plaintext; values of magnitude ``top`` are
    shifted to 0..2 top.

    A sum of ``clients`` contributions stays inside its slot, so no carry ever reaches the next one.

    >>> slots = Slots.of(top=32767, clients=100, plaintext_bits=3071)
    >>> slots.width, slots.count
    (3, 127)
    >>> slots.unpack(slots.pack(np.array([5, -7])), length=2, contributions=1)
    array([ 5, -7])
    """

    width: int
    count: int
    top: int

    @classmethod
    def of(cls, top: int, clients: int, plaintext_bits: int) -> Slots:
        """The narrowest slots with room for a sum of ``clients``; none fit where ``count`` is 0."""
        width = max(1, -(-(2 * top * clients).bit_length() // 8))
        return cls(width, plaintext_bits // 8 // width, top)

    def plaintexts(self, length: int) -> int:
        """How many plaintexts hold ``length`` values."""
        return -(-length // self.count)

    def pack(self, integers: Numbers) -> list[int]:
        """Signed integers [m] as plaintexts."""
        offset = (integers + self.top).astype("<u8").view(np.uint8).reshape(-1, 8)[:, : self.width]
        data, step = offset.tobytes(), self.count * self.width
        return [int.from_bytes(data[i : i + step], "little") for i in range(0, len(data), step)]

    def unpack(self, plaintexts: list[int], length: int, contributions: int) -> Numbers:
        """The signed sums [length] of ``contributions`` packed vectors.

        Raises:
            OverflowError: a plaintext is longer than its slots, so it is no such sum.
        """
        step = self.count * self.width
        last = (length - (len(plaintexts) - 1) * self.count) * self.width
        data = b"".join(int(m).to_bytes(step, "little") for m in plaintexts[:-1]) + int(
            plaintexts[-1]
        ).to_bytes(last, "little")
        wide = np.zeros((length, 8), dtype=np.uint8)
        wide[:, : self.width] = np.frombuffer(data, dtype=np.uint8).reshape(length, self.width)
        integers: Numbers = wide.view("<u8").reshape(-1).astype(np.int64) - contributions * self.top
        return integers
