"""Audits: what adversaries really get from a run, and lower bounds beside claimed privacy."""

from privfl.audit.dp import (
    Audited,
    Claim,
    Settings,
    audit_claims,
    audit_scores,
    client_scores,
    clopper_pearson,
    gaussian_trade_off,
    gradient_scores,
    one_run,
    one_run_f_dp,
)
from privfl.audit.findings import AuditReport, Finding
from privfl.audit.lying import LieFinding, told_lies
from privfl.audit.page import write_page
from privfl.audit.run import adversaries_of, audit
from privfl.audit.shadows import Shadows

__all__ = [
    "AuditReport",
    "Audited",
    "Claim",
    "Finding",
    "LieFinding",
    "Settings",
    "Shadows",
    "adversaries_of",
    "audit",
    "audit_claims",
    "audit_scores",
    "client_scores",
    "clopper_pearson",
    "gaussian_trade_off",
    "gradient_scores",
    "one_run",
    "one_run_f_dp",
    "told_lies",
    "write_page",
]
