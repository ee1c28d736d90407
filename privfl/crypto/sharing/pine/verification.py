"""What both servers do alike in one round: agree on a key that no client knows, hear each client's
report once, and say of each proof what their shares of it say.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from privfl.core import Buffer, KeepsSecrets, PartyId, PartyKeys
from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives import backend, open_one, seal_to
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.sharing.pine.field64 import Field64, add
from privfl.crypto.sharing.pine.flp import RootOfUnity
from privfl.crypto.sharing.pine.parameters import HALF, KEY, PineParameters
from privfl.crypto.sharing.pine.vdaf import LEADER, Prepared

LIED = "its proof does not hold, so that it or one of the two servers lied"


@dataclass(repr=False)
class Verification(KeepsSecrets):
    """One server's half of all verifications of a round. ``role`` is `LEADER` or `HELPER`,
    ``boxes`` the other server's keys.

    A report is verified once, because under two keys it would give away what it hides: it is of one
    round, which a server enters once and in which it has one key.
    """

    round: PineParameters
    role: int
    identity: PartyKeys
    boxes: tuple[bytes, ...]
    half: bytes = field(default_factory=lambda: secrets.token_bytes(KEY))
    key: bytes | None = None
    waiting: dict[int, tuple[bytes, bytes, Buffer]] = field(default_factory=dict)
    prepared: dict[int, Prepared] = field(default_factory=dict)
    excluded: dict[PartyId, str] = field(default_factory=dict)

    @property
    def peer(self) -> PartyId:
        """The other server."""
        return self.round.other if self.role == LEADER else "server"

    def offer(self) -> bytes:
        """The own half of the key, sealed to the other server."""
        context = self.round.half_context(self.identity.who)
        sealed = seal_to(self.boxes, self.half, context, backend())
        return self.round.write(HALF, 0, sealed)

    def agree(self, body: Buffer) -> None:
        """Take the other server's half; a second one changes nothing.

        Raises:
            StageAbort: it cannot be used.
        """
        if self.key is not None:
            return
        try:
            _, content = self.round.read(body, HALF)
            theirs = open_one(content, KEY, self.identity, self.round.half_context(self.peer))
        except Malformed as malformed:
            raise StageAbort(
                "agree", f"the key of {self.peer} cannot be used: {malformed}", self.peer
            ) from None
        halves = (self.half, theirs) if self.role == LEADER else (theirs, self.half)
        self.key = self.round.verify_key(*halves)

    def hear(self, position: int, drawn: bytes, public: bytes, share: Buffer) -> None:
        """Keep a report until the key is there.

        Raises:
            Malformed: a second one of its client.
        """
        if position in self.waiting or position in self.prepared:
            raise Malformed("a second report")
        self.waiting[position] = (self.round.nonce(position, drawn), public, share)

    def prepare(self) -> None:
        """Verify this server's half of every report that waits; which cannot be is excluded."""
        if self.key is None:
            return
        for position, (nonce, public, share) in self.waiting.items():
            try:
                self.prepared[position] = self.round.pine.prepare(
                    self.role, self.key, nonce, public, share
                )
            except (Malformed, RootOfUnity) as wrong:
                self.excluded[self.round.name(position)] = f"stage share: {wrong}"
        self.waiting = {}

    def said(self) -> dict[int, bytes]:
        """What this server says of each report, by position."""
        return {i: half.said + half.seeds for i, half in self.prepared.items()}

    def lost(self, kept: Collection[int]) -> dict[PartyId, str]:
        """Who is excluded, and why: not those of these places, of whom a second report was refused
        and the first one serves.
        """
        names = {self.round.name(position) for position in kept}
        return {who: why for who, why in self.excluded.items() if who not in names}

    def verdicts(self, theirs: Mapping[int, Buffer]) -> frozenset[int]:
        """Whose proofs hold, of those of whom both servers say something; the others of them are
        excluded.

        Raises:
            Malformed: what the other server says is nothing that can be said.
        """
        pine, good = self.round.pine, set()
        for position in sorted(self.prepared.keys() & theirs.keys()):
            half, other = self.prepared[position], bytes(theirs[position])
            own = (half.said, half.seeds)
            heard = (other[: pine.said_size], other[pine.said_size :])
            pair = (own, heard) if self.role == LEADER else (heard, own)
            if pine.holds(*pair):
                good.add(position)
            else:
                self.excluded[self.round.name(position)] = f"stage verify: {LIED}"
        return frozenset(good)

    def total(self, survivors: frozenset[int]) -> Field64:
        """The own share of the sum [d + 1], with its noise; everything else is forgotten."""
        total = self.round.noise_words(str(self.role))
        for position in sorted(survivors):
            total = add(total, self.prepared[position].contribution)
        self.prepared, self.waiting, self.half, self.key = {}, {}, b"", None
        return total
