"""A client: it sends the direction of its update, encrypted and signed, and nothing else."""

from __future__ import annotations

import numpy as np

from privfl.core import Abort, Bounded, KeepsSecrets, Mail, RoundPlan
from privfl.crypto.he.wire import HostileKey, SignedMessage, pack
from privfl.hybrid.encrypted_cosine.keys import KEY_HOLDER, Ring
from privfl.hybrid.encrypted_cosine.mail import CIPHERTEXT
from privfl.hybrid.encrypted_cosine.parameters import unit_vector
from privfl.hybrid.encrypted_cosine.products import encrypted


class CosineClientRound(KeepsSecrets):
    """Scale to the common length, round, encrypt, sign, send. A zero update stays zero and is never
    trusted.
    """

    def __init__(self, ring: Ring, plan: RoundPlan, update: Bounded) -> None:
        self.ring, self.plan, self.update = ring, plan, update

    def step(self, mail: Mail) -> Mail:
        """The signed ciphertexts, at the start."""
        if mail:
            return {}
        ring, plan = self.ring, self.plan
        public = ring.key()
        values = self.update.delta.detach().cpu().numpy().astype(np.float64)
        if values.shape != (plan.d,) or not np.isfinite(values).all():
            raise Abort(
                f"{ring.who} has no finite update of {plan.d} values to send", blamed=ring.who
            )
        try:
            chunks = encrypted(public, unit_vector(values, ring.setting.unit))
        except HostileKey as refused:
            raise Abort(
                f"{ring.who} encrypts nothing under the key that it was sent: {refused}",
                blamed=KEY_HOLDER,
            ) from refused
        return {
            "server": (
                SignedMessage.signed(
                    ring.identity, CIPHERTEXT, ring.topic(plan), ring.who, (pack(chunks),)
                ).to_bytes()
            )
        }
