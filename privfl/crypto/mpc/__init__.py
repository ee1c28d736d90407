"""Two parties computing on shares modulo 2^64 with a dealer's preprocessing: the machine and its
operations, products, comparisons, and proof that an opened value is the one that was shared.
"""

from privfl.crypto.mpc.beaver import Triple, UsedUp
from privfl.crypto.mpc.comparison import Ands, DaBits, SignBits
from privfl.crypto.mpc.machine import (
    Authenticated,
    Exchange,
    Known,
    Local,
    Shared,
    SharedBits,
    Step,
    TwoPartyMachine,
    Wide,
)
from privfl.crypto.mpc.preprocessing import Demand, Preprocessing

__all__ = [
    "Ands",
    "Authenticated",
    "DaBits",
    "Demand",
    "Exchange",
    "Known",
    "Local",
    "Preprocessing",
    "Shared",
    "SharedBits",
    "SignBits",
    "Step",
    "Triple",
    "TwoPartyMachine",
    "UsedUp",
    "Wide",
]
