"""Kernels and bins for each client: what a sum of clients gives away that were sent models of their
own, and that a channel which binds the model opens no such sum.
"""

from dataclasses import replace

import pytest
import torch

from privfl import Federation
from privfl.attacks import ByRow, Loki, NotApplicable, NotFound, alone, lokied
from privfl.audit.score import pictures
from privfl.config import AuditConfig
from privfl.core import Dataset, RoundPlan, Total, View
from privfl.crypto import AdditiveSharing, Plain, SecAgg
from privfl.data import load
from privfl.dp import Clip
from privfl.engine import Attacker
from privfl.models import initialised, mlp
from privfl.training import FedSGD

N, EACH, BINS = 4, 10, 128
LOW, HIGH = -0.3053 / 0.3761, (1 - 0.3053) / 0.3761
ATTACK = Loki((1, 8, 8), clients=tuple(range(N)), bins=BINS, outputs=64)
BINDING = {
    "secagg": SecAgg(bits=24),
    "additive_sharing": AdditiveSharing(bits=24),
}


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def clients(digits):
    return [digits.train.take(range(EACH * k, EACH * k + EACH)) for k in range(N)]


def play(clients, digits, channel, attack):
    net = initialised(
        lambda shape, classes: lokied(mlp(shape, classes, hidden=(16,)), shape, N, BINS),
        (1, 8, 8),
        10,
        seed=0,
    )
    attackers = [] if attack is None else [Attacker("loki", attack, frozenset(range(N)))]
    return Federation(
        net,
        clients,
        digits.test,
        training=FedSGD(lr=0.1),
        bound=Clip(l2=1.0),
        channel=channel,
        attackers=attackers,
        executor="sequential",
        audit=AuditConfig(keep="all"),
    ).run()


def unbound(view):
    """What a channel would open that added up whatever models clients trained from."""
    rows = view.rows
    summed = Total(rows.weights @ rows.values, float(rows.weights.sum()), rows.n)
    return View(
        view.adversary, view.plan, view.before, view.after, {"delta": summed}, facts=view.facts
    )


def share_exact(found, client):
    return float((pictures(found, client.x, peak=HIGH - LOW).psnr > 40).float().mean())


def test_out_of_a_sum_that_binds_nothing_each_clients_samples_fall_into_its_own_block(
    clients, digits
):
    attack = ATTACK.fitted(digits.test)
    view = unbound(play(clients, digits, Plain(), attack).view("server", 0))
    told = attack.run(view)
    assert isinstance(told, ByRow)
    assert [whose for whose, _ in told.answers] == [(k,) for k in range(N)]
    shares = [share_exact(answer.samples, clients[whose[0]]) for whose, answer in told.answers]
    assert sum(shares) / N >= alone(EACH, BINS) - 0.15
    others = [share_exact(answer.samples, clients[whose[0] - 1]) for whose, answer in told.answers]
    assert max(others) == 0


@pytest.mark.parametrize("name", BINDING)
def test_where_plans_bind_the_model_these_contributions_are_in_no_sum_and_are_named(
    name, clients, digits
):
    attack = ATTACK.fitted(digits.test)
    run = play(clients, digits, BINDING[name], attack)
    opened = run.transcripts[0].carried.opened["delta"]
    assert opened is None  # four clients in four rounds of their own
    assert isinstance(attack.run(run.view("server", 0)), NotApplicable)
    one = replace(attack, clients=(N - 1, 17, 18, 19))  # kernels for one of those that take part
    run = play(clients, digits, BINDING[name], one)
    opened = run.transcripts[0].carried.opened["delta"]
    assert opened.survivors == tuple(range(N - 1))
    incidents = " ".join(map(str, run.history[0].incidents))
    assert f"client {N - 1}" in incidents or f"client/{N - 1}" in incidents


def test_without_kernels_of_their_own_nothing_is_claimed_and_words_say_why(clients, digits):
    attack = ATTACK.fitted(digits.test)
    told = attack.run(unbound(play(clients, digits, Plain(), None).view("server", 0)))
    assert isinstance(told, NotFound)
    assert "were clients sent their kernels?" in told.reason


def test_a_sum_of_honest_rounds_without_the_layers_is_refused_in_words(digits):
    plan = RoundPlan(0, (0, 1), d=5, l2=1.0)
    zero = torch.zeros(5)
    seen = {"delta": Total(zero, 2.0, 2)}
    facts = play([digits.train.take(range(4))] * N, digits, Plain(), None).view("server", 0).facts
    told = ATTACK.run(View("server", plan, zero, zero, seen, facts=facts))
    assert "no room" in told.reason


def test_colour_comes_out_channel_by_channel():
    rng = torch.Generator().manual_seed(0)
    light = torch.tensor([0.4, 0.7, 1.0])[:, None, None, None]
    x = light * torch.rand(3, 3, 4, 4, generator=rng)
    own = [Dataset(x, torch.tensor([0, 1, 2]), 3)] * 2
    levels = tuple(torch.linspace(0.05, 0.6, 64).tolist())
    attack = Loki((3, 4, 4), clients=(0, 1), bins=64, outputs=48, levels=levels)
    net = initialised(
        lambda shape, classes: lokied(mlp(shape, classes, hidden=(8,)), shape, 2, 64),
        (3, 4, 4),
        3,
        seed=0,
    )
    run = Federation(
        net,
        own,
        own[0],
        training=FedSGD(lr=0.1),
        attackers=[Attacker("loki", attack, frozenset({0, 1}))],
        executor="sequential",
        audit=AuditConfig(keep="all"),
    ).run()
    told = attack.run(unbound(run.view("server", 0)))
    assert len(told.answers) == 2
    for _, answer in told.answers:
        assert float(pictures(answer.samples, own[0].x, peak=1.0).psnr.min()) > 40
