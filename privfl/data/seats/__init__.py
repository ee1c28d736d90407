"""Defences on a client's own data before it trains, each with the attack that breaks it."""

from privfl.data.seats.ats import ATS
from privfl.data.seats.instahide import InstaHide

__all__ = ["ATS", "InstaHide"]
