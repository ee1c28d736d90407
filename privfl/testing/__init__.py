"""Checks that parts of privfl, and parts of yours, are what they say: they run the part itself."""

from privfl.testing.channels import channel_checks, check_channel
from privfl.testing.check import Check, ConformanceError
from privfl.testing.rules import check_rule, rule_checks

__all__ = [
    "Check",
    "ConformanceError",
    "channel_checks",
    "check_channel",
    "check_rule",
    "rule_checks",
]
