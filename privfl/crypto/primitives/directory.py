"""The directory of public identities: which keys speak for whom, decided by whoever runs the
federation, never by its server.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from privfl.core import ConfigError, Lent, PartyId
from privfl.crypto.primitives.identity import Public, refuse_box, refuse_signing

_FORMAT = "privfl/directory/1"
_NAME = re.compile(r"[a-z][a-z_]{0,31}(/(0|[1-9][0-9]{0,11}))?")
_KEY = re.compile("[0-9a-f]{64}")
_MOST_KEYS = 16


class Directory(Lent):
    """Public Ed25519 keys (who signs) and X25519 keys (to whom mail can be sealed), by party. It
    holds nothing secret.

    It is the only root of trust: whoever writes it decides who is who. On many machines it is a
    JSON file (`read`, `write`) that everybody has before the first round, as `known_hosts` is; one
    that came from the server, or over the relay, proves nothing. In a simulator a member enters its
    public key when it is made. A party may have several keys, the newest last: all of them may
    sign, and boxes are sealed to the newest. Who holds it holds it on loan: a party that sleeps
    (`core.seal_state`) takes no copy along and is handed the one of now when it wakes.

    Raises:
        ConfigError: a key that has not 32 bytes, or is a point of small order.

    >>> directory = Directory({"client/1": [b"k" * 32]})
    >>> directory.keys("client/1"), directory.keys("client/2")
    ((b'kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk',), ())
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

    @classmethod
    def of(cls, parties: Mapping[PartyId, Public]) -> Directory:
        """A directory of these identities.

        >>> from privfl.crypto.primitives import Identity
        >>> Directory.of({"server": Identity.fresh("server").public})
        Directory(1 parties)
        """
        return cls(
            {who: [public.signing] for who, public in parties.items()},
            {who: [public.box] for who, public in parties.items()},
        )

    def enrol(
        self, who: PartyId, *, signing: bytes | None = None, sealing: bytes | None = None
    ) -> None:
        """Enter a party's public key: its operator's act, out of the server's reach.

        Raises:
            ConfigError: as the class.
        """
        for use, key in (("sign", signing), ("seal", sealing)):
            if key is not None:
                self._enrol(use, who, key)

    def _enrol(self, use: str, who: PartyId, key: bytes) -> None:
        try:
            refuse_signing(key) if use == "sign" else refuse_box(key)
        except ConfigError as error:
            raise ConfigError(f"{who}: {error}") from None
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

    @property
    def parties(self) -> tuple[PartyId, ...]:
        """Everybody who has a key here, sorted."""
        return tuple(sorted({who for _, who in self._keys}))

    def write(self, path: Path) -> None:
        """Write the directory as JSON, keys in hex. There is nothing secret in it, and whoever can
        change the file can be anybody.
        """
        parties = {
            who: {
                "signing": [key.hex() for key in self.keys(who)],
                "sealing": [key.hex() for key in self.boxes(who)],
            }
            for who in self.parties
        }
        text = json.dumps({"format": _FORMAT, "parties": parties}, indent=1)
        path.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Directory:
        """Read what `write` wrote, or a person.

        Raises:
            ConfigError: there is no such file, or it is no directory of this version: a party twice
                or under a name that no party has ("client/07" is not "client/7"), a key that is
                none.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"cannot read the directory {path}: {error.strerror or error}."
            ) from None
        try:
            return cls._parsed(content)
        except (ValueError, RecursionError) as wrong:
            raise ConfigError(f"{path} is no directory of identities: {wrong}") from None

    @classmethod
    def _parsed(cls, content: bytes) -> Directory:
        """Raises ValueError on what is no directory, RecursionError on JSON that is too deep."""
        whole = json.loads(content.decode("utf-8"), object_pairs_hook=_once)
        if not isinstance(whole, dict) or whole.get("format") != _FORMAT:
            raise ConfigError(f'it must be an object with "format": "{_FORMAT}".')
        parties = whole.get("parties")
        if whole.keys() != {"format", "parties"} or not isinstance(parties, dict):
            raise ConfigError('it must hold "format" and "parties", an object, and nothing else.')
        found = cls()
        for who, entry in parties.items():
            if not _NAME.fullmatch(who):
                raise ConfigError(
                    f"{repr(who)[:80]} is no party: use names such as 'client/7' or 'server'."
                )
            if not isinstance(entry, dict) or entry.keys() != {"signing", "sealing"}:
                raise ConfigError(f'{who} must have "signing" and "sealing", and nothing else.')
            for key in _keys(who, entry["signing"]):
                found.enrol(who, signing=key)
            for key in _keys(who, entry["sealing"]):
                found.enrol(who, sealing=key)
        return found

    def __repr__(self) -> str:
        return f"Directory({len(self.parties)} parties)"

    def __getstate__(self) -> dict[tuple[str, PartyId], tuple[bytes, ...]]:
        return dict(self._keys)

    def __setstate__(self, keys: dict[tuple[str, PartyId], tuple[bytes, ...]]) -> None:
        self._keys = keys
        self._lock = threading.Lock()


def _keys(who: PartyId, listed: Any) -> list[bytes]:
    if not isinstance(listed, list) or len(listed) > _MOST_KEYS:
        raise ConfigError(f"the keys of {who} must be a list of at most {_MOST_KEYS}.")
    for key in listed:
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise ConfigError(
                f"{repr(key)[:80]} is no key of {who}: a key is 64 digits of lower-case hex."
            )
    return [bytes.fromhex(key) for key in listed]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are there once: of a party that is there twice, nobody could say who it
    is.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ConfigError(f"{next(n for n in names if names.count(n) > 1)!r} is there twice.")
    return found
