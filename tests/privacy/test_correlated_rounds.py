"""Correlated noise through real rounds: what is released, who may take part, what is charged, and
what is kept secret.
"""

import itertools
import math
import pickle
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from privfl import Federation
from privfl.aggregators import Krum, Mean, Median
from privfl.core import (
    ConfigError,
    Faults,
    Ledger,
    Neighbours,
    OsNoise,
    Participation,
    ParticipationBroken,
    RoundPlan,
    SecretsStay,
    SeededNoise,
    Sensitivity,
)
from privfl.crypto import SecAgg
from privfl.dp import (
    AdaptiveClip,
    Correlated,
    Decaying,
    DistributedSkellam,
    Gaussian,
    LocalGaussian,
    ScheduledClip,
    epsilon,
    spend,
)
from privfl.dp.memory import NoiseMemory
from privfl.dp.strategies import Banded, Bisr, Blt, SquareRoot, Tree
from privfl.engine import CyclicPoisson, Engine, FixedSize, Poisson, Separated, read_ledger
from privfl.engine.checkpoint import save
from privfl.engine.samplers import Sampler
from privfl.hybrid import BucketedSecAgg
from privfl.training import Sequential

ROUNDS, N, D = 6, 8, 4000
MEAN = Mean(weighted=False, denominator=4.0)
TURNS = Separated(apart=2)


def rows(n=N, d=4):
    return torch.linspace(-1, 1, n)[:, None] / d**0.5 * torch.ones(d)


def correlated(z=1.0, strategy=None):
    return Correlated(z, strategy or Bisr(3))


def parts(**changed: Any) -> dict[str, Any]:
    return {
        "rounds": ROUNDS,
        "sampler": TURNS,
        "aggregator": MEAN,
        "mechanism": correlated(),
        **changed,
    }


def engine_of(made: Federation) -> Engine:
    return Engine(made.scenario, Sequential(made.scenario.workload))


def played(engine, rounds=ROUNDS, state=None):
    """The states after each round."""
    state = state or engine.begin("sequential")
    states = []
    for _ in range(rounds):
        state = engine.play(state).state
        states.append(state)
    return states


def multiplier(charges):
    [charge] = charges
    return charge.event.parameters["noise_multiplier"]


# ---- what is released


@pytest.mark.parametrize("strategy", [Tree(), SquareRoot(), Bisr(3), Banded(2), Blt(2)], ids=repr)
def test_what_rounds_release_is_the_mean_and_noise_that_the_strategy_whitens(federation, strategy):
    """C times what was added is independent, of deviation z sens(C) times the sensitivity of a
    round: C / 4.
    """
    made = federation(rows(d=D), **parts(mechanism=correlated(0.5, strategy)))
    states = played(engine_of(made))
    clean = [rows(d=D)[turn::2].sum(dim=0) / 4 for turn in (0, 1)]
    noise = np.stack([(s.last - clean[t % 2]).numpy().astype(float) for t, s in enumerate(states)])
    matrix = strategy.matrix(Participation(ROUNDS, 3, 2))
    white = matrix.dense() @ noise / (0.5 * matrix.sens(3, 2) / 4)
    met, error = white @ white.T / D, np.sqrt((1 + np.eye(ROUNDS)) / D)
    assert (np.abs(met - np.eye(ROUNDS)) <= 4.5 * error).all()


def test_a_round_that_opens_nothing_uses_its_row_up(federation):
    """Or those who come back would meet in rows that are nearer than their rounds."""
    made = federation(rows(d=D), **parts(mechanism=correlated(0.5, Bisr(2))))
    engine = engine_of(made)
    state = played(engine, 2)[-1]
    nobody = Faults(byzantine={f"client/{i}": Silent for i in range(N)})
    engine.carrier.faults = nobody
    state = played(engine, 1, state)[-1]
    assert state.round == 3
    engine.carrier.faults = Faults()
    state = played(engine, 1, state)[-1]
    assert multiplier(state.ledger.charges) == pytest.approx(
        0.5
        * Bisr(2).matrix(Participation(6, 3, 2)).sens(3, 2)
        / Bisr(2).matrix(Participation(6, 3, 2)).sens(3, 2, 4)
    )
    assert engine.memory.rows(3) == 4


@dataclass
class Silent:
    honest: Any

    def step(self, mail):
        return {}


def test_rows_of_rounds_that_released_nothing_are_drawn_and_forgotten():
    run = correlated(1.0, Bisr(2)).over(Participation(6, 1))
    drawn = []

    class Tap(OsNoise):
        def random_bytes(self, n):
            drawn.append(n)
            return OsNoise().random_bytes(n)

    memory = NoiseMemory()
    memory.enter(RoundPlan(0, (), 3, 1.0), run)
    memory.release(RoundPlan(0, (), 3, 1.0), run, torch.zeros(3), Sensitivity(1.0), Tap())
    one = len(drawn)
    memory.enter(RoundPlan(3, (), 3, 1.0), run)
    memory.release(RoundPlan(3, (), 3, 1.0), run, torch.zeros(3), Sensitivity(1.0), Tap())
    assert len(drawn) == 4 * one


def test_a_seed_repeats_the_noise_and_voids_the_claim(federation):
    first, second = (
        played(engine_of(federation(rows(), **parts(noise=SeededNoise(3))))) for _ in range(2)
    )
    assert torch.equal(first[-1].parameters, second[-1].parameters)
    [spent] = spend(first[-1].ledger, 1e-5)
    assert "void" in spent.refused


# ---- what it costs


def test_a_run_is_one_gaussian_whatever_the_strategy(federation):
    for strategy in (Tree(), SquareRoot(), Bisr(3), Banded(2), Blt(2)):
        run = federation(rows(), **parts(mechanism=correlated(1.7, strategy))).run()
        [charge] = run.ledger.charges
        assert (charge.round, charge.last, charge.count) == (0, ROUNDS - 1, 1)
        assert charge.relation == "zero_out"
        [spent] = spend(run.ledger, 1e-5)
        alone = epsilon(
            noise_multiplier=1.7, sample_rate=1.0, steps=1, delta=1e-5, relation="zero_out",
            sampler="all",
        )  # fmt: skip
        assert spent.rdp == pytest.approx(alone)


def test_after_some_rounds_it_costs_what_the_first_rows_move(federation):
    engine = engine_of(federation(rows(), **parts(mechanism=correlated(1.0, Blt(2)))))
    matrix = Blt(2).matrix(Participation(ROUNDS, 3, 2))
    for t, state in enumerate(played(engine), start=1):
        said = matrix.sens(3, 2) / matrix.sens(3, 2, t)
        assert multiplier(state.ledger.charges) == pytest.approx(said)
    assert multiplier(state.ledger.charges) == 1.0


def test_it_costs_more_than_the_same_noise_would_alone_where_somebody_comes_every_round(federation):
    """Nobody who is in every round gains from correlation: sens(C) holds all of them."""
    made = federation(rows(), **parts(sampler=None, aggregator=Mean(weighted=False, denominator=8)))
    assert made.scenario.run_noise.participation == Participation(ROUNDS, ROUNDS, 1)
    c = Bisr(3).matrix(Participation(ROUNDS, ROUNDS, 1)).dense()
    assert made.scenario.run_noise.unit == pytest.approx(np.linalg.norm(c.sum(axis=1)))


def test_a_resumed_run_has_lost_its_noise_and_pays_for_both_blocks(federation, tmp_path):
    made = parts(mechanism=correlated(1.0, Blt(2)))
    with pytest.raises(KeyboardInterrupt):
        federation(rows(), **made).run(tmp_path / "run", progress=stops_after(4))
    run = federation(rows(), **made).run(tmp_path / "run", resume=True)
    matrix = Blt(2).matrix(Participation(ROUNDS, 3, 2))
    first, second = ((matrix.sens(3, 2, t) / matrix.sens(3, 2)) for t in (4, 2))
    assert [(c.round, c.last) for c in run.ledger.charges] == [(0, 3), (4, 5)]
    [spent] = spend(run.ledger, 1e-5)
    both = epsilon(
        noise_multiplier=math.hypot(first, second) ** -1, sample_rate=1.0, steps=1, delta=1e-5,
        relation="zero_out", sampler="all",
    )  # fmt: skip
    assert spent.rdp == pytest.approx(both)
    assert read_ledger(tmp_path / "run") == run.ledger


def stops_after(rounds):
    def progress(record, total):
        if record.round + 1 == rounds:
            raise KeyboardInterrupt

    return progress


def test_a_killed_round_stays_charged_and_the_next_block_adds_to_it(federation, tmp_path):
    made = parts()
    faults = Faults(byzantine={"client/1": Kills})
    Kills.kills[0] = 1
    with pytest.raises(KeyboardInterrupt):
        federation(rows(), **made).run(tmp_path / "run", faults=faults)
    assert [(c.round, c.last) for c in read_ledger(tmp_path / "run").charges] == [(0, 1)]
    run = federation(rows(), **made).run(tmp_path / "run", resume=True, faults=faults)
    assert [(c.round, c.last) for c in run.ledger.charges] == [(0, 1), (1, 5)]


@dataclass
class Kills:
    """A party in whose step the run is interrupted, as often as there are ``kills``."""

    honest: Any
    kills: ClassVar = [0]

    def step(self, mail):
        if self.kills[0]:
            self.kills[0] -= 1
            raise KeyboardInterrupt
        return self.honest.step(mail)


def test_an_older_ledger_beside_a_newer_checkpoint_is_refused(federation, tmp_path):
    path, copies = tmp_path / "run" / "ledger.jsonl", []

    def copied(record, rounds):
        copies.append(path.read_bytes())
        if len(copies) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        federation(rows(), **parts()).run(path.parent, progress=copied)
    path.write_bytes(copies[1])
    with pytest.raises(ConfigError, match="older copy"):
        federation(rows(), **parts()).run(path.parent, resume=True)
    path.write_bytes(copies[2])
    assert federation(rows(), **parts()).run(path.parent, resume=True).ledger.charges[0].last == 2


def test_a_round_that_is_played_twice_begins_a_new_block(federation):
    engine = engine_of(federation(rows(), **parts()))
    two, three = played(engine, 3)[1:]
    engine.play(two)
    assert [(c.round, c.last) for c in engine.journal.ledger().charges] == [(0, 2), (2, 2)]
    engine.play(three)
    assert [(c.round, c.last) for c in engine.journal.ledger().charges] == [(0, 2), (2, 3)]


# ---- clients drawn in turns


def turns(**changed):
    return parts(
        sampler=CyclicPoisson(turns=2, rate=0.5),
        aggregator=Mean(weighted=False, denominator=2.0),
        mechanism=correlated(1.5, Banded(2)),
        **changed,
    )


def test_bands_no_wider_than_the_turns_are_amplified_as_one_sampled_gaussian_a_turn(federation):
    run = federation(rows(), **turns()).run()
    [charge] = run.ledger.charges
    assert (charge.count, charge.sampling.rate, charge.sampling.scheme) == (3, 0.5, "poisson")
    [spent] = spend(run.ledger, 1e-5)
    alone = epsilon(noise_multiplier=1.5, sample_rate=0.5, steps=3, delta=1e-5, relation="zero_out")
    assert spent.rdp == pytest.approx(alone)
    whole = epsilon(noise_multiplier=1.5, sample_rate=1.0, steps=3, delta=1e-5, sampler="all",
                    relation="zero_out")  # fmt: skip
    assert spent.rdp < 0.8 * whole


def test_noise_of_a_turn_is_over_one_participation(federation):
    made = federation(rows(), **turns()).scenario.run_noise
    matrix = Banded(2).matrix(made.participation)
    assert made.unit == matrix.column_norms().max()
    assert made.unit < matrix.sens(3, 2)
    assert made.event(6).parameters["noise_multiplier"] == pytest.approx(
        1.5 / math.sqrt(3), rel=0.1
    )


def test_turns_amplify_nothing_for_who_sees_them(federation):
    scenario = federation(rows(), **turns()).scenario
    seen = replace(scenario.pipeline(), sees_cohort=True)
    memory, plan = NoiseMemory(), RoundPlan(0, (0, 2), 4, 1.0)
    memory.enter(plan, scenario.run_noise)
    [hidden] = scenario.pipeline().charges({"delta": plan}, memory=memory)
    [charge] = seen.charges({"delta": plan}, memory=memory)
    assert (hidden.sampling.rate, charge.sampling.rate) == (0.5, 1.0)
    assert spend(Ledger((charge,)), 1e-5)[0].rdp > spend(Ledger((hidden,)), 1e-5)[0].rdp


def test_blocks_that_share_a_drawn_cohort_are_not_amplified(federation, tmp_path):
    faults = Faults(byzantine={f"client/{i}": Kills for i in range(1, N, 2)})
    Kills.kills[0] = 1
    with pytest.raises(KeyboardInterrupt):
        federation(rows(), **turns()).run(tmp_path / "run", faults=faults)
    run = federation(rows(), **turns()).run(tmp_path / "run", resume=True, faults=faults)
    assert [charge.cohort_hidden and charge.sampling.rate < 1 for charge in run.ledger.charges] == [
        False,
        False,
    ]


def test_more_bands_than_turns_are_refused(federation):
    with pytest.raises(ConfigError, match="bands, and clients"):
        federation(rows(), **{**turns(), "mechanism": correlated(1.0, Blt(2))})


@pytest.mark.parametrize("mechanism", [Gaussian(1.0), LocalGaussian(1.0)])
def test_turns_under_other_noise_are_refused(federation, mechanism):
    with pytest.raises(ConfigError, match="draws clients in turns"):
        federation(rows(), **{**turns(), "mechanism": mechanism})


# ---- participation


@dataclass(frozen=True)
class Says(Sampler):
    """Takes who it is told to, and says of it what it likes."""

    cohorts: tuple
    most: int
    apart: int
    turn: int = 0

    def at(self, round):
        return replace(self, turn=round)

    def draw(self, clients, rng):
        return self.cohorts[self.turn]

    def sampling(self, population):
        return TURNS.sampling(population)

    def participation(self, rounds):
        return Participation(rounds, self.most, self.apart)


@pytest.mark.parametrize(
    ("cohorts", "most", "apart", "stops"),
    [
        (((0, 1), (2, 3), (1, 4)), 3, 3, 2),
        (((0, 1), (2, 3), (0, 4)), 1, 2, 2),
        (((0, 1), (0, 3), (4, 5)), 2, 2, 1),
    ],
)
def test_a_client_that_comes_too_soon_or_too_often_stops_the_run_before_it_trains(
    federation, cohorts, most, apart, stops
):
    made = federation(rows(), **parts(rounds=3, sampler=Says(cohorts, most, apart)))
    engine = engine_of(made)
    state = played(engine, stops)[-1]
    with pytest.raises(ParticipationBroken, match=f"rounds . and {stops}, and the noise"):
        engine.play(state)
    assert engine.journal.ledger() == state.ledger


def test_turns_are_fixed_by_id_alone():
    clients = range(9)
    cohorts = [Separated(3).at(t).draw(clients, torch.Generator()) for t in range(7)]
    assert cohorts[:3] == [(0, 3, 6), (1, 4, 7), (2, 5, 8)]
    assert cohorts[3:] == cohorts[:4]
    assert Separated(3).at(4).draw([1, 4], torch.Generator()) == (1, 4)
    drawn = CyclicPoisson(3, 0.5)
    rng = torch.Generator().manual_seed(0)
    for t in range(9):
        assert set(drawn.at(t).draw(clients, rng)) <= set(cohorts[t % 3])


@pytest.mark.parametrize("sampler", [Separated(2), CyclicPoisson(2, 0.7)], ids=repr)
def test_samplers_with_turns_keep_to_the_participation_that_they_say(federation, sampler):
    mechanism = correlated(1.0, Banded(2))
    engine = engine_of(federation(rows(), **parts(sampler=sampler, rounds=12, mechanism=mechanism)))
    run = engine.scenario.run_noise.participation
    state, came = engine.begin("sequential"), {}
    for number in range(12):
        result = engine.play(state)
        state = result.state
        for client in result.transcript.plan.cohort:
            came.setdefault(client, []).append(number)
    assert (state.round, run.rounds) == (12, 12)
    assert state.ledger.charges[0].last == 11
    assert set(came) == set(range(N))
    assert {number % run.apart for mine in came.values() for number in mine} == {0, 1}
    for mine in came.values():
        assert len(mine) <= run.most == 6
        assert all(b - a >= run.apart == 2 for a, b in itertools.pairwise(mine))


def test_more_turns_than_clients_or_more_rounds_than_turns_are_refused(federation):
    with pytest.raises(ConfigError, match="cannot take 9 turns"):
        federation(rows(), **parts(sampler=Separated(9)))
    with pytest.raises(ConfigError, match=r"sampler\.most is 2"):
        federation(rows(), **parts(sampler=Separated(2, most=2)))


def test_under_other_noise_everybody_pays_for_turns_without_amplification(federation):
    run = federation(rows(), **parts(mechanism=Gaussian(1.0))).run()
    assert {charge.sampling.scheme for charge in run.ledger.charges} == {"shuffled"}


# ---- secrets


def test_what_the_noise_remembers_is_written_nowhere(federation, tmp_path):
    engine = engine_of(federation(rows(), **parts()))
    state = played(engine, 2)[-1]
    result = engine.play(state, keep=True)
    kept = engine.memory._states["delta"]
    for secret in (engine.memory, kept, kept.stream):
        assert "tensor" not in repr(secret)
        with pytest.raises(SecretsStay):
            pickle.dumps(secret)
    save(tmp_path, 3, result.state)
    with pytest.raises(SecretsStay):
        save(tmp_path, 4, {"memory": engine.memory})
    told = (tmp_path / "step-00000003" / "state.json").read_text() + repr(result)
    assert "NoiseMemory" not in told
    written = load_file(tmp_path / "step-00000003" / "tensors.safetensors").values()
    for secret in kept.stream._ring:
        for shown in (*written, result.transcript.after - result.transcript.before):
            assert not torch.isclose(shown.double().flatten()[:4], secret.double()).any()


# ---- what is refused


def refusal(federation, **changed):
    """What the settings are refused with; nothing where they are not."""
    try:
        federation(rows(), **parts(**changed))
    except ConfigError as error:
        return str(error)
    return ""


def test_who_comes_or_goes_is_no_neighbour(federation):
    assert "claim zero_out" in refusal(federation, relation="add_remove")
    assert federation(rows(), **parts()).scenario.pipeline().neighbours == Neighbours(
        "client", "zero_out"
    )
    half = [
        federation(rows(), **parts(relation=relation)).scenario.pipeline().sensitivity("delta")
        for relation in ("zero_out", "replace_one")
    ]
    assert half == [0.25, 0.5]


def test_a_scale_that_changes_is_refused(federation):
    decaying = ScheduledClip(1.0, Decaying("exponential", k=0.1))
    for bound in (AdaptiveClip(), decaying):
        assert "cancels only at one scale" in refusal(federation, bound=bound), bound
    for rule in (Mean(weighted=False), Median(), Krum(f=1)):
        assert "divides by how many rows came" in refusal(federation, aggregator=rule), rule


def test_noise_in_shares_and_groups_beside_it_are_refused(federation):
    shares, groups = SecAgg(noise=DistributedSkellam(1.0)), BucketedSecAgg(size=2)
    assert "cannot be shared out" in refusal(federation, channel=shares)
    words = refusal(federation, channel=groups, aggregator=Mean(weighted=True))
    assert "divides by how many rows came" in words


def test_more_rounds_than_it_was_made_for_are_refused():
    run = correlated().over(Participation(3, 1))
    with pytest.raises(ConfigError, match="made for 3 rounds"):
        run.event(4)


@pytest.mark.parametrize("far", [0.0, math.inf, math.nan])
def test_a_sensitivity_that_is_no_number_above_0_is_refused(far):
    run = correlated().over(Participation(3, 1))
    with pytest.raises(ConfigError, match="a sensitivity"):
        run.release(torch.zeros(2), Sensitivity(far), run.init(2), OsNoise())


@pytest.mark.parametrize("sampler", [FixedSize(4), Poisson(0.5), None], ids=repr)
def test_samplers_that_say_nothing_of_turns_are_priced_for_every_round(federation, sampler):
    made = federation(
        rows(), **parts(sampler=sampler, aggregator=Mean(weighted=False, denominator=4.0))
    )
    assert made.scenario.run_noise.participation == Participation(ROUNDS, ROUNDS)
    [charge] = made.run().ledger.charges
    assert charge.sampling.scheme == "all"


def test_it_is_set_from_a_config():
    made = Federation.from_config(
        {
            "data": {"name": "digits", "clients": 20},
            "rounds": 4,
            "sampler": {"name": "separated", "apart": 2},
            "bound": {"name": "clip", "l2": 1.0},
            "mechanism": {
                "name": "correlated",
                "noise_multiplier": 0.5,
                "strategy": {"name": "blt", "buffers": 2},
            },
        }
    )
    assert made.scenario.mechanism == Correlated(0.5, Blt(2))
    assert made.scenario.aggregator == Mean(weighted=False, denominator=10.0)
    [charge] = made.run().ledger.charges
    assert charge.event.parameters == {"noise_multiplier": 0.5}
