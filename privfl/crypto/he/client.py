"""A client in one round: it encrypts and signs, and opens the sum where clients hold the key."""

from __future__ import annotations

from privfl.core import Abort, Bounded, KeepsSecrets, Mail, RoundPlan
from privfl.crypto.he.boxes import sealed_letter
from privfl.crypto.he.decryption_policy import CIPHERTEXT, admit_sum, once
from privfl.crypto.he.decryptor import opened_sum
from privfl.crypto.he.keyring import Keyring
from privfl.crypto.he.wire import HostileKey, Parts, SignedMessage


class ClientRound(KeepsSecrets):
    """Encrypt, sign, send; and, where the clients share the key, open the sum when asked."""

    def __init__(self, ring: Keyring, plan: RoundPlan, update: Bounded) -> None:
        self.ring, self.plan, self.update = ring, plan, update

    def step(self, mail: Mail) -> Mail:
        """The signed ciphertext; later the opened sum.

        Raises:
            Abort: the key is one under which nothing must be encrypted; its maker is blamed.
        """
        if not mail:
            return {"server": self._ciphertext()}
        if self.ring.secret is None or "server" not in mail:
            return {}
        parts, count = admit_sum(mail["server"], self.plan, self.ring)
        once(self.plan, self.ring)
        return {"server": opened_sum(self.ring, parts, self.plan, count)}

    def _ciphertext(self) -> bytes:
        ring, plan = self.ring, self.plan
        public = ring.key()
        numbers = ring.scheme.encode(self.update, plan)
        try:
            parts = (
                public.encrypt(numbers, plan)
                if ring.secret is None
                else ring.secret.encrypt(numbers, plan)
            )
        except HostileKey as refused:  # what it would send convicts the client, not the maker
            raise Abort(
                f"{ring.who} encrypts nothing under the key that it was sent: {refused}",
                blamed=ring.arrangement.maker,
            ) from refused
        return posted(ring, plan, parts)


def posted(ring: Keyring, plan: RoundPlan, parts: Parts) -> bytes:
    """A ciphertext, signed, and sealed to the server: whoever else sees it could send it again,
    re-randomised, as its own.

    Raises:
        Abort: the server did not take part in the set-up.
    """
    box = ring.server_box
    message = SignedMessage.signed(ring.identity, CIPHERTEXT, ring.topic(plan), ring.who, parts)
    return sealed_letter(box, message.to_bytes(), ring.who)
