"""The primitives from `cryptography` (OpenSSL)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from privfl.core import Buffer, KeepsSecrets

_ZEROS = memoryview(bytes(1 << 17))
_GCM_FIRST = (2).to_bytes(4, "big")


class _Stream(KeepsSecrets):
    __slots__ = ("_context",)

    def __init__(self, context: CipherContext) -> None:
        self._context = context

    def fill(self, out: npt.NDArray[np.uint8], n: int) -> None:
        for start in range(0, n, len(_ZEROS)):
            size = min(len(_ZEROS), n - start)
            self._context.update_into(_ZEROS[:size], out[start:])  # type: ignore[arg-type]


@cache
def _gcm_is_faster() -> bool:
    """Whether OpenSSL makes the keystream faster as AES-GCM's: the same bytes, and on processors
    with wide AES twice the speed.
    """
    out = np.empty(len(_ZEROS) + 16, dtype=np.uint8)
    least = {}
    for mode in (modes.CTR(bytes(16)), modes.GCM(bytes(12))):
        stream, times = _Stream(Cipher(algorithms.AES(bytes(16)), mode).encryptor()), []
        for _ in range(8):
            began = time.perf_counter_ns()
            stream.fill(out, len(_ZEROS))
            times.append(time.perf_counter_ns() - began)
        least[type(mode)] = min(times)
    return least[modes.GCM] < least[modes.CTR]


class Pyca:
    """`Backend` over `cryptography`."""

    name = "cryptography"

    def x25519_public(self, secret: bytes) -> bytes:
        """As `Backend` says."""
        return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()

    def agreement(self, secret: bytes) -> Callable[[bytes], bytes]:
        """As `Backend` says."""
        return self.pair(secret)[1]

    def pair(self, secret: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
        """As `Backend` says."""
        key = X25519PrivateKey.from_private_bytes(secret)
        return (
            key.public_key().public_bytes_raw(),
            lambda public: key.exchange(X25519PublicKey.from_public_bytes(public)),
        )

    def ed25519_public(self, secret: bytes) -> bytes:
        """As `Backend` says."""
        return Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()

    def signer(self, secret: bytes) -> Callable[[bytes], bytes]:
        """As `Backend` says."""
        return Ed25519PrivateKey.from_private_bytes(secret).sign

    def sign(self, secret: bytes, message: bytes) -> bytes:
        """As `Backend` says."""
        return self.signer(secret)(message)

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """As `Backend` says."""
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def seal(self, key: bytes, nonce: bytes, plain: Buffer, bound: bytes) -> bytes:
        """As `Backend` says."""
        return AESGCM(key).encrypt(nonce, plain, bound)

    def seal_into(
        self, key: bytes, nonce: bytes, plain: Iterable[Buffer], bound: bytes, out: memoryview
    ) -> None:
        """As `Backend` says."""
        cipher = Cipher(algorithms.AES(key), modes.GCM(nonce)).encryptor()
        cipher.authenticate_additional_data(bound)
        size = 0
        for piece in plain:
            size += cipher.update_into(piece, out[size:])
        cipher.finalize()
        out[size:] = cipher.tag

    def unseal(self, key: bytes, nonce: bytes, sealed: Buffer, bound: bytes) -> bytes | None:
        """As `Backend` says."""
        try:
            return AESGCM(key).decrypt(nonce, sealed, bound)
        except (InvalidTag, ValueError):
            return None

    def sealed(self, key: bytes, nonce: bytes, sealed: memoryview, bound: bytes) -> bool:
        """As `Backend` says."""
        if len(sealed) < 16:
            return False
        mode, body = modes.GCM(nonce, bytes(sealed[-16:])), sealed[:-16]
        cipher, scratch = Cipher(algorithms.AES(key), mode).decryptor(), bytearray(len(_ZEROS) + 16)
        cipher.authenticate_additional_data(bound)
        for start in range(0, len(body), len(_ZEROS)):
            cipher.update_into(body[start : start + len(_ZEROS)], scratch)
        try:
            cipher.finalize()
        except InvalidTag:
            return False
        return True

    def keystream(self, key: bytes, counter: bytes) -> _Stream:
        """As `Backend` says; where the counter is one that AES-GCM starts from, by whichever of the
        two is faster here.
        """
        mode = (
            modes.GCM(counter[:12])
            if counter[12:] == _GCM_FIRST and _gcm_is_faster()
            else modes.CTR(counter)
        )
        return _Stream(Cipher(algorithms.AES(key), mode).encryptor())

    def keystream_of(self, key: bytes, counter: bytes, n: int) -> memoryview:
        """As `Backend` says; by AES-GCM as a whole, tag and all, where that is faster than the
        keystream and what it takes to open one.
        """
        if counter[12:] == _GCM_FIRST and _gcm_is_faster():
            return memoryview(AESGCM(key).encrypt(counter[:12], _ZEROS[:n], None))[:n]
        out = np.empty(n + 16, dtype=np.uint8)
        self.keystream(key, counter).fill(out, n)
        return out.data[:n]

    def permutation(self, key: bytes) -> Callable[[bytes], bytes]:
        """As `Backend` says."""
        return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update  # noqa: S305
