"""A client that was drawn as a decryptor: both parts of a round in one party."""

from __future__ import annotations

from privfl.core import Abort, KeepsSecrets, Mail
from privfl.crypto.he.onetime.client import OneTimeClientParty
from privfl.crypto.he.onetime.decryptor import OneTimeDecryptorParty


class DrawnClientParty(KeepsSecrets):
    """A client in one round, and where it was drawn its ``decryptor`` too: the message with its
    contribution says that it is there.
    """

    def __init__(
        self,
        client: OneTimeClientParty,
        decryptor: OneTimeDecryptorParty | None,
        refused: str | None,
    ) -> None:
        self.client, self.decryptor, self.refused = client, decryptor, refused

    def step(self, mail: Mail) -> Mail:
        """The contribution first, then what a decryptor is asked for.

        Raises:
            Abort: it takes no part in the round, or as either of the two.
        """
        if self.refused is not None:
            raise Abort(f"{self.client.identity.who} sends nothing: {self.refused}")
        if self.client.update is not None:
            return self.client.step(mail)
        if self.decryptor is None or "server" not in mail:
            return {}
        return self.decryptor.step({"server": mail["server"]})
