"""A copy of a flat model is flat: what is written to it is what its module computes with."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from privfl.core import Broadcast, Dataset, FlatModel, Seeds
from privfl.models import transformer
from privfl.training import LocalSGD, Sequential, Task, Workload, cross_entropy


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def saved(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


WAYS = pytest.mark.parametrize("way", [pickled, copy.deepcopy, saved])


@WAYS
def test_a_copy_computes_with_what_is_written_to_it_and_shares_nothing(way):
    model = FlatModel(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)))
    before, there = model.read(), way(model)
    assert torch.equal(there.flat, before)
    assert there.slots == model.slots
    there.write(torch.zeros(there.d))
    assert there.module(torch.ones(1, 3)).abs().sum() == 0
    there.module(torch.ones(1, 3)).sum().backward()
    assert there.grad.abs().sum() > 0
    assert torch.equal(model.flat, before)
    assert model.grad.abs().sum() == 0


def points():
    data = Dataset(torch.randn(20, 4), torch.arange(20) % 2, classes=2)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), data


def text():
    letters = torch.randint(0, 65, (20, 13))
    module = transformer((12,), 65, width=16, layers=1, heads=2, lora=2, tied=True)
    return module, Dataset(letters[:, :-1], letters[:, 1:], classes=65)


@WAYS
@pytest.mark.parametrize("made", [points, text])
def test_a_copy_trains_to_the_same_bits(way, made):
    torch.manual_seed(0)
    module, data = made()
    model = FlatModel(module)
    start, deltas = model.read(), []
    for one in (model, way(model)):
        out = torch.empty(1, model.d)
        executor = Sequential(Workload(one, cross_entropy, LocalSGD(lr=0.5), data))
        executor.train(Broadcast(0, start), [Task(0)], out, Seeds(0))
        deltas.append(out)
    assert deltas[0].abs().sum() > 0
    assert torch.equal(*deltas)


def test_what_points_to_the_module_beside_it_still_does_in_a_deep_copy():
    module = nn.Linear(3, 2)
    held = copy.deepcopy({"before": module, "model": FlatModel(module), "after": module})
    assert held["before"] is held["model"].module is held["after"]


def test_a_pickle_is_as_large_as_the_parameters_and_not_as_often_as_there_are_layers():
    model = FlatModel(nn.Sequential(*(nn.Linear(100, 100) for _ in range(10))))
    assert len(pickle.dumps(model)) < 4 * model.d + 20_000
