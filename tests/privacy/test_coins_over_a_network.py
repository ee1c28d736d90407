"""Over a network cohorts, batches and lots are nobody's but the party's that draws them; only
`repeatable` takes them from the seed, and then nothing is claimed that rests on coins.
"""

import json
import math

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.aggregators import Bucketing, Krum, Mean
from privfl.config import AuditConfig
from privfl.core import (
    Broadcast,
    ConfigError,
    Dataset,
    FlatModel,
    LocalPlan,
    SecretCoins,
    SeededNoise,
    Seeds,
    Threat,
)
from privfl.crypto import SecAgg
from privfl.dp import DistributedSkellam, DPGradient, Gaussian, LocalGaussian, epsilon, spend
from privfl.engine import FixedSize, Poisson, check_scenario, over_network, secret_batches
from privfl.federation.summary import REPEATABLE
from privfl.training import (
    LocalSGD,
    PlainGradient,
    Sequential,
    Stacked,
    Task,
    Workload,
    cross_entropy,
)

SAMPLED = {
    "mechanism": Gaussian(1.0),
    "sampler": Poisson(0.5),
    "aggregator": Mean(weighted=False, denominator=5.0),
    "rounds": 8,
    "seed": 7,
}


def networked(federation):
    """The same federation, as parties on several machines play it."""
    scenario = over_network(federation.scenario)
    check_scenario(scenario)
    return federation.with_scenario(scenario, audit=AuditConfig(keep="all"))


def cohorts(run):
    return [run.transcripts[number].plan.cohort for number in range(len(run.history))]


def only(run):
    [spent] = spend(run.ledger, 1e-5)
    return spent


# ---- cohorts


def test_who_takes_part_over_a_network_does_not_follow_from_the_seed(federation, camps):
    runs = [networked(federation(camps(5), **SAMPLED)).run() for _ in range(2)]
    simulated = federation(camps(5), **SAMPLED).run()
    assert len({str(cohorts(run)) for run in (*runs, simulated)}) == 3
    [line] = runs[0].summary["privacy"]
    assert line["epsilon"] == simulated.summary["privacy"][0]["epsilon"]
    assert line["as_drawn"] is None
    assert "secret coins" not in line["claim"]
    assert "system" in runs[0].summary["facts"]["cohorts, batches and lots"]


def test_a_repeatable_run_over_a_network_is_the_simulation_of_its_seed_bit_for_bit(
    federation, camps
):
    parts = {**SAMPLED, "repeatable": True, "mechanism": None}
    runs = [networked(federation(camps(5), **parts)).run() for _ in range(2)]
    simulated = [
        federation(camps(5), **{**parts, "repeatable": how}).run() for how in (True, False)
    ]
    drawn = [Poisson(0.5).draw(range(10), Seeds(7).generator("sampling", t)) for t in range(8)]
    for run in (*runs, *simulated):
        assert cohorts(run) == drawn
        assert torch.equal(run.state.parameters, simulated[0].state.parameters)


@pytest.mark.parametrize("sampler", [Poisson(0.5), FixedSize(5)])
def test_a_repeatable_run_claims_nothing_of_sampling(federation, camps, sampler):
    parts = {**SAMPLED, "sampler": sampler, "repeatable": True}
    for how in (lambda made: made, networked):
        run = how(federation(camps(5), **parts)).run()
        most = max(sum(client in cohort for cohort in cohorts(run)) for client in range(10))
        [line] = run.summary["privacy"]
        plain = {"noise_multiplier": 1.0, "sample_rate": 1.0, "steps": most, "delta": 1e-5}
        assert line["epsilon"] == pytest.approx(epsilon(**plain, accountant="pld"), rel=0.02)
        assert line["as_drawn"] is None
        assert line["relation"] != "add_remove"
        assert "who sees each cohort" in line["claim"]
        assert REPEATABLE in run.summary["warnings"]


def test_a_simulation_says_what_it_said_before(federation, camps):
    run = federation(camps(5), **SAMPLED).run()
    [line] = run.summary["privacy"]
    assert "the epsilon of the same run with secret coins" in line["claim"]
    assert line["as_drawn"] > line["epsilon"]
    assert REPEATABLE not in run.summary["warnings"]
    assert "cohorts, batches and lots" not in run.summary["facts"]


# ---- batches


def private_training(**parts):
    torch.manual_seed(0)
    data = Dataset(torch.randn(96, 3), torch.arange(96) % 2, classes=2)
    clients = {i: data.take(torch.arange(i, 96, 4)) for i in range(4)}
    gradient = DPGradient(1.0, 1.0, batch_size=6)
    training = LocalSGD(lr=0.1, plan=LocalPlan(6, steps=5), gradient=gradient)
    parts = {"rounds": 2, "executor": "sequential", "seed": 3, **parts}
    return Federation(nn.Linear(3, 2), clients, data, training=training, **parts)


def test_batches_of_private_training_are_charged_as_secret_over_a_network():
    simulated, run = private_training().run(), networked(private_training()).run()
    assert {charge.coins for charge in simulated.ledger.charges} == {"public"}
    assert {charge.coins for charge in run.ledger.charges} == {"secret"}
    [line], [before] = run.summary["privacy"], simulated.summary["privacy"]
    assert (line["epsilon"], line["as_drawn"]) == (before["epsilon"], None)
    assert before["as_drawn"] > before["epsilon"]


def test_batches_that_everybody_can_draw_again_amplify_nothing():
    for how in (lambda made: made, networked):
        run = how(private_training(repeatable=True)).run()
        [line] = run.summary["privacy"]
        unsampled = {"noise_multiplier": 1.0, "sample_rate": 1.0, "steps": 10, "delta": 1e-5}
        assert line["rdp"] == pytest.approx(epsilon(**unsampled), rel=1e-6)
        assert line["as_drawn"] is None
        assert "who may know each batch" in line["claim"]
        assert "learns no batch" not in line["claim"]
        assert REPEATABLE in run.summary["warnings"]


@pytest.mark.parametrize("made", [Sequential, Stacked])
def test_every_executor_draws_other_batches_at_each_training_from_secret_coins(made):
    data = Dataset(torch.randn(64, 3), torch.arange(64) % 2, classes=2)
    model = FlatModel(nn.Sequential(nn.Linear(3, 2)))
    method = LocalSGD(lr=0.5, plan=LocalPlan(4, steps=3))
    executor = made(Workload(model, cross_entropy, method, data))
    sent, drawn = Broadcast(0, model.read()), {}
    for name, coins in (("secret", SecretCoins()), ("seed", Seeds(1))):
        drawn[name] = torch.empty(2, model.d)
        for out in drawn[name]:
            executor.train(sent, [Task(0, torch.arange(64))], out[None], coins)
    executor.close()
    assert not torch.equal(*drawn["secret"])
    assert torch.equal(*drawn["seed"])


# ---- lots


def test_lots_of_a_rule_do_not_follow_from_the_seed_over_a_network(federation):
    rows = torch.eye(10)
    parts = {"defences": [Bucketing(2)], "aggregator": Krum(f=1), "seed": 4, "rounds": 3}
    ends = [networked(federation(rows, **parts)).run().state.parameters for _ in range(4)]
    assert not all(torch.equal(ends[0], one) for one in ends[1:])
    again = [networked(federation(rows, repeatable=True, **parts)).run() for _ in range(2)]
    assert torch.equal(*(run.state.parameters for run in again))
    assert torch.equal(again[0].state.parameters, federation(rows, **parts).run().state.parameters)


# ---- what does not go together


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"threat": Threat(sampling="secret")}, "threat.sampling is secret"),
        ({"threat": Threat(sees_cohort=False)}, "threat.sees_cohort is false"),
    ],
)
def test_coins_that_everybody_is_told_and_nobody_knows_are_refused(federation, camps, parts, said):
    with pytest.raises(ConfigError, match=f"repeatable is true.*{said}"):
        federation(camps(5), repeatable=True, **SAMPLED, **parts)


def test_noise_of_a_seed_is_refused_over_a_network_unless_it_is_repeatable(federation, camps):
    seeded = federation(camps(5), noise=SeededNoise(1), **SAMPLED)
    with pytest.raises(ConfigError, match="noise_seed"):
        over_network(seeded.scenario)
    told = federation(camps(5), noise=SeededNoise(1), repeatable=True, **SAMPLED)
    assert over_network(told.scenario) is told.scenario
    shares = SecAgg(noise=DistributedSkellam(2.0), bits=20, noise_source=SeededNoise(1))
    federation = federation(camps(5), channel=shares, aggregator=Mean())
    with pytest.raises(ConfigError, match="noise_seed"):
        over_network(federation.scenario)


def test_a_gradient_of_somebodys_own_that_cannot_draw_in_secret_is_refused():
    class Own(PlainGradient):
        private, sampling, l2 = True, "public", 1.0

        def steps(self, n, plan):
            return 1

    method = LocalSGD(lr=0.1, plan=LocalPlan(6, steps=5), gradient=DPGradient(1.0, 1.0, 6))
    assert secret_batches(method).gradient.sampling == "secret"
    assert secret_batches(secret_batches(method)).gradient.sampling == "secret"
    assert secret_batches(plain := LocalSGD()) is plain
    object.__setattr__(method, "gradient", Own())
    with pytest.raises(ConfigError, match="Own draws its batches from a seed"):
        secret_batches(method)


def test_noise_that_is_claimed_against_the_server_costs_the_same_repeatable_or_not(
    federation, camps
):
    parts = {"mechanism": LocalGaussian(2.0), "rounds": 2, "aggregator": Mean(weighted=False)}
    runs = [federation(camps(5), repeatable=it, **parts).run() for it in (False, True)]
    assert runs[0].summary["privacy"] == runs[1].summary["privacy"]


def test_a_config_says_it_and_the_public_folder_too(tmp_path):
    config = {
        "data": {"name": "digits", "clients": 4},
        "rounds": 2,
        "sampler": {"name": "poisson", "rate": 0.5},
        "bound": {"name": "clip", "l2": 1.0},
        "mechanism": {"name": "gaussian", "noise_multiplier": 1.0},
        "training": {"name": "sgd", "steps": 1},
        "executor": "sequential",
    }
    for told in (False, True):
        Federation.from_config({**config, "repeatable": told}).run(tmp_path / str(told))
    public, private = (
        json.loads((tmp_path / str(told) / "public" / "statement.json").read_text())
        for told in (True, False)
    )
    assert public["privacy"][0]["epsilon"] > private["privacy"][0]["epsilon"]
    assert REPEATABLE in public["warnings"]
    assert "secret coins" not in json.dumps(public["privacy"])
    assert math.isfinite(public["privacy"][0]["epsilon"])
