"""Differential privacy: clipping, noise, accounting."""

from privfl.dp.accounting import RdpAccount, Release, Spent, calibrate, epsilon, spend, spent_epsilon
from privfl.dp.clip import Clip, NoBound
from privfl.dp.mechanisms import Gaussian, LocalGaussian

__all__ = [
    "Clip",
    "Gaussian",
    "LocalGaussian",
    "NoBound",
    "RdpAccount",
    "Release",
    "Spent",
    "calibrate",
    "epsilon",
    "spend",
    "spent_epsilon",
]
