"""What ``privfl list`` showed before: the same words of the same installation say the same, and to
import every part for them takes seconds.

It lies in the user's cache folder, under a key of this package's files (names, sizes, times), the
words, and the width of the screen. Where plug-ins are installed nothing is remembered, because what
they say may change without a trace.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import privfl

_ENDING = ".list.txt"


@contextmanager
def remembered(words: Sequence[str]) -> Iterator[bool]:
    """Whether what these words show was shown; else what is printed inside is kept for the next
    time, unless it ends in an error.
    """
    if not words or words[0] != "list" or _plugged():
        yield False
        return
    here = _folder()
    installed = _installation()
    path = here / f"{installed}-{_digest([*words, *_screen()])}{_ENDING}"
    try:
        shown = path.read_text(encoding="utf-8")
    except OSError:
        shown = ""
    if shown:
        sys.stdout.write(shown)
        yield True
        return
    told, before = _Told(sys.stdout), sys.stdout
    sys.stdout = told
    ended = False
    try:
        yield False
        ended = True
    except SystemExit as done:
        ended = not done.code
        raise
    finally:
        sys.stdout = before
        if ended:
            _keep(path, "".join(told.parts), installed)


class _Told(TextIOWrapper):
    """A stream that keeps what goes through it."""

    def __init__(self, stream: Any) -> None:
        super().__init__(BytesIO(), encoding=stream.encoding, errors=stream.errors)
        self.stream = stream
        self.parts: list[str] = []

    def write(self, text: str) -> int:
        """Pass it on."""
        written = int(self.stream.write(text))  # first: who asks whether it takes bytes is refused
        self.parts.append(text)
        return written

    def flush(self) -> None:
        """Pass all of it on."""
        self.stream.flush()

    def isatty(self) -> bool:
        """Whether a person looks."""
        return bool(self.stream.isatty())

    def fileno(self) -> int:
        """The stream's own."""
        return int(self.stream.fileno())


def _plugged() -> bool:
    return any(group.startswith("privfl.") for group in entry_points().groups)


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "privfl"


def _screen() -> list[str]:
    return [str(shutil.get_terminal_size()), str(sys.stdout.isatty()), str("COLUMNS" in os.environ)]


def _installation() -> str:
    """The files of this package, by name, size and time."""
    top = Path(privfl.__file__).parent
    stats = []
    for folder, inside, files in os.walk(top):
        inside[:] = [name for name in inside if name != "__pycache__"]
        for name in files:
            at = os.stat(os.path.join(folder, name))
            stats.append(f"{folder}/{name} {at.st_size} {at.st_mtime_ns}")
    return _digest([sys.executable, *sorted(stats)])


def _digest(words: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:24]


def _keep(path: Path, text: str, installed: str) -> None:
    """Write it down, and forget what other versions said; not at all where that is not possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
        for old in path.parent.glob(f"*{_ENDING}"):
            if not old.name.startswith(installed):
                old.unlink(missing_ok=True)
    except OSError:
        return
