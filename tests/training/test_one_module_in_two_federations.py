"""Federations that are built of one network do not train each other's."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.attacks import LabelCounts, LinearLeakage, StatisticCounts
from privfl.audit import Attacks, audit
from privfl.core import FlatModel, LocalPlan
from privfl.data import load
from privfl.models import initialised
from privfl.training import LocalSGD

DIGITS = load("digits")


def build(shape: tuple[int, ...], classes: int) -> nn.Module:
    layers = (nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(16, classes))


def network() -> nn.Module:
    return initialised(build, (1, 8, 8), 10, seed=0)


def federation(net: nn.Module, executor: str = "sequential", lr: float = 0.1) -> Federation:
    clients = [DIGITS.train.take(range(40 * k, 40 * k + 40)) for k in range(4)]
    training = LocalSGD(lr=lr, plan=LocalPlan(16, steps=2))
    return Federation(
        net,
        clients,
        DIGITS.test,
        training=training,
        rounds=2,
        buffers="averaged",
        executor=executor,
    )


def trained(run: Federation) -> torch.Tensor:
    run.run()
    model = run.scenario.workload.model
    return torch.cat([model.read(), model.state])


@pytest.mark.parametrize("executor", ["sequential", "processes/1"])
def test_each_ends_where_it_ends_alone(executor: str) -> None:
    alone = [trained(federation(network(), lr=lr)) for lr in (0.1, 0.2)]  # to the bit, everywhere
    assert not torch.equal(*alone)
    for order in ((0, 1), (1, 0)):
        net = network()
        both = [federation(net, executor, lr) for lr in (0.1, 0.2)]
        for k in order:
            assert torch.equal(trained(both[k]), alone[k])
    # and the network is the last one's
    values = torch.cat([p.detach().flatten() for p in net.parameters()])
    assert torch.equal(values, alone[0][: len(values)])


def test_an_audit_of_layers_with_one_network_finds_what_each_has_alone() -> None:
    few = Attacks(probe=(LabelCounts(), LinearLeakage(), StatisticCounts()))
    net = network()
    layers = {name: federation(net) for name in ("first", "second")}
    report = audit(layers, adversaries=["server"], attacks=few, lies=None)
    alone = audit(federation(network()), adversaries=["server"], attacks=few, lies=None)
    wanted = [(one.attack, one.value) for one in alone.findings]
    assert next(value.value for attack, value in wanted if "LabelCounts" in attack) > 0.9
    for layer in layers:
        told = [(one.attack, one.value) for one in report.findings if one.layer == layer]
        assert told == wanted


def test_a_model_whose_module_another_has_travels_with_its_own_values() -> None:
    net = network()
    first, second = FlatModel(net), FlatModel(net)
    second.write(torch.zeros(second.d))
    second.write_state(torch.full((second.s,), 2.0))
    for copied in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert torch.equal(copied.flat, first.flat)
        assert torch.equal(copied.state, first.state)
        assert float(copied.flat.abs().sum()) > 0


def test_what_is_trained_is_whose_was_written_last() -> None:
    net = network()
    first, second = FlatModel(net), FlatModel(net)
    first.write(torch.ones(first.d))
    assert float(second.read().mean()) != 1
    x = torch.randn(4, 1, 8, 8)
    net(x).sum().backward()
    assert float(first.grad.abs().sum()) > 0
    assert float(second.grad.abs().sum()) == 0
    assert not torch.equal(first.state, second.state)
    assert int(first.counts) == 1
    assert int(second.counts) == 0
