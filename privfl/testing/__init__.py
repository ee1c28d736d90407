"""Checks that parts of privfl, and parts of yours, are what they say: they run the part itself."""

from privfl.testing.guarantees import (
    Contributions,
    PlayedRound,
    check_guarantee,
    contributions,
    what_it_does,
    what_noise_is_left,
    who_reads,
)

__all__ = [
    "Contributions",
    "PlayedRound",
    "check_guarantee",
    "contributions",
    "what_it_does",
    "what_noise_is_left",
    "who_reads",
]
