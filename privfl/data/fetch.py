"""Downloads that go on where they stopped, are checked before they have a name, and never leave
half a file behind one.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from privfl.core import ConfigError, DataCorrupt, DataMissing, unknown
from privfl.data import files
from privfl.data.origins import ORIGINS, Origin, Remote

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with a file, the bytes that are here, and the bytes in all."""
_CHUNK = 1 << 18
_SILENCE = 30.0
"""Seconds without a byte before an address counts as dead."""


def present(name: str, folder: Path | None = None, origins: Mapping[str, Origin] = ORIGINS) -> bool:
    """Whether all that loading a data set needs lies in the data folder.

    Raises:
        ConfigError: an unknown data set.

    >>> present("digits")
    True
    """
    base = folder or files.data_folder()
    return all(files.locate(base / file) is not None for file in _origin(name, origins).needs)


def fetch(
    name: str,
    folder: Path | None = None,
    progress: Progress | None = None,
    origins: Mapping[str, Origin] = ORIGINS,
) -> tuple[Path, ...]:
    """Download the files of a data set that are not there yet, and return where all of them are.

    A download goes into ``FILE.part`` and goes on from there after a cut (HTTP Range). The file
    gets its name only once its size and its SHA-256 are right, in one rename; otherwise the part is
    removed. Files that are there already are left alone and not checked. The checksum is what
    vouches for the bytes, so mirrors and plain http are as good as the first address.

    Raises:
        ConfigError: an unknown data set.
        DataMissing: no address answered with the whole file (what came stays as ``.part``, for the
            next try), or the folder cannot be made.
        DataCorrupt: what came is not the file: its size or checksum is wrong, or the archive lacks
            a member.
    """
    base = folder or files.data_folder()
    paths: list[Path] = []
    for remote in _origin(name, origins).files:
        wanted = [base / member for member in remote.members] or [base / remote.file]
        if any(files.locate(path) is None for path in wanted):
            target = base / remote.file
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
            except OSError as fault:
                raise DataMissing(
                    f"data set '{name}' has nowhere to go ({fault}): set PRIVFL_DATA to a folder"
                    " that you can write."
                ) from fault
            _download(name, remote, target, progress)
            if remote.members:
                _unpack(target, remote, base)
        paths.extend(found for path in wanted if (found := files.locate(path)) is not None)
    return tuple(paths)


def _origin(name: str, origins: Mapping[str, Origin]) -> Origin:
    if name not in origins:
        raise ConfigError(unknown("data set", name, origins))
    return origins[name]


def _download(name: str, remote: Remote, target: Path, progress: Progress | None) -> None:
    part = target.with_name(target.name + ".part")
    faults: list[str] = []
    for address in remote.addresses:
        try:
            _continue(address, remote, part, progress)
        except (OSError, http.client.HTTPException) as fault:  # URLError and timeouts are OSErrors
            faults.append(f"{address}: {fault}")
            continue
        here = part.stat().st_size
        if here < remote.size:
            faults.append(
                f"{address}: the connection ended after {here:,} of {remote.size:,} bytes"
            )
            continue
        _check(part, remote, address)
        part.replace(target)
        return
    raise DataMissing(
        f"data set '{name}': {remote.file} could not be downloaded ({'; '.join(faults)}); run"
        f" 'privfl data fetch {name}' again to go on where it stopped, or put the file into"
        f" {target.parent} yourself."
    )


def _continue(address: str, remote: Remote, part: Path, progress: Progress | None) -> None:
    """Append to the part what it lacks; begin anew where the server does not go on from the
    middle.
    """
    if not address.startswith(("https://", "http://")):
        raise ConfigError(f"{address} is neither an https nor an http address.")
    here = part.stat().st_size if part.exists() else 0
    if here >= remote.size:
        return
    wanted = {"Range": f"bytes={here}-"} if here else {}
    request = urllib.request.Request(address, headers=wanted)  # noqa: S310 (checked above)
    with urllib.request.urlopen(request, timeout=_SILENCE) as answer:  # noqa: S310
        goes_on = answer.status == http.HTTPStatus.PARTIAL_CONTENT and answer.headers.get(
            "Content-Range", ""
        ).startswith(f"bytes {here}-")
        here = here if goes_on else 0
        with part.open("ab" if goes_on else "wb") as out:
            while here <= remote.size and (chunk := answer.read(_CHUNK)):
                out.write(chunk)
                here += len(chunk)
                if progress is not None:
                    progress(remote.file, here, remote.size)


def _check(part: Path, remote: Remote, address: str) -> None:
    with part.open("rb") as whole:
        digest = hashlib.file_digest(whole, "sha256").hexdigest()
    size = part.stat().st_size
    if size != remote.size or digest != remote.sha256:
        part.unlink()
        raise DataCorrupt(
            f"{address} gave {size:,} bytes with SHA-256 {digest}, and {remote.file} has"
            f" {remote.size:,} with {remote.sha256}: the download was removed; try again, and if it"
            " stays so the file has changed at its source."
        )


def _unpack(archive: Path, remote: Remote, base: Path) -> None:
    """The named members and nothing else, each renamed into place once it is whole; then the
    archive goes.
    """
    try:
        with tarfile.open(archive) as tar:
            for member in remote.members:
                stream = tar.extractfile(member)
                if stream is None:
                    raise DataCorrupt(f"{archive}: {member} is not a file.")
                part = (base / member).with_name((base / member).name + ".part")
                part.parent.mkdir(parents=True, exist_ok=True)
                with stream, part.open("wb") as out:
                    shutil.copyfileobj(stream, out)
                os.replace(part, base / member)
    except (tarfile.TarError, KeyError, EOFError) as fault:
        raise DataCorrupt(
            f"{archive} cannot be unpacked ({fault}): delete it and fetch it again."
        ) from fault
    finally:
        archive.unlink()
