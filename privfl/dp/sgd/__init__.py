"""DP-SGD: the gradient seat of local training, filled by clipped and noised per-sample
gradients.
"""

from privfl.dp.sgd.bookkeeping import SUPPORTED, bookkeeping
from privfl.dp.sgd.engine import ClippedSum, Engine
from privfl.dp.sgd.gradient import ENGINES, DPGradient, PrivacyWarning
from privfl.dp.sgd.hooks import opacus
from privfl.dp.sgd.vmapped import vmapped

__all__ = [
    "ENGINES",
    "SUPPORTED",
    "ClippedSum",
    "DPGradient",
    "Engine",
    "PrivacyWarning",
    "bookkeeping",
    "opacus",
    "vmapped",
]
