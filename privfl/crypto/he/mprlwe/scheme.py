"""The scheme of multi-party RLWE: fixed point under a joint key."""

from __future__ import annotations

import math
from dataclasses import dataclass

from privfl.core import ConfigError, RoundPlan
from privfl.crypto.he.mprlwe.keys import JointPublic, room, smudging_distance
from privfl.crypto.he.scheme import IntegerCode

FAR = 2.0**-40
"""The largest statistical distance that a key's releases may have altogether."""


@dataclass(frozen=True, slots=True)
class JointScheme(IntegerCode):
    """Fixed point, and the room that a round needs."""

    count: int
    smudge_bits: int
    releases: int
    shows: int
    """By how many holders a piece of the key is answered for in a round, at most."""

    def public(self, data: bytes) -> JointPublic:
        """Read a joint key."""
        return JointPublic.from_bytes(data, self.code.bits)

    def headroom(self, plan: RoundPlan) -> None:
        """The sum, the noise, the smudging and the truncation must stay within half a plaintext
        step.

        Raises:
            ConfigError: a sum of this cohort could overflow, or smudging hides the key over all
                releases to less than 2^-40.
        """
        self.code.scale(plan)
        if room(plan, self.code.top, self.count, self.smudge_bits) <= 0:
            raise ConfigError(
                f"mp_rlwe: a sum of {plan.n} contributions of {self.code.bits} bits with"
                f" {self.smudge_bits} bits of smudging can overflow; lower smudge_bits or bits, or"
                " ask fewer clients."
            )
        distance = smudging_distance(plan, self.count, self.smudge_bits, self.releases, self.shows)
        if distance > FAR:
            most = int(self.releases * (FAR / distance) ** 2)
            raise ConfigError(
                f"mp_rlwe: {self.smudge_bits} bits of smudging hide the key over {self.releases}"
                f" releases of {plan.d} values of {plan.n} clients to 2^{math.log2(distance):.1f},"
                f" and 2^-40 is wanted: set releases to {most} or fewer, or raise smudge_bits."
            )
