"""Rules that make one update of many, and the defences around them."""

from privfl.aggregators.adaptive_robust_clipping import AdaptiveRobustClipping
from privfl.aggregators.afa import AFA
from privfl.aggregators.anomaly_score import AnomalyScore
from privfl.aggregators.auror import Auror
from privfl.aggregators.baffle import BaFFLe
from privfl.aggregators.base import After, Before, MemoryRule, RowRule, ToleratesByzantine
from privfl.aggregators.bucketing import Bucketing
from privfl.aggregators.bulyan import Bulyan
from privfl.aggregators.caf import CAF
from privfl.aggregators.centered_clipping import CenteredClipping, ClientMomentum
from privfl.aggregators.cge import CGE
from privfl.aggregators.clean_gradient_filter import CleanGradientFilter
from privfl.aggregators.clipped_clustering import ClippedClustering
from privfl.aggregators.clipping import Clipping
from privfl.aggregators.cosine_filter import CosineFilter
from privfl.aggregators.crfl import CRFL, Poisoner, certified_radius, certify
from privfl.aggregators.cross_validation import CrossValidation
from privfl.aggregators.dnc import DnC
from privfl.aggregators.fair import FAIR
from privfl.aggregators.federated_pruning import FederatedPruning
from privfl.aggregators.fixed_buckets import FixedBuckets
from privfl.aggregators.fl_detector import FLDetector
from privfl.aggregators.flame import FLAME
from privfl.aggregators.flanders import FLANDERS
from privfl.aggregators.flare import FLARE
from privfl.aggregators.fltrust import FLTrust
from privfl.aggregators.flwbc import FLWBC
from privfl.aggregators.foolsgold import FoolsGold
from privfl.aggregators.freq_fed import FreqFed
from privfl.aggregators.geometric_median import GeometricMedian
from privfl.aggregators.greedy_mda import GreedyMDA
from privfl.aggregators.krum import Krum
from privfl.aggregators.lasa import LASA
from privfl.aggregators.mda import MDA
from privfl.aggregators.meamed import MeaMed
from privfl.aggregators.mean import Mean
from privfl.aggregators.median import Median
from privfl.aggregators.median_of_means import MedianOfMeans
from privfl.aggregators.monna import MoNNA
from privfl.aggregators.multi_metrics import MultiMetrics
from privfl.aggregators.nearest_neighbour_mixing import NearestNeighbourMixing
from privfl.aggregators.norm_clipping import NormClipping
from privfl.aggregators.quantise import Quantise
from privfl.aggregators.residual_reweighting import ResidualReweighting
from privfl.aggregators.rfa import RFA
from privfl.aggregators.rflbat import RFLBAT
from privfl.aggregators.robust_learning_rate import RobustLearningRate
from privfl.aggregators.sign_guard import SignGuard
from privfl.aggregators.sign_majority import SignMajority
from privfl.aggregators.slsgd import SLSGD
from privfl.aggregators.smea import SMEA
from privfl.aggregators.sparsify import Sparsify
from privfl.aggregators.trimmed_mean import TrimmedMean
from privfl.aggregators.verdict import (
    Judges,
    JudgesAfter,
    JudgesBefore,
    JudgesWithMemory,
    Verdict,
    judges,
    judges_after,
    judges_before,
    judges_with_memory,
)
from privfl.aggregators.zeno import Zeno
from privfl.aggregators.zeno_plus_plus import ZenoPlusPlus

__all__ = [
    "AFA",
    "CAF",
    "CGE",
    "CRFL",
    "FAIR",
    "FLAME",
    "FLANDERS",
    "FLARE",
    "FLWBC",
    "LASA",
    "MDA",
    "RFA",
    "RFLBAT",
    "SLSGD",
    "SMEA",
    "AdaptiveRobustClipping",
    "After",
    "AnomalyScore",
    "Auror",
    "BaFFLe",
    "Before",
    "Bucketing",
    "Bulyan",
    "CenteredClipping",
    "CleanGradientFilter",
    "ClientMomentum",
    "ClippedClustering",
    "Clipping",
    "CosineFilter",
    "CrossValidation",
    "DnC",
    "FLDetector",
    "FLTrust",
    "FederatedPruning",
    "FixedBuckets",
    "FoolsGold",
    "FreqFed",
    "GeometricMedian",
    "GreedyMDA",
    "Judges",
    "JudgesAfter",
    "JudgesBefore",
    "JudgesWithMemory",
    "Krum",
    "MeaMed",
    "Mean",
    "Median",
    "MedianOfMeans",
    "MemoryRule",
    "MoNNA",
    "MultiMetrics",
    "NearestNeighbourMixing",
    "NormClipping",
    "Poisoner",
    "Quantise",
    "ResidualReweighting",
    "RobustLearningRate",
    "RowRule",
    "SignGuard",
    "SignMajority",
    "Sparsify",
    "ToleratesByzantine",
    "TrimmedMean",
    "Verdict",
    "Zeno",
    "ZenoPlusPlus",
    "certified_radius",
    "certify",
    "judges",
    "judges_after",
    "judges_before",
    "judges_with_memory",
]
