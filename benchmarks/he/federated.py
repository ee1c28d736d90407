"""A federation over BFV beside the same in clear."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from benchmarks.harness import Row, cost, gain, say
from privfl import Federation
from privfl.config import AuditConfig
from privfl.core import LocalPlan
from privfl.crypto import BFV, OneTimeRLWE, Plain, SecAgg
from privfl.data import load
from privfl.dp import Clip
from privfl.federation import Run
from privfl.training import LocalSGD

ROUNDS = 3


def scene() -> Callable[[Any], tuple[float, float, Run]]:
    """What trains over a channel, and gives wall and CPU seconds and the run.

    Ten clients hold 6,000 images each and train a perceptron of 1,000,120 parameters for one epoch
    in batches of 10, as McMahan et al. (2017) do on MNIST, clipped to norm 5. Every run has one
    process and one thread.
    """
    split = load("mnist")
    parts = torch.randperm(split.train.n, generator=torch.Generator().manual_seed(0)).split(6000)
    clients = [split.train.take(part) for part in parts]
    torch.manual_seed(0)
    start = nn.Sequential(nn.Flatten(), nn.Linear(784, 1258), nn.ReLU(), nn.Linear(1258, 10))

    def train(channel: Any) -> tuple[float, float, Run]:
        federation = Federation(
            copy.deepcopy(start),
            clients,
            split.test,
            rounds=ROUNDS,
            training=LocalSGD(lr=0.1, plan=LocalPlan(batch_size=10)),
            bound=Clip(l2=5.0),
            channel=channel,
            executor="sequential",
            audit=AuditConfig(keep="none"),
        )
        began, busy = time.perf_counter(), time.process_time()
        run = federation.run()
        return time.perf_counter() - began, time.process_time() - busy, run

    return train


def mnist(quick: bool) -> Iterator[Row]:
    """MNIST over one-time-pad RLWE against the plain channel, in turn."""
    train = scene()
    channels = {"plain": Plain(), "one_time_rlwe": OneTimeRLWE()}
    turns = [
        {name: train(channel) for name, channel in channels.items()}
        for _ in range(1 if quick else 3)
    ]
    for clock, what, target in ((0, "seconds of a run", 0.87), (1, "CPU seconds of a run", 0.87)):
        best = {name: min(turn[name][clock] for turn in turns) for name in channels}
        yield cost("mnist", "plain", what, best["one_time_rlwe"], best["plain"], target)
    accuracy = {name: turns[0][name][2].accuracy for name in channels}
    yield gain(
        "mnist", "plain", "accuracy after 3 rounds", accuracy["one_time_rlwe"], accuracy["plain"]
    )


def federated(quick: bool) -> Iterator[Row]:
    """A federation on MNIST over BFV, and over one-time-pad RLWE, against the same over the plain
    channel (wall time), and against plain training on the same integers.

    The quantised peer adds the same 16-bit integers at a trusted party, without any cryptography.
    """
    rounds, train = ROUNDS, scene()
    channels = {"plain": Plain(), "bfv": BFV(), "one_time_rlwe": OneTimeRLWE()}
    turns = [
        {name: train(channel) for name, channel in channels.items()}
        for _ in range(1 if quick else 3)
    ]
    wall, cpu = (
        {name: min(turn[name][clock] for turn in turns) for name in channels} for clock in (0, 1)
    )
    run, exact = turns[0]["bfv"][2], train(SecAgg(bits=16, fidelity="ideal"))[2]
    stages = {
        stage: sum(record.seconds.get(stage, 0.0) for record in run.history) / rounds
        for stage in ("train", "channel", "evaluate")
    }
    say(
        "federated, seconds a round over bfv:",
        ", ".join(f"{stage} {spent:.2f}" for stage, spent in stages.items()),
    )
    curve, peer = ([record.accuracy or math.nan for record in one.history] for one in (run, exact))
    say("federated, accuracy by round:", ", ".join(f"{accuracy:.4f}" for accuracy in curve))
    apart = max(abs(ours - theirs) for ours, theirs in zip(curve, peer, strict=True))
    moved = float((run.parameters - exact.parameters).abs().max())
    case = "federated"
    yield cost(case, "plain", "seconds of a run", wall["bfv"], wall["plain"], 0.667)
    yield cost(case, "plain", "CPU seconds of a run", cpu["bfv"], cpu["plain"])
    yield cost(
        f"{case}, one_time_rlwe",
        "plain",
        "seconds of a run",
        wall["one_time_rlwe"],
        wall["plain"],
        0.87,
    )
    yield Row(
        case,
        "plain quantised",
        "difference of the accuracy curves",
        apart,
        0.0,
        float(apart == 0),
        1,
    )
    yield Row(
        case,
        "plain quantised",
        "difference of the final parameters",
        moved,
        0.0,
        float(moved == 0),
        1,
    )
    yield gain(
        case, "plain", "accuracy after 3 rounds", run.accuracy, turns[0]["plain"][2].accuracy
    )
