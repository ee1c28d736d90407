"""What once printed an epsilon that was not true, through the real engine and the layer around
other people's loops: refused now, or right.
"""

import ast
import math
from dataclasses import dataclass, replace
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
    LocalPlan,
    Rows,
    Rule,
    RuleWithMemory,
)
from privfl.crypto import SecAgg
from privfl.dp import (
    Clip,
    DPGradient,
    Gaussian,
    LocalGaussian,
)
from privfl.engine import Poisson
from privfl.training import LocalSGD

N, D = 10, 12
AXIS = torch.eye(D)
UNIFORM = Mean(weighted=False)


def with_first(rows, row):
    return torch.cat([row[None], rows[1:]])


# ---- every part of a method

SCAFFOLD = {
    "data": {"name": "digits", "clients": 6, "partition": {"name": "iid"}},
    "training": {"name": "scaffold", "lr": 0.1, "steps": 2, "batch_size": 16},
    "bound": {"name": "clip", "l2": 1.0, "parts": {"control": 2.0}},
    "mechanism": {"name": "gaussian", "noise_multiplier": 2.0},
    "rounds": 2,
    "executor": "sequential",
}


def test_no_part_of_a_method_reaches_the_model_past_the_noise(tape):
    states, tapes = [], (tape(), tape())
    for world, mechanism in enumerate(tapes):
        made = Federation.from_config(SCAFFOLD)
        clients = dict(made.scenario.clients)
        if world:
            clients[0] = clients[0].flip(0)[: len(clients[0]) // 2]
        taped = replace(made.scenario, mechanism=mechanism, clients=clients, relation="replace_one")
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


@pytest.mark.parametrize("f", [1, 2, 4])
@pytest.mark.parametrize("aggregator", [UNIFORM, TrimmedMean(2)], ids=["mean", "trimmed mean"])
def test_neighbours_that_are_mixed_move_a_release_no_farther_than_its_noise_is_made_for(
    f, aggregator, federation, moved, camps
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


def test_clips_by_order_statistics_move_a_release_no_farther_than_its_noise_is_made_for(
    moved, camps
):
    found = []
    for k in range(1, N):
        rows = camps(k, 1.0, 0.0)
        seats = [AdaptiveRobustClipping(4)]
        found += moved(rows, with_first(rows, 0 * AXIS[0]), relation="zero_out", defences=seats)[0]
    assert max(found) == pytest.approx(1.0), "the constant is attained"


def test_a_fixed_clip_before_the_rule_lessens_what_one_client_moves(federation, moved, camps):
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
def test_what_declares_nothing_is_refused_under_noise_in_words(parts, words, federation, camps):
    rows = camps(5)
    federation(rows, **parts).run()
    with pytest.raises(ConfigError, match=words):
        federation(rows, mechanism=Gaussian(1.0), **parts)


def test_votes_leave_a_training_that_claims_privacy_of_its_samples_without_noise():
    data = Dataset(torch.arange(32.0).view(8, 4) / 32, torch.zeros(8, dtype=torch.int64), classes=2)
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


def test_a_seat_of_somebodys_own_is_refused_until_it_declares_what_it_moves(
    federation, moved, camps
):
    with pytest.raises(ConfigError, match="Undeclared does not declare how far one client moves"):
        federation(camps(5), mechanism=Gaussian(1.0), defences=[Undeclared()])

    class Declared(Undeclared):
        def stability(self, moves, neighbours):
            return moves

    rows = camps(5)
    ((far,), _) = moved(rows, with_first(rows, AXIS[0]), defences=[Declared()])
    assert far == pytest.approx(1.0)


# ---- memory


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


def test_centred_clipping_keeps_nothing_from_before_the_noise(moved, camps):
    rows = camps(5)
    far, states = moved(rows, with_first(rows, AXIS[0]), 3, aggregator=CenteredClipping(tau=0.3))
    assert max(far) <= 1 + 1e-5
    assert states[0].rules == states[1].rules == {"delta": None}
    assert torch.equal(states[0].parameters, states[1].parameters)


def test_a_memory_from_before_the_noise_shows_in_what_is_kept_and_in_the_next_release(
    federation, moved, camps
):
    rows = camps(5)
    far, states = moved(rows, with_first(rows, AXIS[0]), 3, aggregator=OwnCentre())
    assert max(far) > 1.5, "the declaration is a lie, and two worlds show it"
    assert not torch.equal(states[0].rules["delta"], states[1].rules["delta"])

    class Honest(OwnCentre):
        memory: ClassVar = "private"

    with pytest.raises(ConfigError, match="remembers clients' rows from before any noise"):
        federation(rows, mechanism=Gaussian(1.0), aggregator=Honest())


# ---- claims of nothing


@pytest.mark.parametrize("claim", [0.0, -1.0, math.nan, math.inf])
def test_a_rule_that_claims_that_nobody_moves_it_gets_no_epsilon(claim, federation, camps):
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
        layer.aggregate(dict(enumerate(camps(5))))
    assert not layer.ledger.charges


def test_charges_and_releases_are_made_where_they_are_priced_and_nowhere_else():
    root = Path(privfl.__file__).parent
    makers = {
        (str(path.relative_to(root)), node.func.id)
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("Charge", "Released")
    }
    rounds = {("dp/pipeline.py", "Charge"), ("dp/pipeline.py", "Released")}
    asked = ("dp/accounting/personal.py", "Charge")  # what a rate would cost: in nobody's ledger
    assert makers == {*rounds, ("dp/charges.py", "Charge"), asked}


# ---- what was sent is charged


def test_a_rule_that_refuses_small_cohorts_does_not_make_what_was_read_free(federation, camps):
    noisy = {"mechanism": LocalGaussian(2.0), "aggregator": Krum(1), "sampler": Poisson(0.4)}
    run = federation(camps(5), 6, seed=3, **noisy).run()
    refused = [record.round for record in run.history if record.incidents]
    assert refused
    assert [charge.round for charge in run.ledger.charges] == list(range(6))
    for record, charge in zip(run.history, run.ledger.charges, strict=True):
        assert len(charge.cohort) == record.cohort


@pytest.mark.parametrize("parts", [{}, {"aggregator": TrimmedMean(2)}, {"channel": SecAgg()}])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_client_whose_training_diverges_is_no_row_less_in_the_scale_of_the_noise(
    parts, bad, camps, federation, moved, tape
):
    rows = camps(5)
    scales = []
    for world in (rows, with_first(rows, AXIS[0] * bad)):
        notes = tape()
        run = federation(world, mechanism=notes, relation="replace_one", **parts).run()
        scales.append(notes.seen[0][1])
    assert scales[0] == scales[1]
    assert any("NaN or infinite" in one.what for one in run.transcripts[0].incidents)
    ratios, _ = moved(rows, with_first(rows, AXIS[0] * bad), relation="replace_one", **parts)
    assert max(ratios) <= 1 + 1e-3
