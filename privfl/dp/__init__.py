"""Differential privacy: clipping, noise, accounting."""

from privfl.dp.clip import Clip, NoBound

__all__ = ["Clip", "NoBound"]
