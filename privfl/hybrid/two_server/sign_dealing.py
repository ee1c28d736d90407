"""What the dealer hands out where rows of signs are fixed: shares of the bits that hide them, as
numbers and authenticated, and what their rule takes beyond.

A row of signs is x = e ^ a0 ^ a1, and both servers know e. With a = a0 ^ a1, which the dealer
knows, a function that is linear in the bits of x is linear in those of a, row by row with other
coefficients: so tags of columns do not fit (`fixed_dealing`), and every bit of a is authenticated.
Of each the dealer makes numbers R0 + R1 = a modulo 2^32, as without proofs, and shares of alpha (R0
+ R1) modulo 2^64 for the first key alpha, where R0 + R1 is the sum of two integers below 2^32. Sums
of the R_b with coefficients 1 and -1 are then shares modulo 2^64, whose low 32 bits are the sum of
a; a server that adds an error to one, not 0 modulo 2^k, must guess 65 - k bits of alpha times it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privfl.core import Buffer, KeepsSecrets
from privfl.crypto.mpc.words import U64
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.bits import BitSeeds, Flips, opened_bits
from privfl.hybrid.two_server.fixed_masks import Extent, Own
from privfl.hybrid.two_server.fixed_stock import Joint, Masks, Stocked, deal, receive
from privfl.hybrid.two_server.parameters import TwoServerParameters


@dataclass(repr=False)
class SignDealing(KeepsSecrets):
    """The dealer's act: from both servers' seeds and the clients', what each server gets."""

    now: TwoServerParameters
    extent: Extent
    first: bytes
    second: bytes
    seeds: tuple[list[bytes], list[bytes]]

    @property
    def rooms(self) -> tuple[None, None]:
        """None: nothing long is computed where it is sent from."""
        return None, None

    def letters(self) -> tuple[list[Buffer], list[Buffer]]:
        """What goes to the first server and to the second, piece by piece."""
        now, extent, n = self.now, self.extent, self.extent.n
        one, two = Own(self.first, now, extent), Own(self.second, now, extent)
        keys, weights = one.keys + two.keys, one.weights() + two.weights()
        joint = Joint((self.first, self.second), now)
        nobody: U64 = np.zeros((0, 0), dtype=np.uint64)
        hidden = np.uint64(0) - joint.words("distances", n)
        masks = Masks(hidden, np.zeros(n, dtype=np.uint64), nobody, weights)
        both, theirs = deal(extent.stock, now, masks, keys, one.wide_key + two.wide_key, joint)
        return both, [*self._flips(keys[:1], weights), *both, *theirs]

    def _flips(self, key: U64, weights: U64) -> list[Buffer]:
        """The second server's numbers, row by row, then their MACs, then, where weights stay
        shared, the bits times the dealt weights.
        """
        now, n, own = self.now, self.extent.n, Flips(self.first)
        numbers, macs, scaled = list[Buffer](), list[Buffer](), list[Buffer]()
        masks = zip(*(BitSeeds(seeds).packed(now) for seeds in self.seeds), strict=True)
        bits = (opened_bits(one ^ two, now.plan.d).astype(np.uint32) for one, two in masks)
        more = own.rows(now, n, scaled=True) if len(weights) else None
        rows = zip(bits, own.rows(now, n), own.authenticated(now, n), strict=True)
        for i, (flips, mine, mac) in enumerate(rows):
            rest = flips - mine
            whole = mine.astype(np.uint64) + rest
            numbers.append(rest.astype("<u4", copy=False).tobytes())
            macs.append((key * whole - mac).astype("<u8", copy=False).tobytes())
            if more is not None:
                weighed = flips * weights[i].astype(np.uint32) - next(more)
                scaled.append(weighed.astype("<u4", copy=False).tobytes())
        return [*numbers, *macs, *scaled]


def received_signs(own: Own, first: bool, raw: memoryview) -> tuple[Flips, Stocked]:
    """One server's part, from its seed and the dealer's letter.

    Raises:
        Malformed: the letter is of another length.
    """
    now, extent = own.now, own.extent
    flips, values = Flips(own.seed), extent.n * now.plan.d
    if not first:
        parts = [("<u4", 4 * values), ("<u8", 8 * values)]
        parts += [("<u4", 4 * values)] * extent.hidden
        if len(raw) < sum(size for _, size in parts):
            raise Malformed("it is cut off")
        found = []
        for kind, size in parts:
            words = np.frombuffer(raw[:size], dtype=kind)
            found.append(words.reshape(extent.n, now.plan.d))
            raw = raw[size:]
        macs = found[1].astype(np.uint64, copy=False)
        flips = Flips(own.seed, found[0], found[2] if extent.hidden else None, macs)
    return flips, receive(extent.stock, now, extent.n, own.seed, first, raw)
