"""Mechanisms: noise, and the event that accounts for it, born together."""

from privfl.dp.mechanisms.correlated import Correlated
from privfl.dp.mechanisms.discrete import DiscreteGaussian, Skellam
from privfl.dp.mechanisms.distributed import DistributedDiscreteGaussian, DistributedSkellam
from privfl.dp.mechanisms.gaussian import Gaussian, LocalGaussian
from privfl.dp.mechanisms.laplace import Laplace
from privfl.dp.mechanisms.response import RandomisedResponse
from privfl.dp.mechanisms.selective import SelectiveCost, SelectiveLaplace

__all__ = [
    "Correlated",
    "DiscreteGaussian",
    "DistributedDiscreteGaussian",
    "DistributedSkellam",
    "Gaussian",
    "Laplace",
    "LocalGaussian",
    "RandomisedResponse",
    "SelectiveCost",
    "SelectiveLaplace",
    "Skellam",
]
