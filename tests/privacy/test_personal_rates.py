"""Clients with rates of their own: what each class spends, held against the divergence of the
mixtures themselves, and what is refused.
"""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn

from privfl import Federation
from privfl.aggregators import Mean
from privfl.config import AuditConfig
from privfl.core import Charge, ConfigError, Dataset, DpEvent, Ledger, LocalPlan, Sampling, Threat
from privfl.crypto import SecAgg
from privfl.dp import Clip, Gaussian, LocalGaussian, personal, personal_rates, spend
from privfl.engine import PersonalPoisson, Poisson
from privfl.training import LocalSGD

RATES, MEMBERS = {"strict": 0.1, "usual": 0.5}, {"strict": [0, 1]}
CLASSES = (("strict", 0.1, 2), ("usual", 0.5, 4))


def ledger(z, rounds, classes=CLASSES, relation="add_remove"):
    drawn = Sampling("poisson", 0.5, 6, classes=classes)
    noise = DpEvent("gaussian", {"noise_multiplier": z})
    return Ledger((Charge(0, noise, drawn, "client", relation, count=rounds),))


def mixture(rates, rows, z):
    """The density of the noisy sum of one number a client, over all coins."""
    parts = []
    for coins in itertools.product((0, 1), repeat=len(rates)):
        chance = math.prod(q if c else 1 - q for q, c in zip(rates, coins, strict=True))
        parts.append((chance, sum(c * r for c, r in zip(coins, rows, strict=True))))
    return lambda x: sum(p * stats.norm.pdf(x, at, z) for p, at in parts)


def divergence(p, q, epsilon):
    """The hockey-stick divergence, by quadrature."""
    x = np.linspace(-25, 25, 400_001)
    return float(integrate.trapezoid(np.maximum(p(x) - math.exp(epsilon) * q(x), 0), x))


@pytest.mark.parametrize("rows", [(0.0, 0.0, 0.0), (1.0, -1.0, 0.4)])
@pytest.mark.parametrize("name", ["strict", "usual"])
def test_a_class_spends_what_the_mixtures_over_all_coins_say(name, rows):
    """Client 0 is there or not; three others, of both classes, have rates of their own."""
    z, delta, own = 1.5, 1e-3, RATES[name]
    with_it = mixture((own, 0.1, 0.5, 0.5), (1.0, *rows), z)
    without = mixture((0.1, 0.5, 0.5), rows, z)
    [spent] = [one.spent.pld for one in personal(ledger(z, 1), delta) if one.name == name]
    worst = max(divergence(with_it, without, spent), divergence(without, with_it, spent))
    assert worst <= delta * (1 + 1e-3)
    if not any(rows):  # others that send nothing hide nothing, and the figure is exact
        assert worst > 0.9 * delta


def test_pricing_the_usual_class_at_the_strict_rate_would_be_too_little():
    z, delta = 1.5, 1e-3
    with_it, without = mixture((0.5,), (1.0,), z), mixture((), (), z)
    strict = personal(ledger(z, 1), delta)[0].spent.pld
    assert divergence(with_it, without, strict) > 3 * delta


def test_each_class_pays_as_in_a_run_where_everybody_has_its_rate():
    found = {one.name: one.spent for one in personal(ledger(2.0, 30), 1e-3)}
    for name, rate, _ in CLASSES:
        alike = Sampling("poisson", rate, 6)
        noise = DpEvent("gaussian", {"noise_multiplier": 2.0})
        [same] = spend(Ledger((Charge(0, noise, alike, "client", "add_remove", count=30),)), 1e-3)
        assert (found[name].rdp, found[name].pld) == (same.rdp, same.pld)
    [whole] = spend(ledger(2.0, 30), 1e-3)
    assert whole.epsilon == found["usual"].epsilon > 3 * found["strict"].epsilon


def test_rates_for_epsilons_spend_them_and_no_more():
    rates = personal_rates({"a": 0.5, "b": 4.0, "c": 1e3}, 1e-5, noise_multiplier=1.2, rounds=40)
    assert rates["c"] == 1.0
    for name, epsilon in (("a", 0.5), ("b", 4.0)):
        classes = ((name, rates[name], 6),)
        drawn = Sampling("poisson", rates[name], 6, classes=classes)
        noise = DpEvent("gaussian", {"noise_multiplier": 1.2})
        one = Ledger((Charge(0, noise, drawn, "client", "add_remove", count=40),))
        assert 0.999 * epsilon < personal(one, 1e-5, pld=False)[0].spent.rdp <= epsilon
    with pytest.raises(ConfigError, match="no rate gives 'a'"):
        personal_rates({"a": 0.1}, 1e-9, noise_multiplier=0.1, rounds=10**9)


def test_a_ledger_keeps_its_classes_through_json():
    charge = ledger(2.0, 3).charges[0]
    assert Charge.from_json(json.loads(json.dumps(charge.to_json()))) == charge


# ---- the sampler


def test_each_client_is_drawn_at_its_own_rate_and_alone():
    sampler, rng = PersonalPoisson(RATES, MEMBERS), torch.Generator().manual_seed(0)
    drawn = torch.zeros(3000, 6)
    for row in drawn:
        row[list(sampler.draw(range(6), rng))] = 1
    rates = torch.tensor([0.1, 0.1, 0.5, 0.5, 0.5, 0.5])
    assert (drawn.mean(dim=0) - rates).abs().max() < 0.035
    apart = torch.corrcoef(drawn.T) - torch.eye(6)
    assert apart.abs().max() < 0.08


@pytest.mark.parametrize(
    ("rates", "members", "words"),
    [
        ({"a": 0.0, "b": 0.5}, {"a": [0]}, "must lie in"),
        ({"a": 0.1, "b": 0.5}, {}, "at most has everybody else"),
        ({"a": 0.1}, {"b": [0]}, "has no rate"),
        ({"a": 0.1, "b": 0.5}, {"a": [0, 1], "b": [1]}, "twice"),
        ({}, {}, "everybody else"),
    ],
)
def test_classes_that_cannot_be_are_refused(rates, members, words):
    with pytest.raises(ConfigError, match=words):
        PersonalPoisson(rates, members)


@pytest.mark.parametrize("members", [{"a": [0, 1], "b": [2]}, {"a": [0, 1, 2, 3, 4, 5], "b": [6]}])
def test_clients_without_a_class_and_classes_without_clients_are_refused(members):
    with pytest.raises(ConfigError, match="name each once"):
        PersonalPoisson({"a": 0.1, "b": 0.5}, members).sampling(6)


# ---- runs


def federation(**parts):
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(1)
    clients = [
        Dataset(torch.randn(6, 4, generator=rng), torch.arange(6) % 2, classes=2) for _ in range(6)
    ]
    made = {
        "sampler": PersonalPoisson(RATES, MEMBERS),
        "bound": Clip(1.0),
        "aggregator": Mean(weighted=False, denominator=2.2),
        "mechanism": Gaussian(2.0),
        "threat": Threat(sampling="secret"),
        "training": LocalSGD(lr=0.1, plan=LocalPlan(4, steps=1), weighting="uniform"),
        "rounds": 12,
        "executor": "sequential",
        **parts,
    }
    return Federation(nn.Linear(4, 2), clients, clients[0], audit=AuditConfig(delta=1e-3), **made)


def test_a_run_says_what_each_class_spent_and_claims_the_dearest():
    run = federation().run()
    classes = {one["class"]: one for one in run.summary["personal"]}
    wanted = {one.name: one.spent.epsilon for one in personal(ledger(2.0, 12), 1e-3)}
    assert {name: one["epsilon"] for name, one in classes.items()} == pytest.approx(wanted)
    assert classes["strict"]["clients"] == 2
    [line] = run.summary["privacy"]
    assert line["epsilon"] == pytest.approx(wanted["usual"])
    assert "personal" not in federation(sampler=Poisson(0.5)).run().summary


def test_cohorts_that_a_seed_repeats_are_said_beside_each_class():
    run = federation(threat=Threat(), rounds=3).run()
    for one in run.summary["personal"]:
        assert one["seed known"] > one["epsilon"]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"mechanism": LocalGaussian(2.0)}, "noises its own row"),
        ({"threat": Threat(sees_cohort=True), "relation": "zero_out"}, "lower rate saves nothing"),
        (
            {"repeatable": True, "relation": "zero_out", "threat": Threat()},
            "lower rate saves nothing",
        ),
    ],
)
def test_rates_that_save_nothing_are_refused(parts, words):
    with pytest.raises(ConfigError, match=words):
        federation(**parts)


def test_rates_of_their_own_without_noise_claim_nothing_and_run_over_any_channel():
    run = federation(mechanism=None, channel=SecAgg(fidelity="ideal"), rounds=2).run()
    assert "personal" not in run.summary


def test_a_class_at_rate_one_pays_in_full_beside_one_that_does_not():
    sampler = PersonalPoisson({"strict": 0.1, "open": 1.0}, MEMBERS)
    run = federation(sampler=sampler, rounds=3, aggregator=Mean(False, 4.2)).run()
    of = {one["class"]: one["epsilon"] for one in run.summary["personal"]}
    [whole] = spend(run.ledger, 1e-3)
    assert of["open"] == whole.epsilon > 4 * of["strict"]
