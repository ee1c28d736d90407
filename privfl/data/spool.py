"""Samples on disk, read where they are used: memory follows the clients of a round."""

from __future__ import annotations

import math
import tempfile
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from privfl.core import DataCorrupt

_PIECE = 1 << 14
"""Bytes written at a time. What Linux writes at once it keeps together, and maps as a whole where
one row of it is read: megabytes for one client.
"""


class Spool:
    """Rows of one shape and type, written one after the other to a file without a name in the
    folder for temporary files (``TMPDIR``), which goes when the last tensor of it does.

    >>> spool = Spool()
    >>> spool.add(np.ones((2, 3), np.float32))
    >>> spool.add(np.zeros((1, 3), np.float32))
    >>> spool.tensor().sum(dim=1)
    tensor([3., 3., 0.])
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  a map of it lasts without it
        weakref.finalize(self, self._file.close)
        self._shape: tuple[int, ...] | None = None
        self._dtype: np.dtype[Any] = np.dtype(np.float32)
        self.n = 0

    def add(self, rows: npt.NDArray[Any]) -> None:
        """Write rows [k, ...].

        Raises:
            DataCorrupt: they have another shape or type than those before.
        """
        if self._shape is None:
            self._shape, self._dtype = rows.shape[1:], rows.dtype
        if (rows.shape[1:], rows.dtype) != (self._shape, self._dtype):
            raise DataCorrupt(
                f"samples {self.n} and later have shape {rows.shape[1:]} and type {rows.dtype}, and"
                f" those before {self._shape} and {self._dtype}: they must be alike."
            )
        data = np.ascontiguousarray(rows).data.cast("B") if rows.size else b""
        for start in range(0, len(data), _PIECE):
            self._file.write(data[start : start + _PIECE])
            self._file.flush()
        self.n += len(rows)

    def tensor(self) -> Tensor:
        """All rows [n, ...]: a private map of the file, whose rows are read where they are used."""
        shape = (self.n, *(self._shape or ()))
        self._file.flush()
        if not math.prod(shape):
            return torch.from_numpy(np.empty(shape, self._dtype))
        return torch.from_numpy(np.memmap(self._file, self._dtype, mode="c", shape=shape))
