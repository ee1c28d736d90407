"""Secure aggregation: the sum of masked vectors, through dropouts, and in active mode past a server
that swaps keys.
"""

from privfl.crypto.abort import StageAbort
from privfl.crypto.secagg.channel import SecAgg
from privfl.crypto.secagg.graph import Degree, degree
from privfl.crypto.secagg.parameters import SecAggParameters

__all__ = ["Degree", "SecAgg", "SecAggParameters", "StageAbort", "degree"]
