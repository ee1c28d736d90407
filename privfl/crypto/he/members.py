"""Clients, the server and the helpers of homomorphic channels between rounds."""

from __future__ import annotations

from privfl.core import Bounded, KeepsSecrets, Opener, Party, RoundPlan, Total
from privfl.crypto.he.client import ClientRound
from privfl.crypto.he.decryptor import DecryptorRound
from privfl.crypto.he.keyring import Introduction, KeyMaking, Keyring
from privfl.crypto.he.server import ServerRound


class HeClient(KeepsSecrets):
    """A client between rounds: its identity and the keys."""

    def __init__(self, ring: Keyring) -> None:
        self.ring = ring

    def set_up(self) -> Party:
        """Say hello, take the key."""
        return Introduction(self.ring)

    def enter(self, plan: RoundPlan, update: Bounded) -> Party:
        """Encrypt one update."""
        self.ring.scheme.headroom(plan)
        return ClientRound(self.ring, plan, update)


class HeServer(KeepsSecrets):
    """The server between rounds. It holds no secret but its own identity."""

    def __init__(self, ring: Keyring) -> None:
        self.ring = ring

    def set_up(self) -> Party:
        """Say hello, take the public key."""
        return Introduction(self.ring)

    def enter(self, plan: RoundPlan) -> Opener[Total]:
        """Collect one sum."""
        self.ring.scheme.headroom(plan)
        return ServerRound(self.ring, plan)


class HeHelper(KeepsSecrets):
    """A decryptor or a dealer between rounds."""

    def __init__(self, ring: Keyring) -> None:
        self.ring = ring

    def set_up(self) -> Party:
        """Make the key, or take a share of it."""
        return (
            KeyMaking(self.ring)
            if self.ring.who == self.ring.arrangement.maker
            else Introduction(self.ring)
        )

    def enter(self, plan: RoundPlan) -> Party:
        """Open one sum. A dealer has no part in rounds, and nobody writes to it."""
        self.ring.scheme.headroom(plan)
        return DecryptorRound(self.ring, plan)
