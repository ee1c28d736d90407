"""Audits: what adversaries really get from a run, and lower bounds beside claimed privacy."""

from privfl.audit.card import Line, card
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
from privfl.audit.effort import Attacks, attacks_of, named_attacks
from privfl.audit.findings import AuditReport, Finding
from privfl.audit.inspection import (
    Inspection,
    NeuralCleanse,
    Stimulation,
    inspect,
    inspect_run,
    write_inspection,
    write_inspection_page,
)
from privfl.audit.layer import adversaries_of
from privfl.audit.lying import LieFinding, told_lies
from privfl.audit.page import write_page
from privfl.audit.record import record, write_record
from privfl.audit.run import audit
from privfl.audit.shadows import FederatedShadows, Shadows
from privfl.audit.threats import ThreatModel

__all__ = [
    "Attacks",
    "AuditReport",
    "Audited",
    "Claim",
    "FederatedShadows",
    "Finding",
    "Inspection",
    "LieFinding",
    "Line",
    "NeuralCleanse",
    "Settings",
    "Shadows",
    "Stimulation",
    "ThreatModel",
    "adversaries_of",
    "attacks_of",
    "audit",
    "audit_claims",
    "audit_scores",
    "card",
    "client_scores",
    "clopper_pearson",
    "gaussian_trade_off",
    "gradient_scores",
    "inspect",
    "inspect_run",
    "named_attacks",
    "one_run",
    "one_run_f_dp",
    "record",
    "told_lies",
    "write_inspection",
    "write_inspection_page",
    "write_page",
    "write_record",
]
