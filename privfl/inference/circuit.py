"""The shape of an encrypted evaluation, which client and owner agree on: all of it follows from
the widths of a network's stages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from privfl.core import ConfigError, require
from privfl.crypto.he.lattice import Lattice

HEADROOM = 11
"""Bits of the last prime over the scale: values and logits up to 2^10 fit, with their sign."""
LARGEST = 2.0 ** (HEADROOM - 2)
"""The largest input or logit on the calibration samples: a factor 2 is left."""
HELD = 2 * LARGEST
"""The largest input or logit that an answer holds."""
_BUDGETS = {8192: 218, 16384: 438}
"""Bits of the modulus at 128-bit security (Albrecht et al. 2018, table 1), by ring degree."""
_MOST_SCALE, _LEAST_SCALE = 40, 25


def _padded(width: int) -> int:
    return 1 << (width - 1).bit_length()


@dataclass(frozen=True)
class PackedMap:
    """One affine map on packed values: vectors repeat themselves with period ``period``, the
    outputs with period ``rows``, both powers of two.

    ``baby`` and ``giant`` steps share the ``rows`` diagonals among them (Halevi, Shoup 2018,
    section 4.1), and outputs are folded from ``period`` to ``rows`` (Juvekar et al. 2018, section
    3.3, their hybrid). At least ``spare`` of the outputs' slots are zero.
    """

    inputs: int
    outputs: int
    spare: int = 0

    @property
    def rows(self) -> int:
        """The outputs' period."""
        return _padded(self.outputs + self.spare)

    @property
    def period(self) -> int:
        """The inputs' period, at least `rows`."""
        return max(_padded(self.inputs), self.rows)

    @property
    def baby(self) -> int:
        """How many rotations of the input are made."""
        return 1 << (self.rows.bit_length() // 2)

    @property
    def giant(self) -> int:
        """How many sums of products are rotated."""
        return self.rows // self.baby

    @property
    def folds(self) -> tuple[int, ...]:
        """Rotations that add up a period's parts."""
        found, step = [], self.rows
        while step < self.period:
            found.append(step)
            step *= 2
        return tuple(found)

    @property
    def rotations(self) -> frozenset[int]:
        """All steps that this stage rotates by."""
        babies = range(1, self.baby)
        giants = (self.baby * k for k in range(1, self.giant))
        return frozenset((*babies, *giants, *self.folds))


@dataclass(frozen=True)
class InferenceCircuit:
    """What a network's encrypted evaluation looks like from outside: the number of its inputs, then
    of each stage's outputs. It is public, and it is all that a client learns of a network beside
    its answers.

    Raises:
        ConfigError: no stage, a width below 1, or one that no ring holds.

    >>> circuit = InferenceCircuit((784, 256, 64, 10))
    >>> circuit.depth, circuit.lattice.degree, circuit.lattice.scale_bits, len(circuit.rotations)
    (5, 8192, 28, 35)
    """

    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.widths) < 2:
            raise ConfigError(f"widths: {self.widths} names no inputs and outputs.")
        for width in self.widths:
            require.at_least(1, width=width)
        self.lattice  # noqa: B018  refuses what no ring holds

    @property
    def stages(self) -> tuple[PackedMap, ...]:
        """The affine maps. The last leaves a slot that is zero unless an answer overflowed."""
        *before, last = zip(self.widths, self.widths[1:], strict=False)
        return (*(PackedMap(i, o) for i, o in before), PackedMap(*last, spare=1))

    @property
    def depth(self) -> int:
        """Multiplications one after the other: an affine map is one, and so is a square."""
        return 2 * len(self.stages) - 1

    @cached_property
    def lattice(self) -> Lattice:
        """The smallest ring with a prime for each multiplication, and the scale that it leaves.

        The last prime holds the answer at its scale with `HEADROOM` bits over it; the special one
        is as long.
        """
        needed = max(stage.period for stage in self.stages)
        for degree, budget in _BUDGETS.items():
            scale = min(_MOST_SCALE, (budget - 2 * HEADROOM) // (self.depth + 2))
            if needed <= degree // 2 and scale >= _LEAST_SCALE:
                last = scale + HEADROOM
                primes = (last, *[scale] * self.depth, last)
                return Lattice("ckks", degree, primes, scale_bits=scale)
        raise ConfigError(
            f"widths: {self.widths} is too deep or too wide for encrypted evaluation: at most"
            f" {max(_BUDGETS) // 2} values a stage (one less of the last), and about {_deepest()}"
            " multiplications."
        )

    @property
    def rotations(self) -> Sequence[int]:
        """All steps that any stage rotates by, in order."""
        return sorted(frozenset().union(*(stage.rotations for stage in self.stages)))

    @property
    def digest(self) -> bytes:
        """16 bytes that name it in every message."""
        text = ",".join(map(str, self.widths)).encode()
        return hashlib.sha256(b"privfl/inference/circuit/2\x00" + text).digest()[:16]


def _deepest() -> int:
    return (max(_BUDGETS.values()) - 2 * HEADROOM) // _LEAST_SCALE - 2
