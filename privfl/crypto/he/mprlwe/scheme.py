"""The scheme of multi-party RLWE: fixed point under a joint key."""

from __future__ import annotations

from dataclasses import dataclass

from privfl.core import ConfigError, RoundPlan
from privfl.crypto.he.mprlwe.keys import JointPublic, room
from privfl.crypto.he.scheme import IntegerCode


@dataclass(frozen=True, slots=True)
class JointScheme(IntegerCode):
    """Fixed point, and the room that a round needs."""

    count: int
    smudge_bits: int

    def public(self, data: bytes) -> JointPublic:
        """Read a joint key."""
        return JointPublic.from_bytes(data, self.code.bits)

    def headroom(self, plan: RoundPlan) -> None:
        """The sum, the noise, the smudging and the truncation must stay within half a plaintext
        step.

        Raises:
            ConfigError: a sum of this cohort could overflow.
        """
        self.code.scale(plan)
        if room(plan, self.code.top, self.count, self.smudge_bits) <= 0:
            raise ConfigError(
                f"mp_rlwe: a sum of {plan.n} contributions of {self.code.bits} bits with"
                f" {self.smudge_bits} bits of smudging can overflow; lower smudge_bits or bits, or"
                " ask fewer clients."
            )
