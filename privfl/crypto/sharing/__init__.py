"""Secret sharing: over servers as a channel, Shamir's for keys and for vectors, and the pieces of
computing on shares.
"""

from privfl.crypto.sharing.beaver import Square, Triple, UsedUp, deal, deal_square
from privfl.crypto.sharing.channel import AdditiveSharing
from privfl.crypto.sharing.compare import Ands, DaBits, SignBits, deal_ands, deal_dabits
from privfl.crypto.sharing.packed import PackedShamir
from privfl.crypto.sharing.shamir import Shamir

__all__ = [
    "AdditiveSharing",
    "Ands",
    "DaBits",
    "PackedShamir",
    "Shamir",
    "SignBits",
    "Square",
    "Triple",
    "UsedUp",
    "deal",
    "deal_ands",
    "deal_dabits",
    "deal_square",
]
