"""Backdoors: what to plant, how to train and send it, and how to see whether it took."""

from privfl.attacks.backdoor.a3fl import A3FL, Patch
from privfl.attacks.backdoor.backdoor import Backdoor
from privfl.attacks.backdoor.blended import Blended
from privfl.attacks.backdoor.boosting import Boosting
from privfl.attacks.backdoor.chameleon import Chameleon
from privfl.attacks.backdoor.generated import IBA, LIRA, Generated
from privfl.attacks.backdoor.image_trigger import ImageTrigger
from privfl.attacks.backdoor.injected_traffic import InjectedTraffic
from privfl.attacks.backdoor.learned import LearnedTrigger
from privfl.attacks.backdoor.measure import accuracy, confusion, predictions, success
from privfl.attacks.backdoor.multi_backdoor import MultiBackdoor
from privfl.attacks.backdoor.neurotoxin import Neurotoxin
from privfl.attacks.backdoor.next_token import NextTokenBackdoor
from privfl.attacks.backdoor.pixel_pattern import DBA, PixelPattern
from privfl.attacks.backdoor.projected import ProjectedGradient
from privfl.attacks.backdoor.replacement import (
    ConstrainAndScale,
    Cosine,
    Distance,
    ModelReplacement,
    TrainAndScale,
)
from privfl.attacks.backdoor.sample_specific import SampleSpecific
from privfl.attacks.backdoor.semantic import EdgeCase, Semantic
from privfl.attacks.backdoor.training import AttackTraining, Crafting
from privfl.attacks.backdoor.trigger import Trigger

__all__ = [
    "A3FL",
    "DBA",
    "IBA",
    "LIRA",
    "AttackTraining",
    "Backdoor",
    "Blended",
    "Boosting",
    "Chameleon",
    "ConstrainAndScale",
    "Cosine",
    "Crafting",
    "Distance",
    "EdgeCase",
    "Generated",
    "ImageTrigger",
    "InjectedTraffic",
    "LearnedTrigger",
    "ModelReplacement",
    "MultiBackdoor",
    "Neurotoxin",
    "NextTokenBackdoor",
    "Patch",
    "PixelPattern",
    "ProjectedGradient",
    "SampleSpecific",
    "Semantic",
    "TrainAndScale",
    "Trigger",
    "accuracy",
    "confusion",
    "predictions",
    "success",
]
