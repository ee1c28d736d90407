"""Which executor: by name, or by a short measurement among those that apply."""

from __future__ import annotations

import os
import re
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
from privfl.training.buffers import in_place_of, plain
from privfl.training.executor import Executor, Sequential
from privfl.training.processes import Processes
from privfl.training.ray_actors import RayActors
from privfl.training.sgd import LocalSGD
from privfl.training.stacked import Stacked
from privfl.training.task import IMAGES, Failed, Task, Workload
from privfl.training.vmapped import Vmapped

NAMES = ("auto", "sequential", "stacked", "vmapped", "processes", "ray")
WORKERS = ("processes", "ray")
"""Those that may say how many workers they have."""
CHANNELS_LAST = "channels-last"
LAID_OUT = f"sequential/{CHANNELS_LAST}"
WORTH_LAYOUT = 1.2
"""How many times faster batches with their channels last must be: a smaller gain is not worth sums
that round differently from run to run, as measurements fall.
"""
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

    ``wanted`` is ``auto``, ``sequential``, ``stacked``, ``vmapped`` (which ``auto`` tries on
    accelerators alone), ``processes`` (``processes/4`` for four workers; else one for each core) or
    ``ray`` (``ray/4``), which ``auto`` never picks;
    ``sequential/channels-last`` and ``processes/4/channels-last`` lay out batches of images so.
    Executors round differently, so a run that goes on passes the text that it was given, and trains
    the same way again.

    Raises:
        ConfigError: no such executor.
        UnsupportedModel: ``stacked`` or ``vmapped`` was asked for and does not apply.
    """
    name, count, last = _asked(wanted)
    cores = count or workers or os.cpu_count() or 1
    reason = wanted.partition(":")[2].strip() or "asked for"
    laid = f"/{CHANNELS_LAST}" if last else ""
    if name == "sequential":
        return Sequential(workload, channels_last=last), f"sequential{laid}: {reason}"
    if name == "stacked":
        return Stacked(workload), f"stacked: {reason}"
    if name == "vmapped":
        return Vmapped(workload), f"vmapped: {reason}"
    if name == "processes":
        made = Processes(workload, cores, channels_last=last)
        return made, f"processes/{cores}{laid}: {reason}"
    if name == "ray":
        actors = RayActors(workload, cores, channels_last=last)
        return actors, f"ray/{cores}{laid}: {reason}"
    return _measured(workload, clients, cores, seed)


def several(workload: Workload) -> Stacked | Vmapped:
    """A way to train several clients at once that may be worth it: of any network on an
    accelerator, on a CPU of none but a stack of linear layers.

    Raises:
        UnsupportedModel: there is none.
    """
    try:
        return Stacked(workload)
    except UnsupportedModel:
        if workload.model.flat.device.type == "cpu":
            raise
    return Vmapped(workload)


def _asked(wanted: str) -> tuple[str, int | None, bool]:
    """The name, how many workers were asked for, and whether channels come last.

    Raises:
        ConfigError: no such executor.
    """
    name, *options = wanted.partition(":")[0].strip().split("/")
    last = options[-1:] == [CHANNELS_LAST] and name in ("sequential", *WORKERS)
    counts = options[:-1] if last else options
    one = len(counts) == 1 and re.fullmatch("[1-9][0-9]{0,5}", counts[0]) is not None
    workers = name in WORKERS and one
    if name not in NAMES or (counts and not workers):
        raise ConfigError(unknown("executor", wanted, NAMES))
    return name, int(counts[0]) if counts else None, last


def _measured(
    workload: Workload, clients: Mapping[ClientId, Tensor], cores: int, seed: int
) -> tuple[Executor, str]:
    method = plain(workload.method)
    if not isinstance(method, LocalSGD):
        return Sequential(workload), f"sequential: a {type(method).__name__} cannot be stacked."
    plan = LocalPlan(method.plan.batch_size, steps=min(STEPS, method.plan.steps or STEPS))
    quick = replace(method, plan=plan)
    short = replace(workload, method=in_place_of(workload.method, quick))
    sample = [Task(client, index) for client, index in list(clients.items())[:SAMPLE]]
    before, stood = workload.model.read(), workload.model.state.clone()
    workers: Processes | None = None
    try:
        seconds, why_not = _in_one_process(short, sample, seed)
        best = min(seconds, key=lambda name: seconds[name])
        whole = _steps(method, clients) / (plan.steps or 1) * seconds[best]
        if cores > 1 and workload.model.flat.device.type == "cpu" and whole > WORTH_WORKERS:
            last = best == LAID_OUT
            try:
                workers = Processes(workload, cores, channels_last=last)
                tasks = [replace(task, method=quick) for task in sample[: 2 * cores]]
                name = f"processes/{cores}/{CHANNELS_LAST}" if last else f"processes/{cores}"
                took, fail = _seconds(workers, short, tasks, seed)
                if not fail:
                    seconds[name] = took / len(tasks)
            except ConfigError as refused:
                why_not = why_not or str(refused)
        best = min(seconds, key=lambda name: seconds[name])
        if workers is not None and not best.startswith("processes"):
            workers.close()
    finally:
        workload.model.write(before)
        workload.model.write_state(stood)
    said = ", ".join(
        f"{name} {1e3 * s / (plan.steps or 1):.3g} ms"
        for name, s in sorted(seconds.items(), key=lambda item: item[1])
    )
    reason = f"measured a step of a client at {said}." if len(seconds) > 1 else why_not
    if workers is not None and best.startswith("processes"):
        return workers, f"{best}: {reason}"
    if best == "stacked":
        return Stacked(workload), f"{best}: {reason}"
    if best == "vmapped":
        return Vmapped(workload), f"{best}: {reason}"
    return Sequential(workload, channels_last=best == LAID_OUT), f"{best}: {reason}"


def _in_one_process(short: Workload, sample: list[Task], seed: int) -> tuple[dict[str, float], str]:
    """Seconds a client by name, of the ways that apply; and why clients cannot be stacked, or
    nothing.
    """
    base = Sequential(short)
    together: Stacked | Vmapped
    try:
        together = several(short)
    except UnsupportedModel as refused:
        few = sample[:2]
        took, fail = _seconds(base, short, few, seed)
        seconds = {"sequential": took / len(few)}
        if short.data.x.dim() == IMAGES:
            laid, fail_so = _seconds(Sequential(short, channels_last=True), short, few, seed)
            if fail_so <= fail and laid * WORTH_LAYOUT < took:
                seconds[LAID_OUT] = laid / len(few)
        return seconds, str(refused)
    took, fail = _seconds(base, short, sample, seed)
    seconds = {"sequential": took / len(sample)}
    took, fail_so = _seconds(together, short, sample, seed)
    name = "stacked" if isinstance(together, Stacked) else "vmapped"
    if fail_so <= fail:
        seconds[name] = took / len(sample)
        return seconds, ""
    return seconds, f"clients whose training is {name} fail."


def _seconds(
    executor: Executor, workload: Workload, tasks: list[Task], seed: int
) -> tuple[float, frozenset[ClientId]]:
    """The faster of two runs over these clients, after one to warm up; and who of them failed: to
    fail is fast, and a way in which more of them fail than in another must not win by it.
    """
    d = workload.model.d
    broadcast = Broadcast(
        0, workload.model.read(), workload.method.broadcast(workload.method.init(d))
    )
    out = torch.empty(len(tasks), d)  # where a run wants deltas: to copy them waits for a device
    taken: list[float] = []
    fail = set[ClientId]()
    for _ in range(3):
        workload.model.write(broadcast.parameters)
        began = time.perf_counter()
        done = executor.train(broadcast, tasks, out, Seeds(seed))
        taken.append(time.perf_counter() - began)
        fail |= {one.client for one in done if isinstance(one, Failed)}
    return min(taken[1:]), frozenset(fail)


def _steps(method: LocalSGD, clients: Mapping[ClientId, Tensor]) -> int:
    """Steps of all clients in a round in which every one takes part."""
    if method.plan.steps is not None:
        return method.plan.steps * len(clients)
    return sum(
        method.plan.epochs * -(-len(index) // method.plan.batch_size) for index in clients.values()
    )
