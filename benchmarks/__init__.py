"""Benchmarks: ours beside the peers, in one run, printed as ratios."""
