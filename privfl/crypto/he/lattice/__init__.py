"""BFV and CKKS on SEAL, through TenSEAL."""

from privfl.crypto.he.lattice.bfv import BFV, BfvScheme
from privfl.crypto.he.lattice.ckks import CKKS, CkksScheme
from privfl.crypto.he.lattice.keys import LatticePublic, LatticeSecret
from privfl.crypto.he.lattice.parameters import Lattice

__all__ = ["BFV", "CKKS", "BfvScheme", "CkksScheme", "Lattice", "LatticePublic", "LatticeSecret"]
