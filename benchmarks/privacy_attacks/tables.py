"""Records of tables out of updates: Adult and Heart Disease."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
from torch import Tensor

from benchmarks.harness import Row, cost, gain
from benchmarks.privacy_attacks.runs import mean, play
from privfl.attacks import Forward, Knowledge, LinearLeakage, Reconstruction, Records, TabLeak
from privfl.audit.fields import fields_right, in_a_category, typical
from privfl.core import cross_entropy
from privfl.data import Split, load
from privfl.models import initialised, mlp
from privfl.training import FedSGD

WIDTH, STARTS, RATE = 100, 6, 0.1
OWN = 2000


def schema(split: Split) -> tuple[slice, ...]:
    """The columns of each category, by the names of the features: ``race=White``."""
    names = [name.partition("=") for name in split.feature_names]
    ends: dict[str, list[int]] = {}
    for at, (name, told, _) in enumerate(names):
        if told:
            ends.setdefault(name, []).append(at)
    return tuple(slice(places[0], places[-1] + 1) for places in ends.values())


def tables(quick: bool) -> Iterable[Row]:
    """TabLeak with 6 starts: fields that are right, pooled, of one start, and of a blind guess; how
    right the surer half of them is; records with all fields right. Beside it the closed form, by
    columns and by records.
    """
    for name, sizes in (("adult", (8, 16, 32)), ("heart_disease", (8, 16))):
        split = load(name)
        for b in sizes:
            yield from _batch(split, b, 2 if quick else 5)


def _batch(split: Split, b: int, seeds: int) -> Iterable[Row]:
    groups, deviation = schema(split), split.train.x.std(dim=0)
    own = split.test.take(range(min(OWN, split.test.n)))
    columns = [int(at) for at in (~in_a_category(len(deviation), groups)).nonzero()]
    columns += [group.start for group in groups]
    kinds = (
        "pooled",
        "one",
        "blind",
        "rows",
        "whole",
        "sure",
        "unsure",
        "columns",
        "exact",
        "seconds",
    )
    told: dict[str, list[float]] = {kind: [] for kind in kinds}
    for seed in range(seeds):
        rng = torch.Generator().manual_seed(seed)
        client = split.train.take(torch.randperm(split.train.n, generator=rng)[:b])
        net = initialised(mlp, split.shape, split.classes, seed=seed, hidden=(WIDTH,))
        view = play(net, [client], FedSGD(lr=RATE))[0]
        forward = Forward(net, cross_entropy, split.shape, split.classes, lr=RATE, steps=1)
        knows = Knowledge(forward=forward, auxiliary=own, seed=seed)
        began = time.process_time()
        pooled = TabLeak(restarts=STARTS).run(view, knows)
        told["seconds"].append(time.process_time() - began)
        one, closed = TabLeak(restarts=1).run(view, knows), LinearLeakage().run(view, knows)
        if not isinstance(pooled, Records) or pooled.confidence is None:
            raise TypeError(str(pooled))
        right, claim = fields_right(pooled.samples, client.x, groups, deviation)
        told["pooled"].append(_mean(right))
        told["whole"].append(_mean(right.all(dim=1)))
        sure = pooled.confidence[claim][:, columns]
        told["sure"].append(_mean(right[sure >= sure.median()]))
        told["unsure"].append(_mean(right[sure < sure.median()]))
        guess = typical(own.x, groups).expand(b, -1)
        told["blind"].append(_mean(fields_right(guess, client.x, groups, deviation)[0]))
        for _ in range(10):
            some = own.x[torch.randperm(own.n, generator=rng)[:b]]
            told["rows"].append(_mean(fields_right(some, client.x, groups, deviation)[0]))
        for name, answer in (("one", one), ("exact", closed)):
            if isinstance(answer, Reconstruction):
                found = fields_right(answer.samples, client.x, groups, deviation)[0]
                told[name].append(_mean(found if name == "one" else found.all(dim=1)))
        if isinstance(closed, Reconstruction):
            single = fields_right(closed.samples, client.x, (), deviation)[0]
            told["columns"].append(_mean(single))
    case = f"TabLeak, {split.name}, b={b}, width {WIDTH}"
    yield gain(case, "blind", "fields right", mean(told["pooled"]), mean(told["blind"]))
    yield gain(case, "own rows, matched", "fields right", mean(told["pooled"]), mean(told["rows"]))
    yield gain(case, "one start", "fields right", mean(told["pooled"]), mean(told["one"]))
    yield gain(case, "the less sure half", "fields right", mean(told["sure"]), mean(told["unsure"]))
    yield gain(case, "all", "records whole", mean(told["whole"]), 1.0)
    yield cost(case, "shown", "CPU s", mean(told["seconds"]), 10.0)
    if told["columns"]:
        case = f"closed form, {split.name}, b={b}, width {WIDTH}"
        yield gain(case, "all", "columns right, one-hot", mean(told["columns"]), 1.0)
        yield gain(case, "all", "records whole", mean(told["exact"]), 1.0)


def _mean(right: Tensor) -> float:
    return float(right.double().mean())
