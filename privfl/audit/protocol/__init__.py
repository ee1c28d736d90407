"""Malicious servers and clients of secure aggregation, carried out and scored."""

from privfl.audit.protocol.suite import Scored, attacks

__all__ = ["Scored", "attacks"]
