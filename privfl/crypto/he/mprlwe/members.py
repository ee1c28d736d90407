"""Clients, the server and the decryptors between rounds."""

from __future__ import annotations

from privfl.core import Opener, Party, RoundPlan, Total
from privfl.crypto.he.keyring import Keyring
from privfl.crypto.he.members import HeClient, HeHelper, HeServer
from privfl.crypto.he.mprlwe.decryptor import JointDecryptorRound
from privfl.crypto.he.mprlwe.distributed_keygen import DistributedKeygen, KeygenObserver
from privfl.crypto.he.mprlwe.keys import TernaryPart
from privfl.crypto.he.mprlwe.server import JointServerRound


class JointClient(HeClient):
    """A client between rounds."""

    def set_up(self) -> Party:
        """Say hello, take the joint key."""
        return KeygenObserver(self.ring)


class JointServer(HeServer):
    """The server between rounds."""

    def set_up(self) -> Party:
        """Say hello, take the joint key."""
        return KeygenObserver(self.ring)

    def enter(self, plan: RoundPlan) -> Opener[Total]:
        """Collect one sum."""
        self.ring.scheme.headroom(plan)
        return JointServerRound(self.ring, plan)


class JointDecryptor(HeHelper):
    """A decryptor between rounds: its pieces of the key."""

    def __init__(self, ring: Keyring, index: int, smudge_bits: int) -> None:
        super().__init__(ring)
        self.index, self.smudge_bits = index, smudge_bits
        self.held: dict[int, TernaryPart] = {}

    def set_up(self) -> Party:
        """Its part in the distributed key generation."""
        return DistributedKeygen(self.ring, self.index, self.held)

    def enter(self, plan: RoundPlan) -> Party:
        """Its part in one decryption."""
        self.ring.scheme.headroom(plan)
        return JointDecryptorRound(self.ring, self.held, plan, self.smudge_bits)
