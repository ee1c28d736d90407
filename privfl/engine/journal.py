"""The charges of a run, each on disk before anything of its round was sent."""

from __future__ import annotations

import json
import os
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from privfl.core import Charge, ConfigError, DataCorrupt, Ledger


class Journal:
    """Charges in the order in which they were made, in a file that only grows (in memory where
    there is no path).

    A round is entered before its first message, with the most that it can cost; once it has been
    played, a second line says what it came to. Nothing is taken back: a round that was killed keeps
    what it was entered with, and when it is played again, with fresh noise on the same data, what
    that costs is added to its entry (`dp.pipeline.played_again`). A last line that was not written
    to its end is dropped: no message follows a line before that line is on disk. Several processes
    may write to one file in turn; each sees what the others spent when it enters a round.

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
        self._ledger: Ledger | None = Ledger()
        self._size = 0
        self._taken_over = False
        if path is not None and path.exists():
            self._read(path)

    def __len__(self) -> int:
        """How many rounds were entered."""
        return len(self._entries)

    def ledger(self) -> Ledger:
        """All charges."""
        if self._ledger is None:
            self._ledger = Ledger(tuple(one for entry in self._entries.values() for one in entry))
        return self._ledger

    def take_over(self, ledger: Ledger) -> None:
        """Begin with these charges, if none are known yet: those of a state that was made
        elsewhere.

        Raises:
            ConfigError: some are known, and not all of these: what is missing was spent too.
        """
        if not self._entries:
            self.enter(ledger.charges)
        elif not self._taken_over and not _holds(self.ledger(), ledger):
            raise ConfigError(
                f"the ledger '{self.path}' does not hold all that the checkpoint beside it has"
                " spent: an older copy has taken its place. Put the newest back."
            )
        self._taken_over = True

    def played(self, round: int) -> tuple[str, tuple[Charge, ...]]:
        """The entry of a round that was entered before, and its charges; "" and nothing of one that
        was not. Charges of many rounds together are no round's own.
        """
        if self.path is not None:
            self._catch_up(self.path)
        for name, charges in self._entries.items():
            if any(charge.round == round and charge.last is None for charge in charges):
                return name, charges
        return "", ()

    def covering(self, round: int) -> Mapping[str, tuple[Charge, ...]]:
        """The entries, by name, whose one charge stands for many rounds, this one among them."""
        return {
            name: charges
            for name, charges in self._entries.items()
            if any(c.last is not None and c.round <= round <= c.last for c in charges)
        }

    def enter(self, charges: Sequence[Charge], again: str = "") -> str:
        """Charge a round that is about to be played, in an entry of its own or in place of the
        charges of the entry ``again``; on disk when this returns. The entry's name.

        Raises:
            ConfigError: the file cannot be written, or holds less than was written to it.
        """
        name = again or secrets.token_hex(8)
        if charges:
            self._append(name, tuple(charges))
        return name

    def settle(self, name: str, charges: Sequence[Charge]) -> None:
        """What the rounds of an entry came to. No more than it was entered with."""
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
        new = name not in self._entries
        self._entries[name] = charges
        self._ledger = self._ledger.charged(charges) if new and self._ledger else None

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
        self._ledger = None
        for line in whole.splitlines():
            name, charges = _entry(path, line)
            self._entries[name] = charges
        self._size = len(whole)


def _holds(ours: Ledger, theirs: Ledger) -> bool:
    """Whether a ledger has every charge of another. One charge of many rounds grows with each: it
    is there where one is that began with it and has come as far.
    """
    single = [
        Counter(repr(charge) for charge in one.charges if charge.last is None)
        for one in (ours, theirs)
    ]
    if single[1] - single[0]:
        return False
    left, wanted = (
        sorted((c.round, c.subject, c.last) for c in one.charges if c.last is not None)
        for one in (ours, theirs)
    )
    for first, subject, last in wanted:
        far = [one for one in left if one[:2] == (first, subject) and one[2] >= last]
        if not far:
            return False
        left.remove(far[0])
    return True


def _entry(path: Path, line: bytes) -> tuple[str, tuple[Charge, ...]]:
    try:
        found: Mapping[str, Any] = json.loads(line)
        return str(found["entry"]), tuple(Charge.from_json(one) for one in found["charges"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataCorrupt(f"the ledger '{path}' holds a line that is no entry: {error}") from None
