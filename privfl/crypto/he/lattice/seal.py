"""The few SEAL calls that we need, through TenSEAL's own binding of them: contexts, keys,
ciphertexts as bytes.

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
import tenseal.sealapi as seal

from privfl.core import ConfigError
from privfl.crypto.he.lattice.parameters import Lattice, plain_modulus
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
        return os.pread(self.handle, os.fstat(self.handle).st_size, 0)

    def into(self, item: Any, context: Any, data: bytes | memoryview) -> Any:
        """The object, loaded and validated by SEAL.

        Raises:
            Refused: these bytes are none.
        """
        os.pwrite(
            self.handle, data, 0
        )  # what an earlier object left behind it is never read: SEAL's head says how long it is
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


def generate(lattice: Lattice) -> tuple[bytes, bytes]:
    """A fresh key pair: public, secret."""
    keys = seal.KeyGenerator(context(lattice))
    public = seal.PublicKey()
    keys.create_public_key(public)
    with passage() as file:
        return file.out(public), file.out(keys.secret_key())


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


def load(file: Passage, lattice: Lattice, data: bytes | memoryview) -> Any:
    """A ciphertext that can be added to others of this parameter set.

    Raises:
        Refused: it is none.
    """
    made = context(lattice)
    ciphertext = file.into(seal.Ciphertext(), made, data)
    if (
        ciphertext.size() != 2
        or ciphertext.is_transparent()
        or ciphertext.parms_id() != made.first_parms_id()
    ):
        raise Refused(
            "a ciphertext that is not fresh: another size or level, or one that hides nothing"
        )
    if lattice.scheme == "ckks" and ciphertext.scale != 2.0**lattice.scale_bits:
        raise Refused("a ciphertext of another scale")
    return ciphertext
