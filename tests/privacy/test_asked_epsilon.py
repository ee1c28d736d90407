"""An epsilon in place of a noise multiplier: a run, or a layer, claims at most that much."""

import pytest
import torch

from privfl import Federation, PrivateAggregation
from privfl.aggregators import Krum
from privfl.core import BudgetSpent, ConfigError, Sampling, TooManyByzantine
from privfl.crypto import SecAgg
from privfl.dp import (
    Clip,
    DiscreteGaussian,
    DistributedSkellam,
    Gaussian,
    LocalGaussian,
    Skellam,
    printed,
)

DELTA = 1e-5
CONFIG = {
    "data": {"name": "digits", "clients": 12, "partition": {"name": "iid"}},
    "rounds": 5,
    "executor": "sequential",
    "bound": {"name": "clip", "l2": 0.5},
}
SHARES = {"name": "secagg", "bits": 16, "fidelity": "ideal"}


@pytest.mark.parametrize(
    ("mechanism", "more"),
    [
        ({"name": "gaussian"}, {}),
        ({"name": "gaussian"}, {"sampler": {"name": "poisson", "rate": 0.5}}),
        ({"name": "gaussian"}, {"sampler": {"name": "fixed_size", "size": 4}}),
        ({"name": "gaussian"}, {"relation": "replace_one"}),
        (
            {"name": "gaussian"},
            {
                "sampler": {"name": "poisson", "rate": 0.5},
                "threat": {"sees_cohort": True},
                "rounds": 1,
            },
        ),
        ({"name": "skellam"}, {}),
        ({"name": "local_gaussian"}, {}),
        ({"name": "distributed_skellam"}, {"channel": SHARES}),
        ({"name": "distributed_skellam"}, {"channel": SHARES, "threat": {"colluders": 3}}),
        ({"name": "scheduled_gaussian", "schedule": {"name": "decaying", "k": 0.1}}, {}),
        (
            {"name": "gaussian"},
            {"bound": {"name": "adaptive_clip", "initial": 0.5, "count_noise": 3.0}},
        ),
        (
            {"name": "gaussian"},
            {
                "training": {"name": "scaffold", "steps": 1},
                "bound": {"name": "clip", "l2": 0.5, "parts": {"control": 1.0}},
            },
        ),
    ],
)
def test_an_epsilon_in_place_of_noise_is_what_the_run_spends(mechanism, more):
    config = {**CONFIG, "mechanism": {**mechanism, "epsilon": 6.0}, **more}
    run = Federation.from_config(config).run()
    [line] = run.summary["privacy"]
    least = 3.0 if "channel" in more else 5.94  # shares are planned for the fewest survivors
    assert least < line["epsilon"] <= 6.0
    if line["pld"] is not None:
        assert line["epsilon"] == line["pld"] < line["rdp"]  # the accountant that is printed


def test_an_epsilon_counts_what_the_model_that_the_run_starts_from_has_spent(tmp_path):
    first = {**CONFIG, "rounds": 1, "mechanism": {"name": "gaussian", "noise_multiplier": 2.0}}
    before = Federation.from_config(first).run(tmp_path / "first").summary["privacy"][0]["epsilon"]
    config = {**CONFIG, "rounds": 2, "start": str(tmp_path / "first")}
    run = Federation.from_config(
        {**config, "mechanism": {"name": "gaussian", "epsilon": 4.0}}
    ).run()
    [line] = run.summary["privacy"]
    assert before < 3.96 < line["epsilon"] <= 4.0
    less = {"name": "gaussian", "epsilon": 0.9 * before}
    with pytest.raises(ConfigError, match="out of reach"):
        Federation.from_config({**config, "mechanism": less})


def test_an_epsilon_that_other_noise_of_the_run_spends_already_is_refused():
    adaptive = {"name": "adaptive_clip", "initial": 0.5}
    mechanism = {"name": "gaussian", "epsilon": 6.0}
    with pytest.raises(ConfigError, match="out of reach"):
        Federation.from_config({**CONFIG, "bound": adaptive, "mechanism": mechanism})


@pytest.mark.parametrize(
    ("mechanism", "words"),
    [
        ({"name": "gaussian", "epsilon": 3.0, "noise_multiplier": 1.0}, "one follows from the"),
        ({"name": "gaussian", "epsilon": 0.0}, "above 0"),
        ({"name": "gaussian", "epsilon": "much"}, "above 0"),
        ({"name": "gaussian"}, "noise_multiplier"),
        ({"name": "gauss", "epsilon": 1.0}, "did you mean"),
    ],
)
def test_epsilons_that_cannot_be_are_refused_in_words(mechanism, words):
    with pytest.raises(ConfigError, match=words):
        Federation.from_config({**CONFIG, "mechanism": mechanism})


def test_an_epsilon_is_for_the_delta_of_the_run(tmp_path):
    noises = [
        Federation.from_config(
            {**CONFIG, "mechanism": {"name": "gaussian", "epsilon": 3.0}, "audit": {"delta": delta}}
        ).scenario.mechanism.noise_multiplier
        for delta in (1e-7, 1e-3)
    ]
    assert noises[0] > 1.2 * noises[1]


# ---- an epsilon in place of noise, around somebody else's loop

LAYERS = [
    ({"mechanism": Gaussian}, {}),
    ({"mechanism": Gaussian, "sampling": Sampling("poisson", 0.25, 20)}, {"denominator": 5.0}),
    ({"mechanism": DiscreteGaussian}, {}),
    ({"mechanism": LocalGaussian}, {}),
    ({"mechanism": lambda z: Skellam(noise_multiplier=z)}, {}),
    ({"mechanism": DistributedSkellam}, {"channel": SecAgg()}),
]


@pytest.mark.parametrize(("parts", "more"), LAYERS)
def test_a_layer_that_is_asked_for_an_epsilon_claims_it_after_its_rounds(parts, more):
    settings = {"sampling": Sampling("all", 1.0, 20), "denominator": 20.0, **parts, **more}
    layer = PrivateAggregation(bound=Clip(1.0), delta=DELTA, epsilon=4.0, rounds=6, **settings)
    cohort = 20 if settings["sampling"].rate == 1 else 5
    for _ in range(6):
        _, receipt = layer.aggregate({i: torch.ones(40) for i in range(cohort)})
    shared = "channel" in more  # planned for the fewest survivors, whose noise is the least
    assert (2.5 if shared else 3.96) < receipt.epsilon <= 4.0
    assert receipt.epsilon == pytest.approx(printed(layer.ledger, DELTA))
    if not shared:
        with pytest.raises(BudgetSpent, match="asked of 6 rounds"):
            layer.aggregate({i: torch.ones(40) for i in range(cohort)})


def test_a_layer_and_a_config_that_ask_for_the_same_epsilon_charge_alike():
    config = {
        **CONFIG,
        "mechanism": {"name": "gaussian", "epsilon": 4.0},
        "sampler": {"name": "poisson", "rate": 0.5},
        "rounds": 4,
    }
    made = Federation.from_config(config)
    clients = len(made.scenario.clients)
    layer = PrivateAggregation(
        bound=made.scenario.bound,
        mechanism=Gaussian,
        epsilon=4.0,
        rounds=4,
        sampling=Sampling("poisson", 0.5, clients),
        denominator=0.5 * clients,
        delta=made.audit.delta,
    )
    charges = made.run().ledger.charges
    for charge in charges:
        layer.aggregate({i: torch.ones(8) for i in charge.cohort or range(clients)})
    assert layer.ledger.charges == charges


def test_a_try_that_failed_brings_a_layer_to_what_it_was_asked_sooner():
    layer = PrivateAggregation(
        bound=Clip(1.0),
        mechanism=LocalGaussian,
        rule=Krum(f=1),
        epsilon=4.0,
        rounds=2,
        sampling=Sampling("all", 1.0, 8),
        delta=DELTA,
    )
    few, many = ({i: torch.ones(3) for i in range(n)} for n in (2, 8))
    with pytest.raises(TooManyByzantine):
        layer.aggregate(few, dropped=range(2, 8))  # the server has read them
    layer.aggregate(many)
    with pytest.raises(BudgetSpent, match="this one would"):
        layer.aggregate(many)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"mechanism": Gaussian, "epsilon": 3.0}, "go together"),
        ({"mechanism": Gaussian(1.0), "epsilon": 3.0, "rounds": 2}, "in place of a noise"),
        ({"epsilon": 3.0, "rounds": 2}, "in place of a noise"),
        ({"mechanism": Gaussian}, "no noise on an aggregate"),
        ({"mechanism": Gaussian, "epsilon": 0.0, "rounds": 2}, "above 0"),
        ({"mechanism": DistributedSkellam, "epsilon": 1.0, "rounds": 2}, "carries no noise"),
    ],
)
def test_a_layer_says_what_an_epsilon_in_place_of_noise_needs(parts, words):
    with pytest.raises(ConfigError, match=words):
        PrivateAggregation(bound=Clip(1.0), **parts)
