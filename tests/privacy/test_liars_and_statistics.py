"""Running statistics among liars, drop-outs and colluders: who moves them, who reads them, and
whose are measured.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.aggregators import FLAME, Mean, Median
from privfl.attacks import Knowledge, StatisticCounts
from privfl.attacks.inference import buffers_of, observe
from privfl.attacks.result import ByRow, Counts
from privfl.attacks.rows import proof
from privfl.config import AuditConfig
from privfl.core import ConfigError, Dataset, Faults, LocalPlan, NotVisible
from privfl.data import load
from privfl.engine import FixedSize, statistics_of
from privfl.training import LocalSGD, evaluate

DIGITS = load("digits")


def points(seed, n=12, scale=1.0):
    rng = torch.Generator().manual_seed(seed)
    x = scale * (3 + 2 * torch.randn(n, 3, generator=rng))
    return Dataset(x, (x.sum(dim=1) > 9).long(), classes=2)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def federation(clients, buffers="averaged", **parts):
    return Federation(
        net(),
        clients,
        points(9, 40),
        **{
            "buffers": buffers,
            "training": LocalSGD(lr=0.2, plan=LocalPlan(4, epochs=2)),
            "rounds": 2,
            "executor": "sequential",
            "audit": AuditConfig(keep="all"),
            **parts,
        },
    )


def held(run, fed):
    return statistics_of(fed.scenario.workload, run.state)


HONEST = [points(i) for i in range(4)]


def test_a_rule_keeps_a_liar_from_the_statistics_too_and_a_mean_does_not():
    clients = [*HONEST, points(7, scale=1e6)]  # its layers' inputs are huge, and its update is not
    fed = federation(clients, aggregator=Median(), rounds=1)
    run = fed.run()
    rows = run.transcript(0).carried.opened["buffers"].what.values[:4]
    start = run.transcript(0).extra["buffers"]
    now = held(run, fed)
    assert (now >= start + rows.amin(dim=0) - 1e-5).all()
    assert (now <= start + rows.amax(dim=0) + 1e-5).all()
    owned = federation(clients, aggregator=Mean(), rounds=1)
    assert held(owned.run(), owned).abs().max() > 1e9


def test_statistics_that_are_no_numbers_stay_as_they_were():
    fed = federation([*HONEST, points(7, scale=1e18)], aggregator=Mean())
    run = fed.run()
    assert held(run, fed).isfinite().all()
    assert run.history[1].survivors >= 4
    method = fed.scenario.workload.method
    state = method.init(26)
    change = torch.zeros(8)
    change[2], change[3], change[5], change[6] = float("inf"), 1.0, float("nan"), -2.0
    _, after = method.combine(torch.zeros(26), {"buffers": change}, state, 1.0)
    assert torch.equal(after["buffers"], method.start + torch.tensor([0.0, 0, 0, 1, 0, 0, 0, 0]))


def test_a_rule_that_compares_models_compares_statistics_with_the_servers_own():
    fed = federation([*HONEST, points(7, scale=1e6)], aggregator=FLAME(noise=0.0))
    assert held(fed.run(), fed).abs().max() < 1e3


@pytest.mark.parametrize("channel", ["plain", "two_server", "sign_two_server"])
def test_a_rule_with_an_update_of_the_servers_own_is_refused_before_the_run(channel):
    with pytest.raises(ConfigError, match=r"FLTrust holds each row against .* sends 'buffers'"):
        Federation.from_config(
            {
                "data": {"name": "digits", "clients": 4, "root": 40},
                "model": {"name": "resnet20", "norm": "batch", "width": 1},
                "training": {"name": "sgd", "weighting": "uniform", "buffers": "averaged"},
                "bound": {"name": "clip", "l2": 5.0, "parts": {"buffers": 5.0}},
                "channel": channel,
                "aggregator": "fltrust",
            }
        )


def accuracies(run, clients, statistics):
    """What each client measures with the run's parameters and these statistics."""
    told = []
    for data, own in zip(clients, statistics, strict=True):
        module = net()
        nn.utils.vector_to_parameters(run.parameters, module.parameters())
        if own is not None:
            module[1].running_mean.copy_(own[:4])
            module[1].running_var.copy_(own[4:])
        told.append(evaluate(module.eval(), data).accuracy)
    return told


@pytest.mark.parametrize("buffers", ["local", "averaged"])
def test_no_client_is_measured_with_another_clients_statistics(buffers, tmp_path):
    """Clients of other scales: with each other's statistics they err. A run that is looked at again
    has trained nobody since.
    """
    clients = [points(i, 30, scale=10.0**i) for i in range(4)]

    def again():
        return federation(clients, buffers, rounds=1, sampler=FixedSize(1))

    fed = again()
    run = fed.run(tmp_path / "run")
    (drawn,) = run.transcript(0).plan.cohort
    if buffers == "local":
        kept = {drawn: run.state.clients[drawn].vectors["buffers"]}
    else:
        kept = dict.fromkeys(range(4), held(run, fed))
    expected = accuracies(run, clients, [kept.get(client) for client in range(4)])
    assert run.summary["client_accuracy"] == expected
    looked = again().run(tmp_path / "run", resume=True)
    assert looked.summary["client_accuracy"] == expected


def small(faults=None, **parts):
    return Federation.from_config(
        {
            "data": {"name": "digits", "clients": 3},
            "model": {"name": "resnet20", "norm": "batch", "width": 1},
            "training": {
                "name": "sgd",
                "weighting": "uniform",
                "steps": 1,
                "batch_size": 8,
                "buffers": "averaged",
            },
            "bound": {"name": "clip", "l2": 5.0, "parts": {"buffers": 0.3}},
            "rounds": 1,
            "executor": "sequential",
            "audit": {"keep": "all"},
            **parts,
        }
    ).run(faults=faults)


def clipped(update):
    own = update.aux["buffers"]
    return own * (0.3 / own.norm()).clamp(max=1)


def test_who_can_take_all_others_off_a_sum_reads_the_last_ones_statistics():
    run = small(channel={"name": "secagg", "bits": 24})
    view = run.view("colluders(server, client(0), client(1))", 0)
    observed = observe(view, Knowledge(), "client")
    assert observed.client == 2
    assert (observed.buffers - clipped(run.transcript(0).updates[2])).abs().max() < 1e-4
    alone = run.view("server", 0)
    assert observe(alone, Knowledge(), "sum").client is None
    assert proof((alone,))
    short = replace(alone.opened["buffers"], count=1)  # the others dropped out before this part
    assert not proof((replace(alone, opened={**alone.opened, "buffers": short}),))


SUMS = {"data": {"name": "digits", "clients": 4}, "channel": {"name": "secagg", "bits": 24}}


def test_who_takes_own_clients_off_a_sum_takes_off_those_that_are_in_it():
    """One of two own clients dropped out, and the sum holds two others: no row is left of it."""
    run = small(Faults(silent_from={"client/1": 1}), **SUMS)
    assert run.transcript(0).clients_seen() == (0, 2, 3)
    view = run.view("colluders(server, client(0), client(1))", 0)
    with pytest.raises(NotVisible):
        observe(view, Knowledge(), "client")
    assert buffers_of(view, 2) is None
    assert proof((view,))


def test_whom_drop_outs_leave_alone_in_a_sum_is_read_by_name():
    run = small(Faults(silent_from={"client/3": 1}), **SUMS)
    view = run.view("colluders(server, client(0), client(1))", 0)
    observed = observe(view, Knowledge(), "client")
    sent = run.transcript(0).updates[2]
    assert observed.client == 2
    assert (observed.delta - sent.delta * min(1.0, 5.0 / sent.delta.norm())).abs().max() < 1e-3
    assert (observed.buffers - clipped(sent)).abs().max() < 1e-4
    assert not proof((view,))
    recipients = run.view("colluders(client(0), client(1))", 0)
    assert "delta" not in recipients.opened
    assert not proof((recipients,)), "the released mean is of one other client"


def test_who_reads_sums_of_groups_reads_the_statistics_of_each_group():
    run = small(
        data={"name": "digits", "clients": 8}, channel={"name": "bucketed_secagg", "size": 4}
    )
    view = run.view("server", 0)
    told = StatisticCounts(shadows=8).run_rows(view, Knowledge(auxiliary=DIGITS.test))
    assert isinstance(told, ByRow)
    assert all(isinstance(one, Counts) for _, one in told.answers)
    group, _ = told.answers[0]
    observed = observe(view, Knowledge(), "client")
    mean = torch.stack([clipped(run.transcript(0).updates[c]) for c in group]).mean(dim=0)
    assert len(group) == 4
    assert (observed.buffers - mean).abs().max() < 1e-3
