"""Byzantine clients: updates that are made to spoil the model."""

from privfl.attacks.byzantine.agr_tailored import AGRTailored
from privfl.attacks.byzantine.alie import ALIE
from privfl.attacks.byzantine.dissensus import Dissensus
from privfl.attacks.byzantine.fang_krum import FangKrum
from privfl.attacks.byzantine.fang_trimmed_mean import FangTrimmedMean
from privfl.attacks.byzantine.foretold import Foretold
from privfl.attacks.byzantine.free_rider import FreeRider
from privfl.attacks.byzantine.ipm import IPM
from privfl.attacks.byzantine.linear_combination import LinearCombination
from privfl.attacks.byzantine.lying_vote import LyingVote
from privfl.attacks.byzantine.mimic import Mimic
from privfl.attacks.byzantine.min_max import MinMax, MinSum
from privfl.attacks.byzantine.noise import ConstantUpdate, GaussianUpdate, NotFinite
from privfl.attacks.byzantine.ordinary import Ordinary
from privfl.attacks.byzantine.sign_flip import SignFlip
from privfl.attacks.byzantine.steady import Steady
from privfl.attacks.byzantine.weights import FlippedWeights, RandomWeights, ZeroWeights
from privfl.attacks.byzantine.wire import SkipClip, Withhold

__all__ = [
    "ALIE",
    "IPM",
    "AGRTailored",
    "ConstantUpdate",
    "Dissensus",
    "FangKrum",
    "FangTrimmedMean",
    "FlippedWeights",
    "Foretold",
    "FreeRider",
    "GaussianUpdate",
    "LinearCombination",
    "LyingVote",
    "Mimic",
    "MinMax",
    "MinSum",
    "NotFinite",
    "Ordinary",
    "RandomWeights",
    "SignFlip",
    "SkipClip",
    "Steady",
    "Withhold",
    "ZeroWeights",
]
