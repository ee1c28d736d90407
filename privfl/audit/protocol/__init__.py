"""Malicious servers and clients of secure aggregation, carried out and scored."""

from privfl.audit.protocol.suite import ScoredAttack, attacks

__all__ = ["ScoredAttack", "attacks"]
