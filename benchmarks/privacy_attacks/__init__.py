"""Attacks that only look: what they recover, how fast, and what knowing the defence is worth. One
thread, means over seeds.

Rows without a peer measure against the figure that must be reached: ``theirs`` is that figure.
"""
