"""Training in Ray actors, on one machine or several."""

from __future__ import annotations

import copy
import os
import warnings
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from privfl.core import (
    Broadcast,
    CoinSource,
    ConfigError,
    Dataset,
    FlatModel,
    Loss,
    require,
)
from privfl.training.executor import Sequential, fits
from privfl.training.method import Method
from privfl.training.task import Result, Task, Workload, failed
from privfl.training.worker import compact, compact_broadcast

CHUNKS = 4
"""Into how many pieces each worker's share of a round is cut: few, because each is a message, and
several, because clients are not alike.
"""
START = 120.0
"""Seconds in which actors must have started: what there is no processor for waits without end."""


@dataclass(frozen=True, slots=True)
class _Job:
    """What an actor is told once, beside the data."""

    module: nn.Module
    loss: Loss
    method: Method
    classes: int
    channels_last: bool


class _Trainer:
    """What runs inside an actor: one thread, one model, the data in Ray's shared memory."""

    def __init__(self, job: _Job, x: Any, y: Any) -> None:
        torch.set_num_threads(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # shared memory is read-only, and nobody writes to it
            data = Dataset(torch.from_numpy(x), torch.from_numpy(y), job.classes)
        workload = Workload(FlatModel(job.module), job.loss, job.method, data)
        self.sequential = Sequential(workload, channels_last=job.channels_last)

    def ready(self) -> bool:
        """Whether it has started."""
        return True

    def train(
        self, broadcast: Broadcast, tasks: Sequence[Task], seeds: CoinSource
    ) -> tuple[list[Result], Any]:
        """A chunk of clients, and their deltas as a matrix [clients, d]."""
        rows = torch.empty(len(tasks), len(broadcast.parameters))
        return self.sequential.train(broadcast, tasks, rows, seeds), rows.numpy()


class RayActors:
    """Ray actors with one thread each that train clients in chunks; the same bits as `Sequential`
    on one thread with the same ``channels_last``.

    Model, method and data travel once, by `ray.put`; a round's broadcast once to each machine. An
    actor that dies takes its chunk of clients with it, which are `Failed`, and is replaced. It
    joins the Ray that is running in this process, or at ``RAY_ADDRESS``, and starts one here
    (which takes half a minute) where there is none; that one ends with `close`. On one machine
    `Processes` is as fast, and needs nothing.

    Threat model: none. Ray runs pickles of whoever reaches its ports, and asks nobody who they are:
    use it on private networks alone. Usage statistics are turned off.

    Raises:
        ConfigError: Ray is not installed, or has fewer processors than workers; fewer than one
            worker, a model on an accelerator, or parts that cannot be sent.
    """

    def __init__(
        self, workload: Workload, workers: int = 2, *, channels_last: bool = False
    ) -> None:
        require.at_least(1, workers=workers)
        if workload.model.flat.device.type != "cpu":
            raise ConfigError(
                f"Ray's workers train on the CPU, and the model is on {workload.model.flat.device}:"
                " use sequential."
            )
        self.ray, own = _joined(workers)
        self.workload = workload
        self.actors: list[Any] = []
        self._end = weakref.finalize(self, _end, self.ray, self.actors, own)
        data = workload.data
        job = _Job(
            copy.deepcopy(workload.model.module),
            workload.loss,
            workload.method,
            data.classes,
            channels_last,
        )
        try:
            parts = job, data.x.numpy(), data.y.numpy()
            self._given = [self.ray.put(part) for part in parts]
        except Exception as error:
            self.close()
            raise ConfigError(
                f"a part of the training cannot be sent to Ray's workers ({error}): use sequential."
            ) from error
        try:
            self.actors += [self._started() for _ in range(workers)]
            there = [actor.ready.remote() for actor in self.actors]
            ready, _ = self.ray.wait(there, num_returns=workers, timeout=START)
            if len(ready) == workers:
                self.ray.get(ready)
        except Exception as error:
            self.close()
            raise ConfigError(f"a worker of Ray's could not start: {error}.") from error
        if len(ready) < workers:
            self.close()
            raise ConfigError(
                f"{len(ready)} of {workers} workers of Ray's have started after {START:g} seconds:"
                " others have its processors. Ask for fewer, or wait."
            )

    def train(
        self,
        broadcast: Broadcast,
        tasks: Sequence[Task],
        out: Float[Tensor, "n d"],
        seeds: CoinSource,
    ) -> list[Result]:
        """Train every task's client; see `Executor.train`."""
        fits(broadcast, tasks, out)
        if not self._end.alive:
            raise ConfigError("these workers are closed.")
        size = max(1, -(-len(tasks) // (CHUNKS * len(self.actors))))
        waiting = deque(
            range(low, min(low + size, len(tasks))) for low in range(0, len(tasks), size)
        )
        sent = self.ray.put(compact_broadcast(broadcast))
        results: dict[int, Result] = {}
        busy: dict[Any, tuple[Any, range]] = {}
        idle = list(self.actors)
        while waiting or busy:
            while waiting and idle:
                actor, rows = idle.pop(), waiting.popleft()
                try:
                    chunk = [compact(tasks[row]) for row in rows]
                    busy[actor.train.remote(sent, chunk, seeds)] = actor, rows
                except Exception as error:  # a part that cannot be sent
                    idle.append(actor)
                    self._lost(rows, tasks, out, results, error)
            if not busy:
                continue
            ready, _ = self.ray.wait(list(busy))
            for reference in ready:
                actor, rows = busy.pop(reference)
                try:
                    done, deltas = self.ray.get(reference)
                    out[rows.start : rows.stop] = torch.from_numpy(np.array(deltas))
                    results |= dict(zip(rows, done, strict=True))
                except self.ray.exceptions.RayActorError as died:
                    self.actors.remove(actor)
                    actor = self._started()
                    self.actors.append(actor)
                    self._lost(rows, tasks, out, results, died)
                except Exception as error:
                    self._lost(rows, tasks, out, results, error)
                idle.append(actor)
        return [results[row] for row in range(len(tasks))]

    def close(self) -> None:
        """End the workers, and the Ray that was started for them."""
        self._end()

    def _started(self) -> Any:
        kind = self.ray.remote(num_cpus=1, max_restarts=0)(_Trainer)
        return kind.remote(*self._given)

    def _lost(
        self,
        rows: range,
        tasks: Sequence[Task],
        out: Tensor,
        results: dict[int, Result],
        error: Exception,
    ) -> None:
        """A chunk of clients that came to nothing."""
        said = str(error).strip().splitlines() or [""]
        why = f"its worker of Ray's failed: {type(error).__name__}: {said[0]}"
        for row in rows:
            out[row].fill_(float("nan"))
            results[row] = failed(tasks[row], self.workload, why)


def _joined(workers: int) -> tuple[Any, bool]:
    """Ray, and whether it was started here.

    Raises:
        ConfigError: it is not installed, or has too few processors.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when it is imported
    try:
        import ray
    except ImportError:
        raise ConfigError(
            "executor ray needs Ray: pip install 'privfl[ray]', or use processes on one machine."
        ) from None
    own = not ray.is_initialized()
    if own and os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
    elif own:
        most = max(workers, os.cpu_count() or 1)
        ray.init(address="local", num_cpus=most, include_dashboard=False, log_to_driver=False)
    there = int(ray.cluster_resources().get("CPU", 0))
    if there < workers:
        if own:
            ray.shutdown()
        raise ConfigError(
            f"executor ray/{workers} asks for {workers} workers, and this Ray has {there}"
            " processors: ask for fewer."
        )
    return ray, own


def _end(ray: Any, actors: list[Any], own: bool) -> None:
    if own:
        ray.shutdown()
    else:
        for actor in actors:
            ray.kill(actor)
    actors.clear()
