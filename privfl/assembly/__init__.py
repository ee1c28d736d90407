"""From a config to a scenario: every part is looked up, built and checked, and the data is loaded
and dealt out.
"""

from privfl.assembly.assemble import budget, scenario
from privfl.assembly.data import Held, data_set, deal, held_by_one
from privfl.assembly.parts import training

__all__ = [
    "Held",
    "budget",
    "data_set",
    "deal",
    "held_by_one",
    "scenario",
    "training",
]
