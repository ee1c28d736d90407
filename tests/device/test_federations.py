"""A run on a device is the run on the CPU, number by number: nothing of both mixes on the way."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.aggregators import Krum, Mean
from privfl.attacks import GradientInversion, LossThreshold
from privfl.attacks.knowledge import Knowledge
from privfl.config import AuditConfig
from privfl.core import ConfigError, Dataset, LocalPlan, SeededNoise
from privfl.crypto import SecAgg
from privfl.dp import Clip, DPGradient, Gaussian
from privfl.training import PGD, FedAdam, FedNova, LocalSGD, Scaffold
from tests.device.pretended import BACKEND

RNG = torch.Generator().manual_seed(0)
DATA = Dataset(
    torch.randn(30, 1, 6, 6, generator=RNG), torch.randint(0, 3, (30,), generator=RNG), 3
)
PARTS = [DATA.take(range(i, 30, 5)) for i in range(5)]


def layers(kind):
    made = {
        "mlp": lambda: (nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3)),
        "cnn": lambda: images(nn.GroupNorm(2, 4)),
        "norm": lambda: images(nn.BatchNorm2d(4)),
        "dropout": lambda: (nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 3)),
    }[kind]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.Sequential(*made())


def images(norm):
    return nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)


def private():
    gradient = DPGradient(1.0, 1.0, 3, noise=SeededNoise(3))
    return LocalSGD(plan=LocalPlan(batch_size=3), weighting="uniform", gradient=gradient)


def plain(**fields):
    return LocalSGD(plan=LocalPlan(batch_size=4, epochs=2), weighting="uniform", **fields)


CASES = {
    "one after the other": ("cnn", lambda: {}),
    "stacked": ("mlp", lambda: {"executor": "stacked", "training": plain()}),
    "stacked, each step whole": (
        "mlp",
        lambda: {"executor": "stacked", "training": plain(prox=0.1, momentum=0.9)},
    ),
    "vmapped": ("cnn", lambda: {"executor": "vmapped", "training": plain()}),
    "mapped, each step whole": (
        "cnn",
        lambda: {"executor": "vmapped", "training": plain(prox=0.1, momentum=0.9)},
    ),
    "Scaffold, mapped": ("cnn", lambda: {"training": Scaffold(), "executor": "vmapped"}),
    "measured": ("mlp", lambda: {"executor": "auto"}),
    "Scaffold": ("mlp", lambda: {"training": Scaffold()}),
    "Scaffold, stacked": ("mlp", lambda: {"training": Scaffold(), "executor": "stacked"}),
    "FedNova and FedAdam": (
        "mlp",
        lambda: {
            "training": FedNova(momentum=0.5),
            "server_optimizer": FedAdam(),
            "executor": "stacked",
        },
    ),
    "secure aggregation": ("mlp", lambda: {"channel": SecAgg(), "bound": Clip(l2=1.0)}),
    "averaged statistics": ("norm", lambda: {"buffers": "averaged"}),
    "statistics of their own": ("norm", lambda: {"buffers": "local"}),
    "DP-SGD": ("cnn", lambda: {"training": private()}),
    "noise of the server": (
        "mlp",
        lambda: {
            "training": plain(),
            "bound": Clip(l2=1.0),
            "mechanism": Gaussian(1.0),
            "aggregator": Mean(weighted=False),
            "noise": SeededNoise(1),
        },
    ),
    "Krum": ("mlp", lambda: {"aggregator": Krum(f=1)}),
    "adversarial training": (
        "mlp",
        lambda: {"training": LocalSGD(adversarial=PGD(eps=0.1, steps=1)), "rounds": 1},
    ),
}


def played(kind, device, rounds=2, **settings):
    settings = {"executor": "sequential", **settings}
    return Federation(layers(kind), PARTS, DATA, rounds=rounds, device=device, **settings).run()


@pytest.mark.parametrize("case", CASES)
def test_a_run_on_a_device_is_the_run_on_the_cpu(case, device):
    kind, settings = CASES[case]
    there, here = (played(kind, on, **settings()) for on in (device, "cpu"))
    assert next(there.model.parameters()).device.type == device
    assert there.state.parameters.device.type == "cpu"
    assert not [one for record in there.history for one in record.incidents]
    apart = (there.state.parameters - here.state.parameters).abs().max()
    assert float(apart) < 1e-6
    assert there.accuracy == here.accuracy


@pytest.mark.parametrize("executor", ["sequential", "stacked", "vmapped"])
def test_no_step_waits_for_the_device(executor, device):
    waits = []
    for epochs in (1, 4):
        training = LocalSGD(plan=LocalPlan(batch_size=3, epochs=epochs))
        BACKEND.waits.clear()
        played("mlp", device, rounds=1, executor=executor, training=training)
        waits.append(sum(BACKEND.waits.values()))
    assert waits[0] == waits[1]


def test_a_round_copies_each_clients_change_once(device):
    copies = []
    for rounds in (1, 2):
        BACKEND.waits.clear()
        played("mlp", device, rounds=rounds)
        copies.append(BACKEND.waits["to the CPU"])
    assert copies[1] - copies[0] == len(PARTS)


def test_dropout_repeats_with_the_seed_of_the_run(device):
    first = played("dropout", device).state.parameters
    torch.ones(9, device=device).bernoulli_()  # others draw on the device meanwhile
    before = BACKEND.get_rng_state()
    again, other = played("dropout", device), played("dropout", device, seed=1)
    assert torch.equal(first, again.state.parameters)
    assert not torch.equal(first, other.state.parameters)
    assert torch.equal(before, BACKEND.get_rng_state())


def test_attacks_read_the_run_of_a_device(device):
    attack = GradientInversion(iterations=5, tune=False)
    told = []
    for on in (device, "cpu"):
        training = LocalSGD(plan=LocalPlan(batch_size=6))
        run = played("mlp", on, rounds=1, training=training, audit=AuditConfig(keep="all"))
        view = run.view("server", round=0)
        assert view.facts["forward"].module[1].weight.device.type == "cpu"
        knows = Knowledge(
            labels=PARTS[0].y.to(on), candidates=DATA.to(on), auxiliary=DATA.to(on), samples=6
        )
        inverted = attack.run(view, knows)
        told.append((inverted.samples, LossThreshold().run(view, knows).scores))
    for there, here in zip(*told, strict=True):
        assert there.device.type == "cpu"
        assert torch.allclose(there, here, atol=1e-4)


def test_gradients_are_inverted_where_the_views_lie(device):
    training = LocalSGD(plan=LocalPlan(batch_size=6))
    run = played("mlp", "cpu", rounds=1, training=training, audit=AuditConfig(keep="all"))
    view, knows = run.view("server", round=0), Knowledge(labels=PARTS[0].y, samples=6)
    rows = view.rows
    moved = replace(
        view,
        before=view.before.to(device),
        after=view.after.to(device),
        opened={"delta": replace(rows, values=rows.values.to(device))},
    )
    attack = GradientInversion(iterations=5, tune=False)
    there, here = attack.run(moved, knows).samples, attack.run(view, knows).samples
    assert there.device.type == device
    assert torch.allclose(there.cpu(), here, atol=1e-4)


def test_a_device_without_values_is_refused():
    with pytest.raises(ConfigError, match="'device': torch cannot use 'meta' here"):
        Federation(layers("mlp"), PARTS, DATA, device="meta")
