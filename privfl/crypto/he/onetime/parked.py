"""What clients sent, on disk until it is needed again."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from privfl.core import Buffer, ClientId

_LARGE = 1 << 20
_PAGE = 4096


class Parked:
    """Byte strings by client, in a temporary file without a name (under TMPDIR).

    The server adds contributions as they come, and only later hears whose dealings are bad and have
    to be taken out again. So that its memory does not grow with the cohort, what clients sent waits
    on disk. It is what travelled, and says no more there than on the wire. What is large is written
    past the system's cache, where the file system can: the cache would be memory too.

    >>> parked = Parked()
    >>> parked.put(7, b"four")
    >>> parked.get(7)
    b'four'
    """

    def __init__(self) -> None:
        self._place: dict[ClientId, tuple[int, int]] = {}
        self._end = 0
        self._file: int | None = None
        self._aligned: mmap.mmap | None = None

    def put(self, client: ClientId, body: Buffer) -> None:
        """Put aside what a client sent."""
        if self._file is None:
            self._file, path = tempfile.mkstemp(prefix="privfl-parked-")
            os.unlink(path)
        left = memoryview(body).cast("B")
        self._place[client] = self._end, len(left)
        if len(left) >= _LARGE:
            left = self._page_by_page(left)
        while left:
            written = os.pwrite(self._file, left, self._end)
            self._end, left = self._end + written, left[written:]

    def _page_by_page(self, left: memoryview) -> memoryview:
        """Write past the cache, in whole pages; what is left to be written where that fails."""
        size = -(-len(left) // _PAGE) * _PAGE
        if self._file is None or self._end % _PAGE or sys.platform != "linux":
            return left
        if self._aligned is None or len(self._aligned) < size:
            self._aligned = mmap.mmap(-1, size)
        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._file, fcntl.F_SETFL, flags | os.O_DIRECT)
            self._aligned[: len(left)] = left
            with memoryview(self._aligned)[:size] as pages:
                written = os.pwrite(self._file, pages, self._end)
            if written == size:
                self._end, left = self._end + size, left[len(left) :]
        fcntl.fcntl(self._file, fcntl.F_SETFL, flags)
        return left

    def get(self, client: ClientId) -> bytes:
        """What a client sent.

        Raises:
            OSError: the disk lost it.
        """
        start, size = self._place[client]
        out = bytearray()
        while self._file is not None and len(out) < size:
            read = os.pread(self._file, size - len(out), start + len(out))
            if not read:
                raise OSError(f"{size} bytes were put aside, and {len(out)} are there")
            out += read
        return bytes(out)

    def close(self) -> None:
        """Forget all."""
        if self._file is not None:
            os.close(self._file)
        self._file, self._aligned, self._place, self._end = None, None, {}, 0

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, ({client: self.get(client) for client in self._place},)


def _restored(bodies: Mapping[ClientId, bytes]) -> Parked:
    parked = Parked()
    for client, body in bodies.items():
        parked.put(client, body)
    return parked
