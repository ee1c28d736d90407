"""The charges of a run, each on disk before anything of its round was sent."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from privfl.core import Charge, ConfigError, DataCorrupt, Ledger


class Journal:
    """Charges in the order in which they were made, in a file that only grows (in memory where
    there is no path).

    A round is entered before its first message, with the most that it can cost; once it has been
    played, a second line says what it came to. Nothing is taken back: a round that was killed keeps
    what it was entered with, and when it is played again, with fresh noise on the same data, it is
    entered again. A last line that was not written to its end is dropped: no message follows a line
    before that line is on disk. Several processes may write to one file in turn; each sees what the
    others spent when it enters a round.

    Args:
        path: the file, of lines of JSON; made at the first charge.

    Raises:
        DataCorrupt: the file holds something else.
        ConfigError: it cannot be read.

    >>> journal = Journal()
    >>> journal.settle(journal.enter(()), ()), len(journal.ledger().charges)
    (None, 0)
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._entries: dict[str, tuple[Charge, ...]] = {}
        self._size = 0
        if path is not None and path.exists():
            self._read(path)

    def __len__(self) -> int:
        """How many rounds were entered."""
        return len(self._entries)

    def ledger(self) -> Ledger:
        """All charges."""
        return Ledger(tuple(charge for entry in self._entries.values() for charge in entry))

    def take_over(self, ledger: Ledger) -> None:
        """Begin with these charges, if none are known yet: those of a state that was made
        elsewhere.
        """
        if not self._entries:
            self.enter(ledger.charges)

    def enter(self, charges: Sequence[Charge]) -> str:
        """Charge a round that is about to be played; on disk when this returns. The entry's name.

        Raises:
            ConfigError: the file cannot be written, or holds less than was written to it.
        """
        name = secrets.token_hex(8)
        if charges:
            self._append(name, tuple(charges))
        return name

    def settle(self, name: str, charges: Sequence[Charge]) -> None:
        """What the round of an entry came to. No more than it was entered with."""
        if self._entries.get(name, ()) != tuple(charges):
            self._append(name, tuple(charges))

    def _append(self, name: str, charges: tuple[Charge, ...]) -> None:
        line = json.dumps({"entry": name, "charges": [one.to_json() for one in charges]}) + "\n"
        if self.path is not None:
            self._catch_up(self.path)
            try:
                with self.path.open("ab") as file:
                    file.write(line.encode())
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise ConfigError(
                    f"cannot write the ledger '{self.path}', so no round may begin:"
                    f" {error.strerror}."
                ) from None
            self._size += len(line.encode())
        self._entries[name] = charges

    def _catch_up(self, path: Path) -> None:
        """Take in what others wrote since; refuse a file that lost what this one wrote."""
        size = path.stat().st_size if path.exists() else 0
        if size < self._size:
            raise ConfigError(
                f"the ledger '{path}' is shorter than what was written to it: an older copy has"
                " taken its place, and what it forgets would be spent twice. Put the newest back."
            )
        if size > self._size:
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            data = path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if len(whole) < len(data):
                os.truncate(path, len(whole))
        except OSError as error:
            raise ConfigError(f"cannot read the ledger '{path}': {error.strerror}.") from None
        for line in whole.splitlines():
            name, charges = _entry(path, line)
            self._entries[name] = charges
        self._size = len(whole)


def _entry(path: Path, line: bytes) -> tuple[str, tuple[Charge, ...]]:
    try:
        found: Mapping[str, Any] = json.loads(line)
        return str(found["entry"]), tuple(Charge.from_json(one) for one in found["charges"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataCorrupt(f"the ledger '{path}' holds a line that is no entry: {error}") from None
