"""Sample inference: from updates back to the samples, tokens and labels that caused them."""

from privfl.attacks.inversion.dager import DAGER
from privfl.attacks.inversion.disaggregation import ClientUpdates, GradientDisaggregation
from privfl.attacks.inversion.dlg import DLG, IDLG
from privfl.attacks.inversion.embedding_leakage import EmbeddingLeakage
from privfl.attacks.inversion.fishing import Fishing
from privfl.attacks.inversion.gauss_newton import GaussNewton
from privfl.attacks.inversion.grad_inversion import GradInversion
from privfl.attacks.inversion.imprint import Imprint, imprinted
from privfl.attacks.inversion.labels import LabelCounts
from privfl.attacks.inversion.lamp import LAMP
from privfl.attacks.inversion.linear import LinearLeakage
from privfl.attacks.inversion.loki import Loki, alone, lokied
from privfl.attacks.inversion.matching import GradientInversion
from privfl.attacks.inversion.spear import SPEAR
from privfl.attacks.inversion.statistic_counts import StatisticCounts
from privfl.attacks.inversion.tableak import TabLeak
from privfl.attacks.inversion.unmixing import Unmixing
from privfl.attacks.inversion.untransforming import Untransforming

__all__ = [
    "DAGER",
    "DLG",
    "IDLG",
    "LAMP",
    "SPEAR",
    "ClientUpdates",
    "EmbeddingLeakage",
    "Fishing",
    "GaussNewton",
    "GradInversion",
    "GradientDisaggregation",
    "GradientInversion",
    "Imprint",
    "LabelCounts",
    "LinearLeakage",
    "Loki",
    "StatisticCounts",
    "TabLeak",
    "Unmixing",
    "Untransforming",
    "alone",
    "imprinted",
    "lokied",
]
