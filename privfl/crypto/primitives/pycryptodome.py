"""The primitives from `pycryptodome`, 3.18 or later: the same bytes at half the speed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from Crypto.Cipher import AES
from Crypto.Signature import eddsa

from privfl.core import Buffer, KeepsSecrets
from privfl.crypto.primitives.ladder import x25519

_ZEROS = memoryview(bytes(1 << 17))
_BASE = (9).to_bytes(32, "little")


class _Stream(KeepsSecrets):
    __slots__ = ("_cipher",)

    def __init__(self, cipher: Any) -> None:
        self._cipher = cipher

    def fill(self, out: npt.NDArray[np.uint8], n: int) -> None:
        for start in range(0, n, len(_ZEROS)):
            size = min(len(_ZEROS), n - start)
            self._cipher.encrypt(_ZEROS[:size], output=out[start : start + size].data)


def _native(secret: bytes) -> Callable[[bytes], bytes] | None:
    """The library's own X25519, which versions before 3.22 lack."""
    try:
        from Crypto.Protocol.DH import (
            import_x25519_private_key,
            import_x25519_public_key,
            key_agreement,
        )
    except ImportError:
        return None
    key = import_x25519_private_key(secret)
    return lambda public: bytes(
        key_agreement(static_priv=key, static_pub=import_x25519_public_key(public), kdf=bytes)
    )


class Pycryptodome:
    """`Backend` over `pycryptodome`.

    Versions before 3.22 have no X25519: it is then computed by plain Python integers, whose time
    depends on the secret. Prefer `cryptography` where somebody can measure.
    """

    name = "pycryptodome"

    def x25519_public(self, secret: bytes) -> bytes:
        """As `Backend` says."""
        return self.agreement(secret)(_BASE)

    def agreement(self, secret: bytes) -> Callable[[bytes], bytes]:
        """As `Backend` says."""
        return _native(secret) or (lambda public: x25519(secret, public))

    def pair(self, secret: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
        """As `Backend` says."""
        agree = self.agreement(secret)
        return agree(_BASE), agree

    def ed25519_public(self, secret: bytes) -> bytes:
        """As `Backend` says."""
        return bytes(eddsa.import_private_key(secret).public_key().export_key(format="raw"))

    def signer(self, secret: bytes) -> Callable[[bytes], bytes]:
        """As `Backend` says."""
        signing = eddsa.new(eddsa.import_private_key(secret), "rfc8032")
        return lambda message: bytes(signing.sign(message))

    def sign(self, secret: bytes, message: bytes) -> bytes:
        """As `Backend` says."""
        return self.signer(secret)(message)

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """As `Backend` says."""
        try:
            eddsa.new(eddsa.import_public_key(public), "rfc8032").verify(message, signature)
        except ValueError:
            return False
        return True

    def seal(self, key: bytes, nonce: bytes, plain: Buffer, bound: bytes) -> bytes:
        """As `Backend` says."""
        cipher = AES.new(key, AES.MODE_GCM, nonce=nonce)
        cipher.update(bound)
        body, tag = cipher.encrypt_and_digest(plain)
        return bytes(body + tag)

    def seal_into(
        self, key: bytes, nonce: bytes, plain: Iterable[Buffer], bound: bytes, out: memoryview
    ) -> None:
        """As `Backend` says."""
        cipher = AES.new(key, AES.MODE_GCM, nonce=nonce)
        cipher.update(bound)
        size = 0
        for piece in plain:
            cipher.encrypt(piece, output=out[size : size + len(piece)])
            size += len(piece)
        out[size:] = cipher.digest()

    def unseal(self, key: bytes, nonce: bytes, sealed: Buffer, bound: bytes) -> bytes | None:
        """As `Backend` says."""
        cipher = AES.new(key, AES.MODE_GCM, nonce=nonce)
        cipher.update(bound)
        try:
            return bytes(cipher.decrypt_and_verify(sealed[:-16], sealed[-16:]))
        except ValueError:
            return None

    def sealed(self, key: bytes, nonce: bytes, sealed: memoryview, bound: bytes) -> bool:
        """As `Backend` says."""
        cipher = AES.new(key, AES.MODE_GCM, nonce=nonce)
        cipher.update(bound)
        for start in range(0, len(sealed) - 16, len(_ZEROS)):
            cipher.decrypt(sealed[start : min(start + len(_ZEROS), len(sealed) - 16)])
        try:
            cipher.verify(sealed[-16:])
        except ValueError:
            return False
        return True

    def keystream(self, key: bytes, counter: bytes) -> _Stream:
        """As `Backend` says."""
        return _Stream(AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=counter))

    def keystream_of(self, key: bytes, counter: bytes, n: int) -> memoryview:
        """As `Backend` says."""
        out = np.empty(n, dtype=np.uint8)
        self.keystream(key, counter).fill(out, n)
        return out.data

    def permutation(self, key: bytes) -> Callable[[bytes], bytes]:
        """As `Backend` says."""
        encrypt: Callable[[bytes], bytes] = AES.new(key, AES.MODE_ECB).encrypt
        return encrypt
