"""What clients sent, on disk until it is needed again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

from privfl.core import Buffer, ClientId


class Parked:
    """Byte strings by client, in a temporary file without a name (under TMPDIR).

    The server adds contributions as they come, and only later hears whose dealings are bad and have
    to be taken out again. So that its memory does not grow with the cohort, what clients sent waits
    on disk. It is what travelled, and says no more there than on the wire.

    >>> parked = Parked()
    >>> parked.put(7, b"four")
    >>> parked.get(7)
    b'four'
    """

    def __init__(self) -> None:
        self._place: dict[ClientId, tuple[int, int]] = {}
        self._end = 0
        self._file: int | None = None

    def put(self, client: ClientId, body: Buffer) -> None:
        """Put aside what a client sent."""
        if self._file is None:
            self._file, path = tempfile.mkstemp(prefix="privfl-parked-")
            os.unlink(path)
        left = memoryview(body).cast("B")
        self._place[client] = self._end, len(left)
        while left:
            written = os.pwrite(self._file, left, self._end)
            self._end, left = self._end + written, left[written:]

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
        self._file, self._place, self._end = None, {}, 0

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, ({client: self.get(client) for client in self._place},)


def _restored(bodies: Mapping[ClientId, bytes]) -> Parked:
    parked = Parked()
    for client, body in bodies.items():
        parked.put(client, body)
    return parked
