"""PATE over a federation: teachers at clients, a private vote through any channel that sums, and a
student that learns from its answers.
"""

from privfl.pate.teachers import trained_alone, votes_of
from privfl.pate.vote import Answers, PrivateVote, Tally

__all__ = ["Answers", "PrivateVote", "Tally", "trained_alone", "votes_of"]
