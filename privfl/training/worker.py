"""What runs inside a worker process: one thread, one model, the shared data mapped from a file."""

from __future__ import annotations

import io
import pickle
import signal
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from privfl.core import Broadcast, ClientState, CoinSource, Dataset, FlatModel, Loss
from privfl.training.executor import Sequential
from privfl.training.method import Method
from privfl.training.task import Task, Workload


@dataclass(frozen=True, slots=True)
class Mapped:
    """A tensor in a file that several processes map into memory."""

    path: Path
    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def holding(cls, tensor: Tensor, path: Path) -> Mapped:
        """A new file with a copy of a tensor of any shape [...]."""
        mapped = cls(path, tuple(tensor.shape), tensor.dtype)
        mapped.open().copy_(tensor)
        return mapped

    def open(self) -> Tensor:
        """The tensor; what one process writes, all of them read."""
        size = torch.Size(self.shape).numel()
        flat = torch.from_file(str(self.path), shared=True, size=max(size, 1), dtype=self.dtype)
        return flat[:size].view(self.shape)


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is told once: everything but the clients."""

    module: nn.Module
    loss: Loss
    method: Method
    x: Mapped
    y: Mapped
    classes: int
    channels_last: bool


@dataclass(frozen=True, slots=True)
class WorkerRound:
    """What a worker is told once a round."""

    broadcast: Broadcast
    seeds: CoinSource
    rows: Mapped


@dataclass(frozen=True, slots=True)
class WorkerOrder:
    """One client's training, into one row."""

    row: int
    task: Task


def packed(message: Any) -> bytes:
    """Pickled by value: `multiprocessing`'s own pickler would put every tensor into shared memory
    segments, which containers keep small.
    """
    buffer = io.BytesIO()
    pickle.Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(message)
    return buffer.getvalue()


def compact(task: Task) -> Task:
    """The task with nothing but its own samples: a view would take the whole tensor behind it
    along.
    """
    state = ClientState({name: vector.clone() for name, vector in task.state.vectors.items()})
    sent = None if task.broadcast is None else compact_broadcast(task.broadcast)
    if task.data is None:
        return replace(
            task,
            index=None if task.index is None else task.index.cpu().clone(),
            state=state,
            broadcast=sent,
        )
    own = task.data if task.index is None else task.data.take(task.index)
    return replace(
        task,
        index=None,
        data=Dataset(own.x.clone(), own.y.clone(), own.classes),
        state=state,
        broadcast=sent,
    )


def compact_broadcast(broadcast: Broadcast) -> Broadcast:
    """The broadcast with vectors of its own."""
    return Broadcast(
        broadcast.version,
        broadcast.parameters.clone(),
        {name: vector.clone() for name, vector in broadcast.aux.items()},
    )


def work(connection: Connection, job: bytes) -> None:
    """Train what the connection asks for until it closes. Says ``None`` when ready, or what is
    wrong.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and closes the connection
    torch.set_num_threads(1)
    try:
        told: Job = pickle.loads(job)
        model = FlatModel(told.module)
        sequential = Sequential(
            Workload(
                model, told.loss, told.method, Dataset(told.x.open(), told.y.open(), told.classes)
            ),
            channels_last=told.channels_last,
        )
    except Exception as error:
        connection.send_bytes(packed(f"{type(error).__name__}: {error}"))
        return
    connection.send_bytes(packed(None))
    now: WorkerRound | None = None
    rows = torch.empty(0, 0)
    while True:
        try:
            message = pickle.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        if isinstance(message, WorkerRound):
            rows = rows if now is not None and now.rows == message.rows else message.rows.open()
            now = message
        elif isinstance(message, WorkerOrder) and now is not None:
            result = sequential.train_one(now.broadcast, message.task, rows[message.row], now.seeds)
            try:
                connection.send_bytes(packed(result))
            except OSError:  # the parent ended while this client trained
                return
