"""Training in worker processes: one client at a time in each, for models whose steps are long."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import tempfile
import weakref
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import Broadcast, CoinSource, ConfigError, require
from privfl.training.executor import fits
from privfl.training.task import Failed, Result, Task, Workload, failed
from privfl.training.worker import (
    Job,
    Mapped,
    WorkerOrder,
    WorkerRound,
    compact,
    compact_broadcast,
    packed,
    work,
)


class Processes:
    """Workers with one thread each that train whichever client is next; the same bits as
    `Sequential` on one thread with the same ``channels_last``.

    Model, method and data travel once, when the workers start (which takes seconds); a round sends
    each worker the broadcast, a client its positions. Deltas come back through a file that all of
    them map. A worker that dies takes its client with it, which is a `Failed`, and is replaced.
    Workers end with `close`, with this object, or with the parent, however it ends. So do the files
    (in a temporary folder, as large as the data), unless the parent is killed outright.

    A script that uses it needs the usual ``if __name__ == "__main__":``, because workers import the
    main module.

    Raises:
        ConfigError: fewer than one worker, a model on an accelerator, or parts that cannot be sent
            to another process.
    """

    def __init__(
        self, workload: Workload, workers: int = 2, *, channels_last: bool = False
    ) -> None:
        require.at_least(1, workers=workers)
        if workload.model.flat.device.type != "cpu":
            raise ConfigError(
                "worker processes train on the CPU, and the model is on"
                f" {workload.model.flat.device}: use sequential."
            )
        self.workload = workload
        self.folder = tempfile.TemporaryDirectory(prefix="privfl-")
        self.rows: Mapped | None = None
        self.files = 0
        self.workers: dict[Connection, BaseProcess] = {}
        self._end = weakref.finalize(self, _end, self.workers, self.folder)
        data = workload.data
        x, y = (Mapped.holding(tensor, self._file()) for tensor in (data.x, data.y))
        try:
            self.job = packed(
                Job(
                    copy.deepcopy(workload.model.module),
                    workload.loss,
                    workload.method,
                    x,
                    y,
                    data.classes,
                    channels_last,
                )
            )
        except Exception as error:
            self.close()
            raise ConfigError(
                f"a part of the training cannot be sent to worker processes ({error}): use"
                " sequential."
            ) from error
        try:
            self._start(workers)
        except BaseException:
            self.close()
            raise

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
        mapped, rows = self._rows(*out.shape)
        head = packed(WorkerRound(compact_broadcast(broadcast), seeds, mapped))
        results: dict[int, Result] = {}
        waiting, busy = deque(range(len(tasks))), dict[Connection, int]()
        told: set[Connection] = set()
        while waiting or busy:
            for connection in [c for c in self.workers if c not in busy]:
                if waiting:
                    row = waiting.popleft()
                    try:
                        if connection not in told:
                            connection.send_bytes(head)
                            told.add(connection)
                        connection.send_bytes(packed(WorkerOrder(row, compact(tasks[row]))))
                        busy[connection] = row
                    except (
                        Exception
                    ) as error:  # a part that cannot be sent, or a worker that has just died
                        why = f"{type(error).__name__}: {error}"
                        results[row] = failed(tasks[row], self.workload, why)
                        if isinstance(error, OSError):
                            self._replace(connection)
            for ready in wait(list(busy)) if busy else ():
                if isinstance(ready, Connection):
                    row = busy.pop(ready)
                    try:
                        results[row] = pickle.loads(ready.recv_bytes())
                    except (EOFError, OSError):
                        code = self._replace(ready)
                        why = f"its worker process died with exit code {code}"
                        results[row] = failed(tasks[row], self.workload, why)
        for row in range(len(tasks)):
            if isinstance(results[row], Failed):
                out[row].fill_(float("nan"))
            else:
                out[row].copy_(rows[row])
        return [results[row] for row in range(len(tasks))]

    @property
    def together(self) -> int:
        """Two for each worker, so that none waits long for the slowest (`TrainsInTurn`)."""
        return 2 * max(len(self.workers), 1)

    def close(self) -> None:
        """End the workers and remove their files."""
        self._end()

    def _file(self) -> Path:
        self.files += 1
        return Path(self.folder.name, str(self.files))

    def _rows(self, n: int, d: int) -> tuple[Mapped, Tensor]:
        """A matrix of at least n rows that every worker can write to, kept from round to round."""
        if self.rows is None or self.rows.shape[0] < n or self.rows.shape[1] != d:
            self.rows = Mapped(self._file(), (n, d), torch.float32)
            self.matrix = self.rows.open()
        return self.rows, self.matrix

    def _start(self, workers: int) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        fresh: list[Connection] = []
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=work, args=(theirs, self.job), name="privfl-worker", daemon=True
            )
            process.start()
            theirs.close()
            self.workers[ours] = process
            fresh.append(ours)
        for ours in fresh:
            try:
                wrong = pickle.loads(ours.recv_bytes())
            except (EOFError, OSError):
                wrong = (
                    "it died while it started; a script needs 'if __name__ == \"__main__\":' around"
                    " what it runs"
                )
            if wrong is not None:
                raise ConfigError(
                    f"a worker process could not start: {wrong}. The sequential executor needs"
                    " none."
                )

    def _replace(self, connection: Connection) -> int | None:
        """Start another worker in the place of a dead one; the dead one's exit code."""
        dead = self.workers.pop(connection)
        connection.close()
        dead.join(timeout=5)
        self._start(1)
        return dead.exitcode


def _end(workers: dict[Connection, BaseProcess], folder: tempfile.TemporaryDirectory[str]) -> None:
    for connection in workers:
        connection.close()
    for process in workers.values():
        process.join(timeout=5)
        if process.is_alive():
            process.kill()
            process.join()
    workers.clear()
    folder.cleanup()
