"""Compiled kernels: built when somebody asks for them, where a C compiler is, and loaded from then
on by what has one: rules (`aggregators.network`), encodings (`crypto.fixed_kernel`). Without them
everything works, with the same bits.

What is loaded runs as the user, so it is loaded only from a folder that nobody but the user (or
root) can write to, nor any folder above it, and only if the user owns the file. Its name holds a
hash of the source, the flags and the processor's features (where these cannot be read, the
machine's name): a kernel of another version, or of another machine that shares the home folder, is
not found. It ends with its own digest: what was cut short on a full disk is not loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from privfl.core.errors import ConfigError

SOURCES = tuple(Path(__file__).with_name(f"{name}.c") for name in ("network", "fixed_point"))
FLAGS = (
    "-O3",
    "-march=native",
    "-ffp-contract=off",  # a fused product and sum would round once where torch rounds twice
    "-ffinite-math-only",  # what is not finite is found by its bits, before anything is compared
    "-fno-signed-zeros",  # both zeros are equal to a sort, and no result shows which it had
    "-fno-strict-aliasing",
    "-shared",
    "-fPIC",
)
_AT, _COUNT, _SINGLE, _DOUBLE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_double
_SIGNATURES: Mapping[str, list[Any]] = {
    "network_float32": [_AT, *[_COUNT] * 4, *[_AT, _COUNT] * 2, _SINGLE, _COUNT, _COUNT, _AT, _AT],
    "network_float64": [_AT, *[_COUNT] * 4, *[_AT, _COUNT] * 2, _DOUBLE, _COUNT, _COUNT, _AT, _AT],
    "fixed_point_int32": [_AT, _COUNT, _DOUBLE, _DOUBLE, _AT],
    "fixed_point_int64": [_AT, _COUNT, _DOUBLE, _DOUBLE, _AT],
}
_PATIENCE = 120.0
"""Seconds that a compiler gets."""
_DIGEST = 32
"""Bytes at a kernel's end: the SHA-256 of what is before them. Loaders do not read them."""


def kernel_folder() -> Path:
    """``privfl/native`` in the user's cache (``$XDG_CACHE_HOME`` where it is absolute, as its
    specification wants, or ``~/.cache``).

    Raises:
        ConfigError: the user has no home folder, or the variable names that of nobody.
    """
    try:
        cached = Path(os.environ.get("XDG_CACHE_HOME") or "").expanduser()
        place = cached if cached.is_absolute() else Path.home() / ".cache"
    except RuntimeError as homeless:
        raise ConfigError(
            f"no folder for kernels: {homeless} Set XDG_CACHE_HOME to an absolute path;"
            " everything works without kernels, with the same results."
        ) from homeless
    return place / "privfl" / "native"


def kernel_file(folder: Path | None = None) -> Path:
    """Where the kernels of this source and this machine are, or would be."""
    said = hashlib.sha256()
    for source in SOURCES:
        said.update(hashlib.sha256(source.read_bytes()).digest())
    for word in (*FLAGS, platform.system(), platform.machine(), _features()):
        said.update(b"\0" + word.encode())
    return (folder or kernel_folder()) / f"kernels-{said.hexdigest()[:32]}.so"


def kernels(folder: Path | None = None) -> ctypes.CDLL | None:
    """The compiled kernels; None where they were not built, are not the user's own, or
    ``PRIVFL_NATIVE=off`` is set.
    """
    if os.environ.get("PRIVFL_NATIVE") == "off":
        return None
    try:
        return _loaded(folder or kernel_folder())
    except ConfigError:  # nowhere could any be
        return None


def build_kernels(
    agrees: Callable[[ctypes.CDLL], bool],
    folder: Path | None = None,
    compiler: str | None = None,
) -> Path:
    """Compile the kernels (by ``$CC``, or ``cc``), have them checked, and put them in their place.

    ``CC`` is a compiler, or a compiler and its options as a shell would read them.

    Raises:
        ConfigError: there is no compiler, it failed, the folder is open to others or cannot be
            written, or the kernels' results are not what the checks expect: nothing is put in place
            then.
    """
    command = _command(compiler or os.environ.get("CC") or "cc")
    place = kernel_file(folder)
    try:
        _own_folders(place.parent)
        if why := open_to_others(place.parent):
            raise ConfigError(f"{why}, so kernels there would not be loaded: set XDG_CACHE_HOME.")
        with tempfile.TemporaryDirectory(dir=place.parent) as scratch:  # which is the user's alone
            made = Path(scratch) / place.name
            _compiled(command, made)
            library = _opened(made)
            if library is None or not agrees(library):
                raise ConfigError(
                    f"what '{command[0]}' made of the kernels does not give the bits that they"
                    " stand in for, so it is not used: name another compiler in CC."
                )
            made.replace(place)
    except OSError as failed:
        raise ConfigError(
            f"no kernels can be put into {place.parent}: {failed}. Set XDG_CACHE_HOME to a folder"
            " of your own."
        ) from failed
    _loaded.cache_clear()
    return place


def _command(asked: str) -> list[str]:
    """The compiler and its options: the whole is one name where there is such a program."""
    try:
        words = [asked] if shutil.which(asked) else shlex.split(asked)
    except ValueError:  # quotes that do not close
        words = []
    found = shutil.which(words[0]) if words else None
    if found is None:
        raise ConfigError(
            f"there is no C compiler '{asked}': install one or name it in CC; everything"
            " works without it, with the same results."
        )
    return [found, *words[1:]]


def _own_folders(folder: Path) -> None:
    """Make what is missing of a path, all of it the user's alone: by a common umask, groups could
    write to what is in between.
    """
    for one in reversed((folder, *folder.parents)):
        if not one.is_dir():
            one.mkdir(mode=0o700, exist_ok=True)


def _compiled(command: Sequence[str], made: Path) -> None:
    """The kernels with their digest."""
    try:
        done = subprocess.run(
            [*command, *FLAGS, *map(str, SOURCES), "-o", str(made)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired) as failed:
        raise ConfigError(f"'{command[0]}' did not compile the kernels: {failed}.") from failed
    if done.returncode or not made.is_file():
        said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise ConfigError(f"'{command[0]}' did not compile the kernels: {said}")
    content = made.read_bytes()
    made.write_bytes(content + hashlib.sha256(content).digest())
    made.chmod(0o700)


def _is_whole(place: Path) -> bool:
    content = place.read_bytes()
    return hashlib.sha256(content[:-_DIGEST]).digest() == content[-_DIGEST:]


def open_to_others(path: Path) -> str:
    """Why what lies at this path could be another user's doing; empty where it could not.

    The path and every folder above it must belong to the user or to root, and nobody else may
    write to them (in a folder with the sticky bit others cannot replace what is not theirs).
    """
    own = {0, os.geteuid()} if hasattr(os, "geteuid") else {0}
    whole = Path(os.path.realpath(path))
    for one in (whole, *whole.parents):
        try:
            found = one.lstat()
        except OSError as gone:
            return f"{one} cannot be looked at ({gone.strerror})"
        if found.st_uid not in own:
            return f"{one} belongs to another user"
        sticky = one != whole and found.st_mode & stat.S_ISVTX
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
            return f"{one} can be written by others"
    return ""


def _features() -> str:
    """What the processor can do: kernels that are made for it do not run on a lesser one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.node()
    kinds = ("flags", "Features", "model name")
    return "\n".join(sorted({line for line in lines if line.startswith(kinds)}))


@cache
def _loaded(folder: Path) -> ctypes.CDLL | None:
    try:
        # a link on the way could be another one after the check
        place = Path(os.path.realpath(kernel_file(folder)))
        usable = place.is_file() and not open_to_others(place) and _is_whole(place)
    except OSError:
        return None
    return _opened(place) if usable else None


def _opened(place: Path) -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(place))
        for name, arguments in _SIGNATURES.items():
            kernel = library[name]
            kernel.restype, kernel.argtypes = ctypes.c_int, arguments
            setattr(library, name, kernel)
    except (OSError, AttributeError):
        return None
    return library
