"""The set-up: every decryptor draws an occasion for the session and tells everybody who asks.

Nobody makes a key. Identities outlive sessions, though, and a decryptor's memory of what it opened
does not: so clients bind each box to what its receiver drew, and what was dealt in an earlier
session does not open in a later one.
"""

from __future__ import annotations

import secrets

from privfl.core import KeepsSecrets, Mail, PartyId

HELLO = b"one-time"
OCCASION = 16


class Occasions(KeepsSecrets):
    """What a client has heard: the occasion of every decryptor, empty before."""

    def __init__(self, decryptors: tuple[PartyId, ...]) -> None:
        self.heard: dict[PartyId, bytes] = dict.fromkeys(decryptors, b"")


class Asks(KeepsSecrets):
    """A client's set-up."""

    def __init__(self, occasions: Occasions) -> None:
        self.occasions = occasions
        occasions.heard = dict.fromkeys(occasions.heard, b"")

    def step(self, mail: Mail) -> Mail:
        """Ask every decryptor, hear what it drew."""
        heard = self.occasions.heard
        if not mail:
            return dict.fromkeys(heard, HELLO)
        for sender, body in mail.items():
            if heard.get(sender) == b"" and len(body) == OCCASION:
                heard[sender] = bytes(body)
        return {}


class SessionMemory(KeepsSecrets):
    """What a decryptor keeps of a session: what it drew, and the rounds and parts that it has
    opened.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin a session."""
        self.occasion = secrets.token_bytes(OCCASION)
        self.opened: set[tuple[bytes, int]] = set()


class Tells(KeepsSecrets):
    """A decryptor's set-up."""

    def __init__(self, memory: SessionMemory) -> None:
        self.memory = memory
        memory.renew()

    def step(self, mail: Mail) -> Mail:
        """Tell whoever asks."""
        return {who: self.memory.occasion for who, body in mail.items() if bytes(body) == HELLO}
