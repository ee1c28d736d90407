"""What once printed an epsilon that was not true, through the real engine and the layer around
other people's loops: refused now, or right.
"""

import ast
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

import privfl
from privfl import Federation, PrivateAggregation
from privfl.aggregators import (
    AFA,
    AdaptiveRobustClipping,
    AnomalyScore,
    BaFFLe,
    CenteredClipping,
    ClippedClustering,
    Krum,
    Mean,
    NearestNeighbourMixing,
    NormClipping,
    TrimmedMean,
)
from privfl.core import (
    ConfigError,
    Dataset,
    DpEvent,
    LocalPlan,
    LocalRecipe,
    Mechanism,
    Rows,
    Rule,
    RuleWithMemory,
    Sampling,
    Update,
)
from privfl.crypto import SecAgg
from privfl.dp import (
    Clip,
    DistributedSkellam,
    DPGradient,
    Gaussian,
    LocalGaussian,
    Skellam,
    spend,
)
from privfl.engine import FixedSize, Poisson
from privfl.hybrid import BucketedSecAgg, TwoServer
from privfl.training import LocalSGD, PlainGradient

N, D = 10, 12
AXIS = torch.eye(D)
UNIFORM = Mean(weighted=False)


@dataclass(frozen=True)
class Fixed:
    """A training method that learns nothing: client i hands out row i."""

    rows: torch.Tensor
    weighting: str = "uniform"
    gradient: PlainGradient = PlainGradient()
    recipe: LocalRecipe = LocalRecipe(plan=LocalPlan(batch_size=1))

    def on(self, model, loss):
        return self

    def __call__(self, client, broadcast, dataset, state, rng):
        weight = float(dataset.n) if self.weighting == "samples" else 1.0
        return Update(client, self.rows[int(dataset.y[0])].clone(), weight), state, ()

    def parts(self, d):
        return {}

    def init(self, d):
        return {}

    def broadcast(self, state):
        return {}

    def combine(self, aggregate, aux, state, cohort_fraction):
        return aggregate, state


@dataclass
class Tape(Mechanism):
    """Notes what it is given and the sensitivity that is claimed of it, and always releases the
    same: whatever still differs between two worlds went past it.
    """

    seen: list = field(default_factory=list)

    def event(self, d):
        return DpEvent("gaussian", {"noise_multiplier": 1.0})

    def share(self, values, sensitivity, among, noise):
        return values, None

    def release(self, vector, sensitivity, survivors, noise):
        self.seen.append((vector.clone(), float(sensitivity.l2)))
        return torch.full_like(vector, 0.01 * len(self.seen)), self.event(len(vector))


def federation(rows, rounds=1, weighting="uniform", **parts):
    n, d = rows.shape
    data = [Dataset(torch.zeros(1, 1), torch.tensor([i]), classes=n) for i in range(n)]
    model = nn.Linear(1, d, bias=False)
    nn.init.zeros_(model.weight)
    parts = {"bound": Clip(1.0), "aggregator": UNIFORM, "executor": "sequential", **parts}
    return Federation(model, data, data[0], rounds=rounds, training=Fixed(rows, weighting), **parts)


def moved(rows, other, rounds=1, **parts):
    """How far each release moves between two worlds, over what is claimed; the states after."""
    tapes, states = (Tape(), Tape()), []
    for tape, world in zip(tapes, (rows, other), strict=True):
        states.append(federation(world, rounds, mechanism=tape, **parts).run().state)
    pairs = zip(tapes[0].seen, tapes[1].seen, strict=True)
    return [float((a - b).norm()) / far for (a, far), (b, _) in pairs], states


def camps(k, low=-1.0, high=1.0, n=N):
    """The first k rows at one end of an axis, the others at the other."""
    return torch.stack([AXIS[0] * (low if i < k else high) for i in range(n)])


def with_first(rows, row):
    return torch.cat([row[None], rows[1:]])


def epsilon_of(run):
    (spent,) = spend(run.ledger, 1e-5)
    return spent.claim()


# ---- every part of a method
# -------------------------------------------------------------------------------------------------

SCAFFOLD = {
    "data": {"name": "digits", "clients": 6, "partition": {"name": "iid"}},
    "training": {"name": "scaffold", "lr": 0.1, "steps": 2, "batch_size": 16},
    "bound": {"name": "clip", "l2": 1.0, "parts": {"control": 2.0}},
    "mechanism": {"name": "gaussian", "noise_multiplier": 2.0},
    "rounds": 2,
    "executor": "sequential",
}


def test_no_part_of_a_method_reaches_the_model_past_the_noise():
    states, tapes = [], (Tape(), Tape())
    for world, tape in enumerate(tapes):
        made = Federation.from_config(SCAFFOLD)
        clients = dict(made.scenario.clients)
        if world:
            clients[0] = clients[0].flip(0)[: len(clients[0]) // 2]
        taped = replace(made.scenario, mechanism=tape, clients=clients, relation="replace_one")
        states.append(made.with_scenario(taped).run().state)
    assert len(tapes[0].seen) == 4, "two parts in each of two rounds"
    assert not torch.equal(tapes[0].seen[1][0], tapes[1].seen[1][0])
    assert torch.equal(states[0].parameters, states[1].parameters)
    assert states[0].method.keys() == states[1].method.keys()
    for name, value in states[0].method.items():
        assert torch.equal(value, states[1].method[name]), name
    for (a, far), (b, _) in zip(tapes[0].seen, tapes[1].seen, strict=True):
        assert (a - b).norm() <= far * (1 + 1e-5)


def test_two_parts_of_one_cohort_cost_one_gaussian_of_both():
    run = Federation.from_config(SCAFFOLD).run()
    assert [charge.round for charge in run.ledger.charges] == [0, 1]
    for charge in run.ledger.charges:
        assert charge.event.parameters["noise_multiplier"] == pytest.approx(2.0 / math.sqrt(2))


def test_noise_in_shares_is_charged_for_every_part_that_travels():
    shares = {"name": "distributed_skellam", "noise_multiplier": 2.0}
    secagg = {"name": "secagg", "bits": 20, "fidelity": "ideal"}
    run = Federation.from_config({**SCAFFOLD, "channel": secagg, "mechanism": shares}).run()
    assert [charge.round for charge in run.ledger.charges] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mechanism": {"name": "local_gaussian", "noise_multiplier": 2.0}}, "'control' would"),
        (
            {
                "mechanism": {"name": "skellam", "noise_multiplier": 2.0},
                "sampler": {"name": "poisson", "rate": 0.5},
            },
            "one sampled cohort",
        ),
        ({"bound": {"name": "clip", "l2": 1.0}}, "bound of its own"),
    ],
)
def test_parts_that_noise_does_not_cover_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        Federation.from_config({**SCAFFOLD, **changes})


# ---- what stands between clients and the noise
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("f", [1, 2, 4])
@pytest.mark.parametrize("aggregator", [UNIFORM, TrimmedMean(2)], ids=["mean", "trimmed mean"])
def test_neighbours_that_are_mixed_move_a_release_no_farther_than_its_noise_is_made_for(
    f, aggregator
):
    mixing = {"defences": [NearestNeighbourMixing(f)], "aggregator": aggregator}
    found = []
    for k in range(1, N):
        rows = camps(k)
        found += moved(rows, with_first(rows, AXIS[0]), **mixing)[0]
    assert max(found) <= 1 + 1e-5
    plain = federation(camps(1), aggregator=aggregator, mechanism=Gaussian(1.0)).scenario
    mixed = federation(camps(1), mechanism=Gaussian(1.0), **mixing).scenario
    sure = [one.pipeline().sensitivity("delta", N) for one in (plain, mixed)]
    assert sure[1] / sure[0] == pytest.approx((N - 1) / (N - f) + 1)


def test_clips_by_order_statistics_move_a_release_no_farther_than_its_noise_is_made_for():
    found = []
    for k in range(1, N):
        rows = camps(k, 1.0, 0.0)
        seats = [AdaptiveRobustClipping(4)]
        found += moved(rows, with_first(rows, 0 * AXIS[0]), relation="zero_out", defences=seats)[0]
    assert max(found) == pytest.approx(1.0), "the constant is attained"


def test_a_fixed_clip_before_the_rule_lessens_what_one_client_moves():
    rows, seats = camps(5), [NormClipping(bound=0.25)]
    ((far,), _) = moved(rows, with_first(rows, AXIS[0]), defences=seats)
    assert far == pytest.approx(1.0)
    clipped = federation(rows, mechanism=Gaussian(1.0), defences=seats).scenario.pipeline()
    assert clipped.sensitivity("delta", N) == pytest.approx(0.5 / N)


def odd(models, context):
    return torch.zeros(3, len(models), 2)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"defences": [AnomalyScore()]}, "AnomalyScore remembers"),
        ({"defences": [BaFFLe(odd, history=4, quorum=2)]}, "asks clients about their own data"),
        ({"aggregator": AFA()}, "AFA remembers"),
        ({"aggregator": ClippedClustering()}, "ClippedClustering remembers"),
        ({"aggregator": Mean()}, "no proved sensitivity"),
        ({"weighting": "samples"}, "weighting: uniform"),
    ],
)
def test_what_declares_nothing_is_refused_under_noise_in_words(parts, words):
    rows = camps(5)
    federation(rows, **parts).run()
    with pytest.raises(ConfigError, match=words):
        federation(rows, mechanism=Gaussian(1.0), **parts)


def test_votes_leave_a_training_that_claims_privacy_of_its_samples_without_noise():
    data = Dataset(torch.randn(8, 4), torch.zeros(8, dtype=torch.int64), classes=2)
    private = LocalSGD(plan=LocalPlan(4), gradient=DPGradient(1.0, 1.0, batch_size=4))
    voting = {"training": private, "defences": [BaFFLe(odd, history=4, quorum=2)]}
    with pytest.raises(ConfigError, match="asks clients about their own data"):
        Federation(nn.Linear(4, 2), [data, data], data, **voting)


@dataclass(frozen=True)
class Undeclared:
    """A seat of somebody's own, which hands rows through as they are."""

    seats: ClassVar = frozenset({"before"})
    judges: ClassVar = False
    needs: ClassVar = {}
    keeps_ids: ClassVar = True
    memory: ClassVar = "none"

    def passes(self, n):
        return n

    def init(self):
        return

    def before(self, rows, state, context):
        return rows, None


def test_a_seat_of_somebodys_own_is_refused_until_it_declares_what_it_moves():
    with pytest.raises(ConfigError, match="Undeclared does not declare how far one client moves"):
        federation(camps(5), mechanism=Gaussian(1.0), defences=[Undeclared()])

    class Declared(Undeclared):
        def stability(self, moves, neighbours):
            return moves

    rows = camps(5)
    ((far,), _) = moved(rows, with_first(rows, AXIS[0]), defences=[Declared()])
    assert far == pytest.approx(1.0)


# ---- memory
# -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OwnCentre(RuleWithMemory[Rows, torch.Tensor]):
    """Centred clipping around its own last output, from before the noise."""

    reads: ClassVar = "rows"
    memory: ClassVar = "none"

    def init(self):
        return torch.zeros(D)

    def step(self, opened, state, context):
        inner = CenteredClipping(tau=0.3)
        around = Rows(opened.values - state, opened.weights, opened.ids)
        out = inner.step(around, None, replace(context, released={}))[0] + state
        return out, out

    def sensitivity(self, moves, neighbours):
        return CenteredClipping(tau=0.3).sensitivity(moves, neighbours)


def test_centred_clipping_keeps_nothing_from_before_the_noise():
    rows = camps(5)
    far, states = moved(rows, with_first(rows, AXIS[0]), 3, aggregator=CenteredClipping(tau=0.3))
    assert max(far) <= 1 + 1e-5
    assert states[0].rules == states[1].rules == {"delta": None}
    assert torch.equal(states[0].parameters, states[1].parameters)


def test_a_memory_from_before_the_noise_shows_in_what_is_kept_and_in_the_next_release():
    rows = camps(5)
    far, states = moved(rows, with_first(rows, AXIS[0]), 3, aggregator=OwnCentre())
    assert max(far) > 1.5, "the declaration is a lie, and two worlds show it"
    assert not torch.equal(states[0].rules["delta"], states[1].rules["delta"])

    class Honest(OwnCentre):
        memory: ClassVar = "private"

    with pytest.raises(ConfigError, match="remembers clients' rows from before any noise"):
        federation(rows, mechanism=Gaussian(1.0), aggregator=Honest())


# ---- noise in shares
# -------------------------------------------------------------------------------------------------

SHARES = DistributedSkellam(1.0)


@pytest.mark.parametrize(
    "channel",
    [
        SecAgg(noise=SHARES, bits=20),
        BucketedSecAgg(size=3, noise=SHARES, bits=20),
        TwoServer(Mean(weighted=False), noise=SHARES, bits=16),
    ],
    ids=lambda channel: type(channel).__name__,
)
def test_a_client_that_is_replaced_moves_a_ring_sum_twice_as_far_as_one_that_sends_zero(channel):
    runs = {
        relation: federation(camps(5), channel=channel, aggregator=Mean(), relation=relation).run()
        for relation in ("zero_out", "replace_one")
    }
    zero, replaced = (runs[relation].ledger.charges[0] for relation in runs)
    for norm in ("l1", "l2"):
        ratio = replaced.event.parameters[norm] / zero.event.parameters[norm]
        assert ratio == pytest.approx(2.0, rel=1e-3)
    assert replaced.event.parameters["variance"] == zero.event.parameters["variance"]
    assert epsilon_of(runs["replace_one"]) > 2 * epsilon_of(runs["zero_out"])
    assert (zero.relation, replaced.relation) == ("zero_out", "replace_one")


def test_noise_that_leaves_with_its_client_claims_nothing_of_clients_that_come_and_go():
    channel = SecAgg(noise=SHARES, bits=20)
    with pytest.raises(ConfigError, match="share leaves together with the client"):
        federation(camps(5), channel=channel, aggregator=Mean(), relation="add_remove")
    public = federation(camps(5), channel=channel, aggregator=replace(UNIFORM, denominator=10.0))
    assert public.scenario.pipeline().neighbours.relation == "zero_out"


def test_noise_in_shares_is_claimed_against_a_server_that_sees_the_cohort():
    channel = SecAgg(noise=SHARES, bits=20)
    run = federation(camps(5), channel=channel, aggregator=Mean(), sampler=FixedSize(5)).run()
    (charge,) = run.ledger.charges
    assert not charge.cohort_hidden
    assert len(charge.cohort) == 5


# ---- the layer around other people's loops
# -------------------------------------------------------------------------------------------------


def updates(n=N, d=5):
    return {i: torch.ones(d) for i in range(n)}


def test_the_layer_charges_local_noise_in_full_to_everybody_who_came():
    rare = Sampling("poisson", 0.1, 1000)
    layer = PrivateAggregation(
        bound=Clip(1.0), mechanism=LocalGaussian(1.0), denominator=100, sampling=rare
    )
    _, receipt = layer.aggregate(updates(100))
    (charge,) = layer.ledger.charges
    assert (charge.relation, charge.sampling.rate) == ("replace_one", 1.0)
    assert not charge.cohort_hidden
    own = federation(camps(5), mechanism=LocalGaussian(1.0), aggregator=Mean()).run()
    assert receipt.epsilon == pytest.approx(spend(own.ledger, 1e-5)[0].rdp)
    assert receipt.epsilon > 4


@pytest.mark.parametrize(
    ("sampling", "n", "fits"),
    [
        (Sampling("poisson", 0.01, 100), 100, False),
        (Sampling("poisson", 0.01, 100), 4, True),
        (Sampling("poisson", 0.01, 10_000), 100, True),
        (Sampling("poisson", 0.01, 10_000), 300, False),
        (Sampling("fixed_size", 0.1, 50), 5, True),
        (Sampling("fixed_size", 0.1, 50), 6, False),
        (Sampling("all", 1.0, 10), 10, True),
        (Sampling("all", 1.0, 10), 11, False),
    ],
)
def test_the_layer_refuses_a_cohort_that_its_sampling_does_not_draw(sampling, n, fits):
    layer = PrivateAggregation(
        bound=Clip(1.0), mechanism=Gaussian(1.0), denominator=10, sampling=sampling
    )
    if fits:
        assert layer.aggregate(updates(n))[1].epsilon is not None
        return
    with pytest.raises(ConfigError, match="does not draw so many"):
        layer.aggregate(updates(n))
    assert not layer.ledger.charges


def test_the_layer_reports_noise_that_clients_add_in_shares():
    layer = PrivateAggregation(bound=Clip(1.0), channel=SecAgg(noise=SHARES, bits=20))
    _, receipt = layer.aggregate(updates())
    assert receipt.event.mechanism == "skellam"
    assert receipt.epsilon > 1
    assert "zero_out" in receipt.epsilon_note


CONFIGURATIONS = [
    {**noise, **rule, **drawn, "relation": relation}
    for noise in (
        {"mechanism": Gaussian(1.3)},
        {"mechanism": Skellam(2.0)},
        {"mechanism": LocalGaussian(3.0)},
        {"channel": SecAgg(noise=DistributedSkellam(1.0), bits=20, fidelity="ideal")},
    )
    for rule in ({"rule": replace(UNIFORM, denominator=10.0)}, {"rule": UNIFORM})
    for drawn in (
        {"sampler": None, "sampling": Sampling("all", 1.0, N)},
        {"sampler": FixedSize(N), "sampling": Sampling("fixed_size", 1.0, N)},
        {"sampler": Poisson(1.0), "sampling": Sampling("poisson", 1.0, N)},
    )
    for relation in (None, "zero_out", "replace_one")
]


def by_the_engine(how):
    parts = {key: how[key] for key in ("mechanism", "channel", "relation") if key in how}
    made = federation(camps(5), aggregator=how["rule"], sampler=how["sampler"], **parts)
    return made.run().ledger


def by_the_layer(how):
    parts = {key: how[key] for key in ("mechanism", "channel", "relation") if key in how}
    layer = PrivateAggregation(bound=Clip(1.0), rule=how["rule"], sampling=how["sampling"], **parts)
    layer.aggregate(dict(enumerate(camps(5))))
    return layer.ledger


def charged(play, how):
    try:
        return play(how).charges
    except ConfigError as refused:
        return str(refused)


def test_the_engine_and_the_layer_charge_alike():
    made = 0
    for how in CONFIGURATIONS:
        engine = charged(by_the_engine, how)
        assert engine == charged(by_the_layer, how), how
        made += not isinstance(engine, str)
    assert made >= 40, "most of these can be claimed"


# ---- claims of nothing
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", [0.0, -1.0, math.nan, math.inf])
def test_a_rule_that_claims_that_nobody_moves_it_gets_no_epsilon(claim):
    @dataclass(frozen=True)
    class Claims(Rule[Rows]):
        reads: ClassVar = "rows"

        def __call__(self, opened):
            return opened.values.mean(dim=0)

        def sensitivity(self, moves, neighbours):
            return claim

    with pytest.raises(ConfigError, match="sensitivity"):
        federation(camps(5), aggregator=Claims(), mechanism=Gaussian(1.0))
    layer = PrivateAggregation(bound=Clip(1.0), rule=Claims(), mechanism=Gaussian(1.0))
    with pytest.raises(ConfigError, match="sensitivity"):
        layer.aggregate(updates())
    assert not layer.ledger.charges


def test_charges_and_releases_are_made_in_the_pipeline_and_nowhere_else():
    root = Path(privfl.__file__).parent
    makers = {
        (str(path.relative_to(root)), node.func.id)
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("Charge", "Released")
    }
    assert makers == {("dp/pipeline.py", "Charge"), ("dp/pipeline.py", "Released")}


# ---- what was sent is charged
# -------------------------------------------------------------------------------------------------


def test_a_rule_that_refuses_small_cohorts_does_not_make_what_was_read_free():
    noisy = {"mechanism": LocalGaussian(2.0), "aggregator": Krum(1), "sampler": Poisson(0.4)}
    run = federation(camps(5), 6, seed=3, **noisy).run()
    refused = [record.round for record in run.history if record.incidents]
    assert refused
    assert [charge.round for charge in run.ledger.charges] == list(range(6))
    for record, charge in zip(run.history, run.ledger.charges, strict=True):
        assert len(charge.cohort) == record.cohort
