"""Attackers that take part, and adversaries that only look."""
