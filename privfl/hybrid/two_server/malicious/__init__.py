"""Two servers of whom one may lie, in any way: rows that clients fix, tags on what is computed of
them, proofs of all that is opened. The declared function, or an abort.
"""
