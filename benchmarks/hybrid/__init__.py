"""Hybrids against their plaintext rules: what robustness costs where nobody reads an update, and
whether it still defends.

``python -m benchmarks.hybrid [--quick] [--json] [--only CASE]``. Times are CPU time of one thread,
all parties together.
"""
