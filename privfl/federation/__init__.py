"""A federated run: from a config or from objects, to a model, a transcript of every round, and a
folder that a person can read.
"""

from privfl.federation.federation import Federation, Progress
from privfl.federation.run import Run

__all__ = ["Federation", "Progress", "Run"]
