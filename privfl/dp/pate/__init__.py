"""Noisy votes of teachers (PATE): answers, what they cost at most, and what these very votes
cost.
"""

from privfl.dp.pate.confident import UNANSWERED, ConfidentGNMax, DataDependent
from privfl.dp.pate.loss import confident_rdp, likely_rdp, log_wrong

__all__ = [
    "UNANSWERED",
    "ConfidentGNMax",
    "DataDependent",
    "confident_rdp",
    "likely_rdp",
    "log_wrong",
]
