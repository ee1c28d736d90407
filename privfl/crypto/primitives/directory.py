"""The directory of public identities: which keys speak for whom, decided by whoever runs the
federation, never by its server.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from privfl.core import ConfigError, PartyId


class Directory:
    """Public Ed25519 keys (who signs) and X25519 keys (to whom mail can be sealed), by party. It
    holds nothing secret.

    On many machines it is a file that everybody has before the first round, as `known_hosts` is. In
    a simulator a member enters its public key when it is made. A party may have several keys, one
    for each session that it serves.

    Raises:
        ConfigError: a key that has not 32 bytes.

    >>> directory = Directory({"client/1": [bytes(32)]})
    >>> directory.keys("client/1") == (bytes(32),), directory.keys("client/2")
    (True, ())
    """

    def __init__(
        self,
        signing: Mapping[PartyId, list[bytes]] | None = None,
        sealing: Mapping[PartyId, list[bytes]] | None = None,
    ) -> None:
        self._keys: dict[tuple[str, PartyId], tuple[bytes, ...]] = {}
        self._lock = threading.Lock()
        for use, known in (("sign", signing), ("seal", sealing)):
            for who, keys in (known or {}).items():
                for key in keys:
                    self._enrol(use, who, key)

    def enrol(
        self, who: PartyId, *, signing: bytes | None = None, sealing: bytes | None = None
    ) -> None:
        """Enter a party's public key: its operator's act, out of the server's reach."""
        for use, key in (("sign", signing), ("seal", sealing)):
            if key is not None:
                self._enrol(use, who, key)

    def _enrol(self, use: str, who: PartyId, key: bytes) -> None:
        if len(key) != 32:
            raise ConfigError(
                f"the public key of {who} has {len(key)} bytes where Ed25519 and X25519 have 32."
            )
        with self._lock:
            known = self._keys.get((use, who), ())
            if key not in known:
                self._keys[use, who] = (*known, key)

    def keys(self, who: PartyId) -> tuple[bytes, ...]:
        """The keys that may sign for a party, the newest last."""
        return self._keys.get(("sign", who), ())

    def boxes(self, who: PartyId) -> tuple[bytes, ...]:
        """The keys to which mail for a party is sealed, the newest last."""
        return self._keys.get(("seal", who), ())

    def __repr__(self) -> str:
        return f"Directory({len({who for _, who in self._keys})} parties)"

    def __getstate__(self) -> dict[tuple[str, PartyId], tuple[bytes, ...]]:
        return dict(self._keys)

    def __setstate__(self, keys: dict[tuple[str, PartyId], tuple[bytes, ...]]) -> None:
        self._keys = keys
        self._lock = threading.Lock()
