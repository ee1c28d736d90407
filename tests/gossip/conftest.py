"""A small federation on a graph, for all tests of gossip."""

from dataclasses import replace

import pytest
import torch

from privfl.core import Dataset, FlatModel, LocalPlan
from privfl.gossip import GossipGraph, GossipScenario
from privfl.models import initialised, softmax
from privfl.training import LocalSGD, Workload, cross_entropy


def scenario_on(graph: GossipGraph, *, rounds: int = 3, samples: int = 12, **parts):
    """Softmax regression on 5 features and 3 classes, a few samples at each node."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(graph.n * samples, 5, generator=rng)
    y = (x @ torch.randn(5, 3, generator=rng)).argmax(dim=1)
    data = Dataset(x, y, classes=3)
    net = initialised(softmax, (5,), 3, seed=1)
    method = LocalSGD(lr=0.3, plan=LocalPlan(4, epochs=1), weighting="uniform")
    workload = Workload(FlatModel(net), cross_entropy, method, data)
    clients = {i: torch.arange(i * samples, (i + 1) * samples) for i in range(graph.n)}
    return replace(GossipScenario(workload, clients, data, graph, rounds), **parts)


@pytest.fixture
def on():
    return scenario_on
