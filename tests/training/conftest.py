"""Data and cohorts that the training tests share."""

import pytest
import torch
from sklearn.datasets import load_digits

from privfl.core import Broadcast, Dataset, FlatModel, RoundPlan
from privfl.models import MODELS, build
from privfl.training import Task, Workload, cross_entropy


@pytest.fixture(scope="session")
def digits():
    raw = load_digits()
    return Dataset(
        torch.tensor(raw.data / 16, dtype=torch.float32), torch.tensor(raw.target), classes=10
    )


@pytest.fixture
def workload(digits):
    def make(method, name="mlp", **options):
        options = {"hidden": (16,)} if name == "mlp" and not options else options
        model = FlatModel(build(MODELS, name, digits.x.shape[1:], 10, seed=3, **options))
        return Workload(model, cross_entropy, method, digits)

    return make


@pytest.fixture
def cohort(digits):
    def make(sizes):
        order = torch.randperm(digits.n, generator=torch.Generator().manual_seed(7))
        tasks, start = [], 0
        for client, size in enumerate(sizes):
            tasks.append(Task(client, order[start : start + size]))
            start += size
        return tasks

    return make


@pytest.fixture
def sent():
    def make(workload, tasks, number=0, aux=None):
        plan = RoundPlan(number, tuple(task.client for task in tasks), workload.model.d, l2=1.0)
        return Broadcast(plan.number, workload.model.read(), aux or {})

    return make
