"""Secret keys on disk: readable by their owner alone, or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from privfl.core import ConfigError, RoundPlan
from privfl.crypto.he.scheme import SecretKey
from privfl.crypto.he.wire import Refused

S = TypeVar("S", bound=SecretKey)

_MAGIC = b"privfl-he-key-1\n"


def write(path: Path, kind: bytes, secret: bytes) -> None:
    """Write a secret key to a new file that only its owner can read.

    Raises:
        ConfigError: the file exists.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise ConfigError(
            f"key file {path} exists: a key is never overwritten. Name another file."
        ) from None
    with os.fdopen(handle, "wb") as file:
        os.fchmod(
            handle, 0o600
        )  # a umask can only take rights away; this also undoes what an ACL default would add
        file.write(_MAGIC + len(kind).to_bytes(1, "little") + kind + secret)


def read(path: Path, kind: bytes) -> bytes:
    """Read a secret key.

    Raises:
        ConfigError: others than the owner may read the file, it is somebody else's, or it holds no
            key of this kind.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(handle, "rb") as file:
        facts = os.fstat(handle)
        if facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(
                f"key file {path} is open to others than its owner (mode"
                f" {facts.st_mode & 0o777:o}): chmod 600 it."
            )
        if facts.st_uid != os.geteuid():
            raise ConfigError(f"key file {path} belongs to another user.")
        body = file.read()
    head = _MAGIC + len(kind).to_bytes(1, "little") + kind
    if not body.startswith(head):
        raise ConfigError(f"key file {path} holds no {kind.decode()} key of this version.")
    return body[len(head) :]


def fresh_session(key_file: str | None, plan: RoundPlan) -> None:
    """Refuse rounds without a session under a key that outlives sessions: their ciphertexts could
    be replayed in another run.

    Raises:
        ConfigError: the key lies in a file and ``plan.session`` is empty.
    """
    if key_file is not None and not plan.session:
        raise ConfigError(
            f"the key in {key_file} outlives a run, so plan.session must hold fresh random bytes"
            " for each run, and it is empty."
        )


def kept(key_file: str | None, kind: bytes, load: Callable[[bytes], S], make: Callable[[], S]) -> S:
    """The secret key in the file; a fresh one, written there, where the file does not exist yet; a
    fresh one, kept nowhere, without a file.

    Raises:
        ConfigError: the file is not safe, or holds a key of other parameters.
    """
    if key_file is None:
        return make()
    path = Path(key_file)
    if not path.exists():
        secret = make()
        write(path, kind, secret.to_bytes())
        return secret
    try:
        return load(read(path, kind))
    except Refused as refused:
        raise ConfigError(f"key file {path} does not fit this channel: {refused}.") from refused
