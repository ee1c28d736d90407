"""Our own multi-party RLWE: experimental and unaudited."""

from privfl.crypto.he.mprlwe.channel import JointScheme, MultiPartyRLWE
from privfl.crypto.he.mprlwe.keys import JointPublic, TernaryPart

__all__ = ["JointPublic", "JointScheme", "MultiPartyRLWE", "TernaryPart"]
