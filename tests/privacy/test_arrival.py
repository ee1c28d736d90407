"""Arrival is not sampling: a ledger of an asynchronous run names who came, each client pays for its
own deliveries, and no pace, no fast client and no kill makes it count fewer.
"""

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.aggregators import Mean
from privfl.attacks import GradientInversion, Knowledge
from privfl.audit.score import pictures
from privfl.config import AuditConfig
from privfl.core import (
    ConfigError,
    Dataset,
    LocalPlan,
    Participation,
    ParticipationBroken,
    SeededNoise,
    Threat,
)
from privfl.crypto import SecAgg
from privfl.dp import (
    AdaptiveClip,
    Clip,
    Correlated,
    DistributedSkellam,
    DPGradient,
    Gaussian,
    LocalGaussian,
    NoBound,
    epsilon,
    spend,
)
from privfl.dp.strategies import Bisr
from privfl.engine import BufferedPace, Engine, StaleSynchronous
from privfl.training import FedSGD, LocalSGD

N, K, DELTA = 12, 2, 1e-5
SGD = LocalSGD(lr=0.2, plan=LocalPlan(4, steps=1), weighting="uniform")
FAST = BufferedPace(k=K, concurrency=N, speeds={0: 8.0, 1: 4.0})


def data(seed, n=6):
    rng = torch.Generator().manual_seed(seed)
    return Dataset(torch.randn(n, 4, generator=rng), torch.arange(n) % 2, classes=2)


def federation(pace=FAST, **parts):
    torch.manual_seed(0)
    parts = {
        "training": SGD,
        "rounds": 30,
        "executor": "stacked",
        "bound": Clip(0.5),
        "aggregator": Mean(weighted=False, denominator=float(K)),
        "mechanism": Gaussian(4.0),
        "audit": AuditConfig(keep="none", evaluate_every=100),
        **parts,
    }
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    return Federation(net, [data(i) for i in range(N)], data(99), pace=pace, **parts)


def by_client(ledger):
    """What a person counts who reads the ledger line by line."""
    return Counter(client for charge in ledger.charges for client in charge.cohort)


def renyi(z, count, delta):
    """The RDP epsilon of so many Gaussians, by the conversion of Canonne, Kamath and Steinke."""

    def at(a):
        return a * count / (2 * z * z) + math.log1p(-1 / a) - math.log(delta * a) / (a - 1)

    return min(at(1 + x / 100) for x in range(1, 20000))


def test_each_client_pays_for_its_own_deliveries_and_the_busiest_for_the_most():
    run = federation().run()
    counted = by_client(run.ledger)
    assert counted == Counter(dict(run.state.clock.joined))
    assert sum(counted.values()) == 30 * K
    assert not any(charge.cohort_hidden for charge in run.ledger.charges)
    most, least = max(counted.values()), min(counted[client] for client in range(N))
    assert most > 4 * max(least, 1)
    [spent] = spend(run.ledger, DELTA, pld=False)
    assert spent.relation == "zero_out"
    assert spent.epsilon == pytest.approx(renyi(4.0, most, DELTA), rel=2e-3)
    drawn = epsilon(noise_multiplier=4.0, sample_rate=K / N, steps=30, delta=DELTA)
    assert spent.epsilon > 2 * drawn  # what "Poisson at k / n" would claim
    assert any("arrival is no sampling" in note for note in spent.notes)


@dataclass(frozen=True)
class Pretender:
    """A pace that sends for the same clients in every round, and says that coins drew them."""

    k: int = K
    mixing: bool = False
    synchronous: ClassVar[bool] = False

    def check(self, clients, rounds):
        pass

    def arrivals(self, clock, clients, number, rng):
        return {0: number, 1: number}, clock

    def scale(self, staleness):
        return 1.0

    def sampling(self, population):
        raise AssertionError("nobody asks")

    def participation(self, rounds, clients):
        return Participation(rounds, most=1, rate=0.01)

    def describe(self):
        return "drawn by coins"


def test_a_pace_that_says_that_it_draws_is_charged_for_whom_it_took():
    run = federation(Pretender(), rounds=9).run()
    assert by_client(run.ledger) == {0: 9, 1: 9}
    [spent] = spend(run.ledger, DELTA, pld=False)
    assert spent.epsilon == pytest.approx(renyi(4.0, 9, DELTA), rel=2e-3)


def test_noise_that_is_made_for_one_delivery_refuses_the_second():
    with pytest.raises(ParticipationBroken, match="at most 1 times"):
        federation(Pretender(), mechanism=Correlated(2.0, Bisr(3)), rounds=4).run()


def test_most_participations_bound_what_any_client_pays_however_fast_it_is():
    run = federation(replace(FAST, max_participations=6)).run()
    assert max(by_client(run.ledger).values()) == 6
    [spent] = spend(run.ledger, DELTA, pld=False)
    assert spent.epsilon == pytest.approx(renyi(4.0, 6, DELTA), rel=2e-3)


def test_a_round_that_is_played_again_after_a_kill_is_charged_again_to_those_who_were_in_it(
    tmp_path,
):
    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    whole = federation(rounds=4, noise=SeededNoise(1))
    cut = federation(rounds=4, noise=SeededNoise(1))
    expected = by_client(whole.run().ledger)

    def progress(record, rounds):
        if record.round == 1:
            raise Killed

    with pytest.raises(Killed):
        cut.run(tmp_path / "run", progress=progress)
    # the next round is charged, and then the process ends before anything of it is kept
    folder = tmp_path / "run"
    played = Engine._aggregated
    try:
        Engine._aggregated = kill
        with pytest.raises(Killed):
            federation(rounds=4, noise=SeededNoise(1)).run(folder, resume=True)
    finally:
        Engine._aggregated = played
    resumed = federation(rounds=4, noise=SeededNoise(1)).run(folder, resume=True)
    counted = by_client(resumed.ledger)
    again = [charge.cohort for charge in resumed.ledger.charges if charge.round == 2]
    assert len(again) == 2
    assert again[0] == again[1]
    assert counted == expected + Counter(again[0])


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"relation": "add_remove"}, "changes who takes part in every round"),
        ({"threat": Threat(sees_cohort=False)}, "leave sees_cohort out"),
        ({"aggregator": Mean(weighted=True)}, "weight"),
    ],
)
def test_claims_that_arrival_does_not_bear_are_refused(parts, why):
    with pytest.raises(ConfigError, match=why):
        federation(**parts)


@pytest.mark.parametrize(
    "parts",
    [
        {"mechanism": LocalGaussian(4.0)},
        {"channel": SecAgg(noise=DistributedSkellam(4.0), bits=16), "mechanism": None},
        {"bound": AdaptiveClip(0.5)},
    ],
    ids=["local", "in shares", "adaptive"],
)
def test_noise_of_every_kind_charges_those_who_came(parts):
    run = federation(rounds=3, **parts).run()
    assert by_client(run.ledger) == Counter(dict(run.state.clock.joined))
    assert not any(charge.cohort_hidden for charge in run.ledger.charges)


def test_a_clients_samples_pay_for_each_of_its_deliveries():
    training = replace(SGD, gradient=DPGradient(noise_multiplier=1.0, l2=1.0, batch_size=4))
    parts = {"mechanism": None, "training": training, "executor": "sequential", "rounds": 4}
    run = federation(**parts).run()
    counted = Counter(charge.subject for charge in run.ledger.charges)
    joined = run.state.clock.joined
    assert counted == {f"sample of client {c}": count for c, count in joined.items()}


def test_correlated_noise_is_made_for_the_gate_and_the_run_keeps_to_it():
    pace = replace(FAST, gate=4, max_participations=4)
    run = federation(pace, mechanism=Correlated(2.0, Bisr(3)), rounds=12)
    over = run.scenario.run_noise.participation
    assert (over.most, over.apart) == (3, 4)
    done = run.run()
    assert max(done.state.clock.joined.values()) <= 3
    [charge] = done.ledger.charges
    assert charge.last == 11
    assert charge.cohort is None
    slack = StaleSynchronous(k=K, slack=1)
    federation(slack, mechanism=Correlated(2.0, Bisr(3)), rounds=12).run()


def test_matching_from_the_base_rebuilds_what_matching_from_the_model_of_now_does_not():
    rng = torch.Generator().manual_seed(5)
    held = [
        Dataset(torch.rand(1, 1, 4, 4, generator=rng), torch.tensor([c % 4]), 4) for c in range(8)
    ]
    torch.manual_seed(2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Sigmoid(), nn.Linear(16, 4))
    run = Federation(
        net,
        held,
        held[0],
        training=FedSGD(lr=2.0, weighting="uniform"),
        bound=NoBound(),
        pace=BufferedPace(k=2, concurrency=8),
        rounds=10,
        executor="sequential",
        audit=AuditConfig(keep="all"),
    ).run()
    late = [
        (number, client)
        for number, transcript in run.transcripts.items()
        for client, tau in transcript.staleness.items()
        if tau == 3
    ]
    number, client = late[0]
    view = run.transcripts[number].view("server")
    attack = GradientInversion(iterations=150, tv=0.0, client=client)
    knowledge = Knowledge(samples=1)
    with_base = attack.run(view, knowledge)
    without = attack.run(replace(view, bases={}), knowledge)
    true = held[client].x
    found = [float(pictures(one.samples, true, peak=1.0).psnr) for one in (with_base, without)]
    assert with_base.mismatch < without.mismatch / 10
    assert found[0] > found[1] + 5
