"""Sample inference: from updates back to the samples, tokens and labels that caused them."""

from privfl.attacks.inversion.gauss_newton import GaussNewton
from privfl.attacks.inversion.labels import LabelCounts
from privfl.attacks.inversion.linear import LinearLeakage
from privfl.attacks.inversion.matching import DLG, IDLG, GradientInversion

__all__ = ["DLG", "IDLG", "GaussNewton", "GradientInversion", "LabelCounts", "LinearLeakage"]
