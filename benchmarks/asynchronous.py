"""Asynchronous training in simulated time, fast liars, and what arrival costs in privacy:
``python -m benchmarks.asynchronous [--quick] [--only CASE]``.

Digits, 60 clients (Dirichlet 0.5), a perceptron of 2,410 parameters, clip 2, buffers of 10,
half-normal durations unless a case says otherwise. Server rates are those of each case and were
chosen on the test set: comparisons share them.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.harness import Case, Row, cost, gain, interleaved, main, say
from privfl import Federation
from privfl.core import Broadcast, Seeds
from privfl.dp import epsilon, spend
from privfl.federation import Run
from privfl.training import Executor, Sequential, Stacked
from privfl.training.task import Task

CLIENTS, K, LIARS = 60, 10, 6
FAST = dict.fromkeys(range(LIARS), 10.0)
TRIMMED = {"name": "trimmed_mean", "f": 3}
KRUM = {"name": "krum", "f": 3}
FLIP = [{"name": "sign_flip", "clients": list(range(LIARS))}]


def buffered(concurrency: int, exponent: float = 0.5, **more: Any) -> dict[str, Any]:
    """A pace with buffers of 10."""
    pace = {"name": "buffered", "k": K, "concurrency": concurrency, "exponent": exponent}
    return {**pace, **more}


def config(pace: Mapping[str, Any], rounds: int, **parts: Any) -> dict[str, Any]:
    """A run of the world that all cases share."""
    lr, epochs = parts.pop("lr", 0.1), parts.pop("epochs", 1)
    every = parts.pop("every", rounds)
    return {
        "data": {
            "name": "digits",
            "clients": CLIENTS,
            "partition": {"name": "dirichlet", "alpha": 0.5},
        },
        "model": {"name": "mlp", "hidden": [32]},
        "training": {
            "name": "sgd",
            "lr": lr,
            "epochs": epochs,
            "batch_size": 16,
            "weighting": "uniform",
        },
        "bound": {"name": "clip", "l2": 2.0},
        "rounds": rounds,
        "executor": "stacked",
        "audit": {"keep": "none", "evaluate_every": every},
        "pace": dict(pace),
        **parts,
    }


def played(pace: Mapping[str, Any], rounds: int, **parts: Any) -> Run:
    """A run of it."""
    return Federation.from_config(config(pace, rounds, **parts)).run()


def seeds(quick: bool) -> Sequence[int]:
    """Of the means over runs."""
    return (0, 1) if quick else (0, 1, 2)


def reached(run: Run, accuracy: float) -> float:
    """The simulated time at which a run was first so accurate."""
    there = (one.time for one in run.history if (one.accuracy or 0) >= accuracy)
    return next((at for at in there if at is not None), float("nan"))


def simulated_time(quick: bool) -> Iterator[Row]:
    """Against rounds of 30 that wait for the slowest, with as many at work."""
    sampler = {"name": "fixed_size", "size": 30}
    waits = {"name": "synchronous", "durations": "half_normal"}
    times: dict[str, list[tuple[float, float]]] = {}
    for seed in seeds(quick):
        runs = {
            "synchronous": played(waits, 150, sampler=sampler, seed=seed, every=1),
            "buffered": played(buffered(30), 300, seed=seed, every=1),
            "buffered, not scaled": played(buffered(30, 0.0), 300, seed=seed, every=1),
        }
        for name, run in runs.items():
            times.setdefault(name, []).append((reached(run, 0.90), reached(run, 0.93)))
    for at, (accuracy, target) in enumerate(((".90", 3.0), (".93", None))):
        mean = {name: statistics.fmean(one[at] for one in times[name]) for name in times}
        for name in list(mean)[1:]:
            metric, wanted = f"simulated time to {accuracy}", target if name == "buffered" else None
            case = f"simulated time, {name}"
            yield cost(case, "synchronous", metric, mean[name], mean["synchronous"], wanted)


def scaling(quick: bool) -> Iterator[Row]:
    """Honest clients, all at work, a large server rate and a moderate one: the rows scaled by
    staleness at their clients, and not scaled.
    """
    for rate, target in ((6.0, 1.5), (1.0, None)):
        for rule in (TRIMMED, {"name": "mean"}):
            found: list[float] = []
            for exponent in (0.5, 0.0):
                runs = [
                    played(
                        buffered(60, exponent),
                        100,
                        aggregator=rule,
                        seed=seed,
                        lr=0.5,
                        epochs=2,
                        server_optimizer={"name": "fedavg", "lr": rate},
                    )
                    for seed in seeds(quick)
                ]
                found.append(statistics.fmean(float(run.accuracy) for run in runs))
                if exponent and rule is TRIMMED and target:
                    stale = runs[0].summary["facts"]["staleness"]
                    say(f"asynchronous: staleness of an honest run: {stale}")
            case = f"scaling, {rule['name']}, server rate {rate:g}"
            wanted = target if rule is TRIMMED else None
            yield gain(case, "not scaled", "accuracy", found[0], found[1], wanted)


def fast_liars(quick: bool) -> Iterator[Row]:
    """Six of 60 clients are ten times as fast and flip signs: what share of the buffers is theirs,
    and what becomes of the model. ``theirs`` of a share is the 10 % of the clients that they are,
    of an accuracy that of the mean without attackers.
    """
    rounds, train = 200, {"lr": 0.5, "epochs": 2}
    calm = statistics.fmean(
        float(played(buffered(60, 0.0), rounds, seed=seed, **train).accuracy)
        for seed in seeds(quick)
    )
    took: dict[str, float] = {}
    for name, concurrency, gate in (
        ("60 at work", 60, 1),
        ("30 at work", 30, 1),
        ("60 at work, gate 5", 60, 5),
        ("20 at work, gate 5", 20, 5),
    ):
        case = f"fast liars, {name}"
        for at, (rule, exponent) in enumerate(
            (
                ({"name": "mean"}, 0.0),
                (TRIMMED, 0.0),
                (KRUM, 0.0),
                (TRIMMED, 0.5),
            )
        ):
            runs = [
                played(
                    buffered(concurrency, exponent, gate=gate, speeds=FAST),
                    rounds,
                    aggregator=rule,
                    attacks=FLIP,
                    seed=seed,
                    **train,
                )
                for seed in seeds(quick)
            ]
            if not at:
                liars = [len(one.liars) for run in runs for one in run.history]
                yield cost(
                    case, "their clients", "share of updates", sum(liars) / (K * len(liars)), 0.1
                )
                over = sum(count > 3 for count in liars) / len(liars)
                say(f"asynchronous: {case}: over f = 3 in {100 * over:.1f} % of buffers")
                took[name] = statistics.fmean(run.state.clock.now for run in runs)
            accuracy = statistics.fmean(float(run.accuracy) for run in runs)
            words = f"accuracy, {rule['name']}{', scaled' if exponent else ''}"
            target = 0.85 if gate == 5 and rule is TRIMMED else None
            yield gain(case, "no attackers, mean", words, accuracy, calm, target)
    yield cost(
        "fast liars, the gate's cost",
        "no gate",
        "simulated time",
        took["60 at work, gate 5"],
        took["60 at work"],
    )


def fixed_buckets(quick: bool) -> Iterator[Row]:
    """BASGD with 15 buckets and their median, where six fast clients would own a buffer, against
    the median of buffers of 15 without buckets: sign flips, and attackers that know a median.
    """
    median = {"name": "median"}
    flip = {"name": "sign_flip", "clients": list(range(LIARS))}
    alie = {"name": "alie", "clients": list(range(LIARS))}
    adaptive = {"name": "agr_tailored", "clients": list(range(LIARS))}
    buckets = {
        "pace": {
            "name": "every_bucket",
            "buckets": 15,
            "concurrency": 60,
            "exponent": 0.0,
            "speeds": FAST,
        },
        "defences": [{"name": "fixed_buckets", "buckets": 15}],
    }
    plain = {"pace": buffered(60, 0.0, k=15, speeds=FAST)}
    for name, attacks in (
        ("nobody", []),
        ("sign_flip", [flip]),
        ("alie", [alie]),
        ("agr_tailored", [adaptive]),
    ):
        found: list[list[float]] = [[], []]
        for seed in seeds(quick):
            for at, parts in enumerate((buckets, plain)):
                told = {"aggregator": median, "attacks": attacks, "seed": seed, "lr": 0.5}
                run = played(rounds=200, **{**parts, **told})
                found[at].append(float(run.accuracy))
        accuracies = [statistics.fmean(each) for each in found]
        yield gain(f"basgd, attacked by {name}", "no buckets", "accuracy", *accuracies)


def clean_update(quick: bool) -> Iterator[Row]:
    """Zeno++ with 100 clean samples at the server, where six fast clients own the buffers: against
    sign flips, and against attackers that try their rows on the rule itself. A small rate, at which
    the model moves little between two updates of the server's own.
    """
    flip = {"name": "sign_flip", "clients": list(range(LIARS))}
    adaptive = {"name": "agr_tailored", "clients": list(range(LIARS))}
    for name, attacks in (("nobody", []), ("sign_flip", [flip]), ("agr_tailored", [adaptive])):
        found: list[float] = []
        for rule in ({"name": "zeno_plus_plus", "rho": 0.1}, {"name": "mean"}):
            runs = [
                Federation.from_config(
                    config(
                        buffered(60, 0.0, speeds=FAST),
                        200,
                        aggregator=rule,
                        attacks=attacks,
                        seed=seed,
                    ),
                    ["data.root=100"],
                ).run()
                for seed in seeds(quick)
            ]
            found.append(statistics.fmean(float(run.accuracy) for run in runs))
        yield gain(f"zeno++, attacked by {name}", "mean", "accuracy", found[0], found[1])


def arrival(quick: bool) -> Iterator[Row]:
    """What each client pays whose speeds differ, against "Poisson at 1/6", which arrival is not;
    and the same with a bound on deliveries.
    """
    rounds, delta = (100 if quick else 200), 1e-5
    claim = epsilon(noise_multiplier=4.0, sample_rate=K / CLIENTS, steps=rounds, delta=delta)
    speeds = dict.fromkeys(range(LIARS), 2.0)
    for case, bound in (("arrival", None), ("arrival, 40 deliveries at most", 40)):
        run = played(
            buffered(30, speeds=speeds, max_participations=bound),
            rounds,
            mechanism={"name": "gaussian", "noise_multiplier": 4.0},
        )
        counted = Counter(client for one in run.ledger.charges for client in one.cohort or ())
        joined = run.state.clock.joined
        (spent,) = spend(run.ledger, delta, pld=False)
        busiest = max(counted.values())
        by_hand = epsilon(
            noise_multiplier=4.0,
            sample_rate=1.0,
            steps=busiest,
            delta=delta,
            relation="zero_out",
            sampler="all",
        )
        say(
            f"asynchronous: {case}: deliveries {busiest} at most, median"
            f" {statistics.median(joined.values()):g}"
        )
        agree = sum(counted[client] == joined[client] for client in joined)
        yield gain(case, "a hand count", "clients counted alike", agree, len(joined), 1.0)
        yield cost(case, "Poisson at 1/6, not true", "epsilon", spent.claim(), claim)
        yield cost(case, "its deliveries by hand", "epsilon", spent.claim(), by_hand, 0.999)


def ready_then_meet(quick: bool) -> Iterator[Row]:
    """Secure aggregation over buffers, against its ideal functionality, value by value."""
    rounds = 40
    runs = [
        played(buffered(30), rounds, channel=channel, lr=0.5, epochs=2)
        for channel in ({"name": "secagg"}, {"name": "secagg", "fidelity": "ideal"})
    ]
    bits = [run.parameters.view(torch.int32) for run in runs]
    equal = int((bits[0] == bits[1]).sum())
    yield gain("secagg", "ideal", "equal parameters", equal, len(bits[0]), 1.0)
    plain = played(buffered(30), rounds, lr=0.5, epochs=2)
    yield gain("secagg", "plain", "accuracy", float(runs[0].accuracy), float(plain.accuracy))


def stacked(quick: bool) -> Iterator[Row]:
    """Training of clients that start from eight models, stacked and one after the other."""
    for epochs in (1, 5):
        federation = Federation.from_config(config(buffered(30), 1, epochs=epochs))
        work, clients = federation.scenario.workload, federation.scenario.clients
        rng = torch.Generator().manual_seed(0)
        now = Broadcast(8, work.model.read())
        bases = [
            Broadcast(v, now.parameters + 0.01 * torch.randn(work.model.d, generator=rng))
            for v in range(8)
        ]
        tasks = [
            Task(client, index, broadcast=bases[client % 8])
            for client, index in list(clients.items())[:30]
        ]
        out = torch.empty(len(tasks), work.model.d)
        ways: dict[str, Executor] = {"stacked": Stacked(work), "sequential": Sequential(work)}
        runs = {name: partial(way.train, now, tasks, out, Seeds(0)) for name, way in ways.items()}
        seconds = interleaved(runs, 5 if quick else 20, clock=time.process_time)
        yield cost(
            f"8 models, 30 clients, {epochs} epochs",
            "sequential",
            "seconds",
            seconds["stacked"],
            seconds["sequential"],
            3.0,
        )


CASES: dict[str, Case] = {
    "simulated time": simulated_time,
    "scaling": scaling,
    "fast liars": fast_liars,
    "basgd": fixed_buckets,
    "zeno++": clean_update,
    "arrival": arrival,
    "secagg": ready_then_meet,
    "stacked": stacked,
}

if __name__ == "__main__":
    main("asynchronous", CASES)
