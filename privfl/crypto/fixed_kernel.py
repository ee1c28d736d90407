"""Rounding to fixed point by the compiled kernel (`core.native`), where one was built: the same
integers as `encoding.FixedPoint` makes block by block in numpy.
"""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt

from privfl.core.native import kernels

_FAR = 1e250
"""Factors from here on could take a finite float32 out of a double's range."""
_NAMES = {np.dtype(np.int32): "fixed_point_int32", np.dtype(np.int64): "fixed_point_int64"}


def encoded(
    values: npt.NDArray[np.floating],
    factor: float,
    top: int,
    out: npt.NDArray[np.signedinteger],
    library: ctypes.CDLL | None = None,
) -> bool:
    """Write the integers [d] nearest ``factor`` times the values [d], of two the even one, cut to
    [-top, top], into ``out`` [d]; False where there is no kernel, it has no such type, or a value
    is not finite: then what is in ``out`` means nothing.
    """
    name = _NAMES.get(out.dtype)
    if name is None or values.dtype != np.float32 or not 0 <= factor < _FAR:
        return False
    if not (values.flags.c_contiguous and out.flags.c_contiguous):
        return False
    found = library or kernels()
    if found is None:
        return False
    place, target = values.ctypes.data, out.ctypes.data
    return bool(getattr(found, name)(place, len(values), factor, float(top), target) == 0)


def agrees_with_doubles(library: ctypes.CDLL) -> bool:
    """Whether a library gives the integers of the same operations in numpy, ties, both ends of the
    range and what lies beyond them included.
    """
    rng = np.random.default_rng(22)
    for bits in (2, 8, 16, 24, 31):
        top = (1 << bits - 1) - 1
        near = np.concatenate((np.arange(-9, 10) / 2, rng.uniform(-1.5 * top, 1.5 * top, 2000)))
        for factor in (1.0, top / 3.0, 1e9):
            values = np.concatenate((near / factor, [top, -top, 0.0, -0.0])).astype(np.float32)
            wanted = np.rint(np.clip(values.astype(np.float64) * factor, -top, top))
            for out in (np.empty(len(values), np.int32), np.empty(len(values), np.int64)):
                if not encoded(values, factor, top, out, library):
                    return False
                if not np.array_equal(out, wanted.astype(out.dtype)):
                    return False
    return True
