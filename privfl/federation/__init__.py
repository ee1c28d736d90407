"""A federated run: from a config or from objects, to a model, a transcript of every round, and a
folder that a person can read.
"""

from privfl.federation.federation import Federation
from privfl.federation.run import Run
from privfl.federation.tracking import Progress, Tracker

__all__ = ["Federation", "Progress", "Run", "Tracker"]
