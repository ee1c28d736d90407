"""A decryptor's lie under a split Paillier key: its part would move the sum by a constant of its
choice, and its proof does not fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from privfl.core import Cast, KeepsSecrets, Liars, RoundPlan
from privfl.crypto.he.decryptor import DecryptorRound
from privfl.crypto.he.libraries import gmpy2
from privfl.crypto.he.lies import unexpected
from privfl.crypto.he.paillier.threshold import PaillierShare, lagrange
from privfl.crypto.he.wire import Parts

CONSTANT = 20_000
"""What is added to the first value of the sum, in steps of the fixed point."""


@dataclass(repr=False)
class MovingShare(KeepsSecrets):
    """The share of the first of the holders that open a sum: it multiplies its part of the first
    ciphertext by the power of 1 + n that ends as a constant in the plaintext.
    """

    honest: PaillierShare
    threshold: int

    def to_bytes(self) -> bytes:
        """As the honest one."""
        return self.honest.to_bytes()

    def partial(self, ciphertext: Parts, plan: RoundPlan) -> Parts:
        """The honest part, moved. Parts are raised to 2 lambda and their product's logarithm is
        divided by 4 holders!^2, so the power is the constant times that over 2 lambda.
        """
        head, body, proof = self.honest.partial(ciphertext, plan)
        public, scale = self.honest.public, math.factorial(self.honest.holders)
        weight = 2 * lagrange(self.honest.index, range(1, self.threshold + 1), scale)
        power = CONSTANT * 4 * scale * scale * gmpy2.invert(weight, public.n) % public.n
        first = int.from_bytes(bytes(body[: public.width]), "little")
        moved = first * (1 + power * public.n) % public.n2
        rest = bytes(body[public.width :])
        return head, int(moved).to_bytes(public.width, "little") + rest, proof


def moves_the_sum() -> Liars:
    """The first decryptor with a `MovingShare`."""

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        for party in honest.values():
            if not isinstance(party, DecryptorRound) or not isinstance(
                party.ring.share, PaillierShare
            ):
                raise unexpected(party, "decryptor with a share")
            threshold = party.ring.arrangement.threshold
            party.ring.share = MovingShare(party.ring.share, threshold)
        return honest

    return Liars(enter=enter)
