"""Property inference: facts about a client's samples that nobody meant to train on."""

from privfl.attacks.property.black_box import BlackBoxProperty
from privfl.attacks.property.multi_task import MultiTask
from privfl.attacks.property.passive import PropertyInference
from privfl.attacks.property.selection import SelectionProfile

__all__ = ["BlackBoxProperty", "MultiTask", "PropertyInference", "SelectionProfile"]
