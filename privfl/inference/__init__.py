"""The using phase: a trained network answers about samples that its owner cannot read."""

from privfl.inference.circuit import InferenceCircuit
from privfl.inference.measure import Inferred, Seconds, infer_encrypted
from privfl.inference.owner import ClientKeys, EncryptedModel
from privfl.inference.querier import EncryptedQuerier

__all__ = [
    "ClientKeys",
    "EncryptedModel",
    "EncryptedQuerier",
    "InferenceCircuit",
    "Inferred",
    "Seconds",
    "infer_encrypted",
]
