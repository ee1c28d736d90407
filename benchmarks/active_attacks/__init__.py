"""Adversaries who do more than look, and what stops whom: active servers, a pushing participant,
words, properties, noise.

One thread, means over seeds. Rows without a peer measure against the figure that must be reached,
or are shown only.
"""
