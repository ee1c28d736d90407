"""The parties of a round in which one of two servers may lie, in any way: rows that clients fix,
tags on what is computed of them, proofs of all that is opened.
"""
