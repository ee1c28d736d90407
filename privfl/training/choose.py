"""Which executor: by name, or by a short measurement among those that apply."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from privfl.core import (
    Broadcast,
    ClientId,
    ConfigError,
    LocalPlan,
    Seeds,
    UnsupportedModel,
    unknown,
)
from privfl.training.executor import Executor, Sequential
from privfl.training.processes import Processes
from privfl.training.sgd import LocalSGD
from privfl.training.stacked import Stacked
from privfl.training.task import Task, Workload

NAMES = ("auto", "sequential", "stacked", "processes")
SAMPLE, STEPS = 32, 4
"""Clients and steps of the measurement."""
WORTH_WORKERS = 5.0
"""Seconds that all clients' training must take for worker processes, which take seconds to start,
to be tried.
"""


def executors(
    workload: Workload,
    clients: Mapping[ClientId, Tensor],
    wanted: str = "auto",
    *,
    seed: int = 0,
    workers: int | None = None,
) -> tuple[Executor, str]:
    """The executor that was asked for, or the one that measured fastest; and ``"name: why"``, which
    is itself a valid ``wanted``.

    ``wanted`` is ``auto``, ``sequential``, ``stacked``, or ``processes`` (``processes/4`` for four
    workers; else one for each core). Executors round differently, so a run that goes on passes the
    text that it was given, and trains the same way again.

    Raises:
        ConfigError: no such executor.
        UnsupportedModel: ``stacked`` was asked for and does not apply.
    """
    name, _, count = wanted.partition(":")[0].strip().partition("/")
    if name not in NAMES or (count and not (name == "processes" and count.isdigit())):
        raise ConfigError(unknown("executor", wanted, NAMES))
    cores = int(count) if count else workers or os.cpu_count() or 1
    reason = wanted.partition(":")[2].strip() or "asked for"
    if name == "sequential":
        return Sequential(workload), f"sequential: {reason}"
    if name == "stacked":
        return Stacked(workload), f"stacked: {reason}"
    if name == "processes":
        return Processes(workload, cores), f"processes/{cores}: {reason}"
    return _measured(workload, clients, cores, seed)


def _measured(
    workload: Workload, clients: Mapping[ClientId, Tensor], cores: int, seed: int
) -> tuple[Executor, str]:
    method = workload.method
    if not isinstance(method, LocalSGD):
        return Sequential(workload), f"sequential: a {type(method).__name__} cannot be stacked."
    plan = LocalPlan(method.plan.batch_size, steps=min(STEPS, method.plan.steps or STEPS))
    short = replace(workload, method=replace(method, plan=plan))
    before = workload.model.read()
    try:
        one = Sequential(short)
        seconds = {"sequential": 0.0}
        why_not = ""
        try:
            stacked: Stacked | None = Stacked(short)
        except UnsupportedModel as refused:
            stacked, why_not = None, str(refused)
        sample = [Task(client, index) for client, index in list(clients.items())[:SAMPLE]]
        few = sample if stacked is not None else sample[:2]
        seconds["sequential"] = _seconds(one, short, few, seed) / len(few)
        if stacked is not None:
            seconds["stacked"] = _seconds(stacked, short, few, seed) / len(few)
        whole = _steps(method, clients) / (plan.steps or 1) * min(seconds.values())
        workers: Processes | None = None
        if cores > 1 and workload.model.flat.device.type == "cpu" and whole > WORTH_WORKERS:
            try:
                workers = Processes(workload, cores)
                tasks = [replace(task, method=short.method) for task in sample[: 2 * cores]]
                seconds[f"processes/{cores}"] = _seconds(workers, short, tasks, seed) / len(tasks)
            except ConfigError as refused:
                why_not = why_not or str(refused)
        best = min(seconds, key=lambda name: seconds[name])
        if workers is not None and not best.startswith("processes"):
            workers.close()
    finally:
        workload.model.write(before)
    said = ", ".join(
        f"{name} {1e3 * s / (plan.steps or 1):.3g} ms"
        for name, s in sorted(seconds.items(), key=lambda item: item[1])
    )
    reason = f"measured a step of a client at {said}." if len(seconds) > 1 else why_not
    if workers is not None and best.startswith("processes"):
        return workers, f"{best}: {reason}"
    return (Stacked(workload) if best == "stacked" else Sequential(workload)), f"{best}: {reason}"


def _seconds(executor: Executor, workload: Workload, tasks: list[Task], seed: int) -> float:
    """The faster of two runs over these clients, after one to warm up."""
    d = workload.model.d
    broadcast = Broadcast(
        0, workload.model.read(), workload.method.broadcast(workload.method.init(d))
    )
    out = torch.empty(len(tasks), d, device=workload.model.flat.device)
    taken: list[float] = []
    for _ in range(3):
        workload.model.write(broadcast.parameters)
        began = time.perf_counter()
        executor.train(broadcast, tasks, out, Seeds(seed))
        taken.append(time.perf_counter() - began)
    return min(taken[1:])


def _steps(method: LocalSGD, clients: Mapping[ClientId, Tensor]) -> int:
    """Steps of all clients in a round in which every one takes part."""
    if method.plan.steps is not None:
        return method.plan.steps * len(clients)
    return sum(
        method.plan.epochs * -(-len(index) // method.plan.batch_size) for index in clients.values()
    )
