"""What a node keeps on its disk: its keys, its parties at rest, what it remembers of each run, and
what it has played. Everything that hangs on data or keys is sealed under the node's rest key.
"""

from __future__ import annotations

import fcntl
import json
import secrets
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from privfl.core import (
    ClientState,
    ConfigError,
    KeepsSecrets,
    Member,
    Party,
    SealedState,
    StateKey,
    Vector,
    seal_state,
    unseal_state,
)
from privfl.crypto.primitives import Directory, private_file
from privfl.engine.files import append_synced, make_folder, write_atomically

T = TypeVar("T")
KEPT = 2
"""Rounds whose memories stay: a server that resumes plays the last one again."""


@dataclass
class Remembered:
    """What a client remembers after a round: its training's memory, its seats', and the extra
    vectors that it sent, of which it is told later whether they arrived.
    """

    round: int
    state: ClientState = field(default_factory=ClientState)
    seats: Mapping[int, Any] = field(default_factory=dict)
    sent: Mapping[str, Vector] = field(default_factory=dict)


@dataclass(repr=False)
class Awake(KeepsSecrets):
    """A node at work in one session of keys: the terms of the run as they came, its member, and its
    party in the round that is under way.
    """

    session: bytes
    terms: Mapping[str, Any]
    member: Member
    party: Party | None = None
    begun: bool = True
    told: int = 0
    """How many refused letters the server was told of."""


class NodeDisk:
    """The folder of one node's state.

    Args:
        path: made if it is not there, for its owner alone.

    Raises:
        ConfigError: its rest key is no key, or others may read it.
        CannotWrite: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        make_folder(path)
        path.chmod(0o700)
        key = path / "rest.key"
        if not key.exists():
            private_file.write(key, secrets.token_bytes(32))
        self._key = StateKey(private_file.read(key))
        self._played: dict[str, int] | None = None

    def hold(self) -> None:
        """Keep other processes from this folder for as long as this object lives: two nodes with
        one state would each play a round that may be played once.

        Raises:
            ConfigError: one works there.
        """
        file = (self.path / "lock").open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise ConfigError(
                f"another process works in '{self.path}': a node has one. End it first."
            ) from None
        weakref.finalize(self, file.close)

    # ---- the session

    def sleep(self, awake: Awake) -> None:
        """Put the node to rest: on the disk when this returns."""
        write_atomically(self.path / "awake.sealed", seal_state(awake, self._key).body)

    def wake(self, directory: Directory) -> Awake | None:
        """The node as it went to rest; None where there is none.

        Raises:
            PrivflError: the file was changed, or another key sealed it.
        """
        return self._read(self.path / "awake.sealed", Awake, directory)

    def _read(self, path: Path, kind: type[T], lent: Directory | None = None) -> T | None:
        if not path.exists():
            return None
        return unseal_state(SealedState(path.read_bytes()), self._key, kind, lent=lent)

    # ---- what was played

    def played(self, session: bytes) -> int:
        """The last round that was played in a session; -1 where it is new here."""
        return self._log().get(session.hex(), -1)

    def play(self, session: bytes, number: int) -> None:
        """Note that a round is played: it never is again in this session, whoever asks."""
        line = json.dumps({"session": session.hex(), "round": number})
        append_synced(self.path / "played.jsonl", line.encode() + b"\n")
        self._log()[session.hex()] = number

    def _log(self) -> dict[str, int]:
        if self._played is None:
            path, found = self.path / "played.jsonl", dict[str, int]()
            whole = path.read_bytes() if path.exists() else b""
            for line in whole[: whole.rfind(b"\n") + 1].splitlines():
                try:
                    told = json.loads(line)
                    found[str(told["session"])] = int(told["round"])
                except (ValueError, KeyError, TypeError):
                    raise ConfigError(
                        f"'{path}' holds a line that is none: what was played in it may be played"
                        " again. Put the right file back, or give the node new keys."
                    ) from None
            if whole and not whole.endswith(b"\n"):  # cut by a loss of power, before it counted
                write_atomically(path, whole[: whole.rfind(b"\n") + 1])
            self._played = found
        return self._played

    # ---- memories

    def run(self, run: bytes) -> Path:
        """The folder of a run, with its ledger."""
        path = self.path / "runs" / run.hex()
        make_folder(path)
        return path

    def remember(self, run: bytes, what: Remembered) -> None:
        """Keep what is remembered after a round, and forget all but the one before it."""
        folder = self.run(run)
        sealed = seal_state(what, self._key).body
        write_atomically(folder / f"memory-{what.round:08d}.sealed", sealed)
        for path in sorted(folder.glob("memory-*.sealed"))[:-KEPT]:
            path.unlink(missing_ok=True)

    def recall(self, run: bytes, number: int) -> Remembered | None:
        """What is remembered from before a round; None where there is nothing.

        Raises:
            PrivflError: the file was changed, or another key sealed it.
        """
        before = f"memory-{number:08d}.sealed"
        found = [p for p in sorted(self.run(run).glob("memory-*.sealed")) if p.name < before]
        for path in (p for p in self.run(run).glob("memory-*.sealed") if p.name > before):
            path.unlink()  # of rounds that the server forgot
        return self._read(found[-1], Remembered) if found else None
