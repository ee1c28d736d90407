"""Secret sharing: over servers as a channel, Shamir's for keys and for vectors, and the pieces of
computing on shares.
"""

from privfl.crypto.sharing.beaver import Triple, UsedUp
from privfl.crypto.sharing.channel import AdditiveSharing
from privfl.crypto.sharing.compare import Ands, DaBits, SignBits
from privfl.crypto.sharing.packed import PackedShamir
from privfl.crypto.sharing.shamir import Shamir

__all__ = [
    "AdditiveSharing",
    "Ands",
    "DaBits",
    "PackedShamir",
    "Shamir",
    "SignBits",
    "Triple",
    "UsedUp",
]
