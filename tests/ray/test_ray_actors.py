"""Training in Ray's actors: the bits of one client after the other, and what a worker takes along
when it dies. Ray takes half a minute to start, so these run by themselves:

    python -m benchmarks.flower_env -m pytest tests/ray
"""

import os
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.core import Broadcast, ConfigError, Dataset, FlatModel, LocalPlan, SecretCoins, Seeds
from privfl.training import (
    Failed,
    LocalSGD,
    RayActors,
    Scaffold,
    Sequential,
    Task,
    Workload,
    cross_entropy,
)

pytestmark = [  # Ray leaves processes and sockets to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
METHOD = LocalSGD(lr=0.2, plan=LocalPlan(8, epochs=2))
SIZES = (7, 40, 3, 22, 31, 9, 16, 28, 5)


def workload(method=METHOD):
    torch.manual_seed(1)
    data = Dataset(torch.randn(200, 6), torch.arange(200) % 3, classes=3)
    model = FlatModel(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    return Workload(model, cross_entropy, method, data)


def tasks():
    ends = torch.tensor(SIZES).cumsum(0).tolist()
    return [
        Task(i, torch.arange(end - size, end))
        for i, (size, end) in enumerate(zip(SIZES, ends, strict=True))
    ]


@pytest.fixture(scope="module")
def ray():
    """One Ray for all tests: it takes seconds to start."""
    import ray

    torch.set_num_threads(1)
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def actors(ray):
    made = RayActors(workload(), workers=2)
    yield made
    made.close()


def both(executor, given, sent, seeds=Seeds(5)):
    alone = Sequential(executor.workload)
    rows = [torch.full((len(given), executor.workload.model.d), 7.0) for _ in range(2)]
    done = [
        one.train(sent, given, out, seeds) for one, out in zip((alone, executor), rows, strict=True)
    ]
    return rows, done


def test_actors_train_to_the_bits_of_one_client_after_the_other(actors):
    sent = Broadcast(3, actors.workload.model.read())
    own = Dataset(torch.randn(5, 6), torch.arange(5) % 3, classes=3)
    given = [
        *tasks(),
        Task(20, data=own),
        Task(21, tasks()[1].index, method=replace(METHOD, lr=0.01)),
    ]
    rows, done = both(actors, given, sent)
    assert torch.equal(*rows)
    assert rows[0].abs().sum() > 0
    assert [(one.client, one.loss, one.weight) for one in done[0]] == [
        (one.client, one.loss, one.weight) for one in done[1]
    ]


def test_what_clients_remember_and_send_beside_comes_back(ray):
    made = RayActors(workload(Scaffold(lr=0.2, plan=LocalPlan(8, steps=3))), workers=1)
    method, d = made.workload.method, made.workload.model.d
    sent = Broadcast(0, made.workload.model.read(), method.broadcast(method.init(d)))
    rows, (alone, there) = both(made, tasks()[:3], sent)
    made.close()
    assert torch.equal(*rows)
    for one, other in zip(alone, there, strict=True):
        assert one.aux.keys() == other.aux.keys() != set()
        assert all(torch.equal(one.aux[name], other.aux[name]) for name in one.aux)
        held = one.state.vectors, other.state.vectors
        assert all(torch.equal(held[0][name], held[1][name]) for name in held[0])


@dataclass(frozen=True)
class Deadly:
    """A loss that takes its process along."""

    def objective(self, loss, start):
        os._exit(1)


def test_clients_of_a_worker_that_dies_fail_and_the_next_round_has_all_workers(actors):
    sent = Broadcast(0, actors.workload.model.read())
    given = [*tasks(), Task(50, tasks()[0].index, method=replace(METHOD, objective=Deadly()))]
    out = torch.zeros(len(given), actors.workload.model.d)
    done = actors.train(sent, given, out, Seeds(0))
    fallen = [one.client for one in done if isinstance(one, Failed)]
    assert 50 in fallen
    assert len(fallen) <= 2
    assert "worker of Ray's failed" in done[-1].why
    assert all(out[row].isnan().all() == isinstance(one, Failed) for row, one in enumerate(done))
    rows, again = both(actors, tasks(), sent)
    assert not any(isinstance(one, Failed) for one in again[1])
    assert torch.equal(*rows)


def test_secret_coins_are_drawn_anew_in_every_actor(actors):
    sent = Broadcast(0, actors.workload.model.read())
    rows, _ = both(actors, tasks(), sent, SecretCoins())
    assert not torch.equal(*rows)


def test_a_whole_run_ends_with_the_same_bits(ray):
    config = {
        "data": {"name": "digits", "clients": 4},
        "rounds": 2,
        "training": {"name": "sgd", "steps": 2},
    }
    ends = [
        Federation.from_config({**config, "executor": name}).run()
        for name in ("sequential", "ray/2")
    ]
    assert torch.equal(*(run.state.parameters for run in ends))
    assert ends[1].summary["executor"].startswith("ray/2: asked for")


def test_more_workers_than_processors_are_refused(ray):
    with pytest.raises(ConfigError, match="this Ray has 4 processors"):
        RayActors(workload(), workers=64)
