"""Rounds of FedAvg in a process of their own, with pfl-research's simulation or with our engine:
``python -m benchmarks.peers.pfl_rounds ours|pfl cnn|softmax cpu|cuda``.

A line on stdin with a number asks for so many rounds; the answer is the least CPU seconds of one
(on an accelerator, the least seconds of the clock), the test accuracy after all rounds so far, and
the peak memory in bytes. Both keep to one core, and
start from the same weights with the same clients; pfl does not shuffle a client's samples.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.beside import lay_over
from privfl import Federation
from privfl.config import AuditConfig
from privfl.core import LocalPlan
from privfl.data import load
from privfl.models import cnn
from privfl.training import LocalSGD

REQUIREMENTS = ("pfl==0.6.0", "prv-accountant==0.2.0", "multiprocess==0.70.19", "dill==0.4.1")
BESIDE = 2
"""Rounds that a run has beside those that are measured: its first, and its last, which evaluates.
"""


@dataclass(frozen=True, slots=True)
class Work:
    """What both train: clients with equally many samples, batches, a rate."""

    data: str
    clients: int
    each: int
    batch: int
    lr: float

    def module(self) -> nn.Module:
        """The model, from the same weights every time."""
        if self.data == "cifar10":
            with torch.random.fork_rng():
                torch.manual_seed(0)
                return cnn((3, 32, 32), 10)
        layer = nn.Linear(784, 10)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        return nn.Sequential(nn.Flatten(), layer)

    def parts(self, n: int) -> tuple[Tensor, ...]:
        """Each client's samples."""
        order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
        return order[: self.clients * self.each].split(self.each)


WORK = {
    "cnn": Work("cifar10", clients=50, each=50, batch=10, lr=0.05),
    "softmax": Work("mnist", clients=100, each=600, batch=32, lr=0.1),
}


def clock_of(device: str) -> Callable[[], float]:
    """Processor seconds; on an accelerator those of the clock, once it is done."""
    if device == "cpu":
        return time.process_time
    synchronize = getattr(torch, torch.device(device).type).synchronize

    def now() -> float:
        synchronize()
        return time.perf_counter()

    return now


def ours(work: Work, device: str) -> Callable[[int], tuple[list[float], float]]:
    """Rounds of our engine, its executor chosen as shipped. Every call goes on from round 0: what a
    round costs does not hang on the weights.
    """
    split = load(work.data)
    clients = [split.train.take(part) for part in work.parts(split.train.n)]
    clock = clock_of(device)

    def play(rounds: int) -> tuple[list[float], float]:
        federation = Federation(
            work.module(),
            clients,
            split.test,
            rounds=rounds + BESIDE,
            training=LocalSGD(lr=work.lr, plan=LocalPlan(work.batch)),
            device=device,
            audit=AuditConfig(keep="none", evaluate_every=rounds + BESIDE),
        )
        marks: list[float] = []
        run = federation.run(progress=lambda record, rounds: marks.append(clock()))
        return np.diff(marks)[:-1].tolist(), run.accuracy

    return play


def pfl(work: Work, device: str) -> Callable[[int], tuple[list[float], float]]:
    """Rounds of pfl's simulation."""
    lay_over(".venv-pfl", REQUIREMENTS)
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset as UserDataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.pytorch import PyTorchTensorDataset
    from pfl.data.sampling import MinimizeReuseUserSampler
    from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Metrics, Weighted
    from pfl.model.pytorch import PyTorchModel

    split = load(work.data)
    parts = work.parts(split.train.n)
    now = clock_of(device)
    held = [(split.train.x[part], split.train.y[part]) for part in parts]

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = work.module()

        def loss(self, x: Tensor, y: Tensor, eval: bool = False) -> Tensor:
            return nn.functional.cross_entropy(self.net(x), y)

        def metrics(self, x: Tensor, y: Tensor, eval: bool = True) -> dict[str, Any]:
            with torch.no_grad():
                found = self.net(x)
                right = (found.argmax(1) == y).sum().item()
            return {"accuracy": Weighted(right, len(y))}

    class Clock(TrainingProcessCallback):
        marks: list[float]

        def after_central_iteration(
            self, aggregate_metrics: Any, model: Any, *, central_iteration: int
        ) -> tuple[bool, Any]:
            self.marks.append(now())
            return False, Metrics()

    def user(number: int) -> UserDataset:
        return PyTorchTensorDataset(held[number])

    def play(rounds: int) -> tuple[list[float], float]:
        module = Classifier()
        optimiser = torch.optim.SGD(module.parameters(), 1.0)
        model = PyTorchModel(module, torch.optim.SGD, optimiser)
        users = FederatedDataset(user, MinimizeReuseUserSampler(list(range(work.clients))))
        clock = Clock()
        clock.marks = []
        FederatedAveraging().run(
            algorithm_params=NNAlgorithmParams(
                central_num_iterations=rounds + BESIDE,
                evaluation_frequency=10**6,
                train_cohort_size=work.clients,
                val_cohort_size=0,
            ),
            backend=SimulatedBackend(training_data=users, val_data=users, postprocessors=[]),
            model=model,
            model_train_params=NNTrainHyperParams(
                local_num_epochs=1, local_learning_rate=work.lr, local_batch_size=work.batch
            ),
            model_eval_params=NNEvalHyperParams(local_batch_size=1000),
            callbacks=[clock],
        )
        taken = np.diff(clock.marks)[:-1].tolist()
        with torch.no_grad():
            pieces = split.test.x.to(device).split(500)
            found = torch.cat([module.net(x).argmax(1) for x in pieces]).cpu()
        return taken, float((found == split.test.y).float().mean())

    return play


def main() -> None:
    """Answer the lines on stdin."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    side, name, device = sys.argv[1:]
    play = {"ours": ours, "pfl": pfl}[side](WORK[name], device)
    for line in sys.stdin:
        with redirect_stdout(sys.stderr):  # pfl prints tables
            taken, accuracy = play(int(line))
        told = Path("/proc/self/status").read_text().splitlines()
        peak = next(1024 * int(row.split()[1]) for row in told if row.startswith("VmHWM"))
        print(json.dumps([min(taken), accuracy, peak]), flush=True)


if __name__ == "__main__":
    main()
