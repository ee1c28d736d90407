"""What the running statistics that clients send give away: the batch's own, exactly; labels; and
better pictures; and nothing of it where they are not sent.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.attacks import (
    GradInversion,
    Knowledge,
    LossThreshold,
    NotApplicable,
    NotFound,
    StatisticCounts,
)
from privfl.attacks.inference import observe, recipe
from privfl.attacks.inversion.grad_inversion import batch_statistics
from privfl.attacks.inversion.rehearsal import psnr, victims
from privfl.attacks.inversion.simulate import Simulator
from privfl.attacks.inversion.statistics import listening
from privfl.audit import audit
from privfl.config import AuditConfig
from privfl.core import ConfigError, LocalPlan
from privfl.crypto import SecAgg
from privfl.data import load
from privfl.dp import Clip
from privfl.engine import forward_in
from privfl.models import initialised, resnet20
from privfl.training import LocalSGD

DIGITS = load("digits")
CLIENTS = [DIGITS.train.take(range(8 * i, 8 * i + 8)) for i in range(3)]


def net(momentum=0.1):
    module = initialised(resnet20, (1, 8, 8), 10, seed=0, norm="batch", width=2)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = momentum
    return module


def federation(buffers="averaged", steps=1, momentum=0.1, l2=None, module=None, **parts):
    training = LocalSGD(lr=0.1, plan=LocalPlan(8, steps=steps))
    made = Federation(
        module or net(momentum),
        CLIENTS,
        DIGITS.test,
        training=training,
        rounds=2,
        buffers=buffers,
        executor="sequential",
        audit=AuditConfig(keep="all"),
        **parts,
    )
    if l2 is not None:
        bounded = replace(made.scenario, part_bounds={"buffers": l2})
        facts = {**bounded.facts, "forward": forward_in(bounded)}
        made.scenario = replace(bounded, facts=facts)
    return made


def truth(view, client):
    """Means and variances at every layer of what a client really holds."""
    simulator = Simulator(recipe(view, Knowledge()), view.before)
    with torch.no_grad(), listening(simulator.norms) as heard:
        simulator.module(CLIENTS[client].x)
    return heard.batches()[0], simulator.norms


@pytest.mark.parametrize("momentum", [0.1, 0.5, None])
def test_after_one_step_the_statistics_of_a_clients_batch_are_read_off_exactly(momentum):
    view = federation(momentum=momentum).run().view("server", 1)
    true, norms = truth(view, 1)
    observed = observe(view, Knowledge(), "client", 1)
    found = batch_statistics(observed, recipe(view, Knowledge()), norms)
    assert (found - true).abs().max() < 1e-5
    blind = (view.extra["buffers"] - true).abs().max()
    assert blind > 0.1


def test_a_sum_gives_the_mean_of_the_clients_statistics_and_no_clients_own():
    hidden = Federation.from_config(
        {
            "data": {"name": "digits", "clients": 3},
            "model": {"name": "resnet20", "norm": "batch", "width": 2},
            "rounds": 1,
            "executor": "sequential",
            "training": {"name": "fedsgd", "weighting": "uniform", "buffers": "averaged"},
            "bound": {"name": "clip", "l2": 50.0, "parts": {"buffers": 50.0}},
            "channel": {"name": "secagg", "bits": 24},
            "audit": {"keep": "all"},
        }
    )
    view, data = hidden.run().view("server", 0), hidden.scenario.workload.data
    simulator = Simulator(recipe(view, Knowledge()), view.before)
    with torch.no_grad(), listening(simulator.norms) as heard:
        for index in hidden.scenario.clients.values():
            simulator.module(data.take(index).x)
    observed = observe(view, Knowledge(), "sum")
    found = batch_statistics(observed, recipe(view, Knowledge()), simulator.norms)
    own = torch.stack(heard.batches())
    assert (found - own.mean(dim=0)).abs().max() < 1e-3
    assert ((found - own).abs().amax(dim=1) > 1e-2).all()
    told = StatisticCounts().run(view, Knowledge(auxiliary=DIGITS.test))
    assert isinstance(told, NotApplicable)
    assert "any updates with the same sum give the same view" in told.theorem


@pytest.mark.parametrize(("steps", "l2"), [(1, None), (3, None), (1, 0.3), (3, 0.3)])
def test_a_simulated_client_sends_the_statistics_that_a_real_one_sends(steps, l2):
    view = federation(steps=steps, l2=l2).run().view("server", 1)
    forward, observed = recipe(view, Knowledge()), observe(view, Knowledge(), "client", 2)
    simulator = Simulator(forward, view.before, round=1)
    with listening(simulator.norms) as heard:
        delta = simulator.update(CLIENTS[2].x, CLIENTS[2].y)
    moved = heard.change(view.extra["buffers"], 1, forward.buffers_l2)
    assert (delta - observed.delta).abs().max() < 1e-5
    assert (moved - observed.buffers).abs().max() < 1e-5


@pytest.mark.parametrize("buffers", ["local", "frozen"])
def test_statistics_that_are_not_sent_are_not_read_and_the_update_is_simulated_all_the_same(
    buffers,
):
    view = federation(buffers).run().view("server", 1)
    observed = observe(view, Knowledge(), "client", 0)
    assert observed.buffers is None
    refused = StatisticCounts().run(view, Knowledge(auxiliary=DIGITS.test))
    assert isinstance(refused, NotFound)
    assert "clients send no running statistics" in refused.reason
    (shadow,) = victims(observed, recipe(view, Knowledge()), Knowledge(auxiliary=CLIENTS[0]), 8, 1)
    assert shadow.observed.buffers is None
    assert (shadow.observed.delta - observed.delta).abs().max() < 1e-5  # of the same eight samples


def shallow():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def test_labels_are_counted_from_the_statistics_alone_of_a_client_and_of_a_sum():
    view = federation(module=shallow()).run().view("server", 0)
    only = replace(view, after=view.before)  # no update is looked at
    rows = view.opened["delta"]
    only.opened["delta"] = replace(rows, values=torch.zeros_like(rows.values))
    knows = Knowledge(auxiliary=DIGITS.test)
    right = []
    for client in range(3):
        counts = StatisticCounts(shadows=200, client=client).run(only, knows).counts
        true = torch.bincount(CLIENTS[client].y, minlength=10)
        assert int(counts.sum()) == 8
        right.append(int(torch.minimum(counts, true).sum()))
    assert sum(right) >= 19  # of 24; no guess that says one of each class has more than 18
    counts = StatisticCounts(shadows=200, target="sum").run(only, knows).counts
    true = torch.bincount(torch.cat([one.y for one in CLIENTS]), minlength=10)
    assert int(torch.minimum(counts, true).sum()) >= 17


def test_pictures_are_nearer_with_the_statistics_than_without():
    view = federation(module=shallow()).run().view("server", 0)
    knows = Knowledge(labels=CLIENTS[0].y)
    attack = GradInversion(iterations=150, seeds=1, statistics=0.3, tv=0.01)
    told = attack.run(view, knows)
    assert told.notes["statistics"] == "of the batch"
    opened = {"delta": view.opened["delta"]}
    blinded = attack.run(replace(view, opened=opened, extra={}, extra_after={}), knows)
    assert blinded.notes["statistics"] == "none"
    true = CLIENTS[0].x
    assert psnr(told.samples, true) > psnr(blinded.samples, true) + 1


def test_priors_are_tuned_on_the_adversarys_own_samples():
    view = federation(module=shallow()).run().view("server", 0)
    knows = Knowledge(auxiliary=DIGITS.test.take(range(60)))
    tuned = GradInversion(iterations=4, tune=True, statistics=0.0).prepared((view,), knows)
    assert tuned.statistics > 0
    assert tuned.seeds == 3
    assert not tuned.tune


def test_a_step_that_is_too_long_is_tuned_on_them_too():
    view = federation(module=shallow()).run().view("server", 0)
    knows = Knowledge(auxiliary=DIGITS.test.take(range(60)))
    given = GradInversion(iterations=4, tune=True, lr=0.3)
    assert given.prepared((view,), knows).lr < given.lr


def test_a_released_model_is_attacked_with_the_statistics_that_are_released_with_it():
    fed = federation()
    run = fed.run()
    pool = DIGITS.test.take(range(40))
    scores = LossThreshold().run(run.view("outsider", 1), Knowledge(candidates=pool)).scores
    run.model.eval()
    losses = nn.functional.cross_entropy(run.model(pool.x), pool.y, reduction="none")
    assert torch.allclose(-scores, losses, atol=1e-4)


def test_an_audit_reads_the_statistics_and_calls_no_such_layer_blind():
    by_label = DIGITS.train.y.argsort(stable=True)
    report = audit(
        Federation(
            shallow(),
            [DIGITS.train.take(by_label[140 * i : 140 * i + 12]) for i in range(8)],
            DIGITS.test,
            training=LocalSGD(lr=0.1, plan=LocalPlan(8, steps=1)),
            rounds=1,
            buffers="averaged",
            executor="sequential",
        ),
        adversaries=("server",),
        effort="low",
        stream=(),
        properties=(),
        lies=None,
        probe_samples=4,
    )
    counted = next(one for one in report.findings if one.attack.startswith("StatisticCounts"))
    assert counted.verdict == "leaks"
    assert counted.value.value > counted.baseline.value


def test_networks_that_train_on_no_sample_alone_are_probed_with_two():
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10)
    )
    parts = [DIGITS.train.take(range(i, 60, 3)) for i in range(3)]
    training = LocalSGD(lr=0.1, plan=LocalPlan(64, steps=1))
    fed = Federation(
        module,
        parts,
        DIGITS.test,
        rounds=1,
        training=training,
        buffers="averaged",
        executor="sequential",
    )
    report = audit(fed, adversaries=["server"], effort="low", presence=(), lies=None)
    assert "2 under" in report.about["probe"]
    assert report.findings


def test_descents_begin_at_own_samples_of_the_label_where_they_are_told_to():
    view = federation(module=shallow()).run().view("server", 0)
    own = DIGITS.test.take(range(60))
    near = GradInversion(iterations=1, seeds=1, start="own", lr=1e-6)
    knows = Knowledge(labels=CLIENTS[0].y, auxiliary=own)
    far = replace(near, start="noise")
    wanted = torch.stack([own.x[own.y == label].mean(dim=0) for label in CLIENTS[0].y])
    off = [float((one.run(view, knows).samples - wanted).norm()) for one in (near, far)]
    assert off[0] < off[1] / 3
    lacks = near.run(view, Knowledge(labels=CLIENTS[0].y))
    assert "auxiliary samples" in lacks.reason


def test_statistics_beside_a_bound_are_bounded_from_python_too():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    parts = [DIGITS.train.take(range(i, 60, 3)) for i in range(3)]
    told = {"rounds": 1, "buffers": "averaged", "bound": Clip(l2=1.0), "channel": SecAgg()}

    def made(**more):
        return Federation(module, parts, DIGITS.test, **told, **more)

    with pytest.raises(ConfigError, match=r"'buffers'.*part_bounds of a Federation"):
        made()
    with pytest.raises(ConfigError, match=r"part_bounds has 'bufers'.*it sends buffers"):
        made(part_bounds={"bufers": 1.0})
    with pytest.raises(ConfigError, match="above 0"):
        made(part_bounds={"buffers": 0.0})
    fed = made(part_bounds={"buffers": 0.5}, audit=AuditConfig(keep="all"))
    total = fed.run().view("server", 0).opened["buffers"]
    assert 0 < float(total.value.norm()) / total.weight <= 0.5 + 0.01
