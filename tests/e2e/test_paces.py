"""Asynchronous and stale-synchronous runs: what a pace may change and what it may not, what comes
of a kill in flight, and what is refused.
"""

import itertools
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.aggregators import FixedBuckets, Median, TrimmedMean
from privfl.attacks import SignFlip
from privfl.config import AuditConfig
from privfl.core import (
    Bounded,
    Broadcast,
    ClientState,
    ConfigError,
    Dataset,
    LocalPlan,
    NobodyLeft,
    OsNoise,
    PlanRefused,
    RoundPlan,
    Seeds,
)
from privfl.crypto import Paillier, SecAgg
from privfl.dp import Clip
from privfl.engine import (
    Attacker,
    BufferedPace,
    Clock,
    EveryBucket,
    FixedSize,
    Poisson,
    Session,
    StaleSynchronous,
    Synchronous,
)
from privfl.engine.client import ClientSide
from privfl.hybrid import BucketedSecAgg
from privfl.training import FedAvg, FedNova, FedProx, LocalSGD, Scaffold, Sequential
from privfl.training.task import Task

N = 8
SGD = LocalSGD(lr=0.2, plan=LocalPlan(4, epochs=2), weighting="uniform")
STALE = BufferedPace(k=2, concurrency=6)


class Killed(BaseException):
    """The process ends here."""


def data(seed, n=10):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=rng)
    return Dataset(x, (x[:, 0] > 0).long(), classes=2)


def federation(pace=None, **parts):
    torch.manual_seed(0)
    parts = {"training": SGD, "rounds": 6, "executor": "sequential", "bound": Clip(0.5), **parts}
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    held = [data(i, n=8 + i % 3) for i in range(N)]
    return Federation(net, held, data(99, 50), pace=pace, **parts)


def same(one, other):
    return torch.equal(one.parameters.view(torch.int32), other.parameters.view(torch.int32))


def joins(run):
    counted = dict.fromkeys(range(N), 0)
    for client, count in run.state.clock.joined.items():
        counted[client] = count
    return counted


# ---- what it may not change


@pytest.mark.parametrize("executor", ["sequential", "stacked"])
@pytest.mark.parametrize(
    "pace",
    [
        BufferedPace(k=N, concurrency=N, durations="equal"),
        BufferedPace(k=N, concurrency=N, durations="exponential"),
        StaleSynchronous(k=N, slack=0),
        Synchronous("half_normal"),
    ],
    ids=["buffered", "buffered, unequal", "stale_synchronous", "timed"],
)
def test_where_all_are_waited_for_the_run_is_the_synchronous_one_bit_for_bit(pace, executor):
    attackers = [Attacker("sign_flip", SignFlip(), frozenset({1, 2}))]
    parts = {"aggregator": TrimmedMean(f=2), "attackers": attackers, "executor": executor}
    run = federation(pace, training=replace(SGD, decay=0.9), **parts).run()
    assert same(run, federation(training=replace(SGD, decay=0.9), **parts).run())
    assert run.state.clock.now > 0


@pytest.mark.parametrize("pace", [STALE, StaleSynchronous(k=3, slack=2)])
def test_secure_aggregation_of_buffers_equals_the_ideal_bit_for_bit(pace):
    run = federation(pace, channel=SecAgg()).run()
    ideal = federation(pace, channel=SecAgg(fidelity="ideal")).run()
    assert same(run, ideal)
    assert max(max(record.staleness) for record in run.history) > 1
    assert not any(record.incidents for record in run.history)


def test_an_update_is_trained_from_the_model_that_its_client_was_sent_and_scaled_at_the_client():
    whole = federation(STALE, rounds=8, audit=AuditConfig(keep="all"))
    run = whole.run()
    work, models = whole.scenario.workload, {0: run.transcripts[0].before}
    executor, stale = Sequential(work), 0
    for number, transcript in run.transcripts.items():
        models[number] = transcript.before
        rows = transcript.view("server").rows
        for client, row in zip(rows.ids, rows.values, strict=True):
            tau = transcript.staleness[client]
            base = Broadcast(number - tau, models[number - tau])
            assert torch.equal(transcript.view("server").base(client), base.parameters)
            task = Task(client, whole.scenario.clients[client], ClientState(), broadcast=base)
            out = torch.empty(1, len(base.parameters))
            executor.train(Broadcast(number, models[number]), [task], out, Seeds(0))
            expected = Clip(0.5)(out[0])
            scale = 1.0 if tau == 0 else (1 + tau) ** -0.5
            assert torch.allclose(row, expected * scale, rtol=1e-6)
            stale += tau > 1
    assert stale > 3


def test_several_models_train_stacked_as_they_do_one_after_the_other():
    for training in (
        replace(SGD, decay=0.8),
        FedProx(lr=0.2, prox=0.5),
        replace(SGD, momentum=0.9),
    ):
        one = federation(STALE, training=training).run()
        other = federation(STALE, training=training, executor="stacked").run()
        assert torch.allclose(one.parameters, other.parameters, atol=2e-6)


def test_fedasync_mixes_the_clients_whole_model_into_the_servers():
    pace = BufferedPace(k=1, concurrency=5, exponent=0.7, mixing=True)
    run = federation(
        pace, rounds=9, server_optimizer=FedAvg(lr=0.6), audit=AuditConfig(keep="all")
    ).run()
    taus = []
    for transcript in run.transcripts.values():
        view = transcript.view("server")
        (client,) = view.rows.ids
        tau = transcript.staleness[client]
        taus.append(tau)
        trained = view.base(client) + view.rows.values[0] / view.scale(client)
        a = 0.6 * (1 + tau) ** -0.7
        assert torch.allclose(view.after, (1 - a) * view.before + a * trained, atol=1e-6)
    assert max(taus) > 2


# ---- a kill in flight


@pytest.mark.parametrize(
    "pace",
    [
        BufferedPace(k=2, concurrency=6, gate=2, max_participations=4, speeds={0: 10.0}),
        StaleSynchronous(k=3, slack=1, durations="exponential"),
        BufferedPace(k=1, concurrency=6, mixing=True),
    ],
    ids=["buffered", "stale_synchronous", "fedasync"],
)
def test_a_run_that_was_killed_in_flight_ends_as_if_nobody_had_killed_it(pace, tmp_path):
    def progress(record, rounds):
        if record.round == 2:
            raise Killed

    whole = federation(pace, executor="stacked").run()
    with pytest.raises(Killed):
        federation(pace, executor="stacked").run(tmp_path / "run", progress=progress)
    resumed = federation(pace, executor="stacked").run(tmp_path / "run", resume=True)
    assert same(whole, resumed)
    assert whole.state.clock == resumed.state.clock
    assert whole.state.clock.flights
    assert [one.staleness for one in whole.history] == [one.staleness for one in resumed.history]
    assert set(resumed.state.versions) == set(whole.state.clock.versions)


def test_another_pace_is_another_run(tmp_path):
    federation(STALE, rounds=2).run(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"pace\.concurrency is 6 there and 5 here"):
        federation(replace(STALE, concurrency=5), rounds=2).run(tmp_path / "run", resume=True)


# ---- who may deliver


def test_a_gate_keeps_a_clients_deliveries_apart_however_fast_it_is():
    pace = BufferedPace(k=2, concurrency=20, gate=4, speeds={0: 1000.0, 1: 1000.0})
    came = dict[int, list[int]]()
    clock = Clock()
    for number in range(60):
        cohort, clock = pace.arrivals(clock, range(20), number, Seeds(0).generator("t", number))
        for client in cohort:
            came.setdefault(client, []).append(number)
    assert min(b - a for at in came.values() for a, b in itertools.pairwise(at)) >= 4
    ungated, clock = dict.fromkeys(range(20), 0), Clock()
    for number in range(60):
        cohort, clock = replace(pace, gate=1).arrivals(
            clock, range(20), number, Seeds(0).generator("t", number)
        )
        for client in cohort:
            ungated[client] += 1
    assert ungated[0] > 2 * len(came[0]) > 20, (ungated, len(came[0]))


@pytest.mark.parametrize("slack", [0, 1, 3])
def test_nobody_begins_over_slack_tasks_ahead_of_the_slowest_and_nobody_waits_for_ever(slack):
    pace, clock, far = StaleSynchronous(k=3, slack=slack, speeds={0: 50.0, 5: 0.05}), Clock(), []
    for number in range(80):
        _, clock = pace.arrivals(clock, range(N), number, Seeds(1).generator("t", number))
        counts = [clock.joined.get(client, 0) for client in range(N)]
        far.append(max(counts) - min(counts))
    assert max(far) == slack + 1
    assert max(clock.joined.values()) <= pace.participation(80, N).most


def test_a_run_ends_where_nobody_is_left_who_may_deliver():
    pace = BufferedPace(k=2, concurrency=2, max_participations=2, speeds={0: 1e-6})
    run = federation(pace, rounds=8).run()
    assert len(run.history) == 7  # the slow one is left, and is in no buffer twice
    assert max(joins(run).values()) == 2
    assert any("nobody may be asked" in warning for warning in run.summary["warnings"])
    with pytest.raises(ConfigError, match=r"raise pace\.max_participations"):
        federation(pace, rounds=9)


def test_a_pace_that_cannot_fill_a_buffer_says_why():
    clock = Clock(joined=dict.fromkeys(range(5), 2), last=dict.fromkeys(range(5), 0))
    pace = BufferedPace(k=4, concurrency=4, max_participations=2)
    with pytest.raises(NobodyLeft, match="nobody may be asked"):
        pace.arrivals(clock, range(N), 3, Seeds(0).generator("t"))


# ---- lies


def test_a_client_takes_no_part_in_a_round_that_does_not_name_the_version_it_has():
    old, now = (Broadcast(v, torch.full((3,), float(v))) for v in (0, 1))
    side = ClientSide({}, {"delta": Clip(1.0)}, Seeds(0), OsNoise(), synchronous=False)
    plan = RoundPlan(1, (0, 1), d=3, l2=1.0, models=(old.digest, now.digest))
    side.agreed({"delta": plan}, old.digest)
    with pytest.raises(PlanRefused, match="does not name the model"):
        side.agreed({"delta": replace(plan, models=(now.digest,))}, old.digest)


def test_what_was_made_for_the_plan_of_an_earlier_buffer_is_in_no_later_sum():
    session = Session(SecAgg())
    session.enrol(range(4))
    first = RoundPlan(0, (0, 1, 2, 3), d=3, l2=1.0, session=b"s", models=("0" * 64,))
    later = replace(first, number=1, models=("0" * 64, "1" * 64))
    row = {c: Bounded(c, torch.full((3,), 0.1 * (c + 1)), 1.0) for c in range(4)}
    parties = {
        c: {"delta": session.member(c).enter(later if c else first, row[c])} for c in range(4)
    }
    carried = session.play_parts({"delta": later}, parties)
    opened = carried.opened["delta"]
    assert opened is None or 0 not in opened.survivors


@dataclass(frozen=True)
class Lying:
    """A pace of somebody's own that says of each round what it likes."""

    says: object
    k: int = 2
    mixing: bool = False
    synchronous: ClassVar[bool] = False

    def check(self, clients, rounds):
        pass

    def arrivals(self, clock, clients, number, rng):
        return self.says(number), clock

    def scale(self, staleness):
        return 1.0

    def participation(self, rounds, clients):
        return Synchronous().participation(rounds, clients)

    def describe(self):
        return "whatever"


@pytest.mark.parametrize(
    "says",
    [
        lambda number: {0: number, 99: number},
        lambda number: {0: number},
        lambda number: {0: number, 1: number + 1},
        lambda number: {0: number, 1: -1},
    ],
    ids=["a stranger", "too few", "a version to come", "a version of nobody"],
)
def test_a_pace_cannot_name_others_than_the_run_has_or_versions_that_nobody_was_sent(says):
    with pytest.raises(ConfigError, match=r"Lying (names|delivers)"):
        federation(Lying(says)).run()


# ---- what is refused


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"sampler": Poisson(0.5)}, "Poisson would claim that it draws them"),
        ({"sampler": FixedSize(2)}, "arrival is no sampling"),
        ({"channel": SecAgg(carry=True)}, "leave carry out"),
        ({"training": Scaffold(lr=0.1)}, "Scaffold also sends control"),
        ({"training": FedNova(lr=0.1)}, "FedNova also sends"),
        (
            {"pace": BufferedPace(k=1, concurrency=2), "channel": SecAgg()},
            "no round could be opened",
        ),
        (
            {"pace": BufferedPace(k=1, concurrency=2, mixing=True), "channel": Paillier()},
            "opens sums alone",
        ),
        ({"pace": BufferedPace(k=2, concurrency=9)}, "there are only 8 clients"),
        ({"pace": BufferedPace(k=3, concurrency=8, gate=3)}, "cannot fill buffers of 3"),
        ({"pace": BufferedPace(k=2, concurrency=8, speeds={8: 1.0})}, "names client 8"),
        ({"pace": StaleSynchronous(k=9, slack=1)}, "there are only 8 clients"),
        ({"aggregator": TrimmedMean(f=1)}, "TrimmedMean"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_sentence(parts, why):
    with pytest.raises(ConfigError, match=why):
        federation(**{"pace": STALE, **parts})


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"k": 0}, "k must be at least 1"),
        ({"exponent": -1.0}, "exponent must be at least 0"),
        ({"exponent": float("inf")}, "finite"),
        ({"speeds": {0: 0.0}}, "above 0"),
        ({"mixing": True}, "set k to 1"),
        ({"gate": 0}, "gate must be at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong, why):
    with pytest.raises(ConfigError, match=why):
        BufferedPace(**{"k": 2, "concurrency": 2, **wrong})


# ---- BASGD


def test_a_step_is_made_as_soon_as_no_bucket_is_empty_and_a_bucket_is_one_row():
    pace = EveryBucket(buckets=3, concurrency=N, speeds={0: 100.0, 3: 100.0})
    run = federation(
        pace,
        rounds=8,
        aggregator=Median(),
        defences=[FixedBuckets(buckets=3)],
        audit=AuditConfig(keep="all"),
    ).run()
    sizes = set()
    for transcript in run.transcripts.values():
        view = transcript.view("server")
        home = [client % 3 for client in view.rows.ids]
        assert set(home) == {0, 1, 2}
        # without the last who came some bucket was empty
        assert 1 in [home.count(bucket) for bucket in range(3)]
        sizes.add(len(home))
        means = torch.stack(
            [
                view.rows.values[[i for i, at in enumerate(home) if at == bucket]].mean(dim=0)
                for bucket in range(3)
            ]
        )
        expected = means.median(dim=0).values
        assert torch.allclose(view.after - view.before, expected, atol=1e-6)
    assert len(sizes) > 1


def test_a_bucket_that_nobody_belongs_to_is_refused_and_so_are_anonymous_rows():
    with pytest.raises(ConfigError, match="a step would never be made"):
        federation(EveryBucket(buckets=9, concurrency=4))
    with pytest.raises(ConfigError, match="whose row is whose"):
        federation(
            EveryBucket(buckets=4, concurrency=4),
            channel=BucketedSecAgg(size=2),
            aggregator=Median(),
            defences=[FixedBuckets(buckets=2)],
        )
