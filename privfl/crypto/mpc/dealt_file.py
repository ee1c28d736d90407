"""What a dealer made ahead, in a file of one party: records that each serve once.

Layout: 18 bytes of format, the set's id [16], 32 bytes that the set is bound to (the parameters of
the rounds that it is for), the number of records and the size of each, the party's name, a SHA-256
of each record, the dealer's Ed25519 signature over all that, then the records. The file is its
party's alone (mode 0600): who reads both parties' files reads what the protocol hides. It is not
sealed: carry it as keys are carried.

A record is taken out once. Before it is handed out, its number is on the disk in a list beside the
file (``.used``, synced with its folder), and the record itself is overwritten; so neither a crash
nor a list that is deleted brings it back. Numbers only go up. The list names the two files by their
inodes, so that a copy of a folder that was used is refused; a file with an overwritten record that
its list does not have is refused for good, because another list may go on with what is left of it.
What no disk can tell alone is a file that was copied BEFORE its first use, or a disk put back whole
to an earlier state: for these the parties compare numbers before they use what they took.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from privfl.core import CannotWrite, ConfigError, KeepsSecrets, PartyId, PartyKeys
from privfl.crypto.mpc.beaver import UsedUp
from privfl.crypto.primitives import backend

_MAGIC = b"privfl-dealing-1\n\x00"
_HEAD = struct.Struct("<18s16s32sIQH")
_LIST = struct.Struct("<18s16sQQ")
_LIST_MAGIC = b"privfl-dealused1\n\x00"
_USED = struct.Struct("<I12s")
_MOST = 1 << 20
PASSED_BY = 2
"""How many records at most go to waste because another party says that it is further on: whoever
names a number that is far off ends a round, and does not use up the file.
"""
_DIGEST, _SIGNATURE = 32, 64


@dataclass(frozen=True, slots=True, repr=False)
class Taken(KeepsSecrets):
    """A record that was taken out: of which set, its number, its bytes."""

    of: bytes
    number: int
    content: bytes


@dataclass(repr=False)
class DealtFileWriter(KeepsSecrets):
    """Makes the file of one party, record by record; it has its name once it is whole.

    Raises:
        ConfigError: there is a file of this name, or a list of what was used of one.
        CannotWrite: the operating system refuses.
    """

    path: Path
    party: PartyId
    of: bytes
    bound_to: bytes
    count: int
    size: int

    def __post_init__(self) -> None:
        self._digests: list[bytes] = []
        self._partial = self.path.with_name(self.path.name + ".partial")
        for path in (self.path, used_by(self.path)):
            if path.exists():
                raise ConfigError(f"{path} exists, and no dealing is overwritten: name another.")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with _told(self.path):
            self._file = os.fdopen(os.open(self._partial, flags, 0o600), "wb")
            os.fchmod(self._file.fileno(), 0o600)
            self._file.seek(_records_at(self.party, self.count))

    def add(self, record: bytes) -> None:
        """The next record.

        Raises:
            CannotWrite: the operating system refuses.
        """
        self._digests.append(hashlib.sha256(record).digest())
        with _told(self.path):
            self._file.write(record)

    def close(self, dealer: PartyKeys) -> None:
        """Sign what was added, and put the file in its place; on the disk when this returns.

        Raises:
            CannotWrite: the operating system refuses.
        """
        name = self.party.encode()
        head = _HEAD.pack(_MAGIC, self.of, self.bound_to, self.count, self.size, len(name))
        signed = head + name + b"".join(self._digests)
        with _told(self.path):
            self._file.seek(0)
            self._file.write(signed + dealer.sign(_said(signed)))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.rename(self._partial, self.path)
            _sync(self.path.parent)

    def drop(self) -> None:
        """Leave nothing of a file that was not finished."""
        self._file.close()
        self._partial.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class DealtFile:
    """The file of one party: what is left of it is on the disk, and nowhere else.

    ``dealer`` is the public Ed25519 key that must have signed it.
    """

    path: Path
    party: PartyId
    dealer: bytes

    def take(self, bound_to: bytes, least: int = 0) -> Taken:
        """The next record that was never taken, its number ``least`` or more; but for that no more
        than `PASSED_BY` are passed by, nor all that there are. It is gone from the disk when this
        returns, whatever becomes of it.

        Raises:
            ConfigError: there is no such file, others may read it, it is cut off or changed,
                another party's, not signed by this dealer, or for rounds of other parameters; or it
                was used elsewhere: this is a copy.
            UsedUp: no record is left.
            CannotWrite: the operating system refuses.
        """
        with _held(self.path) as file:
            of, count, size, digests = self._read(file, bound_to)
            following = _next_of(used_by(self.path), of, os.fstat(file).st_ino)
            if following >= count:
                raise UsedUp(
                    f"all {count} dealings of {self.path} are used up: have the dealer make more."
                )
            number = min(max(least, following), following + PASSED_BY, count - 1)
            start = _records_at(self.party, count)
            for one in range(following, number + 1):
                record = _whole(file, size, start + one * size, self.path)
                if not any(record):  # and not in the list: it is not this file's
                    raise ConfigError(
                        f"{self.path}: dealing {one} was used before, and {used_by(self.path)} does"
                        " not know it: this is a copy, or its list was lost. Deal anew."
                    )
            _note(used_by(self.path), of, number)
            digest = hashlib.sha256(record).digest()
            if not hmac.compare_digest(digest, digests[number * _DIGEST : (number + 1) * _DIGEST]):
                why = "is not what the dealer signed; no other use is safe"
                raise ConfigError(f"{self.path}: dealing {number} {why}.")
            with _told(self.path):
                os.pwrite(file, bytes(size), start + number * size)
                os.fsync(file)
            return Taken(of, number, record)

    def _read(self, file: int, bound_to: bytes) -> tuple[bytes, int, int, bytes]:
        """Set id, number and size of records, and their digests."""
        path, end = self.path, os.fstat(file).st_size
        head = os.pread(file, _HEAD.size, 0)
        if len(head) < _HEAD.size or not head.startswith(_MAGIC):
            raise ConfigError(f"{path} is no dealing of this version.")
        _, of, bound, count, size, letters = _HEAD.unpack(head)
        signed_to = _HEAD.size + letters + _DIGEST * count
        if not 0 < count <= _MOST or end != signed_to + _SIGNATURE + count * size:
            raise ConfigError(f"{path} is cut off, or longer than it says.")
        signed = _whole(file, signed_to, 0, path)
        signature = _whole(file, _SIGNATURE, signed_to, path)
        if not backend().verify(self.dealer, _said(signed), signature):
            raise ConfigError(f"{path} was not signed by the dealer {self.dealer.hex()}.")
        name = signed[_HEAD.size : _HEAD.size + letters]
        if name != self.party.encode():
            raise ConfigError(
                f"{path} was dealt for another party than {self.party}: the files are swapped."
            )
        if not hmac.compare_digest(bound, bound_to):
            raise ConfigError(
                f"{path} was dealt for rounds of other parameters (rule, clients, length, bound,"
                " bits): deal for this config."
            )
        return of, count, size, signed[_HEAD.size + letters :]


def used_by(path: Path) -> Path:
    """The list of what was used of a file."""
    return path.with_name(path.name + ".used")


def fresh_id() -> bytes:
    """The id of a new set, the same in the files of all parties."""
    return secrets.token_bytes(16)


def _said(signed: bytes) -> bytes:
    return b"privfl/1/dealing/" + hashlib.sha256(signed).digest()


def _records_at(party: PartyId, count: int) -> int:
    return _HEAD.size + len(party.encode()) + _DIGEST * count + _SIGNATURE


def _next_of(path: Path, of: bytes, inode: int) -> int:
    """The number after the last one that was used; the list is made where there is none."""
    if not path.exists():
        with _told(path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            made = os.open(path, flags, 0o600)
            try:
                os.write(made, _LIST.pack(_LIST_MAGIC, of, inode, os.fstat(made).st_ino))
                os.fsync(made)
            finally:
                os.close(made)
            _sync(path.parent)
        return 0
    with _told(path):
        content, own = path.read_bytes(), path.stat().st_ino
    if len(content) < _LIST.size or not content.startswith(_LIST_MAGIC):
        raise ConfigError(f"{path} is no list of used dealings of this version: deal anew.")
    _, its, its_inode, its_own = _LIST.unpack_from(content)
    if its != of:
        raise ConfigError(f"{path} is the list of another dealing: deal anew.")
    if (its_inode, its_own) != (inode, own):
        raise ConfigError(
            f"{path} or its dealing is a copy: what was used where it comes from must not be used"
            " again here. Go on there, or deal anew."
        )
    rest, last = content[_LIST.size :], 0
    for at in range(0, len(rest), _USED.size):
        entry = rest[at : at + _USED.size]
        if len(entry) < _USED.size:  # torn by a crash: whatever it was for was not used, or was
            return last + 1
        number, check = _USED.unpack(entry)
        if check != _check(of, number) or number < last:
            raise ConfigError(f"{path} is damaged, and what was used is not known: deal anew.")
        last = number + 1
    return last


def _note(path: Path, of: bytes, number: int) -> None:
    """Add a number to the list, on the disk when this returns; what a crash tore is filled up."""
    with _told(path):
        file = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            whole = (os.fstat(file).st_size - _LIST.size) // _USED.size
            entry = _USED.pack(number, _check(of, number))
            os.pwrite(file, entry, _LIST.size + whole * _USED.size)
            os.fsync(file)
        finally:
            os.close(file)


def _check(of: bytes, number: int) -> bytes:
    return hashlib.sha256(b"privfl/1/used/" + of + number.to_bytes(4, "little")).digest()[:12]


def _whole(file: int, size: int, at: int, path: Path) -> bytes:
    content = os.pread(file, size, at)
    if len(content) != size:
        raise ConfigError(f"{path} is cut off.")
    return content


@contextmanager
def _held(path: Path) -> Iterator[int]:
    """The file, open, this process alone with it."""
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"cannot open the dealing {path}: {error.strerror or error}.") from None
    try:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode):
            raise ConfigError(f"the dealing {path} is no regular file.")
        if facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(
                f"the dealing {path} is open to others than its owner (mode"
                f" {facts.st_mode & 0o777:o}): chmod 600 it, or deal anew if others could read it."
            )
        if facts.st_uid != os.geteuid():
            raise ConfigError(f"the dealing {path} belongs to another user.")
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise ConfigError(f"{path} is being written, or was left unfinished: remove it.") from None
    except OSError as error:
        raise CannotWrite(f"cannot write '{path}': {error.strerror or error}.") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
