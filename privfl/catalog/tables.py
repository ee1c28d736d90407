"""A table for each seam: what a config can name, and the class that each name stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from privfl import aggregators, attacks, crypto, data, dp, hybrid, models, training
from privfl.catalog.plugins import JoinedTable, PluggedTable
from privfl.core import (
    BatchGradient,
    Channel,
    Defence,
    Perturbation,
    Rule,
    RuleWithMemory,
)
from privfl.dp import strategies
from privfl.engine import buffered, every_bucket, pace, samplers
from privfl.engine.compatibility import AnyRule

Table = Mapping[str, Callable[..., Any]]

SAMPLERS: PluggedTable[Callable[..., Any]] = PluggedTable(
    {
        "all": samplers.All,
        "fixed_size": samplers.FixedSize,
        "poisson": samplers.Poisson,
        "personal_poisson": samplers.PersonalPoisson,
        "separated": samplers.Separated,
        "cyclic_poisson": samplers.CyclicPoisson,
    },
    "privfl.samplers",
    ("draw", "sampling", "at", "participation"),
)
PACES: PluggedTable[Callable[..., Any]] = PluggedTable(
    {
        "synchronous": pace.Synchronous,
        "buffered": buffered.BufferedPace,
        "stale_synchronous": buffered.StaleSynchronous,
        "every_bucket": every_bucket.EveryBucket,
    },
    "privfl.paces",
    ("synchronous", "arrivals", "scale", "participation"),
)
"""When clients' updates are put together."""
BOUNDS: PluggedTable[Callable[..., Any]] = PluggedTable(
    {
        "none": dp.NoBound,
        "clip": dp.Clip,
        "normalise": dp.Normalise,
        "clip_by_layer": dp.ClipByLayer.evenly,
        "adaptive_clip": dp.AdaptiveClip,
        "scheduled_clip": dp.ScheduledClip,
    },
    "privfl.bounds",
    (),
)
HYBRIDS: Mapping[str, type[Channel[Any]]] = {
    "bucketed_secagg": hybrid.BucketedSecAgg,
    "two_server": hybrid.TwoServer,
    "sign_two_server": hybrid.SignTwoServer,
    "encrypted_cosine": hybrid.EncryptedCosine,
}
"""Channels under which robust rules work although nobody reads an update: the rule sees groups, or
the servers run it on secret data.
"""
CHANNELS: PluggedTable[type[Channel[Any]]] = PluggedTable(
    {
        "plain": crypto.Plain,
        "secagg": crypto.SecAgg,
        "additive_sharing": crypto.AdditiveSharing,
        "chain": crypto.Chain,
        "paillier": crypto.Paillier,
        "bfv": crypto.BFV,
        "ckks": crypto.CKKS,
        "one_time_rlwe": crypto.OneTimeRLWE,
        "mp_rlwe": crypto.MultiPartyRLWE,
        **HYBRIDS,
    },
    "privfl.channels",
    ("kind", "able", "client", "server", "helpers", "decode"),
)
AGGREGATORS: PluggedTable[type[AnyRule]] = PluggedTable(
    {
        "mean": aggregators.Mean,
        "median": aggregators.Median,
        "trimmed_mean": aggregators.TrimmedMean,
        "meamed": aggregators.MeaMed,
        "median_of_means": aggregators.MedianOfMeans,
        "geometric_median": aggregators.GeometricMedian,
        "rfa": aggregators.RFA,
        "krum": aggregators.Krum,
        "bulyan": aggregators.Bulyan,
        "mda": aggregators.MDA,
        "greedy_mda": aggregators.GreedyMDA,
        "caf": aggregators.CAF,
        "cge": aggregators.CGE,
        "monna": aggregators.MoNNA,
        "smea": aggregators.SMEA,
        "dnc": aggregators.DnC,
        "sign_guard": aggregators.SignGuard,
        "clipped_clustering": aggregators.ClippedClustering,
        "auror": aggregators.Auror,
        "cosine_filter": aggregators.CosineFilter,
        "afa": aggregators.AFA,
        "centered_clipping": aggregators.CenteredClipping,
        "foolsgold": aggregators.FoolsGold,
        "residual_reweighting": aggregators.ResidualReweighting,
        "zeno": aggregators.Zeno,
        "zeno_plus_plus": aggregators.ZenoPlusPlus,
        "fltrust": aggregators.FLTrust,
        "clean_gradient_filter": aggregators.CleanGradientFilter,
        "fair": aggregators.FAIR,
        "cross_validation": aggregators.CrossValidation,
        "robust_learning_rate": aggregators.RobustLearningRate,
        "sign_majority": aggregators.SignMajority,
        "slsgd": aggregators.SLSGD,
        "flame": aggregators.FLAME,
        "freq_fed": aggregators.FreqFed,
        "flare": aggregators.FLARE,
        "multi_metrics": aggregators.MultiMetrics,
        "rflbat": aggregators.RFLBAT,
        "lasa": aggregators.LASA,
    },
    "privfl.rules",
    ("seats", "reads", "needs_ids", "needs", "judges", "remembers", "sensitivity"),
)
DEFENCES: PluggedTable[type[Defence]] = PluggedTable(
    {
        "nnm": aggregators.NearestNeighbourMixing,
        "bucketing": aggregators.Bucketing,
        "fixed_buckets": aggregators.FixedBuckets,
        "clipping": aggregators.Clipping,
        "arc": aggregators.AdaptiveRobustClipping,
        "anomaly_score": aggregators.AnomalyScore,
        "fl_detector": aggregators.FLDetector,
        "flanders": aggregators.FLANDERS,
        "norm_clipping": aggregators.NormClipping,
        "baffle": aggregators.BaFFLe,
        "crfl": aggregators.CRFL,
        "fl_wbc": aggregators.FLWBC,
        "client_momentum": aggregators.ClientMomentum,
        "sparsify": aggregators.Sparsify,
        "quantise": aggregators.Quantise,
        "federated_pruning": aggregators.FederatedPruning,
    },
    "privfl.defences",
    ("seats", "needs", "judges"),
)
"""What stands beside the rule: at the client, before it, after it."""
DATA_SEATS: PluggedTable[Callable[..., Any]] = PluggedTable(
    {"ats": data.ATS, "instahide": data.InstaHide},
    "privfl.data_seats",
    ("fits", "encode", "maps", "alone", "broken_by"),
)
"""What clients make of their own samples before they train."""
MECHANISMS: PluggedTable[Callable[..., Any]] = PluggedTable(
    {
        "gaussian": dp.Gaussian,
        "scheduled_gaussian": dp.Scheduled,
        "discrete_gaussian": dp.DiscreteGaussian,
        "skellam": dp.Skellam,
        "laplace": dp.Laplace,
        "local_gaussian": dp.LocalGaussian,
        "correlated": dp.Correlated,
        "selective_laplace": dp.SelectiveLaplace,
    },
    "privfl.mechanisms",
    ("share", "release", "local"),
)
RING_NOISE: PluggedTable[Callable[..., Any]] = PluggedTable(
    {
        "distributed_skellam": dp.DistributedSkellam,
        "distributed_discrete_gaussian": dp.DistributedDiscreteGaussian,
    },
    "privfl.ring_noise",
    ("add", "reach", "event"),
)
"""Noise that clients add to the integers of a summing channel, so that nobody sees a sum without
it.
"""
STRATEGIES: PluggedTable[Callable[..., Any]] = PluggedTable(
    {
        "tree": strategies.Tree,
        "square_root": strategies.SquareRoot,
        "bisr": strategies.Bisr,
        "banded": strategies.Banded,
        "blt": strategies.Blt,
    },
    "privfl.strategies",
    ("matrix",),
)
"""How correlated noise of one round hangs together with that of others."""
SCHEDULES: PluggedTable[Callable[..., Any]] = PluggedTable(
    {"constant": dp.Constant, "decaying": dp.Decaying, "per_round": dp.PerRound},
    "privfl.schedules",
    ("factor",),
)
GRADIENTS: PluggedTable[Callable[..., Any]] = PluggedTable(
    {
        "plain": training.PlainGradient,
        "dp": dp.DPGradient,
        "soteria": training.Soteria,
    },
    "privfl.gradients",
    ("batches",),
)
PERTURBATIONS: PluggedTable[Callable[..., Any]] = PluggedTable(
    {"fgsm": training.FGSM, "pgd": training.PGD, "free": training.FreeAdversarial},
    "privfl.perturbations",
    ("begin", "alone"),
)
"""Where adversarial training moves samples to."""
ATTACKS: PluggedTable[Callable[..., Any]] = PluggedTable(
    {
        "zero": attacks.ZeroWeights,
        "random": attacks.RandomWeights,
        "flip": attacks.FlippedWeights,
        "sign_flip": attacks.SignFlip,
        "gaussian": attacks.GaussianUpdate,
        "constant": attacks.ConstantUpdate,
        "not_finite": attacks.NotFinite,
        "linear_combination": attacks.LinearCombination,
        "alie": attacks.ALIE,
        "ipm": attacks.IPM,
        "fang_krum": attacks.FangKrum,
        "fang_trimmed_mean": attacks.FangTrimmedMean,
        "min_max": attacks.MinMax,
        "min_sum": attacks.MinSum,
        "agr_tailored": attacks.AGRTailored,
        "mimic": attacks.Mimic,
        "dissensus": attacks.Dissensus,
        "steady": attacks.Steady,
        "ordinary": attacks.Ordinary,
        "foretold": attacks.Foretold,
        "free_rider": attacks.FreeRider,
        "skip_clip": attacks.SkipClip,
        "withhold": attacks.Withhold,
        "lying_vote": attacks.LyingVote,
        "label_flip": attacks.LabelFlip,
        "feature_noise": attacks.FeatureNoise,
        "optimal_points": attacks.OptimalPoints,
        "back_gradient": attacks.BackGradient,
        "feature_collision": attacks.FeatureCollision,
        "convex_polytope": attacks.ConvexPolytope,
        "bullseye_polytope": attacks.BullseyePolytope,
        "cheap_metapoison": attacks.CheapMetaPoison,
        "label_consistent": attacks.LabelConsistent,
        "pixel_pattern": attacks.PixelPattern,
        "dba": attacks.DBA,
        "blended": attacks.Blended,
        "sample_specific": attacks.SampleSpecific,
        "semantic": attacks.Semantic,
        "edge_case": attacks.EdgeCase,
        "injected_traffic": attacks.InjectedTraffic,
        "next_token": attacks.NextTokenBackdoor,
        "multi_backdoor": attacks.MultiBackdoor,
        "model_replacement": attacks.ModelReplacement,
        "constrain_and_scale": attacks.ConstrainAndScale,
        "train_and_scale": attacks.TrainAndScale,
        "boosting": attacks.Boosting,
        "neurotoxin": attacks.Neurotoxin,
        "projected_gradient": attacks.ProjectedGradient,
        "a3fl": attacks.A3FL,
        "iba": attacks.IBA,
        "lira": attacks.LIRA,
        "chameleon": attacks.Chameleon,
        "imprint": attacks.Imprint,
        "loki": attacks.Loki,
        "fishing": attacks.Fishing,
        "gradient_ascent": attacks.GradientAscent,
        "multi_task": attacks.MultiTask,
        "client_gan": attacks.ClientGAN,
    },
    "privfl.attacks",
    ("seats", "knows", "remembers"),
)
INFERENCE: PluggedTable[Callable[..., Any]] = PluggedTable(
    {
        "gradient_inversion": attacks.GradientInversion,
        "dlg": attacks.DLG,
        "idlg": attacks.IDLG,
        "gauss_newton": attacks.GaussNewton,
        "linear_leakage": attacks.LinearLeakage,
        "unmixing": attacks.Unmixing,
        "untransforming": attacks.Untransforming,
        "spear": attacks.SPEAR,
        "label_counts": attacks.LabelCounts,
        "statistic_counts": attacks.StatisticCounts,
        "loss_threshold": attacks.LossThreshold,
        "update_membership": attacks.UpdateMembership,
        "fedmia": attacks.FedMIA,
        "shadow_membership": attacks.ShadowMembership,
        "property_inference": attacks.PropertyInference,
        "black_box_property": attacks.BlackBoxProperty,
        "server_gan": attacks.ServerGAN,
        "grad_inversion": attacks.GradInversion,
        "embedding_leakage": attacks.EmbeddingLeakage,
        "dager": attacks.DAGER,
        "lamp": attacks.LAMP,
        "tableak": attacks.TabLeak,
        "white_box_membership": attacks.WhiteBoxMembership,
        "source_inference": attacks.SourceInference,
        "selection_profile": attacks.SelectionProfile,
        "gradient_disaggregation": attacks.GradientDisaggregation,
        "subject_membership": attacks.SubjectMembership,
        "client_presence": attacks.ClientPresence,
    },
    "privfl.inference_attacks",
    ("family", "infer"),
)
"""Attacks on a view: in Python ``attack.run(view, knowledge)``, for a whole run ``privfl
audit``.
"""
DATASETS: PluggedTable[Callable[..., Any]] = PluggedTable(data.DATASETS, "privfl.datasets")
DATA_FILES: PluggedTable[Callable[..., Any]] = PluggedTable(data.FILES, "privfl.data_files")
"""Somebody's own data, by the format of the file."""
PARTITIONERS: PluggedTable[Callable[..., Any]] = PluggedTable(
    data.PARTITIONERS, "privfl.partitions"
)
MODELS: PluggedTable[Callable[..., Any]] = PluggedTable(models.MODELS, "privfl.models")
TRAINING: PluggedTable[Callable[..., Any]] = PluggedTable(
    {
        "sgd": training.LocalSGD,
        "fedprox": training.FedProx,
        "fedsgd": training.FedSGD,
        "fednova": training.FedNova,
        "scaffold": training.Scaffold,
    },
    "privfl.training",
    ("on", "combine"),
)
SERVER_OPTIMIZERS: PluggedTable[Callable[..., Any]] = PluggedTable(
    {
        "fedavg": training.FedAvg,
        "fedavgm": training.FedAvgM,
        "fedadam": training.FedAdam,
        "fedyogi": training.FedYogi,
        "fedadagrad": training.FedAdagrad,
    },
    "privfl.server_optimizers",
    ("init", "step"),
)
PARTS: Mapping[type, Table] = {
    Rule: AGGREGATORS,
    RuleWithMemory: AGGREGATORS,
    BatchGradient: GRADIENTS,
    Perturbation: PERTURBATIONS,
    dp.Schedule: SCHEDULES,
    strategies.Strategy: STRATEGIES,
    attacks.Trigger: ATTACKS,
    attacks.MultiBackdoor: ATTACKS,
}
"""Tables of the parts that other parts hold, by the type that a field is annotated with."""


SEAMS: Mapping[str, Table] = {
    "aggregators": JoinedTable((AGGREGATORS, DEFENCES)),
    "attacks": JoinedTable((ATTACKS, INFERENCE)),
    "bounds": BOUNDS,
    "channels": CHANNELS,
    "data_seats": DATA_SEATS,
    "datasets": JoinedTable((DATASETS, DATA_FILES)),
    "gradients": GRADIENTS,
    "mechanisms": JoinedTable((MECHANISMS, RING_NOISE)),
    "models": MODELS,
    "paces": PACES,
    "partitions": PARTITIONERS,
    "perturbations": PERTURBATIONS,
    "samplers": SAMPLERS,
    "schedules": SCHEDULES,
    "server_optimizers": SERVER_OPTIMIZERS,
    "strategies": STRATEGIES,
    "training": TRAINING,
}
"""What ``privfl list`` shows."""
