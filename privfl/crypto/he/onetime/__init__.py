"""One-time-pad RLWE: the key of every contribution serves once, and is dealt to decryptors."""

from privfl.crypto.he.onetime.channel import OneTimeRLWE
from privfl.crypto.he.onetime.parameters import OneTimeSettings

__all__ = ["OneTimeRLWE", "OneTimeSettings"]
