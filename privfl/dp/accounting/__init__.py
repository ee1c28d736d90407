"""Accounting: what releases spend, under which sampler and neighbour relation."""

from privfl.dp.accounting.classical import (
    advanced_epsilon,
    basic_epsilon,
    gaussian_epsilon,
    zcdp_epsilon,
)
from privfl.dp.accounting.epsilon import calibrate, epsilon, spent_by
from privfl.dp.accounting.least_noise import least_noise
from privfl.dp.accounting.ledger import Spent, delta_protects_nobody, spend, spent_epsilon
from privfl.dp.accounting.over_runs import of_anybody, over_runs
from privfl.dp.accounting.personal import OfClass, personal, personal_rates
from privfl.dp.accounting.pld import NoPld, pld_epsilon
from privfl.dp.accounting.profile import group_epsilon, profile
from privfl.dp.accounting.rdp_account import RdpAccount
from privfl.dp.accounting.release import Accountant, Release
from privfl.dp.accounting.risk import Risk, TradeOff, risk_of
from privfl.dp.accounting.sentence import above, sentence
from privfl.dp.accounting.statement import Stated, Statement, claims, printed, statement

__all__ = [
    "Accountant",
    "NoPld",
    "OfClass",
    "RdpAccount",
    "Release",
    "Risk",
    "Spent",
    "Stated",
    "Statement",
    "TradeOff",
    "above",
    "advanced_epsilon",
    "basic_epsilon",
    "calibrate",
    "claims",
    "delta_protects_nobody",
    "epsilon",
    "gaussian_epsilon",
    "group_epsilon",
    "least_noise",
    "of_anybody",
    "over_runs",
    "personal",
    "personal_rates",
    "pld_epsilon",
    "printed",
    "profile",
    "risk_of",
    "sentence",
    "spend",
    "spent_by",
    "spent_epsilon",
    "statement",
    "zcdp_epsilon",
]
