"""Files that a kill, a full disk or a loss of power leaves whole: the old one or the new one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from privfl.core import CannotWrite, ConfigError

LOCK = ".lock"
"""The file in a folder by which one process keeps others from writing there."""


@contextmanager
def said(path: Path) -> Iterator[None]:
    """What the operating system refuses inside, in one sentence.

    Raises:
        CannotWrite: it refused to write ``path``.
    """
    try:
        yield
    except CannotWrite:
        raise
    except OSError as error:
        raise CannotWrite(
            f"cannot write '{path}': {error.strerror or error}. What was written before is whole:"
            " make room or give permission, and go on with the run (resume)."
        ) from error


def write_synced(path: Path, content: bytes) -> None:
    """Write a file whose content is on the disk when this returns; its name may not be, before its
    folder is synced.
    """
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_all_synced(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder; with their names on the disk when this returns. They are all
    written before the first is synced, which takes most of the others along.
    """
    with ExitStack() as held:
        opened = []
        for name, content in files.items():
            file = held.enter_context((folder / name).open("wb"))
            file.write(content)
            file.flush()
            opened.append(file)
        for file in opened:
            os.fsync(file.fileno())
    sync_folder(folder)


def append_synced(path: Path, content: bytes) -> None:
    """Add to a file; on the disk when this returns, and the name of a new file with it.

    Raises:
        CannotWrite: the operating system refuses.
    """
    with said(path):
        new = not path.exists()
        with path.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk: a rename is lost with the power until then."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, with their names on the disk."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file as a whole: a reader, a kill, or a loss of power sees the old one or the new
    one, and when this returns it is the new one.

    Raises:
        CannotWrite: the operating system refuses; the old one stays.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    with said(path):
        try:
            write_synced(draft, content.encode() if isinstance(content, str) else content)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def refuse_full(path: Path, resumed: str = "") -> None:
    """Refuse a folder that is to be new and holds something; ``resumed`` is what could go on in it
    by --resume, where anything could.

    Raises:
        ConfigError: it is no folder, or not empty.
        CannotWrite: nobody may look into it.
    """
    with said(path):
        full = path.exists() and (
            not path.is_dir() or any(inside.name != LOCK for inside in path.iterdir())
        )
    if full:
        or_else = f", or go on with the {resumed} in it by --resume" if resumed else ""
        raise ConfigError(f"'{path}' is not empty: give --out a new folder{or_else}.")
