"""Mechanisms: noise, and the event that accounts for it, born together."""

from privfl.dp.mechanisms.gaussian import Gaussian, LocalGaussian

__all__ = ["Gaussian", "LocalGaussian"]
