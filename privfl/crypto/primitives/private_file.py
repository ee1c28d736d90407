"""Files that hold secrets: readable by their owner alone, or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from privfl.core import ConfigError


def write(path: Path, content: bytes) -> None:
    """Write secrets to a new file that only its owner can read (mode 0600).

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
        file.write(content)


def read(path: Path) -> bytes:
    """Read such a file.

    Raises:
        ConfigError: it is no file, others than the owner may read it, or it is somebody else's.
        OSError: there is none, or it is a link.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # or a pipe waits for ever
    facts = os.fstat(handle)
    if not stat.S_ISREG(facts.st_mode):
        os.close(handle)
        raise ConfigError(f"key file {path} is no regular file.")
    with os.fdopen(handle, "rb") as file:
        if facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(
                f"key file {path} is open to others than its owner (mode"
                f" {facts.st_mode & 0o777:o}): chmod 600 it."
            )
        if facts.st_uid != os.geteuid():
            raise ConfigError(f"key file {path} belongs to another user.")
        return file.read()
