"""Data poisoning: honest training on data that were made to mislead."""

from privfl.attacks.poisoning.back_gradient import BackGradient
from privfl.attacks.poisoning.collisions import BullseyePolytope, ConvexPolytope, FeatureCollision
from privfl.attacks.poisoning.feature_noise import FeatureNoise
from privfl.attacks.poisoning.jagielski import OptimalPoints
from privfl.attacks.poisoning.label_consistent import LabelConsistent
from privfl.attacks.poisoning.label_flip import LabelFlip
from privfl.attacks.poisoning.metapoison import CheapMetaPoison

__all__ = [
    "BackGradient",
    "BullseyePolytope",
    "CheapMetaPoison",
    "ConvexPolytope",
    "FeatureCollision",
    "FeatureNoise",
    "LabelConsistent",
    "LabelFlip",
    "OptimalPoints",
]
