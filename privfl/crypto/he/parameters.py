"""What describes homomorphic aggregation before any round, whatever the scheme: who can decrypt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from privfl.core import ConfigError, PartyId, require
from privfl.crypto.secagg.parameters import SecAggSettings, quorum_of

Keys: TypeAlias = Literal["shared", "authority", "threshold"]


@lru_cache(maxsize=256)
def _quorum(n: int) -> int:
    """As in secure aggregation with its defaults."""
    return 2 if n < 2 else quorum_of(SecAggSettings(), n)


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Who can decrypt, and what they insist on.

    ``shared``: a dealer hands the secret key to every client. ``authority``: ``decryptor/0`` makes
    it and keeps it. ``threshold``: a dealer splits it among ``holders`` decryptors, any
    ``threshold`` of whom decrypt. ``joint``: they make it together, and no dealer. Decryptors
    refuse sums of fewer than ``min_clients`` (None: of fewer than secure aggregation's quorum, more
    than half of the cohort, so that a server does not read a client with one friend); with
    ``verify_sum`` they are handed every signed ciphertext and add them themselves. ``releases``:
    how many sums one key opens, where that is limited. More than half of the holders must take part
    in a decryption, or two groups of them could open two sums of one round that differ by one
    client.

    Raises:
        ConfigError: an arrangement that cannot be.
    """

    keys: Keys | Literal["joint"]
    min_clients: int | None = None
    verify_sum: bool = True
    holders: int = 1
    threshold: int = 1
    releases: int | None = None

    def __post_init__(self) -> None:
        if self.keys not in ("shared", "authority", "threshold", "joint"):
            raise ConfigError(
                f"keys is 'shared', 'authority' or 'threshold', and is '{self.keys}'."
            )
        if self.min_clients is not None:
            require.at_least(1, min_clients=self.min_clients)
        if self.keys in ("threshold", "joint") and not 2 <= self.threshold <= self.holders <= 9:
            raise ConfigError(
                f"threshold={self.threshold} of holders={self.holders}: choose 2 <= threshold <="
                " holders <= 9."
            )
        if 2 * self.threshold <= self.holders and self.keys in ("threshold", "joint"):
            raise ConfigError(
                f"threshold={self.threshold} of holders={self.holders}: two groups of decryptors"
                " that do not meet could open two sums of one round, and their difference is one"
                " client. Choose a threshold of more than half of the holders."
            )

    def quorum(self, n: int) -> int:
        """The fewest contributions of a cohort of n that are ever opened.

        >>> [Arrangement("authority").quorum(n) for n in (2, 4, 10, 100)]
        [2, 3, 6, 52]
        >>> Arrangement("authority", min_clients=3).quorum(100)
        3
        """
        return _quorum(n) if self.min_clients is None else self.min_clients

    @property
    def maker(self) -> PartyId:
        """Who makes the key, or tells it to the others."""
        return "dealer" if self.keys in ("shared", "threshold") else "decryptor/0"

    @property
    def decryptors(self) -> tuple[PartyId, ...]:
        """The helpers that decrypt; none where the clients do."""
        return () if self.keys == "shared" else tuple(f"decryptor/{i}" for i in range(self.holders))

    @property
    def verifies(self) -> bool:
        """Whether decryptors add the ciphertexts themselves. Clients that share the key do not:
        each would be shown everyone.
        """
        return self.verify_sum and self.keys != "shared"

    @property
    def copies(self) -> str:
        """Who can have a client's ciphertext counted twice, where sums are verified."""
        seers = "the server" if self.keys == "joint" else "the server, or a decryptor,"
        return (
            "Ciphertexts are sealed to the server, and by it to the decryptors: no client sees"
            f" another's, and copies are refused. But {seers} that works with a client can have one"
            " sent again, re-randomised, and nobody can tell."
        )

    def warnings(self) -> tuple[str, ...]:
        """What a report says aloud."""
        said = []
        if self.keys == "shared":
            said.append(
                "Every client holds the one secret key: any client together with the server reads"
                " everyone."
            )
        if self.keys == "threshold":
            said.append(
                "A dealer makes the key and splits it: it knows the whole key, and is trusted to"
                " forget it."
            )
        if self.keys != "shared" and not self.verify_sum:
            taken = (
                "take the decryptors' key"
                if self.keys == "joint"
                else "read single clients by calling one ciphertext a sum (under bfv and ckks it"
                " takes the key with a chosen one)"
            )
            said.append(f"Sums are not verified (verify_sum is off): a lying server can {taken}.")
        if self.keys == "joint":
            said.append("The multi-party scheme is experimental and unaudited.")
        return tuple(said)
