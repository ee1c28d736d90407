"""Backdoors: what to plant, how to train and send it, and how to see whether it took."""

from privfl.attacks.backdoor.boosting import Boosting
from privfl.attacks.backdoor.implant import Implant
from privfl.attacks.backdoor.measure import accuracy, confusion, predictions, success
from privfl.attacks.backdoor.neurotoxin import Neurotoxin
from privfl.attacks.backdoor.next_token import NextToken
from privfl.attacks.backdoor.pixel_pattern import DBA, PixelPattern
from privfl.attacks.backdoor.planted import Backdoor
from privfl.attacks.backdoor.projected import ProjectedGradient
from privfl.attacks.backdoor.replacement import ConstrainAndScale, Cosine, Distance, ModelReplacement, TrainAndScale
from privfl.attacks.backdoor.semantic import EdgeCase, Semantic
from privfl.attacks.backdoor.several import Several
from privfl.attacks.backdoor.training import AttackTraining, Crafting

__all__ = [
    "DBA",
    "AttackTraining",
    "Backdoor",
    "Boosting",
    "ConstrainAndScale",
    "Cosine",
    "Crafting",
    "Distance",
    "EdgeCase",
    "Implant",
    "ModelReplacement",
    "Neurotoxin",
    "NextToken",
    "PixelPattern",
    "ProjectedGradient",
    "Semantic",
    "Several",
    "TrainAndScale",
    "accuracy",
    "confusion",
    "predictions",
    "success",
]
