"""The one place that names every concrete class: a plain dict per seam, and how a part of a config
becomes an object.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from privfl import aggregators, attacks, crypto, data, dp, hybrid, models, training
from privfl.core import (
    BatchGradient,
    Channel,
    ConfigError,
    Defence,
    DefenceSeat,
    Needs,
    Rule,
    RuleWithMemory,
    unknown,
)
from privfl.engine import samplers
from privfl.engine.compatibility import AnyRule, readable

Table = Mapping[str, Callable[..., Any]]

SAMPLERS: Table = {
    "all": samplers.All,
    "fixed_size": samplers.FixedSize,
    "poisson": samplers.Poisson,
}
BOUNDS: Table = {
    "none": dp.NoBound,
    "clip": dp.Clip,
    "normalise": dp.Normalise,
    "clip_by_layer": dp.ClipByLayer.evenly,
    "adaptive_clip": dp.AdaptiveClip,
    "scheduled_clip": dp.ScheduledClip,
}
HYBRIDS: Mapping[str, type[Channel[Any]]] = {
    "bucketed_secagg": hybrid.BucketedSecAgg,
    "two_server": hybrid.TwoServer,
    "sign_two_server": hybrid.SignTwoServer,
    "encrypted_cosine": hybrid.EncryptedCosine,
}
"""Channels under which robust rules work although nobody reads an update: the rule sees groups, or
the servers run it on secret data.
"""
CHANNELS: Mapping[str, type[Channel[Any]]] = {
    "plain": crypto.Plain,
    "secagg": crypto.SecAgg,
    "additive_sharing": crypto.AdditiveSharing,
    "paillier": crypto.Paillier,
    "bfv": crypto.BFV,
    "ckks": crypto.CKKS,
    "mp_rlwe": crypto.MultiPartyRLWE,
    **HYBRIDS,
}
AGGREGATORS: Mapping[str, type[AnyRule]] = {
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
    "fltrust": aggregators.FLTrust,
    "clean_gradient_filter": aggregators.CleanGradientFilter,
    "fair": aggregators.FAIR,
    "cross_validation": aggregators.CrossValidation,
    "robust_learning_rate": aggregators.RobustLearningRate,
    "sign_majority": aggregators.SignMajority,
    "slsgd": aggregators.SLSGD,
    "flame": aggregators.FLAME,
}
DEFENCES: Mapping[str, type[Defence]] = {
    "nnm": aggregators.NearestNeighbourMixing,
    "bucketing": aggregators.Bucketing,
    "clipping": aggregators.Clipping,
    "arc": aggregators.AdaptiveRobustClipping,
    "anomaly_score": aggregators.AnomalyScore,
    "norm_clipping": aggregators.NormClipping,
    "baffle": aggregators.BaFFLe,
    "crfl": aggregators.CRFL,
    "fl_wbc": aggregators.FLWBC,
    "client_momentum": aggregators.ClientMomentum,
    "sparsify": aggregators.Sparsify,
    "quantise": aggregators.Quantise,
    "federated_pruning": aggregators.FederatedPruning,
}
"""What stands beside the rule: at the client, before it, after it."""
MECHANISMS: Table = {
    "gaussian": dp.Gaussian,
    "scheduled_gaussian": dp.Scheduled,
    "discrete_gaussian": dp.DiscreteGaussian,
    "skellam": dp.Skellam,
    "laplace": dp.Laplace,
    "local_gaussian": dp.LocalGaussian,
}
RING_NOISE: Table = {
    "distributed_skellam": dp.DistributedSkellam,
    "distributed_discrete_gaussian": dp.DistributedDiscreteGaussian,
}
"""Noise that clients add to the integers of a summing channel, so that nobody sees a sum without
it.
"""
SCHEDULES: Table = {"constant": dp.Constant, "decaying": dp.Decaying, "per_round": dp.PerRound}
GRADIENTS: Table = {
    "plain": training.PlainGradient,
    "dp": dp.DPGradient,
    "soteria": training.Soteria,
}
ATTACKS: Table = {
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
    "free_rider": attacks.FreeRider,
    "skip_clip": attacks.SkipClip,
    "withhold": attacks.Withhold,
    "label_flip": attacks.LabelFlip,
    "feature_noise": attacks.FeatureNoise,
    "optimal_points": attacks.OptimalPoints,
    "back_gradient": attacks.BackGradient,
    "pixel_pattern": attacks.PixelPattern,
    "dba": attacks.DBA,
    "semantic": attacks.Semantic,
    "edge_case": attacks.EdgeCase,
    "next_token": attacks.NextTokenBackdoor,
    "multi_backdoor": attacks.MultiBackdoor,
    "model_replacement": attacks.ModelReplacement,
    "constrain_and_scale": attacks.ConstrainAndScale,
    "train_and_scale": attacks.TrainAndScale,
    "boosting": attacks.Boosting,
    "neurotoxin": attacks.Neurotoxin,
    "projected_gradient": attacks.ProjectedGradient,
    "imprint": attacks.Imprint,
    "fishing": attacks.Fishing,
    "gradient_ascent": attacks.GradientAscent,
    "multi_task": attacks.MultiTask,
}
INFERENCE: Table = {
    "gradient_inversion": attacks.GradientInversion,
    "dlg": attacks.DLG,
    "idlg": attacks.IDLG,
    "gauss_newton": attacks.GaussNewton,
    "linear_leakage": attacks.LinearLeakage,
    "label_counts": attacks.LabelCounts,
    "loss_threshold": attacks.LossThreshold,
    "update_membership": attacks.UpdateMembership,
    "shadow_membership": attacks.ShadowMembership,
    "property_inference": attacks.PropertyInference,
    "grad_inversion": attacks.GradInversion,
    "embedding_leakage": attacks.EmbeddingLeakage,
    "white_box_membership": attacks.WhiteBoxMembership,
    "source_inference": attacks.SourceInference,
    "selection_profile": attacks.SelectionProfile,
    "gradient_disaggregation": attacks.GradientDisaggregation,
    "subject_membership": attacks.SubjectMembership,
}
"""Attacks on a view: in Python ``attack.run(view, knowledge)``, for a whole run ``privfl
audit``.
"""
DATASETS: Table = data.DATASETS
PARTITIONERS: Table = data.PARTITIONERS
MODELS: Table = models.MODELS
TRAINING: Table = {
    "sgd": training.LocalSGD,
    "fedprox": training.FedProx,
    "fedsgd": training.FedSGD,
    "fednova": training.FedNova,
    "scaffold": training.Scaffold,
}
SERVER_OPTIMIZERS: Table = {
    "fedavg": training.FedAvg,
    "fedavgm": training.FedAvgM,
    "fedadam": training.FedAdam,
    "fedyogi": training.FedYogi,
    "fedadagrad": training.FedAdagrad,
}
PARTS: Mapping[type, Table] = {
    Rule: AGGREGATORS,
    RuleWithMemory: AGGREGATORS,
    BatchGradient: GRADIENTS,
    dp.Schedule: SCHEDULES,
    attacks.Trigger: ATTACKS,
    attacks.MultiBackdoor: ATTACKS,
}
"""Tables of the parts that other parts hold, by the type that a field is annotated with."""


def build(
    seam: str,
    table: Table,
    part: Mapping[str, Any],
    supplied: Mapping[str, Any] | None = None,
) -> Any:
    """The object that a part of a config describes: its class by name, its fields by key.

    Fields whose type is a part's (`PARTS`) are built from their own table; ``supplied`` are
    arguments that come from the program and not from the config.

    Raises:
        ConfigError: an unknown name or key (with the nearest known one), a missing key, or a value
            of the wrong type or range.

    >>> build("bound", BOUNDS, {"name": "clip", "l2": 2.0})
    Clip(l2=2.0)
    >>> build("bound", BOUNDS, {"name": "clip", "l3": 2.0})
    Traceback (most recent call last):
    privfl.core.errors.ConfigError: bound 'clip': unknown key 'l3'; did you mean 'l2'? Known: l2.
    """
    maker, values = checked(seam, table, part, tuple(supplied or ()))
    try:
        return maker(**(supplied or {}), **values)
    except ConfigError as error:
        raise ConfigError(f"{seam} '{part['name']}': {error}") from None


def checked(
    seam: str,
    table: Table,
    part: Mapping[str, Any],
    supplied: Sequence[str] = (),
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The class or builder that a part names, and its checked keyword arguments; raises as `build`
    does.
    """
    name = part["name"]
    if name not in table:
        raise ConfigError(unknown(seam, name, table))
    maker = table[name]
    hints, required = fields_of(maker, supplied)
    given = {key: value for key, value in part.items() if key != "name"}
    for key in given:
        if key not in hints:
            known = unknown("key", key, hints) if hints else f"unknown key '{key}': it has no keys."
            raise ConfigError(f"{seam} '{name}': {known}")
    for key in required:
        if key not in given:
            raise ConfigError(
                f"{seam} '{name}' needs the key '{key}', as in {{name: {name}, {key}: ...}}."
            )
    values: dict[str, Any] = {}
    for key, value in given.items():
        held = _table_of(hints[key])
        if held is not None and isinstance(value, Sequence) and not isinstance(value, str):
            parts = [{"name": one} if isinstance(one, str) else one for one in value]
            values[key] = tuple(build(f"{seam}.{key}", held, one) for one in parts)
        elif held is not None and value is not None:
            inner = {"name": value} if isinstance(value, str) else value
            values[key] = build(f"{seam}.{key}", held, inner)
        elif isinstance(value, Mapping) and dataclasses.is_dataclass(hints[key]):
            values[key] = build(
                f"{seam}.{key}", {key: hints[key]}, {"name": key, **value}
            )  # a group of settings
        else:
            values[key] = _checked(f"{seam} '{name}'", key, hints[key], value)
    return maker, values


def fields_of(
    maker: Callable[..., Any], supplied: Sequence[str] = ()
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The keys that a class or builder takes from a config, with their types, and which of them it
    needs.
    """
    parameters = [
        p
        for p in inspect.signature(maker).parameters.values()
        if p.name not in supplied and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    described: Any = maker
    if isinstance(maker, type) and not dataclasses.is_dataclass(maker):
        described = maker.__dict__["__init__"]
    hints = typing.get_type_hints(described)
    return {p.name: hints.get(p.name, Any) for p in parameters}, tuple(
        p.name for p in parameters if p.default is p.empty
    )


def _table_of(hint: Any) -> Table | None:
    """The table of the part that a type stands for, looked for inside of unions and sequences."""
    if typing.get_origin(hint) in PARTS:
        return PARTS[typing.get_origin(hint)]
    if isinstance(hint, type) and hint in PARTS:
        return PARTS[hint]
    for arm in typing.get_args(hint):
        found = _table_of(arm)
        if found is not None:
            return found
    return None


def needs_of(maker: Any) -> Needs:
    """The arguments that a run fills, as a rule, a defence or a bound declares them; a builder's
    are those of its class.
    """
    owner: Any = maker.__self__ if inspect.ismethod(maker) else maker
    needs: Needs = owner.needs
    return needs


def _checked(owner: str, key: str, hint: Any, value: Any) -> Any:
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(
            value
        )
    except ValidationError as error:
        what = str(error.errors()[0]["msg"])
        raise ConfigError(
            f"{owner}: '{key}': {what[0].lower()}{what[1:]} (it is {value!r})."
        ) from None
    except PydanticUserError:
        raise ConfigError(
            f"{owner}: '{key}' cannot be set from a config; build the object in Python."
        ) from None


SEAMS: Mapping[str, Table] = {
    "aggregators": {**AGGREGATORS, **DEFENCES},
    "attacks": {**ATTACKS, **INFERENCE},
    "bounds": BOUNDS,
    "channels": CHANNELS,
    "datasets": DATASETS,
    "gradients": GRADIENTS,
    "mechanisms": {**MECHANISMS, **RING_NOISE},
    "models": MODELS,
    "partitions": PARTITIONERS,
    "samplers": SAMPLERS,
    "schedules": SCHEDULES,
    "server_optimizers": SERVER_OPTIMIZERS,
    "training": TRAINING,
}
"""What ``privfl list`` shows."""


def describe(what: str) -> list[dict[str, Any]]:
    """One row for each name of a seam: what it is, its keys, and where it acts."""
    rows = []
    maker: Any
    for name, maker in sorted(SEAMS[what].items()):
        row: dict[str, Any] = {"name": name}
        if what == "aggregators":
            row["seat"] = seat_of(maker)
        if what == "channels":
            row |= {
                "opens": maker.kind.opens,
                "runs": ", ".join(
                    sorted(r for r, rule in AGGREGATORS.items() if rule in maker.kind.runs)
                ),
            }
        if what == "attacks":
            row |= {"family": attacks.family_of(maker), "seat": attacks.seats_of(maker)}
        if what in ("aggregators", "attacks"):
            row["paper"] = paper_of(maker)
        row["keys"] = ", ".join(key for key in fields_of(maker, _supplied(what, maker))[0])
        row["is"] = (inspect.getdoc(maker) or "").split("\n\n")[0].replace("\n", " ")
        rows.append(row)
    return rows


def _supplied(what: str, maker: Any) -> Sequence[str]:
    """The arguments of a name that come from the program and not from the config."""
    if what in ("aggregators", "bounds"):
        return tuple(needs_of(maker))
    if what == "channels":
        return (maker.kind.rule_field,) if maker.kind.runs else ()
    return ("shape", "classes") if what == "models" else ()


def seat_of(maker: Any) -> str:
    """Where a defence acts: as the rule, before it, after it, at the client, or in several of
    these.
    """
    return "+".join(seat for seat in typing.get_args(DefenceSeat) if seat in maker.seats)


_PAPER = re.compile(
    r"((?:[A-Z][\w'’-]+(?:, | and |, and | et al\. |,? |-)?(?:(?:el|El|de|van)"
    r" )?)+)\(?((?:19|20)\d\d)"
)


def paper_of(maker: Any) -> str:
    """The first paper that the docstring of a class, or else of its module, names: authors and
    year.

    >>> paper_of(aggregators.TrimmedMean)
    'Yin et al. 2018'
    """
    for text in (inspect.getdoc(maker), inspect.getdoc(inspect.getmodule(maker))):
        found = _PAPER.search((text or "").replace("\n", " "))
        if found:
            return f"{found.group(1).strip(' ,')} {found.group(2)}"
    return ""


def compatibility() -> list[dict[str, str]]:
    """For every rule and channel: whether they work together, through which hybrid, or why not;
    read off what they declare.
    """
    return [verdict(rule, channel) for rule in sorted(AGGREGATORS) for channel in sorted(CHANNELS)]


def works(rule: str, channel: str) -> bool:
    """Whether a rule works over a channel, by their names: it reads what the channel opens, or the
    channel's servers run it.
    """
    maker, described = AGGREGATORS[rule], CHANNELS[channel]
    kind = described.kind
    if kind.runs:
        return maker in kind.runs
    return readable(maker.reads, maker.needs_ids, kind)


def hybrids_for(rule: str) -> list[str]:
    """The hybrids under which a rule works although nobody reads an update."""
    return [name for name in HYBRIDS if works(rule, name)]


def verdict(rule: str, channel: str) -> dict[str, str]:
    """One row of the compatibility table."""
    maker, kind = AGGREGATORS[rule], CHANNELS[channel].kind
    row = {"rule": rule, "channel": channel, "verdict": "works", "through": "", "because": ""}
    if works(rule, channel):
        if maker in kind.runs:
            row["because"] = f"the servers of {channel} run it on data that neither reads"
        elif kind.groups:
            row["because"] = "it reads the means of groups"
        return row
    if kind.runs:
        row["because"] = f"the servers of {channel} cannot run {rule} on hidden data"
    elif kind.opens == "total":
        row["because"] = (
            f"{rule} reads individual updates; {channel} shows the server only their sum"
        )
    else:
        row["because"] = (
            f"{rule} needs to know whose row is whose, and the rows of {channel} are anonymous"
        )
    through = hybrids_for(rule)
    if through:
        return row | {"verdict": "through", "through": ", ".join(through)}
    if maker.needs_ids and kind.opens == "total":
        row["because"] = (
            f"{rule} follows single clients by name; {channel} shows the server only their sum"
        )
    return row | {"verdict": "impossible"}
