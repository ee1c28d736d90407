"""Keys and ciphertexts that come from or go to python-paillier (GPL-3, imported here alone and only
when asked for).
"""

from __future__ import annotations

from typing import Any

from privfl.crypto.he.libraries import phe
from privfl.crypto.he.paillier.keys import PaillierPublic, PaillierSecret, from_primes


def from_phe(private_key: Any, bits: int = 16) -> PaillierSecret:
    """The secret key of a ``phe.PaillierPrivateKey``; one in four of its keys allows fast blinding,
    the others use r^n.
    """
    return from_primes(int(private_key.p), int(private_key.q), bits)


def public_to_phe(public: PaillierPublic) -> Any:
    """The ``phe.PaillierPublicKey`` of this key."""
    return phe.PaillierPublicKey(public.n)


def ciphertext_to_phe(public: PaillierPublic, ciphertext: int) -> Any:
    """One ciphertext as a ``phe.EncryptedNumber`` of exponent 0: its plaintext is one integer, or a
    packed row of them.
    """
    return phe.EncryptedNumber(public_to_phe(public), ciphertext, exponent=0)
