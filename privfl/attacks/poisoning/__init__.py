"""Data poisoning: honest training on data that were made to mislead."""

from privfl.attacks.poisoning.back_gradient import BackGradient
from privfl.attacks.poisoning.feature_noise import FeatureNoise
from privfl.attacks.poisoning.jagielski import OptimalPoints
from privfl.attacks.poisoning.label_flip import LabelFlip

__all__ = ["BackGradient", "FeatureNoise", "LabelFlip", "OptimalPoints"]
