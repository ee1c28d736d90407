"""Peers' own programs, written as their users would write them; run in an environment of their own
where they need one.
"""
