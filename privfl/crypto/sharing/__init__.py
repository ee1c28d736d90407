"""Secret sharing: over servers as a channel, Shamir's for keys and for vectors."""

from privfl.crypto.sharing.channel import AdditiveSharing
from privfl.crypto.sharing.packed import PackedShamir
from privfl.crypto.sharing.shamir import Shamir

__all__ = ["AdditiveSharing", "PackedShamir", "Shamir"]
