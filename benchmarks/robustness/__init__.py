"""Attacks against rules on real data: FedSecurity's experiments, the single-shot backdoor, and a
grid of attacks and rules.

Figures go to docs/figures. Runs are dealt out to two worker processes of one thread each.
"""
