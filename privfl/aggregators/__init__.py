"""Rules that make one update of many, and the defences around them."""

from privfl.aggregators.anomaly_score import AnomalyScore
from privfl.aggregators.bulyan import Bulyan
from privfl.aggregators.centered_clipping import CenteredClipping, ClientMomentum
from privfl.aggregators.clustering import Auror, ClippedClustering, SignGuard
from privfl.aggregators.cosine import AFA, CosineFilter
from privfl.aggregators.crfl import CRFL, Poisoner, certified_radius, certify
from privfl.aggregators.federated_pruning import FederatedPruning
from privfl.aggregators.flame import FLAME
from privfl.aggregators.foolsgold import FoolsGold
from privfl.aggregators.geometric_median import RFA, GeometricMedian
from privfl.aggregators.krum import Krum
from privfl.aggregators.mda import MDA, GreedyMDA
from privfl.aggregators.mean import Mean
from privfl.aggregators.median import MeaMed, Median, TrimmedMean
from privfl.aggregators.median_of_means import MedianOfMeans
from privfl.aggregators.nearest import CGE, MoNNA
from privfl.aggregators.perturb import FLWBC, NormClipping, Sparsify
from privfl.aggregators.preaggregation import AdaptiveRobustClipping, Bucketing, Clipping, NearestNeighbourMixing
from privfl.aggregators.residual_reweighting import ResidualReweighting
from privfl.aggregators.seats import After, Before, MemoryRule, RowRule
from privfl.aggregators.signs import RobustLearningRate, SignMajority
from privfl.aggregators.slsgd import SLSGD
from privfl.aggregators.spectral import CAF, SMEA, DnC
from privfl.aggregators.trust import FAIR, CleanGradientFilter, FLTrust, Zeno
from privfl.aggregators.verdict import Judges, JudgesAfter, JudgesBefore, JudgesWithMemory, Verdict
from privfl.aggregators.votes import BaFFLe, CrossValidation

__all__ = [
    "AFA",
    "CAF",
    "CGE",
    "CRFL",
    "FAIR",
    "FLAME",
    "FLWBC",
    "MDA",
    "RFA",
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
    "FLTrust",
    "FederatedPruning",
    "FoolsGold",
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
    "NearestNeighbourMixing",
    "NormClipping",
    "Poisoner",
    "ResidualReweighting",
    "RobustLearningRate",
    "RowRule",
    "SignGuard",
    "SignMajority",
    "Sparsify",
    "TrimmedMean",
    "Verdict",
    "Zeno",
    "certified_radius",
    "certify",
]
