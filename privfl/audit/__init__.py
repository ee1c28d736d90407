"""Audits of privacy claims."""

from privfl.audit.bounds import clopper_pearson, gaussian_trade_off, one_run, one_run_f_dp
from privfl.audit.canaries import client_scores, gradient_scores
from privfl.audit.dp import Audited, audit_scores

__all__ = [
    "Audited",
    "audit_scores",
    "client_scores",
    "clopper_pearson",
    "gaussian_trade_off",
    "gradient_scores",
    "one_run",
    "one_run_f_dp",
]
