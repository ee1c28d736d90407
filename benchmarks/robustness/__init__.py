"""Attacks against rules on real data: experiments of FedSecurity, FLANDERS, BackFed, ByzFL and the
backdoor paper, detectors beside lies made against them, and a grid of attacks and rules.

Figures go to docs/figures. All runs of all cases are dealt out to ``--jobs`` processes of one
thread each: the rows are the same whatever their number, but for those of seconds, which are
processor seconds beside whatever the other processes do.
"""
