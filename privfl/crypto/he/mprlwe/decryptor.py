"""A decryptor of the multi-party scheme in one round: it adds what it needs itself, and answers for
each piece of its key once.
"""

from __future__ import annotations

from privfl.core import Abort, Buffer, KeepsSecrets, Mail, RoundPlan
from privfl.crypto.he.decryption_policy import admit, admit_sum, answer, once
from privfl.crypto.he.keyring import Keyring
from privfl.crypto.he.mprlwe.keys import JointPublic, TernaryPart, partial
from privfl.crypto.he.wire import Refused, unpack

HERE = b"here"


def joint(ring: Keyring) -> JointPublic:
    """The joint key.

    Raises:
        Abort: the key generation brought none.
    """
    public = ring.key()
    if not isinstance(public, JointPublic):
        raise Abort(f"{ring.who} holds a key of another scheme")
    return public


class JointDecryptorRound(KeepsSecrets):
    """Say that you are there; check and add the halves that the server forwards; answer for each
    piece of the key once.
    """

    def __init__(
        self, ring: Keyring, held: dict[int, TernaryPart], plan: RoundPlan, smudge_bits: int
    ) -> None:
        self.ring, self.held, self.plan, self.smudge_bits = ring, held, plan, smudge_bits
        self.c1 = b""
        self.count = 0
        self.answered: set[int] = set()

    def step(self, mail: Mail) -> Mail:
        """A part of the decryption for the pieces that the server asks for."""
        if not mail:
            return {"server": HERE} if self.ring.public is not None else {}
        if "server" not in mail:
            return {}
        try:
            asked, body = unpack(mail["server"])
            groups = [bytes(group) for group in unpack(asked)]
        except (Refused, ValueError):
            raise Abort(f"{self.ring.who} got a garbled request", blamed="server") from None
        wanted = b"".join(groups)
        if (
            not set(wanted) <= self.held.keys()
            or set(wanted) & self.answered
            or len(set(wanted)) != len(wanted)
            or not wanted
        ):
            raise Abort(
                f"{self.ring.who} was asked for pieces that it does not hold, or twice for one",
                blamed="server",
            )
        if not self.c1:
            self._add(body)
        self.answered |= set(wanted)
        blocks = joint(self.ring).blocks(self.plan)
        parts: list[Buffer] = []
        for group in groups:
            parts += [
                group,
                partial([self.held[piece] for piece in group], self.c1, blocks, self.smudge_bits),
            ]
        return {"server": answer(tuple(parts), self.count, self.plan, self.ring)}

    def _add(self, body: Buffer) -> None:
        ring, plan, key = self.ring, self.plan, joint(self.ring)
        try:
            if ring.arrangement.verifies:
                halves = [parts[0] for parts in admit(body, plan, ring, wanted=[1])]
                once(plan, ring)
                self.c1, self.count = key.add_c1(halves, plan), len(halves)
            else:
                parts, self.count = admit_sum(body, plan, ring)
                once(plan, ring)
                self.c1 = key.add_c1(parts, plan)
        except Refused as refused:
            raise Abort(f"{ring.who} opens nothing: {refused}", blamed="server") from refused
