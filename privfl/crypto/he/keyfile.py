"""Secret keys on disk, and when one in a file may be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from privfl.core import ConfigError, RoundPlan
from privfl.crypto.he.scheme import SecretKey
from privfl.crypto.he.wire import Refused
from privfl.crypto.primitives import private_file

S = TypeVar("S", bound=SecretKey)

_MAGIC = b"privfl-he-key-1\n"


def write(path: Path, kind: bytes, secret: bytes) -> None:
    """Write a secret key to a new file that only its owner can read.

    Raises:
        ConfigError: the file exists, or cannot be written.
    """
    try:
        private_file.write(path, _MAGIC + len(kind).to_bytes(1, "little") + kind + secret)
    except OSError as error:
        raise ConfigError(
            f"key file {path} cannot be written: {error.strerror or error}."
        ) from error


def read(path: Path, kind: bytes) -> bytes:
    """Read a secret key.

    Raises:
        ConfigError: others than the owner may read the file, it is somebody else's, or it holds no
            key of this kind, it is a link, or it cannot be read.
    """
    try:
        body = private_file.read(path)
    except OSError as error:
        why = "a link" if path.is_symlink() else error.strerror
        raise ConfigError(f"key file {path} cannot be read: {why}.") from error
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
