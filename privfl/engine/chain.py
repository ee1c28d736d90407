"""A run's transcript as lines that hang together: each ends with the SHA-256 of itself and of the
line before it, so that the last hash, the head, stands for all of them and for the files that they
cover.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

from privfl.core import Broadcast, CannotWrite, DataCorrupt, Transcript, Vector
from privfl.engine.files import append_synced, said

TRANSCRIPT = "transcript.jsonl"
_VERSION = b"privfl/1/transcript"
_LINE = re.compile(rb'(?P<body>\{.*), "chain": "(?P<head>[0-9a-f]{64})"\}', re.DOTALL)

Kind: TypeAlias = Literal["begin", "resume", "round", "end"]
Covered: TypeAlias = Mapping[str, Mapping[str, Any]]
"""By path within the run folder ``sha256``, and ``bytes`` where a file only grows: so many of its
first bytes are covered.
"""


@dataclass(frozen=True, slots=True)
class Link:
    """One line: its number from 1 on, what it is, the ``round`` that it is of (of a beginning, the
    next one), the hash of the ``model`` after it, what it ``covers``, and its ``head``.
    """

    line: int
    kind: Kind
    round: int
    model: str
    covers: Covered
    head: str


class BrokenChain(DataCorrupt):
    """A line does not follow from those before it; ``links`` are those before, ``line`` is its
    number, ``cut`` whether it is a last line that does not end.
    """

    def __init__(self, message: str, line: int, links: tuple[Link, ...], *, cut: bool) -> None:
        super().__init__(message)
        self.line, self.links, self.cut = line, links, cut


class TranscriptChain:
    """The file ``transcript.jsonl`` of a run folder, as its one writer has it.

    The first line has a random salt: the head is a commitment to everything behind it, and says
    nothing of it to whoever does not know that line (if SHA-256 hides what 256 secret bits are
    hashed with). So it may be published, and the file may not.

    Args:
        path: the file; made by the first line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head = ""
        self.lines = 0

    def catch_up(self) -> None:
        """Go on after what is written; a last line that was not written to its end is dropped.

        Raises:
            DataCorrupt: a line does not follow from those before it.
        """
        try:
            links = read_chain(self.path)
        except BrokenChain as broken:
            if not broken.cut:
                raise DataCorrupt(
                    f"'{self.path}' is not as it was written: {broken}. Put the whole file back, or"
                    " begin the run anew in another folder."
                ) from None
            links = broken.links
            _drop_last(self.path)
        self.lines, self.head = len(links), links[-1].head if links else ""

    def add(self, kind: Kind, round: int, model: Vector, covers: Covered, **facts: Any) -> None:
        """One more line; on the disk when this returns.

        Raises:
            CannotWrite: the operating system refuses.
        """
        salt = {} if self.lines else {"salt": secrets.token_hex(32)}
        body = json.dumps(
            {
                "entry": kind,
                "round": round,
                "model": Broadcast(round, model).digest,
                "covers": covers,
                **facts,
                **salt,
            }
        )[:-1]
        head = _hash(self.head, body.encode())
        append_synced(self.path, f'{body}, "chain": "{head}"}}\n'.encode())
        self.head, self.lines = head, self.lines + 1


def facts_of_round(transcript: Transcript) -> dict[str, Any]:
    """What a line says of a round beside the files: the digests of its plans, by part, and of every
    letter that was delivered, in order: exchange, sender, receiver, bytes, SHA-256.
    """
    plans = transcript.plans or {"delta": transcript.plan}
    return {
        "plans": {part: plan.digest.hex() for part, plan in plans.items()},
        "letters": [
            [letter.exchange, letter.sender, letter.receiver, letter.size, letter.digest]
            for letter in transcript.carried.messages
        ],
    }


def read_chain(path: Path) -> tuple[Link, ...]:
    """The lines of a transcript.

    Raises:
        BrokenChain: a line was changed, put elsewhere or taken out, or the last one does not end.
        DataCorrupt: the file cannot be read.
    """
    links: list[Link] = []
    before = ""
    for number, (line, whole) in enumerate(_lines(path), 1):
        found = _LINE.fullmatch(line)
        if not whole:
            raise BrokenChain(f"line {number} does not end", number, tuple(links), cut=True)
        if found is None or found["head"].decode() != _hash(before, found["body"]):
            why = f"line {number} does not follow from the one before it"
            raise BrokenChain(why, number, tuple(links), cut=False)
        before = found["head"].decode()
        try:
            told = json.loads(line)
            links.append(_link(number, told, before))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            why = f"line {number} is no entry of a transcript ({error})"
            raise BrokenChain(why, number, tuple(links), cut=False) from None
    return tuple(links)


def _link(number: int, told: Any, head: str) -> Link:
    """A line that hangs together with those before it: who wrote it may have written anything.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is no entry.
    """
    kind, round, covers = told["entry"], told["round"], told["covers"]
    if kind not in typing.get_args(Kind) or type(round) is not int or round < 0:
        raise ValueError(f"its entry is {kind!r}, of round {round!r}")
    for path, one in covers.items():
        length, sha256 = one.get("bytes", 0), one["sha256"]
        inside = not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts
        if not (inside and type(length) is int and length >= 0 and isinstance(sha256, str)):
            raise ValueError(f"it covers {path!r} by {one!r}")
    return Link(number, kind, round, str(told["model"]), covers, head)


class Growing:
    """A file that only grows, as far as it is covered; only what is new is read again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._length, self._hash = 0, hashlib.sha256()

    def covered(self) -> Mapping[str, Any]:
        """All of it.

        Raises:
            CannotWrite: it cannot be read.
        """
        with said(self.path):
            if self.path.exists():
                with self.path.open("rb") as file:
                    file.seek(self._length)
                    new = file.read()
                self._hash.update(new)
                self._length += len(new)
        return {"bytes": self._length, "sha256": self._hash.hexdigest()}


def whole_of(path: Path) -> Mapping[str, Any]:
    """How a file that is written once is covered.

    Raises:
        CannotWrite: it cannot be read.
    """
    with said(path), path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def content_of(path: Path) -> bytes:
    """The bytes of a file; none where there is none, or something else, such as a pipe, that would
    never end.

    Raises:
        DataCorrupt: it cannot be read.
    """
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError as error:
        raise DataCorrupt(f"'{path}' cannot be read: {error.strerror or error}.") from None
    except MemoryError:
        raise DataCorrupt(f"'{path}' is larger than this machine's memory.") from None


def _hash(before: str, body: bytes) -> str:
    return hashlib.sha256(b"\n".join((_VERSION, before.encode(), body))).hexdigest()


def _lines(path: Path) -> Iterator[tuple[bytes, bool]]:
    """Each line without its end, and whether it has one."""
    content = content_of(path)
    *whole, rest = content.split(b"\n")
    for line in whole:
        yield line, True
    if rest:
        yield rest, False


def _drop_last(path: Path) -> None:
    """Cut a file after its last whole line."""
    try:
        with path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
            os.fsync(file.fileno())
    except OSError as error:
        raise CannotWrite(f"cannot write '{path}': {error.strerror or error}.") from None
