"""Differential privacy: clipping, noise, accounting."""

from privfl.dp.accounting import RdpAccount, Release, Spent, calibrate, epsilon, spend, spent_epsilon
from privfl.dp.clip import Clip, NoBound
from privfl.dp.mechanisms import Gaussian, LocalGaussian
from privfl.dp.sgd import DPGradient, PrivacyWarning

__all__ = [
    "Clip",
    "DPGradient",
    "Gaussian",
    "LocalGaussian",
    "NoBound",
    "PrivacyWarning",
    "RdpAccount",
    "Release",
    "Spent",
    "calibrate",
    "epsilon",
    "spend",
    "spent_epsilon",
]
