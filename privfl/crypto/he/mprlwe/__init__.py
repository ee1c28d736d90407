"""Our own multi-party RLWE: experimental and unaudited."""

from privfl.crypto.he.mprlwe.channel import MultiPartyRLWE
from privfl.crypto.he.mprlwe.keys import JointPublic, TernaryPart
from privfl.crypto.he.mprlwe.scheme import JointScheme

__all__ = ["JointPublic", "JointScheme", "MultiPartyRLWE", "TernaryPart"]
