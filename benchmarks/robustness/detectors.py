"""Detectors beside lies of the literature and beside one that was made against each: whom they
accuse, and what is left of the model.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

from benchmarks.harness import Row, cost, gain
from benchmarks.robustness.workers import LOADED, Experiment, Job, Played, between
from privfl.audit.detection import detections
from privfl.federation import Federation, Run

N, F, ROUNDS = 20, 6, 15
DIRICHLET = {"name": "dirichlet", "alpha": 0.5}
Figures = Mapping[str, float]
DETECTORS: Mapping[str, Mapping[str, Any]] = {
    "no defence": {},
    "FLDetector": {"defences": [{"name": "fl_detector", "window": 5}]},
    "FreqFed": {"aggregator": "freq_fed"},
    "FLARE": {"aggregator": "flare"},
    "Multi-metrics": {"aggregator": "multi_metrics"},
    "RFLBAT": {"aggregator": "rflbat"},
    "LASA": {"aggregator": "lasa"},
    "FLANDERS": {"defences": [{"name": "flanders", "f": F}]},
    "FLANDERS, last": {"defences": [{"name": "flanders", "f": F, "forecast": "last"}]},
    "FLANDERS, global": {"defences": [{"name": "flanders", "f": F, "forecast": "global"}]},
}
ROOT = {name: 50 if name == "FLARE" else 0 for name in DETECTORS}
"""Clean samples at the server, of whom has need of them."""
ON_THE_PATH = "AGR-tailored on the path"
LIES: Mapping[str, Mapping[str, Any] | None] = {
    "none": None,
    "sign flip x4": {"name": "sign_flip", "scale": 4.0},
    "gaussian": {"name": "gaussian"},
    "ALIE 1.5": {"name": "alie", "z": 1.5},
    ON_THE_PATH: {"name": "agr_tailored"},
    "steady": {"name": "steady"},
    "foretold": {"name": "foretold", "window": 5},
    "scattered": {"name": "agr_tailored", "apart": [1.6]},
    "ordinary": {"name": "ordinary", "layers": [64 * 32 + 32, 32 * 10 + 10]},
}
MADE_AGAINST: Mapping[str, str] = {
    **dict.fromkeys(("FLDetector", "FLANDERS", "FLANDERS, last"), "steady"),
    **dict.fromkeys(("FreqFed", "FLARE", "Multi-metrics", "RFLBAT", "LASA"), ON_THE_PATH),
    "FLANDERS, global": ON_THE_PATH,
}
"""Which lie was made against which detector: it judges candidates by the detector itself, or moves
as its forecast does.
"""
FOR_ONE: Mapping[str, str] = {
    "foretold": "FLDetector",
    "scattered": "RFLBAT",
    "ordinary": "LASA",
}
"""Lies that know one detector's formula, and do not only try candidates on it: it alone, and no
defence, meets them.
"""
LIE = NormalDist().cdf((100 - 51) / (100 - 20))
"""z of 20 liars among 100 as the code of FLANDERS has it: Phi where Baruch et al. have Phi^-1."""
SETTINGS: Mapping[str, tuple[int, Mapping[str, Any] | None]] = {
    "none": (0, None),
    "gaussian, f = 20": (20, {"name": "gaussian", "sigma": 10.0}),
    "gaussian, f = 60": (60, {"name": "gaussian", "sigma": 10.0}),
    "ALIE 1.5, f = 20": (20, {"name": "alie", "z": 1.5}),
    "ALIE, f = 20": (20, {"name": "alie"}),
    "LIE of FLANDERS' code, f = 20": (20, {"name": "alie", "z": LIE, "power": 0.5}),
    "steady (made against it), f = 20": (20, {"name": "steady"}),
}
FORECASTS = ("off", "matrix", "last", "global")


def detected(detector: str, lie: str, seed: int) -> Figures:
    """Final accuracy, TPR, FPR and AUC where there are such: digits, 20 clients of which 6 lie from
    the third round on, Dirichlet 0.5, an MLP of 32, 15 rounds of 2 epochs.
    """
    attack = LIES[lie]
    config = {
        "data": {"name": "digits", "clients": N, "partition": DIRICHLET, "root": ROOT[detector]},
        "model": {"name": "mlp", "hidden": [32]},
        "training": {"name": "sgd", "lr": 0.3, "epochs": 2, "weighting": "uniform"},
        "rounds": ROUNDS,
        "aggregator": "mean",
        **DETECTORS[detector],
    }
    return _played(config, attack, F, seed)


def flanders_run(lie: str, forecast: str, seed: int) -> Figures:
    """The same of MNIST, 100 clients, Dirichlet 0.5, an MLP of 128, 10 steps of 32, 8 rounds.
    ``forecast`` may be "off": no defence.
    """
    f, attack = SETTINGS[lie]
    seat = {"name": "flanders", "f": f or 20, "forecast": forecast}
    config = {
        "data": {**LOADED, "of": "mnist", "clients": 100, "partition": DIRICHLET},
        "model": {"name": "mlp", "hidden": [128]},
        "training": {"name": "sgd", "lr": 0.1, "steps": 10, "weighting": "uniform"},
        "rounds": 8,
        "aggregator": "mean",
        "defences": [] if forecast == "off" else [seat],
    }
    return _played(config, attack, f, seed)


def _played(
    config: Mapping[str, Any], attack: Mapping[str, Any] | None, f: int, seed: int
) -> Figures:
    liars = [] if attack is None else [{**attack, "clients": list(range(f)), "first": 2}]
    audit = {"keep": "none", "evaluate_every": config["rounds"]}
    beside = {"attacks": liars, "seed": seed, "executor": "stacked", "audit": audit}
    return _figures(Federation.from_config({**config, **beside}).run())


def _figures(run: Run) -> Figures:
    figures = {"accuracy": run.accuracy}
    for one in detections(run.history):
        told = {"TPR": one.tpr, "FPR": one.fpr, "FPR without liars": one.null_fpr, "AUC": one.auc}
        figures |= {name: figure.value for name, figure in told.items() if figure is not None}
    return figures


def each_lie(seeds: Sequence[int]) -> Sequence[Job]:
    return [(d, lie, seed) for d in DETECTORS for lie in LIES if tried(d, lie) for seed in seeds]


def detectors(played: Played) -> Iterable[Row]:
    """Each detector under each lie; the lie that was made against it is marked."""
    found: dict[tuple[str, str], list[Figures]] = {}
    for (detector, lie, _), figures in played.runs:
        found.setdefault((detector, lie), []).append(figures)
    for (detector, lie), over_seeds in found.items():
        made = MADE_AGAINST.get(detector) == lie or FOR_ONE.get(lie) == detector
        mark = " (made against it)" if made else ""
        what = f"{detector}, {lie}{mark}"
        plain = _mean(found[detector, "none"], "accuracy")
        accuracy = [figures["accuracy"] for figures in over_seeds]
        mean = statistics.mean(accuracy)
        yield gain("detectors", "no lie", f"{what}: accuracy", mean, plain)
        yield between("detectors", f"{what}: accuracy", accuracy)
        for name in ("TPR", "FPR", "FPR without liars", "AUC"):
            if any(name in figures for figures in over_seeds):
                value = _mean(over_seeds, name)
                yield gain("detectors", "chance", f"{what}: {name}", value, 0.5)


def tried(detector: str, lie: str) -> bool:
    """Whether a lie is tried: two dozen candidates a round, each judged by a matrix that is fitted
    anew, take minutes; lies for one detector are tried on that one.
    """
    if lie in FOR_ONE:
        return detector in ("no defence", FOR_ONE[lie])
    return (detector, lie) != ("FLANDERS", ON_THE_PATH)


def each_forecast(seeds: Sequence[int]) -> Sequence[Job]:
    return [(lie, how, seed) for lie in SETTINGS for how in FORECASTS for seed in seeds]


def flanders(played: Played) -> Iterable[Row]:
    """FLANDERS with the paper's matrices and with naive forecasts, and without it."""
    found: dict[tuple[str, str], list[Figures]] = {}
    for (lie, how, _), figures in played.runs:
        found.setdefault((lie, how), []).append(figures)
    plain = _mean(found["none", "off"], "accuracy")
    for (lie, how), over_seeds in found.items():
        what, held = f"{lie}, {how}", "gaussian" in lie and how == "matrix"
        mean, near = _mean(over_seeds, "accuracy"), 1 - 0.02 / plain
        goal = near if held else None
        yield gain("flanders", "no lie, no defence", f"{what}: accuracy", mean, plain, target=goal)
        accuracy = [figures["accuracy"] for figures in over_seeds]
        yield between("flanders", f"{what}: accuracy", accuracy)
        goal = 1.0 if held else None
        if all("TPR" in figures for figures in over_seeds):
            tpr, fpr = _mean(over_seeds, "TPR"), max(_mean(over_seeds, "FPR"), 1e-3)
            yield gain("flanders", "goal", f"{what}: TPR", tpr, 0.95, target=goal)
            yield cost("flanders", "goal", f"{what}: FPR", fpr, 0.05, target=goal)
        elif all("FPR without liars" in figures for figures in over_seeds):
            fpr = _mean(over_seeds, "FPR without liars")
            yield cost("flanders", "goal", f"{what}: FPR without liars", fpr, 0.05)


def _mean(over_seeds: Sequence[Figures], name: str) -> float:
    return statistics.mean(figures[name] for figures in over_seeds if name in figures)


DETECTED = Experiment(detected, each_lie, detectors)
FORETOLD = Experiment(flanders_run, each_forecast, flanders, quick=1)
