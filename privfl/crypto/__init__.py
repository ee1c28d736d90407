"""Channels: how bounded updates travel, and who can read them."""

from privfl.crypto.chain import Chain
from privfl.crypto.encoding import FixedPoint
from privfl.crypto.he import BFV, CKKS, MultiPartyRLWE, OneTimeRLWE, Paillier
from privfl.crypto.plain import Plain
from privfl.crypto.secagg import SecAgg
from privfl.crypto.sharing import AdditiveSharing, PackedShamir, Shamir

__all__ = [
    "BFV",
    "CKKS",
    "AdditiveSharing",
    "Chain",
    "FixedPoint",
    "MultiPartyRLWE",
    "OneTimeRLWE",
    "PackedShamir",
    "Paillier",
    "Plain",
    "SecAgg",
    "Shamir",
]
