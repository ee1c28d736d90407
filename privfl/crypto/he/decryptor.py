"""Whoever holds a key, or a share of one, in one round: it opens one sum."""

from __future__ import annotations

from privfl.core import Abort, KeepsSecrets, Mail, RoundPlan
from privfl.crypto.he.decryption_policy import admit, admit_sum, answer, once, requested
from privfl.crypto.he.keyring import Keyring
from privfl.crypto.he.wire import Parts, Refused, pack_numbers


def opened_sum(ring: Keyring, parts: Parts, plan: RoundPlan, count: int) -> bytes:
    """The sum of so many ciphertexts, opened by a party that holds the whole key.

    Raises:
        Abort: it holds no key, or what it was sent does not open. The server is blamed for what is
            no ciphertext, and nobody for a plaintext that is no sum: any client can bring it about.
    """
    if ring.secret is None:
        raise Abort(f"{ring.who} holds no secret key", blamed=ring.who)
    try:
        if not ring.arrangement.verifies:
            ring.key().check(parts, plan)
    except Refused as refused:
        raise Abort(f"{ring.who} opens nothing: {refused}", blamed="server") from refused
    try:
        numbers = ring.secret.decrypt(parts, plan, count)
    except Refused as refused:
        raise Abort(f"{ring.who} opens nothing: {refused}") from refused
    return answer((pack_numbers(numbers),), count, plan, ring)


class DecryptorRound(KeepsSecrets):
    """Check what the server forwards, add it, and open the sum or this holder's part of it."""

    def __init__(self, ring: Keyring, plan: RoundPlan) -> None:
        self.ring, self.plan = ring, plan

    def step(self, mail: Mail) -> Mail:
        """The sum, or a part of it, once."""
        if "server" not in mail:
            return {}
        ring, plan = self.ring, self.plan
        public = ring.key()
        if ring.arrangement.verifies:
            ciphertexts = admit(requested(mail["server"], ring), plan, ring)
            once(plan, ring)
            try:
                total, count = public.add(ciphertexts, plan), len(ciphertexts)
            except Refused as refused:
                raise Abort(f"{ring.who} opens nothing: {refused}", blamed="server") from refused
        else:
            total, count = admit_sum(mail["server"], plan, ring)
            once(plan, ring)
        if ring.share is None:
            return {"server": opened_sum(ring, total, plan, count)}
        try:
            return {"server": answer(ring.share.partial(total, plan), count, plan, ring)}
        except Refused as refused:
            raise Abort(f"{ring.who} opens nothing: {refused}", blamed="server") from refused
