"""Differential privacy: clipping, noise, DP-SGD, accounting."""

from privfl.dp.accounting import (
    RdpAccount,
    Release,
    Spent,
    Stated,
    Statement,
    calibrate,
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
    "ModularCode",
    "NoBound",
    "Normalise",
    "PerRound",
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
    "calibrate",
    "epsilon",
    "spend",
    "spent_epsilon",
    "statement",
]
