"""One face over the two libraries that can compute the primitives: the same bytes from either."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from privfl.core import Buffer, ConfigError

BackendName = Literal["auto", "cryptography", "pycryptodome"]


@runtime_checkable
class Keystream(Protocol):
    """An AES-CTR keystream that is read from its beginning on, 64 GiB at most."""

    def fill(self, out: npt.NDArray[np.uint8], n: int) -> None:
        """Write the next ``n`` bytes to the front of ``out``, which has 15 bytes more room than
        that.
        """
        ...


@runtime_checkable
class Backend(Protocol):
    """X25519 (RFC 7748), Ed25519 (RFC 8032), AES-GCM and AES-CTR (SP 800-38D and 38A) on raw
    bytes.
    """

    @property
    def name(self) -> str:
        """The library."""
        ...

    def x25519_public(self, secret: bytes) -> bytes:
        """The public key [32 bytes] of a secret scalar [32 bytes]."""
        ...

    def agreement(self, secret: bytes) -> Callable[[bytes], bytes]:
        """Public key -> shared secret [32 bytes], for one secret scalar. It raises ValueError where
        the result would be all zero.
        """
        ...

    def pair(self, secret: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
        """`x25519_public` and `agreement` of a secret scalar, for less than both."""
        ...

    def ed25519_public(self, secret: bytes) -> bytes:
        """The public key [32 bytes] of a signing seed [32 bytes]."""
        ...

    def signer(self, secret: bytes) -> Callable[[bytes], bytes]:
        """Message -> signature [64 bytes], for one signing seed."""
        ...

    def sign(self, secret: bytes, message: bytes) -> bytes:
        """A signature [64 bytes]."""
        ...

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """Whether the signature is the key's on this message."""
        ...

    def seal(self, key: bytes, nonce: bytes, plain: Buffer, bound: bytes) -> bytes:
        """AES-GCM: ciphertext and tag; ``bound`` is authenticated beside it. Never twice with one
        key and nonce.
        """
        ...

    def seal_into(
        self, key: bytes, nonce: bytes, plain: Iterable[Buffer], bound: bytes, out: memoryview
    ) -> None:
        """The same of a plaintext in pieces, which are asked for one after the other; written to
        ``out``, which is 16 bytes longer than all of them. A piece may lie where its ciphertext is
        written.
        """
        ...

    def unseal(self, key: bytes, nonce: bytes, sealed: Buffer, bound: bytes) -> bytes | None:
        """The plaintext, or None where key, nonce, ``bound`` or a byte is not what was sealed."""
        ...

    def sealed(self, key: bytes, nonce: bytes, sealed: memoryview, bound: bytes) -> bool:
        """Whether `unseal` would open it; the plaintext is not kept."""
        ...

    def keystream(self, key: bytes, counter: bytes) -> Keystream:
        """AES-CTR from an initial counter block [16 bytes] (SP 800-38A, section 6.5)."""
        ...

    def keystream_of(self, key: bytes, counter: bytes, n: int) -> memoryview:
        """The first ``n`` bytes of that keystream, 128 KiB at most, at once."""
        ...

    def permutation(self, key: bytes) -> Callable[[bytes], bytes]:
        """AES under one key, block by block [16 bytes each] (SP 800-38A, section 6.1): a public
        permutation, and no way to encrypt anything.
        """
        ...


@cache
def backend(name: BackendName = "auto") -> Backend:
    """The library of that name; ``auto`` takes `cryptography`, whose keystream is twice as fast,
    and falls back to `pycryptodome`.

    Raises:
        ConfigError: the library is not installed, or the name is neither.

    >>> backend("pycryptodome").x25519_public(bytes(32)) == backend().x25519_public(bytes(32))
    True
    """
    if name not in ("auto", "cryptography", "pycryptodome"):
        raise ConfigError(f"backend is 'auto', 'cryptography' or 'pycryptodome', and is '{name}'.")
    if name != "pycryptodome":
        try:
            from privfl.crypto.primitives.pyca import Pyca

            return Pyca()
        except ImportError:
            if name == "cryptography":
                raise ConfigError(
                    "backend 'cryptography' is not installed: pip install cryptography."
                ) from None
    try:
        from privfl.crypto.primitives.pycryptodome import Pycryptodome
    except ImportError:
        raise ConfigError(
            f"no library for backend '{name}': pip install cryptography (or pycryptodome>=3.18)."
        ) from None
    return Pycryptodome()
