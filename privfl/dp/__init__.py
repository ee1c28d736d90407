"""Differential privacy: clipping, noise, DP-SGD, accounting."""

from privfl.dp.accounting import (
    RdpAccount,
    Release,
    Spent,
    Stated,
    Statement,
    calibrate,
    delta_protects_nobody,
    epsilon,
    spend,
    spent_epsilon,
    statement,
)
from privfl.dp.adaptive import AdaptiveClip
from privfl.dp.clip import Clip, ClipByLayer, NoBound, Normalise
from privfl.dp.mechanisms import (
    DiscreteGaussian,
    DistributedDiscreteGaussian,
    DistributedSkellam,
    Gaussian,
    Laplace,
    LocalGaussian,
    RandomisedResponse,
    Skellam,
)
from privfl.dp.modular import ModularCode
from privfl.dp.part_release import PartRelease, Sum, Weights
from privfl.dp.pipeline import Made, Pipeline, post_processed
from privfl.dp.schedule import Constant, Decaying, PerRound, Schedule, Scheduled, ScheduledClip
from privfl.dp.sgd import DPGradient, PrivacyWarning

__all__ = [
    "AdaptiveClip",
    "Clip",
    "ClipByLayer",
    "Constant",
    "DPGradient",
    "Decaying",
    "DiscreteGaussian",
    "DistributedDiscreteGaussian",
    "DistributedSkellam",
    "Gaussian",
    "Laplace",
    "LocalGaussian",
    "Made",
    "ModularCode",
    "NoBound",
    "Normalise",
    "PartRelease",
    "PerRound",
    "Pipeline",
    "PrivacyWarning",
    "RandomisedResponse",
    "RdpAccount",
    "Release",
    "Schedule",
    "Scheduled",
    "ScheduledClip",
    "Skellam",
    "Spent",
    "Stated",
    "Statement",
    "Sum",
    "Weights",
    "calibrate",
    "delta_protects_nobody",
    "epsilon",
    "post_processed",
    "spend",
    "spent_epsilon",
    "statement",
]
