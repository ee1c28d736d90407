"""The audit of what a run claims in differential privacy: neighbours, noise, samplers and the
accountant tested, and beside that lower bounds on epsilon.
"""

from privfl.audit.dp.bounds import clopper_pearson, gaussian_trade_off, one_run, one_run_f_dp
from privfl.audit.dp.canaries import client_scores, gradient_scores
from privfl.audit.dp.claim import Claim
from privfl.audit.dp.claims import audit_claims
from privfl.audit.dp.evidence import LEVEL, Test, TestResult, holm
from privfl.audit.dp.neighbours import Found, Search
from privfl.audit.dp.play import NeighbourWorld, Play, Stage
from privfl.audit.dp.settings import Settings
from privfl.audit.dp.tape import Tape, Taped, differences
from privfl.audit.dp.verdict import METHODS, Audited, audit_scores

__all__ = [
    "LEVEL",
    "METHODS",
    "Audited",
    "Claim",
    "Found",
    "NeighbourWorld",
    "Play",
    "Search",
    "Settings",
    "Stage",
    "Tape",
    "Taped",
    "Test",
    "TestResult",
    "audit_claims",
    "audit_scores",
    "client_scores",
    "clopper_pearson",
    "differences",
    "gaussian_trade_off",
    "gradient_scores",
    "holm",
    "one_run",
    "one_run_f_dp",
]
