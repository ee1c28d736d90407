"""Attackers that take part, and adversaries that only look.

An adversary that only looks attacks a view of a round. Training's recipe is a public fact of the run, so knowledge is optional:

>>> from privfl import Federation
>>> run = Federation.from_config({
...     "data": {"name": "digits", "clients": 400}, "training": "fedsgd", "rounds": 4, "audit": {"keep": "all"},
... }).run()
>>> from privfl.attacks import GradientInversion
>>> print(GradientInversion().run(run.view("server", round=3)))  # doctest: +ELLIPSIS
GradientInversion by server: ... samples of shape (1, 8, 8), mismatch ...
"""

from privfl.attacks.backdoor import (
    DBA,
    AttackTraining,
    Boosting,
    ConstrainAndScale,
    EdgeCase,
    ModelReplacement,
    Neurotoxin,
    NextToken,
    PixelPattern,
    ProjectedGradient,
    Semantic,
    Several,
    TrainAndScale,
)
from privfl.attacks.byzantine import (
    ALIE,
    IPM,
    AGRTailored,
    Constant,
    FangKrum,
    FangTrimmedMean,
    FlippedWeights,
    FreeRider,
    Gaussian,
    LinearCombination,
    Mimic,
    MinMax,
    MinSum,
    NotFinite,
    RandomWeights,
    SignFlip,
    SkipClip,
    Withhold,
    ZeroWeights,
)
from privfl.attacks.families import family_of, seats_of
from privfl.attacks.inference import Inference, Lacking
from privfl.attacks.inversion import DLG, IDLG, GaussNewton, GradientInversion, LabelCounts, LinearLeakage
from privfl.attacks.knowledge import Forward, Knowledge, Trainer
from privfl.attacks.membership import LossThreshold, ShadowMembership, UpdateMembership
from privfl.attacks.poisoning import BackGradient, FeatureNoise, LabelFlip, OptimalPoints
from privfl.attacks.property import PropertyInference
from privfl.attacks.result import ClientScores, Counts, NotApplicable, PropertyScores, Reconstruction, Result, Scores, Tokens

__all__ = [
    "ALIE",
    "DBA",
    "DLG",
    "IDLG",
    "IPM",
    "AGRTailored",
    "AttackTraining",
    "BackGradient",
    "Boosting",
    "ClientScores",
    "Constant",
    "ConstrainAndScale",
    "Counts",
    "EdgeCase",
    "FangKrum",
    "FangTrimmedMean",
    "FeatureNoise",
    "FlippedWeights",
    "Forward",
    "FreeRider",
    "GaussNewton",
    "Gaussian",
    "GradientInversion",
    "Inference",
    "Knowledge",
    "LabelCounts",
    "LabelFlip",
    "Lacking",
    "LinearCombination",
    "LinearLeakage",
    "LossThreshold",
    "Mimic",
    "MinMax",
    "MinSum",
    "ModelReplacement",
    "Neurotoxin",
    "NextToken",
    "NotApplicable",
    "NotFinite",
    "OptimalPoints",
    "PixelPattern",
    "ProjectedGradient",
    "PropertyInference",
    "PropertyScores",
    "RandomWeights",
    "Reconstruction",
    "Result",
    "Scores",
    "Semantic",
    "Several",
    "ShadowMembership",
    "SignFlip",
    "SkipClip",
    "Tokens",
    "TrainAndScale",
    "Trainer",
    "UpdateMembership",
    "Withhold",
    "ZeroWeights",
    "family_of",
    "seats_of",
]
