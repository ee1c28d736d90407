"""Packed Paillier, alone or split among decryptors."""

from privfl.crypto.he.paillier.channel import Paillier, PaillierScheme
from privfl.crypto.he.paillier.keys import PaillierPublic, PaillierSecret, from_primes
from privfl.crypto.he.paillier.phe_bridge import ciphertext_to_phe, from_phe, public_to_phe
from privfl.crypto.he.paillier.threshold import PaillierShare

__all__ = [
    "Paillier",
    "PaillierPublic",
    "PaillierScheme",
    "PaillierSecret",
    "PaillierShare",
    "ciphertext_to_phe",
    "from_phe",
    "from_primes",
    "public_to_phe",
]
