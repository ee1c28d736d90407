"""Property inference: facts about a client's samples that nobody meant to train on."""

from privfl.attacks.property.multi_task import MultiTask
from privfl.attacks.property.passive import PropertyInference

__all__ = ["MultiTask", "PropertyInference"]
