"""The audit of what a run claims in differential privacy: canaries, and lower bounds on epsilon."""

from privfl.audit.dp.bounds import clopper_pearson, gaussian_trade_off, one_run, one_run_f_dp
from privfl.audit.dp.canaries import client_scores, gradient_scores
from privfl.audit.dp.claim import Claim
from privfl.audit.dp.claims import audit_claims
from privfl.audit.dp.verdict import METHODS, Audited, audit_scores

__all__ = [
    "METHODS",
    "Audited",
    "Claim",
    "audit_claims",
    "audit_scores",
    "client_scores",
    "clopper_pearson",
    "gaussian_trade_off",
    "gradient_scores",
    "one_run",
    "one_run_f_dp",
]
