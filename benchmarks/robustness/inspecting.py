"""Trained models looked at for backdoors: clean ones, ones with a pixel pattern, ones with an edge
case, each trained by the engine with the catalogue's attackers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.harness import Row, cost, gain
from benchmarks.robustness.central import cnn
from benchmarks.robustness.single_shot import SQUARE, seven_tail
from benchmarks.robustness.workers import Experiment, Job, Played, between, loaded
from privfl import Federation
from privfl.audit.inspection import FLAGGED_OVER, SMALL_SHARE, inspect
from privfl.config import AuditConfig
from privfl.core import LocalPlan, Seeds
from privfl.data import IID, Split
from privfl.engine import Attacker, FixedSize
from privfl.models import initialised
from privfl.training import LocalSGD

CLIENTS, LIARS, COHORT, ROUNDS = 100, 20, 10, 12
KINDS = ("clean", "pixel pattern", "edge case")
SECONDS_WANTED = 15.0
Figures = Mapping[str, float]


def planted(kind: str, split: Split) -> Any:
    """The backdoor of a kind of model: a square to class 2, or sevens of another hand to class 1;
    None for a clean model.
    """
    return {"pixel pattern": SQUARE, "edge case": seven_tail(split)}.get(kind)


def inspected(kind: str, seed: int) -> Figures:
    """What an inspection makes of one model: MNIST, 100 clients of which 20 poison their data,
    10 a round, 12 rounds of 2 epochs, a CNN of 20k weights.
    """
    split, seeds = loaded("mnist"), Seeds(seed)
    backdoor = planted(kind, split)
    parts = IID()(split.train, CLIENTS, seeds.generator("partition"))
    attackers = [] if backdoor is None else [Attacker(kind, backdoor, frozenset(range(LIARS)))]
    run = Federation(
        initialised(cnn, split.shape, split.classes, seed=seed),
        [split.train.take(part) for part in parts],
        split.test,
        rounds=ROUNDS,
        training=LocalSGD(lr=0.1, plan=LocalPlan(32, epochs=2), weighting="uniform"),
        sampler=FixedSize(COHORT),
        attackers=attackers,
        seed=seed,
        executor="sequential",
        audit=AuditConfig(keep=[], evaluate_every=ROUNDS),
    ).run()
    began = time.process_time()
    found = inspect(run.model, split.test, seed=seed)
    figures = {
        "seconds": time.process_time() - began,
        "accuracy": run.accuracy,
        "largest index": found.classes[0].index or 0.0,
        "second index": found.classes[1].index or 0.0,
        "flagged": float(found.verdict == "flagged"),
        "flagged by index alone": float(
            any((one.index or 0.0) > FLAGGED_OVER for one in found.classes)
        ),
        "smallest mask, of the median": min(one.share or 1.0 for one in found.classes),
        "elevation on top": found.stimulated[0].elevation,
        "done": float(found.complete and all(one.index is not None for one in found.classes)),
    }
    if backdoor is None:
        return figures
    rank = [one.target for one in found.classes].index(backdoor.target)
    lifted = [one.target for one in found.stimulated].index(backdoor.target)
    return figures | {
        "backdoor": backdoor.measure(run.model, split.test)["backdoor"],
        "planted index": found.classes[rank].index or 0.0,
        "planted mask": found.classes[rank].size,
        "planted rank": 1.0 + rank,
        "planted flagged": float(found.classes[rank].flagged),
        "planted elevation": found.stimulated[lifted].elevation,
        "planted rank by elevation": 1.0 + lifted,
    }


def each_kind(seeds: Sequence[int]) -> Sequence[Job]:
    return [(kind, seed) for kind in KINDS for seed in seeds]


def inspecting(played: Played) -> Iterable[Row]:
    """Which classes Neural Cleanse flags, and which the stimulation analysis has on top."""
    found: dict[str, list[Figures]] = {}
    for (kind, _), figures in played.runs:
        found.setdefault(kind, []).append(figures)
    clean, pixel, edge = (found[kind] for kind in KINDS)
    n = float(len(clean))
    hit = sum(one["planted rank"] == 1 and one["planted flagged"] == 1 for one in pixel)
    what = "pixel pattern: seeds whose planted class has the largest index and is flagged"
    yield gain("inspect", "goal", what, float(hit), n, target=1.0)
    quiet = n - sum(one["flagged"] for one in clean)
    yield gain("inspect", "goal", "clean: seeds that are not flagged", quiet, n, target=1.0)
    least = min(one["planted index"] for one in pixel)
    what = "pixel pattern: least anomaly index of the planted class"
    yield gain("inspect", "flagged over", what, least, FLAGGED_OVER, target=1.0)
    least = min(one["smallest mask, of the median"] for one in clean)
    what = "clean: smallest mask of any class, of the median"
    yield gain("inspect", "flagged under", what, least, SMALL_SHARE, target=1.0)
    most = max(one["smallest mask, of the median"] for one in pixel)
    what = "pixel pattern: mask of the planted class, of the median, at most"
    yield cost("inspect", "flagged under", what, most, SMALL_SHARE, target=1.0)
    escaped = n - sum(one["planted flagged"] for one in edge)
    what = "edge case: seeds whose planted class is not flagged"
    yield gain("inspect", "seeds", what, escaped, n)
    for kind in KINDS:
        for name in found[kind][0]:
            values = [one[name] for one in found[kind]]
            label = f"{kind}: {name}"
            yield gain("inspect", "shown", label, statistics.mean(values), 1.0)
            if name in ("largest index", "planted index", "backdoor"):
                yield between("inspect", label, values)
    seconds = statistics.mean(one["seconds"] for each in found.values() for one in each)
    what = "CPU seconds of a whole inspection, 10 classes"
    yield cost("inspect", "goal", what, seconds, SECONDS_WANTED, target=1.0)


INSPECTED = Experiment(inspected, each_kind, inspecting)
