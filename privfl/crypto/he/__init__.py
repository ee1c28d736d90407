"""Homomorphic aggregation: the server adds what it cannot read, with a key model that is stated and
real.
"""

from privfl.crypto.he.lattice import BFV, CKKS
from privfl.crypto.he.mprlwe import MultiPartyRLWE
from privfl.crypto.he.onetime import OneTimeRLWE
from privfl.crypto.he.paillier import Paillier

__all__ = ["BFV", "CKKS", "MultiPartyRLWE", "OneTimeRLWE", "Paillier"]
