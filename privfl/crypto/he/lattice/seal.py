"""The few SEAL calls that we need, through TenSEAL's own binding of them: contexts, encoders,
objects as bytes.

The binding saves to paths only, so bytes pass through an anonymous file in memory: no key touches a
disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from privfl.core import ConfigError
from privfl.crypto.he.lattice.parameters import Lattice, plain_modulus
from privfl.crypto.he.libraries import seal
from privfl.crypto.he.wire import Numbers, Refused

BAD_BYTES = (RuntimeError, ValueError, TypeError, IndexError, MemoryError, OverflowError)
"""What SEAL's loaders throw at bytes that are none of theirs."""


class Passage:
    """An anonymous file in memory through which objects become bytes and bytes objects."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.path = f"/proc/self/fd/{handle}"

    def out(self, item: Any) -> bytes:
        """What the object saves."""
        item.save(self.path)  # opens it anew, and so cuts off what was there
        size, data = os.fstat(self.handle).st_size, b""
        while len(data) < size:
            data += os.pread(self.handle, size - len(data), len(data))
        return data

    def into(self, item: Any, context: Any, data: bytes | memoryview) -> Any:
        """The object, loaded and validated by SEAL.

        Raises:
            Refused: these bytes are none.
        """
        os.ftruncate(self.handle, 0)  # or SEAL would read on in what lay here before
        rest, at = memoryview(data), 0
        while at < len(rest):  # a write may be short
            at += os.pwrite(self.handle, rest[at:], at)
        try:
            item.load(context, self.path)
        except BAD_BYTES as error:
            raise Refused(f"not a SEAL {type(item).__name__} of this key's parameters") from error
        return item


@contextmanager
def passage() -> Iterator[Passage]:
    """A passage, closed at the end.

    Raises:
        ConfigError: this system has no memory files.
    """
    if not hasattr(os, "memfd_create"):
        raise ConfigError(
            "bfv and ckks need Linux (memfd): keys pass through memory, never through a disk. Use"
            " paillier or mp_rlwe here."
        )
    handle = os.memfd_create("privfl", os.MFD_CLOEXEC)
    try:
        yield Passage(handle)
    finally:
        os.close(handle)


@lru_cache(maxsize=8)
def context(lattice: Lattice) -> Any:
    """SEAL's tables for a parameter set: public, and dear to build.

    Raises:
        ConfigError: SEAL refuses the parameters.
    """
    bfv = lattice.scheme == "bfv"
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV if bfv else seal.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(lattice.degree)
    parameters.set_coeff_modulus(seal.CoeffModulus.Create(lattice.degree, list(lattice.primes)))
    if bfv:
        parameters.set_plain_modulus(plain_modulus(lattice.degree, lattice.plain_bits))
    made = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
    if not made.parameters_set():
        raise ConfigError(f"SEAL refuses {lattice}: {made.parameters_error_message()}")
    return made


def encoders(lattice: Lattice) -> tuple[Callable[[Numbers, Any], None], Callable[[Any], Numbers]]:
    """How a chunk of numbers becomes a plaintext, and back."""
    if lattice.scheme == "bfv":
        batch = seal.BatchEncoder(context(lattice))
        return (
            lambda chunk, plain: batch.encode(chunk.tolist(), plain),
            lambda plain: np.fromiter(
                batch.decode_int64(plain), dtype=np.int64, count=lattice.slots
            ),
        )
    floating, scale = seal.CKKSEncoder(context(lattice)), 2.0**lattice.scale_bits
    return (
        lambda chunk, plain: floating.encode(chunk.tolist(), scale, plain),
        lambda plain: np.fromiter(
            floating.decode_double(plain), dtype=np.float64, count=lattice.slots
        ),
    )
