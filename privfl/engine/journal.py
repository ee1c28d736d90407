"""The charges of a run, each on disk before anything of its round was sent."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from privfl.core import Charge, ConfigError, DataCorrupt, Ledger
from privfl.engine.files import write_atomically

_VERSION = b"privfl/1/ledger"
_LINK = ', "chain": "'
_SWAPPED = (
    "an older copy or another run's has taken its place, and what it does not know of would be"
    " spent twice. Put the right one back"
)


class Journal:
    """Charges in the order in which they were made, in a file that only grows (in memory where
    there is no path).

    A round is entered before its first message, with the most that it can cost; once it has been
    played, a second line says what it came to. Nothing is taken back: a round that was killed keeps
    what it was entered with, and when it is played again, with fresh noise on the same data, what
    that costs is added to its entry (`dp.charges.played_again`). A last line that was not written
    to its end is dropped: no message follows a line before that line is on disk. Several processes
    may write to one file in turn; each sees what the others spent when it enters a round.

    Each line ends with the SHA-256 of itself and of the line before it, and entries have random
    names, so the hash of the last line stands for this file and all that it holds. It is kept in
    memory and beside the file (``ledger.jsonl.head``), and a file in which it does not occur is
    refused: an older copy, or another run's ledger, however long. Against who changes both files on
    purpose nothing is promised.

    Args:
        path: the file, of lines of JSON; made at the first charge.

    Raises:
        DataCorrupt: the file holds something else, a line that does not follow from the one before
            it, or lines without hashes, as they were once written.
        ConfigError: it cannot be read, or is not the one that was written to.

    >>> journal = Journal()
    >>> journal.settle(journal.enter(()), ()), len(journal.ledger().charges)
    (None, 0)
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._entries: dict[str, tuple[Charge, ...]] = {}
        self._ledger: Ledger | None = Ledger()
        self._seen: tuple[int, ...] = ()
        self._size, self._head = 0, ""
        self._taken_over = False
        if path is not None:
            self._head = _written_head(path)
            self._catch_up(path, looked=False)

    def __len__(self) -> int:
        """How many rounds were entered."""
        return len(self._entries)

    def ledger(self) -> Ledger:
        """All charges."""
        if self._ledger is None:
            self._ledger = Ledger(tuple(one for entry in self._entries.values() for one in entry))
        return self._ledger

    def entries(self) -> Mapping[str, tuple[Charge, ...]]:
        """The charges of each entry, with those that others have written since."""
        if self.path is not None:
            self._catch_up(self.path)
        return dict(self._entries)

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
                f" spent: {_SWAPPED}."
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

    def enter(
        self,
        charges: Sequence[Charge],
        again: str = "",
        permit: Callable[[], None] = lambda: None,
    ) -> str:
        """Charge a round that is about to be played, in an entry of its own or in place of the
        charges of the entry ``again``; on disk when this returns. The entry's name.

        ``permit`` is called once all that others have spent is known, and before anybody can spend
        more; what it raises leaves the journal as it was.

        Raises:
            ConfigError: the file cannot be written, or holds less than was written to it.
        """
        name = again or secrets.token_hex(8)
        if charges:
            self._append(name, tuple(charges), permit)
        return name

    def settle(self, name: str, charges: Sequence[Charge]) -> None:
        """What the rounds of an entry came to. No more than it was entered with."""
        if self._entries.get(name, ()) != tuple(charges):
            self._append(name, tuple(charges))

    def mend_head(self) -> None:
        """Put the hash of the last line beside the file, where a kill came between the two.

        Raises:
            ConfigError: the file cannot be read, or is not the one that was written to.
            CannotWrite: the operating system refuses.
        """
        if self.path is None:
            return
        self._catch_up(self.path)
        if self._head != _written_head(self.path):
            write_atomically(head_file(self.path), self._head)

    def _append(
        self,
        name: str,
        charges: tuple[Charge, ...],
        permit: Callable[[], None] = lambda: None,
    ) -> None:
        if self.path is None:
            permit()
        else:
            try:
                with self.path.open("ab") as file:
                    fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
                    self._catch_up(self.path)
                    permit()
                    file.truncate(self._size)  # drops what was not written to its end
                    head, line = _linked(self._head, name, charges)
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
                    self._head, self._size = head, self._size + len(line)
                    self._seen = _stamp(self.path)
                    write_atomically(head_file(self.path), head)  # and a new ledger's own name
            except OSError as error:
                raise ConfigError(
                    f"cannot write the ledger '{self.path}', so no round may begin:"
                    f" {error.strerror or error}."
                ) from None
        new = name not in self._entries
        self._entries[name] = charges
        self._ledger = self._ledger.charged(charges) if new and self._ledger else None

    def _catch_up(self, path: Path, *, looked: bool = True) -> None:
        """Take in what others wrote since; refuse a file that lost what was written to it."""
        try:
            stamp = _stamp(path)
            if looked and stamp == self._seen:
                return
            data = path.read_bytes() if stamp else b""
        except OSError as error:
            raise ConfigError(
                f"cannot read the ledger '{path}': {error.strerror or error}."
            ) from None
        whole = data[: data.rfind(b"\n") + 1]
        entries, head, heads = dict[str, tuple[Charge, ...]](), "", {""}
        for line in whole.decode(errors="replace").splitlines():
            name, charges, head = _entry(path, line, head)
            entries[name] = charges
            heads.add(head)
        if self._head not in heads:
            raise ConfigError(
                f"the ledger '{path}' does not hold what was written to it: {_SWAPPED}. Where it is"
                f" lost, what it held stays spent: begin a new one."
            )
        self._entries, self._head, self._ledger = entries, head, None
        self._size, self._seen = len(whole), stamp


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


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes where a file is written to or another one takes its place; empty where there is
    none.
    """
    if not path.exists():
        return ()
    now = path.stat()
    return now.st_ino, now.st_size, now.st_mtime_ns


def head_file(path: Path) -> Path:
    """Where the hash of a ledger's last line is kept beside it."""
    return path.with_name(f"{path.name}.head")


def last_heads(content: bytes) -> tuple[str, str]:
    """The hashes that the last whole line of a ledger and the one before it say they have; "" where
    there is none.
    """
    *_, before, last = [b"", b"", *content[: content.rfind(b"\n") + 1].splitlines()]
    return _said_head(last), _said_head(before)


def _said_head(line: bytes) -> str:
    return line.rpartition(_LINK.encode())[2].removesuffix(b'"}').decode(errors="replace")


def _written_head(path: Path) -> str:
    """The hash of the last line that was written, by whichever process."""
    try:
        return head_file(path).read_text(encoding="ascii") if head_file(path).exists() else ""
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read '{head_file(path)}': {error}.") from None


def _hash(before: str, body: str) -> str:
    return hashlib.sha256(b"\n".join((_VERSION, before.encode(), body.encode()))).hexdigest()


def _linked(before: str, name: str, charges: Sequence[Charge]) -> tuple[str, bytes]:
    """The hash of a new line, and the line."""
    body = json.dumps({"entry": name, "charges": [one.to_json() for one in charges]})
    head = _hash(before, body)
    return head, f'{body[:-1]}{_LINK}{head}"}}\n'.encode()


def _entry(path: Path, line: str, before: str) -> tuple[str, tuple[Charge, ...], str]:
    """The name of an entry, its charges, and the hash of its line."""
    try:
        found: Mapping[str, Any] = json.loads(line)
        name, charges = str(found["entry"]), tuple(map(Charge.from_json, found["charges"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataCorrupt(f"the ledger '{path}' holds a line that is no entry: {error}") from None
    if "chain" not in found:
        raise DataCorrupt(
            f"the ledger '{path}' has lines without a hash, as earlier versions wrote them: what it"
            " charges stays spent. Keep it, and begin a new folder or a new ledger."
        )
    head = _hash(before, line.rpartition(_LINK)[0] + "}")
    if found["chain"] != head:
        raise DataCorrupt(
            f"the ledger '{path}' holds a line that does not follow from the one before it: lines"
            " were changed or taken out, or are another run's. Put the right file back."
        )
    return name, charges, head
