"""From the sum of masked vectors to the sum: reconstruct what the shares give, and take every mask
off that did not cancel.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from privfl.core import KeepsSecrets, PartyId
from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives import Backend, Words, mask
from privfl.crypto.secagg import keys
from privfl.crypto.secagg.parameters import SecAggParameters
from privfl.crypto.sharing import shamir
from privfl.crypto.sharing.decoding import decoded, value

Shares = dict[int, dict[int, int]]
"""Owner's position -> holder's point -> value."""


@dataclass(repr=False)
class Unmasking(KeepsSecrets):
    """What the server knows at the end of a round: public keys and commitments by position, who
    shared with whom, shares by owner.
    """

    parameters: SecAggParameters
    publics: Mapping[int, bytes]
    commitments: Mapping[int, bytes]
    partners: Callable[[int], Collection[int]]
    name: Callable[[int], PartyId]
    seeds: Shares = field(default_factory=dict)
    secrets: Shares = field(default_factory=dict)
    byzantine: dict[int, str] = field(default_factory=dict)
    _weights: dict[tuple[int, ...], list[int]] = field(default_factory=dict)

    def open(
        self, total: Words, survivors: Collection[int], gone: Collection[int], library: Backend
    ) -> None:
        """Take the survivors' own masks and the masks that they share with the dropped clients off
        ``total``, in place.

        Raises:
            StageAbort: fewer than t shares of somebody's secret, or shares that give another secret
                than the one committed to.
        """
        tag = self.parameters.tag
        seeds = [(keys.self_seed(self.seed(owner), tag), -1) for owner in sorted(survivors)]
        alive = frozenset(survivors)
        for owner in sorted(gone):
            left = alive.intersection(self.partners(owner))
            if left:
                agree = library.agreement(self.secret(owner, library))
                for other in sorted(left):
                    seed = keys.pair_seed(agree(self.publics[other][-32:]), tag, owner, other)
                    seeds.append((seed, -keys.pair_sign(other, owner)))
        mask(total, seeds, library)

    def seed(self, owner: int) -> bytes:
        """A survivor's mask seed, checked against its commitment."""
        bound = self.commitments[owner]
        return self._reconstruct(
            owner,
            self.seeds.get(owner, {}),
            "mask seed",
            lambda b: hmac.compare_digest(keys.commitment(self.parameters.tag, owner, b), bound),
        )

    def secret(self, owner: int, library: Backend) -> bytes:
        """A dropped client's secret key, checked against its public key."""
        public = self.publics[owner][-32:]
        return self._reconstruct(
            owner,
            self.secrets.get(owner, {}),
            "mask key",
            lambda s: hmac.compare_digest(library.x25519_public(s), public),
        )

    def _reconstruct(
        self, owner: int, shares: Mapping[int, int], what: str, right: Callable[[bytes], bool]
    ) -> bytes:
        """The secret that the shares give. Every one of them is as its owner dealt it: where the
        first t give another secret than the one committed to, the owner lied, and its secret is the
        polynomial's that all but (m - t) / 2 of the m shares lie on.
        """
        t = self.parameters.degree.t
        if len(shares) < t:
            raise StageAbort(
                "unmask",
                f"{len(shares)} shares of the {what} of {self.name(owner)} came, and {t} open it",
                who=(self.name(owner),),
            )
        some = tuple(sorted(shares)[:t])
        if some not in self._weights:
            self._weights[some] = shamir.weights_at_zero(some)
        secret = shamir.to_bytes(shamir.combine({x: shares[x] for x in some}, self._weights[some]))
        if right(secret):
            return secret
        polynomial = decoded(shares, t) or []
        secret = shamir.to_bytes(polynomial[0] if polynomial else 0)
        if right(secret):
            wrong = [x for x in sorted(shares) if value(polynomial, x) != shares[x]]
            where = "is in" if owner in self.seeds else "is not in"
            self.byzantine[owner] = (
                f"it dealt wrong shares of its {what} to {len(wrong)} of its holders; its"
                f" contribution {where} the sum"
            )
            return secret
        raise StageAbort(
            "unmask",
            f"the shares of the {what} of {self.name(owner)} do not give it back",
            self.name(owner),
        )
