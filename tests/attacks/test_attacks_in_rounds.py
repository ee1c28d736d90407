"""Attacks in whole rounds, on real digits: what breaks the mean, what a rule stands, what is
refused and what is remembered.
"""

import pytest
import torch
from torch import nn

from privfl import Federation, catalog
from privfl.aggregators import Krum, Mean, Median, NearestNeighbourMixing, TrimmedMean
from privfl.attacks import (
    A3FL,
    IBA,
    AGRTailored,
    AttackTraining,
    FreeRider,
    LabelFlip,
    LossThreshold,
    Mimic,
    ModelReplacement,
    NotFinite,
    PixelPattern,
    SignFlip,
    SkipClip,
    Withhold,
    family_of,
    seats_of,
)
from privfl.config import AuditConfig
from privfl.core import ConfigError, Context, LocalPlan, RememberingPoison, RoundPlan, UpdatePoison
from privfl.data import load
from privfl.dp import Clip
from privfl.engine import Attacker, AttackSchedule, Engine, Scenario, checkpoint
from privfl.models import initialised, mlp
from privfl.training import FedAvg, LocalSGD, Sequential

SQUARE = PixelPattern(target=2, boxes=((0, 0, 2, 2),), fraction=0.3)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def clients(digits):
    return [digits.train.take(range(i, digits.train.n, 10)) for i in range(10)]


def federation(digits, clients, *attackers, rounds=8, model=None, **parts):
    torch.manual_seed(0)
    return Federation(
        model or initialised(mlp, digits.shape, 10, seed=0, hidden=(32,)),
        clients,
        digits.test,
        rounds=rounds,
        training=LocalSGD(lr=0.2, plan=LocalPlan(16, epochs=2)),
        attackers=attackers,
        executor="sequential",
        audit=AuditConfig(keep=[]),
        **parts,
    )


def test_a_boosted_sign_flip_breaks_the_mean_and_not_krum(digits, clients):
    flip = Attacker("flip", SignFlip(scale=10.0), frozenset({2, 7}))
    assert federation(digits, clients, flip, aggregator=Mean()).run().accuracy < 0.4
    run = federation(digits, clients, flip, aggregator=Krum(f=2)).run()
    assert run.accuracy > 0.8
    assert run.history[0].fired["attack flip"] == "acted through 2 of 10 clients"


@pytest.fixture(scope="module")
def trained(digits, clients):
    return federation(digits, clients, rounds=12).run().model


def copy_of(model):
    fresh = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    fresh.load_state_dict(model.state_dict())
    return fresh


def test_single_shot_replacement_installs_the_backdoor_at_once_and_keeps_the_main_task(
    digits, clients, trained
):
    attack = ModelReplacement(SQUARE, AttackTraining(lr=0.2, epochs=15, batch_size=16, poisoned=4))
    shot = Attacker("shot", attack, frozenset({3}), AttackSchedule(rounds=(1,)))
    run = federation(digits, clients, shot, rounds=3, model=copy_of(trained)).run()
    before, during, _ = run.history
    assert before.measures["shot: backdoor"] < 0.2
    assert during.measures["shot: backdoor"] > 0.9
    assert during.measures["shot: main"] > before.measures["shot: main"] - 0.06
    assert "attack shot" not in before.fired


def test_data_poisoning_alone_does_not_install_it(digits, clients, trained):
    run = federation(
        digits,
        clients,
        Attacker("poison", SQUARE, frozenset({3})),
        rounds=2,
        model=copy_of(trained),
    ).run()
    assert run.history[-1].measures["poison: backdoor"] < 0.2


def test_replacement_replaces_under_sample_weights_and_a_server_rate(digits, clients, trained):
    uneven = [clients[0].take(range(20 + 10 * i)) for i in range(5)]
    attack = ModelReplacement(SQUARE, AttackTraining(lr=0.2, epochs=1, batch_size=16, poisoned=4))
    scene = federation(
        digits,
        uneven,
        Attacker("shot", attack, frozenset({3})),
        rounds=1,
        server_optimizer=FedAvg(lr=0.5),
    ).scenario
    still = Scenario(**{**vars(scene), "workload": scene.workload})
    engine = Engine(still, Sequential(still.workload))
    start = engine.begin("sequential")
    whole = engine.play(start, keep=True)
    sent = whole.transcript.updates[3].delta
    share = 0.5 * uneven[3].n / sum(client.n for client in uneven)
    honest = (
        sum(whole.transcript.updates[c].delta * uneven[c].n for c in (0, 1, 2, 4))
        / sum(client.n for client in uneven)
        * 0.5
    )
    crafted = whole.state.parameters - start.parameters - honest
    assert torch.allclose(crafted, share * sent, atol=1e-5)
    assert float((share * sent).norm()) > 0


@pytest.mark.parametrize(
    ("training", "parts"), [("scaffold", {"control": 40.0}), ("fednova", {"tau": 1e3})]
)
def test_replacement_lands_where_clients_send_extra_parts_and_sends_them_as_the_honest_do(
    training, parts
):
    attack = {
        "name": "model_replacement",
        "backdoor": {"name": "pixel_pattern", "target": 2, "boxes": [[0, 0, 2, 2]]},
        "training": {"lr": 0.2, "epochs": 15, "batch_size": 16, "poisoned": 4},
        "clients": [3],
        "rounds": [5],
    }
    config = {
        "data": {"name": "digits", "clients": 10},
        "model": {"name": "mlp", "hidden": [32]},
        "training": {"name": training, "lr": 0.2, "plan": {"batch_size": 16, "epochs": 2}},
        "channel": "additive_sharing",
        "bound": {"name": "clip", "l2": 400.0, "parts": parts},
        "rounds": 6,
        "attacks": [attack],
        "audit": {"keep": "all"},
    }
    run = Federation.from_config(config).run()
    *_, before, during = run.history
    assert before.measures["model_replacement: backdoor"] < 0.1
    assert during.measures["model_replacement: backdoor"] > 0.9
    assert run.accuracy > before.accuracy - 0.05
    updates = run.transcripts[5].updates
    honest = [update for client, update in updates.items() if client != 3]

    def sticks_out(of):
        return float(of(updates[3]).norm()) / max(float(of(update).norm()) for update in honest)

    (part,) = parts
    assert sticks_out(lambda update: update.delta) > 20
    assert sticks_out(lambda update: update.aux[part]) < 8


def test_an_attack_acts_in_the_rounds_of_its_schedule_and_its_data_are_clean_in_the_others(
    digits, clients
):
    flip = Attacker("flip", LabelFlip(), frozenset(range(10)), AttackSchedule(first=2, every=3))
    run = federation(digits, clients, flip, rounds=6).run()
    assert ["attack flip" in record.fired for record in run.history] == [
        False,
        False,
        True,
        False,
        False,
        True,
    ]
    accuracy = [record.accuracy for record in run.history]
    assert accuracy[1] > 0.5
    assert accuracy[4] > accuracy[5]


def test_two_data_attacks_on_one_client_add_up(digits, clients):
    attackers = [
        Attacker("flip", LabelFlip(source=0, target=1), frozenset({0})),
        Attacker("square", SQUARE, frozenset({0})),
    ]
    fed = federation(digits, clients, *attackers)
    engine = Engine(fed.scenario, Sequential(fed.scenario.workload))
    data = engine.carrier.adversaries._data(0, (0, 1))
    own = clients[0]
    assert not ((own.y == 0) & (data.y == 0)).any()
    assert (data.x != own.x).flatten(1).any(dim=1).sum() > 0.2 * own.n


class Recorder(UpdatePoison):
    knows = "own"

    def __init__(self):
        self.teams = []

    def poison_updates(self, own, knowledge, rng):
        self.teams.append(len(own))
        return own


def test_attackers_that_do_not_collude_decide_each_on_its_own(digits, clients):
    together, apart = Recorder(), Recorder()
    attackers = [
        Attacker("a", together, frozenset({0, 1, 2})),
        Attacker("b", apart, frozenset({4, 5}), colluding=False),
    ]
    federation(digits, clients, *attackers, rounds=1).run()
    assert together.teams == [3]
    assert apart.teams == [1, 1]


class Onlooker(UpdatePoison):
    knows = "rule"

    def poison_updates(self, own, knowledge, rng):
        self.rows, self.rule, self.rate = knowledge.benign, knowledge.path.server, knowledge.rate
        self.guess = knowledge.path.server(knowledge.benign)
        return own


def test_an_omniscient_attacker_sees_the_honest_updates_as_they_are_sent_and_the_servers_whole_side(
    digits, clients
):
    eye = Onlooker()
    parts = {
        "bound": Clip(l2=0.1),
        "aggregator": TrimmedMean(f=2),
        "defences": [NearestNeighbourMixing(f=2)],
    }
    federation(
        digits,
        clients,
        Attacker("eye", eye, frozenset({0, 1})),
        rounds=1,
        server_optimizer=FedAvg(lr=0.25),
        **parts,
    ).run()
    assert eye.rows.ids == tuple(range(2, 10))
    assert float(eye.rows.values.norm(dim=1).max()) <= 0.1
    context = Context(RoundPlan(0, (0,), d=1, l2=1.0), torch.zeros(1), torch.Generator())
    mixed, _ = NearestNeighbourMixing(f=2).before(
        eye.rows, NearestNeighbourMixing(f=2).init(), context
    )
    assert torch.allclose(eye.guess, TrimmedMean(f=2)(mixed))
    assert eye.rate == 0.25


def test_what_a_scenario_withholds_is_refused_before_training(digits, clients):
    agr = Attacker("agr", AGRTailored(), frozenset({0}))
    with pytest.raises(
        ConfigError, match=r"'agr' needs to know the server's rule, .* its own updates at most"
    ):
        federation(digits, clients, agr, attackers_know="own")
    with pytest.raises(ConfigError, match="fills none of the seats"):
        federation(digits, clients, Attacker("nothing", LossThreshold(), frozenset({0})))


@pytest.mark.parametrize("rounds", [((0, 1), (1,)), ((0,), (1,))])
def test_two_attacks_that_train_in_place_of_one_client_are_refused(digits, clients, rounds):
    def pair(first, second, who):
        return [
            Attacker(name, attack, frozenset({client}), AttackSchedule(rounds=when))
            for name, attack, client, when in zip("ab", (first, second), who, rounds, strict=True)
        ]

    learnt = A3FL(target=2, size=3), IBA(target=3)
    replaced = [ModelReplacement(PixelPattern(target=t)) for t in (2, 3)]
    with pytest.raises(ConfigError, match="'a' and 'b' both train in place of client 0"):
        federation(digits, clients, *pair(*learnt, (0, 0)), rounds=2)
    federation(digits, clients, *pair(*learnt, (0, 1)), rounds=2)
    federation(digits, clients, *pair(*replaced, (0, 1)), rounds=2)
    if rounds == ((0,), (1,)):
        federation(digits, clients, *pair(*replaced, (0, 0)), rounds=2)
    else:
        with pytest.raises(ConfigError, match="different clients or rounds"):
            federation(digits, clients, *pair(*replaced, (0, 0)), rounds=2)


def test_mimic_remembers_between_rounds_in_the_runs_state(digits, clients):
    run = federation(
        digits, clients, Attacker("mimic", Mimic(warm_up=2), frozenset({8, 9})), rounds=4
    ).run()
    memory = run.state.attacks[0][8]
    assert memory.rounds == 2
    assert memory.chosen in range(8)


def test_what_attackers_remember_survives_a_checkpoint(digits, clients, tmp_path):
    mimic = Attacker("mimic", Mimic(warm_up=3), frozenset({8, 9}))
    engine = Engine(
        (scene := federation(digits, clients, mimic).scenario), Sequential(scene.workload)
    )
    state = engine.begin("sequential")
    for _ in range(2):
        state = engine.play(state).state
    checkpoint.save(tmp_path, 2, state)
    restored = checkpoint.load(tmp_path, [__name__.partition(".")[0]]).state
    ahead, again = (engine.play(engine.play(s).state).state for s in (state, restored))
    assert torch.equal(ahead.parameters, again.parameters)
    assert ahead.attacks[0][8].chosen == again.attacks[0][8].chosen is not None


def test_a_row_without_numbers_reaches_the_server_which_refuses_it_by_name(digits, clients):
    for value in ("nan", "inf"):
        run = federation(
            digits, clients, Attacker("bad", NotFinite(value), frozenset({4})), rounds=2
        ).run()
        assert "client/4 was excluded" in run.history[0].incidents[0]
        assert run.history[0].survivors == 9
        assert run.accuracy > 0.2


def test_a_client_that_skips_the_clip_is_caught_where_rows_are_seen(digits, clients):
    run = federation(
        digits,
        clients,
        Attacker("wire", SkipClip(scale=100.0), frozenset({4})),
        rounds=1,
        bound=Clip(l2=0.5),
    ).run()
    assert "over the bound 0.5" in run.history[0].incidents[0]
    clipped = federation(
        digits,
        clients,
        Attacker("loud", SignFlip(scale=100.0), frozenset({4})),
        rounds=1,
        bound=Clip(l2=0.5),
    ).run()
    assert clipped.history[0].incidents == ()
    assert clipped.history[0].survivors == 10


def test_a_client_that_says_nothing_is_missing_and_named(digits, clients):
    run = federation(digits, clients, Attacker("mute", Withhold(), frozenset({4})), rounds=1).run()
    assert run.history[0].survivors == 9
    assert "client 4 did not get through" in run.history[0].incidents


def test_free_riders_get_the_model_without_spoiling_it(digits, clients):
    assert (
        federation(digits, clients, Attacker("lazy", FreeRider(), frozenset({4})), rounds=8)
        .run()
        .accuracy
        > 0.8
    )


def test_a_config_names_attacks_schedules_and_settings_in_groups():
    config = {
        "rounds": 3,
        "attacks": [
            {
                "name": "model_replacement",
                "backdoor": {"name": "pixel_pattern", "target": 2, "boxes": [[0, 0, 2, 2]]},
                "training": {"lr": 0.1, "epochs": 1},
                "clients": [1],
                "rounds": [2],
            },
            {"name": "sign_flip", "fraction": 0.2, "first": 1, "every": 2, "colluding": False},
        ],
    }
    first, second = Federation.from_config(config).scenario.attackers
    assert first.attack == ModelReplacement(
        PixelPattern(target=2, boxes=((0, 0, 2, 2),)), AttackTraining(lr=0.1, epochs=1)
    )
    assert first.schedule == AttackSchedule(rounds=(2,))
    assert (len(second.clients), second.colluding, second.schedule) == (
        4,
        False,
        AttackSchedule(first=1, every=2),
    )
    config["attacks"][0]["training"] = {"epoch": 1}
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        Federation.from_config(config)


def test_a_config_may_say_how_many_clients_an_attack_has_and_they_are_drawn():
    def attackers(clients, seed=0):
        part = {"name": "sign_flip", "clients": clients}
        config = {"data": {"name": "digits", "clients": 10}, "seed": seed, "attacks": [part]}
        return Federation.from_config(config).scenario.attackers[0].clients

    assert len(attackers(4)) == 4
    assert attackers(4) == attackers(4) <= set(range(10))
    assert len({attackers(4, seed) for seed in range(5)}) > 1
    assert attackers(10) == set(range(10))
    for wrong, why in (
        (0, r"must lie in \[1, 10\], and is 0"),
        (11, r"must lie in \[1, 10\], and is 11"),
        (True, "a list of them, or a number"),
        (2.5, "a list of them, or a number"),
        ("4", "a list of them, or a number"),
    ):
        with pytest.raises(ConfigError, match=why):
            attackers(wrong)


TAKING_PART = {
    name: made
    for name, made in catalog.ATTACKS.items()
    if family_of(made) in ("byzantine", "poisoning", "backdoor")
}


@pytest.mark.parametrize("name", TAKING_PART)
def test_every_attack_of_the_catalogue_fills_a_seat_cites_a_paper_and_says_what_it_knows(name):
    made = TAKING_PART[name]
    assert seats_of(made) != "view"
    assert "know" in made.__doc__.lower()
    assert catalog.paper_of(made) or name in ("not_finite", "steady", "ordinary", "foretold")


DEFAULTS = [name for name, made in TAKING_PART.items() if not catalog.fields_of(made)[1]]


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_attack_with_defaults_plays_two_rounds_by_config(name):
    slow = {
        "optimal_points": {"ascents": 1, "fraction": 0.05},
        "back_gradient": {"ascents": 1, "steps": 3},
    }.get(name, {})
    config = {
        "data": {"name": "digits", "clients": 8},
        "rounds": 2,
        "aggregator": "median",
        "attacks": [{"name": name, "fraction": 0.25, **slow}],
        "executor": "sequential",
    }
    run = Federation.from_config(config).run()
    assert any(key.startswith("attack ") for key in run.history[1].fired) or name == "withhold"
    made = catalog.ATTACKS[name]()
    if isinstance(made, UpdatePoison | RememberingPoison):
        assert made.knows in ("nothing", "own", "benign", "rule")


def test_the_median_stands_what_breaks_the_mean(digits, clients):
    flip = Attacker("flip", SignFlip(scale=10.0), frozenset({2, 7}))
    assert federation(digits, clients, flip, aggregator=Median()).run().accuracy > 0.75
