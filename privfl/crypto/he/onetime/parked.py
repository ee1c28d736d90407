"""Contributions that lie on disk until it is certain that they stay in the sum."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

from privfl.core import Buffer, ClientId


class Parked:
    """Encrypted contributions of one size, by client, in a temporary file without a name.

    The server adds contributions as they come, and only later hears whose dealings are bad. So that
    its memory does not grow with the cohort, what it may have to take out of the sum again waits on
    disk (under TMPDIR). Without the decryptors these bytes say nothing.

    >>> parked = Parked(4)
    >>> parked.put(7, b"four")
    >>> parked.get(7)
    b'four'
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._place: dict[ClientId, int] = {}
        self._file: int | None = None

    def put(self, client: ClientId, body: Buffer) -> None:
        """Put a contribution aside."""
        if self._file is None:
            self._file, path = tempfile.mkstemp(prefix="privfl-parked-")
            os.unlink(path)
        start = self.size * len(self._place)
        left = memoryview(body).cast("B")
        while left:
            written = os.pwrite(self._file, left, start)
            start, left = start + written, left[written:]
        self._place[client] = len(self._place)

    def get(self, client: ClientId) -> bytes:
        """A contribution that was put aside.

        Raises:
            OSError: the disk lost it.
        """
        if self._file is None:
            return b""
        out, start = bytearray(), self.size * self._place[client]
        while len(out) < self.size:
            read = os.pread(self._file, self.size - len(out), start + len(out))
            if not read:
                raise OSError(f"{self.size} bytes were put aside, and {len(out)} are there")
            out += read
        return bytes(out)

    def close(self) -> None:
        """Forget all."""
        if self._file is not None:
            os.close(self._file)
        self._file, self._place = None, {}

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.size, {client: self.get(client) for client in self._place})


def _restored(size: int, bodies: Mapping[ClientId, bytes]) -> Parked:
    parked = Parked(size)
    for client, body in bodies.items():
        parked.put(client, body)
    return parked
