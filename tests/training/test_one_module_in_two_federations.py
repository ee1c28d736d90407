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
from privfl.core import FlatModel, LocalPlan, UnsupportedModel
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


def plain(first: nn.Module | None = None, *between: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    layers = (first or nn.Linear(64, 16), *between)
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(16, 10))


def of(net: nn.Module, lr: float = 0.1) -> Federation:
    clients = [DIGITS.train.take(range(40 * k, 40 * k + 40)) for k in range(2)]
    training = LocalSGD(lr=lr, plan=LocalPlan(16, steps=2))
    test = DIGITS.test.take(range(50))
    return Federation(net, clients, test, training=training, rounds=2, executor="sequential")


def test_gradients_that_somebody_lets_go_of_are_taken_again() -> None:
    net = plain()
    first = of(net)
    net.zero_grad()
    assert net[1].weight.grad is None
    assert torch.equal(trained(first), trained(of(plain())))


@pytest.mark.parametrize("earlier", [False, True])
def test_another_may_train_the_head_alone(earlier: bool) -> None:
    net, copied = plain(), plain()
    whole = None if earlier else of(net)
    net[1].requires_grad_(False)
    head = of(net)
    if whole is None:
        net[1].requires_grad_(True)
        whole = of(net)
    wanted = trained(of(plain()))
    copied[1].requires_grad_(False)
    of_head = trained(of(copied))
    assert len(of_head) == 170
    assert torch.equal(trained(whole), wanted)
    assert torch.equal(trained(head), of_head)
    assert torch.equal(net[1].weight, plain()[1].weight)


def test_networks_may_have_a_layer_in_common() -> None:
    shared = nn.Linear(16, 16)
    nets = [plain(nn.Linear(64, 16), shared), plain(nn.Linear(64, 16), shared)]
    alone = [trained(of(copy.deepcopy(net))) for net in nets]
    both = [of(net) for net in nets]
    for k in range(2):
        assert torch.equal(trained(both[k]), alone[k])


def test_modes_are_those_in_which_it_was_made() -> None:
    net = plain(None, nn.Dropout(0.5))
    first = of(net)
    net.eval()
    assert torch.equal(trained(first), trained(of(plain(None, nn.Dropout(0.5)))))


@pytest.mark.parametrize("persistent", [False, True])
def test_constants_that_move_are_each_ones_own(persistent: bool) -> None:
    class Counting(nn.Linear):
        """Changes with its passes."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.get_buffer("passes").add_(1)
            return super().forward(x) * (1 + 0.1 * self.get_buffer("passes"))

    layer = Counting(64, 16)
    layer.register_buffer("passes", torch.zeros(()), persistent=persistent)
    net = plain(layer)
    alone = [trained(of(copy.deepcopy(net), lr)) for lr in (0.1, 0.2)]
    both = [of(net, lr) for lr in (0.1, 0.2)]
    for k in (1, 0):
        assert torch.equal(trained(both[k]), alone[k])
    assert ("1.passes" in net.state_dict()) is persistent


def test_parameters_that_were_replaced_are_said() -> None:
    net = plain()
    first = of(net)
    net[2] = nn.Linear(16, 10)
    with pytest.raises(UnsupportedModel, match=r"'2\.weight' is another one"):
        first.run()


def test_another_may_run_after_every_round() -> None:
    net = plain()
    first, second = of(net), of(net, 0.3)
    run = first.run(progress=lambda *_: second.run())
    wanted = trained(of(plain()))
    assert torch.equal(first.scenario.workload.model.read(), wanted)
    assert run.model is net
    second.run()  # which has the module now
    assert torch.equal(run.parameters, wanted)
    assert not torch.equal(net[1].weight.flatten(), wanted[: net[1].weight.numel()])


def test_what_is_written_into_a_module_reaches_the_one_made_last() -> None:
    net = plain()
    first, second = of(net), of(net)
    net.load_state_dict({name: value * 0.5 for name, value in net.state_dict().items()})
    half = plain()
    half.load_state_dict({name: value * 0.5 for name, value in half.state_dict().items()})
    assert torch.equal(trained(first), trained(of(plain())))
    assert torch.equal(trained(second), trained(of(half)))
