"""Privacy of people who have several samples, or are at several clients: what is claimed of samples
or of clients is false of them, what is claimed of users holds, and its price is exact.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.aggregators import Mean
from privfl.audit.dp.bounds import clopper_pearson
from privfl.audit.dp.canaries import mean_output
from privfl.config import AuditConfig
from privfl.core import (
    BudgetSpent,
    Charge,
    ConfigError,
    Dataset,
    Ledger,
    LocalPlan,
    Sampling,
    UserBounds,
)
from privfl.dp import Clip, Correlated, DPGradient, Gaussian, LocalGaussian, Release, spend
from privfl.dp.accounting.pld import pld_epsilon
from privfl.dp.opening import hinges
from privfl.dp.strategies import Blt
from privfl.engine import Budget, Poisson, Separated
from privfl.training import LocalSGD

DELTA = 1e-4


# ---- the attack: users through the real engine


USERS, RECORDS, STEPS, Z = 200, 8, 4, 2.0
TRAINING = LocalSGD(
    lr=1.0,
    plan=LocalPlan(batch_size=USERS * RECORDS // 2, steps=STEPS),
    gradient=DPGradient(1.0, Z, batch_size=USERS * RECORDS // 2),
)


def people(present, records=RECORDS):
    """Canary users: each has so many samples along an axis of its own, or samples of nothing."""
    x = torch.eye(len(present)) * present[:, None] * 10.0
    ids = torch.arange(len(present)).repeat_interleave(records)
    y = torch.zeros(len(ids), dtype=torch.int64)
    return Dataset(x[ids], y, 1, {"person": ids})


def trained(data, **settings):
    model = nn.Linear(data.x.shape[1], 1, bias=False)
    nn.init.zeros_(model.weight)
    made = {"rounds": 1, "training": TRAINING, "loss": mean_output, "executor": "sequential"}
    federation = Federation(model, [data], data.take([0, 1]), **{**made, **settings})
    run = federation.run()
    return run, model.weight.detach().double().flatten().numpy()


def attack(seeds, **settings):
    """What the released model tells of users with their samples, and of users without."""
    inside, outside = [], []
    for seed in seeds:
        present = torch.rand(USERS, generator=torch.Generator().manual_seed(seed)) < 0.5
        run, weights = trained(people(present), seed=seed, **settings)
        inside.append(-weights[present.numpy()])
        outside.append(-weights[~present.numpy()])
    return run, np.concatenate(inside), np.concatenate(outside)


def claimed(run, unit):
    [line] = [line for line in run.summary["privacy"] if line["unit"] == unit]
    return line


BOUNDS = UserBounds("person", max_records_per_user=RECORDS)


def test_what_is_claimed_of_samples_is_false_of_a_user_and_what_is_claimed_of_users_holds():
    run, inside, outside = attack(range(6))
    lower = clopper_pearson(inside, outside, DELTA, 0.05)
    of_samples = spend(run.ledger, DELTA)[0].claim()
    assert lower > of_samples  # the attack: a whole user is told from nobody
    run, inside, outside = attack(range(6), users=BOUNDS)
    [of_users] = spend(run.ledger, DELTA)
    assert (of_users.unit, of_users.relation) == ("user", "zero_out")
    assert of_samples < clopper_pearson(inside, outside, DELTA, 0.05) < of_users.claim()
    exact = pld_epsilon({Release.gaussian(Z, rate=0.5, group=RECORDS): STEPS}, DELTA)
    assert of_users.pld == pytest.approx(exact)


def test_a_users_samples_move_a_batch_by_as_many_clips_as_were_drawn():
    data = people(torch.tensor([True, False]), records=4)
    plan = LocalPlan(batch_size=8, steps=1)
    training = LocalSGD(lr=1.0, plan=plan, gradient=DPGradient(1.0, 0.0, batch_size=8))
    _, weights = trained(data, training=training, users=replace(BOUNDS, max_records_per_user=4))
    assert weights == pytest.approx([-4 / 8, 0.0], rel=1e-5)


def test_users_whose_ids_are_no_whole_numbers_are_refused(federation):
    """A missing id is NaN where ids are floats, and no NaN is like another: all samples without an
    id would be people of their own, and one person's as many as there are.
    """
    data = people(torch.ones(20), records=2)
    for ids in (
        torch.full((40,), float("nan")),
        data.attributes["person"].double(),
        data.attributes["person"].unsqueeze(1),
    ):
        with pytest.raises(ConfigError, match="one whole number a sample"):
            trained(replace(data, attributes={"person": ids}), users=BOUNDS, training=short())


def test_who_has_several_clients_is_told_by_more_than_a_client_is(federation):
    """Devices: each client one person's, sixteen of them to a person."""
    persons, devices, rounds, z = 60, 16, 5, 4.0
    ids = torch.arange(persons).repeat_interleave(devices)
    owned = UserBounds("person", max_clients_per_user=devices, one_user_per_client=True)
    inside, outside = [], []
    for seed in range(4):
        present = torch.rand(persons, generator=torch.Generator().manual_seed(seed)) < 0.5
        rows = (torch.eye(persons) * present[:, None] * 5.0)[ids]
        run = federation(
            rows,
            mechanism=Gaussian(z),
            sampler=Poisson(0.5),
            aggregator=Mean(weighted=False, denominator=1.0),
            rounds=rounds,
            persons=ids,
            seed=seed,
            users=owned,
        ).run()
        moved = run.state.parameters.double().numpy()
        inside.append(moved[present.numpy()])
        outside.append(moved[~present.numpy()])
    lower = clopper_pearson(np.concatenate(inside), np.concatenate(outside), DELTA, 0.05)
    [user] = spend(run.ledger, DELTA)
    assert (user.unit, user.relation) == ("user", "add_remove")
    of_clients = pld_epsilon({Release.gaussian(z, rate=0.5): rounds}, DELTA)
    assert of_clients < lower < user.claim()
    exact = pld_epsilon({Release.gaussian(z, rate=0.5, group=devices): rounds}, DELTA)
    assert user.pld == pytest.approx(exact)


def test_users_who_share_a_client_replace_its_row(federation):
    rows = torch.eye(4)
    shared = UserBounds("person")
    parts = {"mechanism": Gaussian(2.0), "persons": [0, 1, 2, 3], "users": shared}
    [user] = spend(federation(rows, **parts).run().ledger, DELTA)
    assert (user.unit, user.relation) == ("user", "replace_one")
    with pytest.raises(ConfigError, match="hold other users' samples too"):
        federation(rows, relation="zero_out", **parts)


def test_noise_at_the_clients_is_charged_once_for_each_client_of_a_user(federation):
    ids = [0, 0, 0, 1, 1, 2]
    parts = {"mechanism": LocalGaussian(3.0), "persons": ids, "rounds": 2}
    bounds = UserBounds("person", max_clients_per_user=3, one_user_per_client=True)
    [user] = spend(federation(torch.eye(6), users=bounds, **parts).run().ledger, DELTA)
    assert user.releases == 6
    assert user.pld == pytest.approx(pld_epsilon({Release.gaussian(3.0): 6}, DELTA))


def test_a_round_that_hangs_on_several_clients_of_a_user_tells_their_coins():
    drawn, several = Sampling("poisson", 0.1, 100), Sampling("poisson", 0.1, 100, group=3)

    def quorum(n, m):
        return m >= 4

    assert [m for m in range(9) if hinges(quorum, drawn, m, m)] == [3, 4]
    assert [m for m in range(9) if hinges(quorum, several, m, m)] == [1, 2, 3, 4, 5, 6]


# ---- what is said, and what is refused


def test_the_statement_names_users_their_bounds_and_what_is_dropped():
    run, _ = trained(people(torch.ones(20)), users=BOUNDS, training=short())
    line = claimed(run, "user")
    assert line["claim"].startswith("Against the server and all other clients, which read what")
    assert (
        "user by 'person', at most 8 samples and 1 client each, what is beyond is dropped"
        in (line["claim"])
    )
    [charge] = run.ledger.charges
    assert Charge.from_json(charge.to_json()) == charge
    assert (charge.unit, charge.sampling.group, charge.users) == ("user", RECORDS, BOUNDS)


def test_the_statement_says_against_whom_users_of_several_clients_are_protected(federation):
    own = UserBounds("person", max_clients_per_user=2, one_user_per_client=True)
    parts = {"mechanism": Gaussian(2.0), "sampler": Poisson(0.5), "persons": [0, 0, 1, 1]}
    mean = Mean(weighted=False, denominator=2.0)
    run = federation(torch.eye(4), users=own, aggregator=mean, **parts).run()
    said = claimed(run, "user")["claim"]
    assert said.startswith("Against whoever reads the released models, who learns no cohort")
    assert "user by 'person', at most 2 clients each, what is beyond is dropped" in said
    assert said.count("Against the server: none") == 1
    [charge] = run.ledger.charges
    assert (charge.subject, charge.sampling.group, charge.sampling.people) == ("user", 2, 2)
    assert charge.cohort is None  # whose clients they are is not in it


def short(**settings):
    gradient = DPGradient(1.0, 4.0, batch_size=80, **settings)
    return LocalSGD(lr=1.0, plan=LocalPlan(batch_size=80, steps=2), gradient=gradient)


REFUSED = [
    ({"users": UserBounds("name")}, "no such attribute"),
    ({"users": UserBounds("person")}, "max_records_per_user"),
    ({"users": UserBounds("person", max_records_per_user=7)}, "user 0 has 8"),
    ({"users": replace(BOUNDS, max_clients_per_user=2)}, "set it to 1"),
    ({"users": replace(BOUNDS, one_user_per_client=True)}, "holds samples of 20 users"),
    ({"users": BOUNDS, "training": LocalSGD()}, "nothing adds noise"),
    (
        {"users": BOUNDS, "mechanism": Gaussian(1.0), "bound": Clip(1.0)},
        "both private training and a mechanism",
    ),
]


@pytest.mark.parametrize(("parts", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_users_of_whom_nothing_can_be_promised_are_refused(parts, why):
    with pytest.raises(ConfigError, match=why):
        trained(people(torch.ones(20)), **{"training": short(), **parts})


def test_users_who_are_at_too_many_clients_are_refused(federation):
    with pytest.raises(ConfigError, match="max_clients_per_user is 2, and user 0 has 3"):
        federation(
            torch.eye(4),
            mechanism=Gaussian(1.0),
            persons=[0, 0, 0, 1],
            users=UserBounds("person", max_clients_per_user=2),
        )


def test_correlated_noise_is_refused_for_users_who_come_more_often_than_a_client(federation):
    parts = {
        "mechanism": Correlated(2.0, Blt(2)),
        "sampler": Separated(2),
        "aggregator": Mean(weighted=False, denominator=2.0),
        "rounds": 4,
    }
    several = UserBounds("person", max_clients_per_user=2, one_user_per_client=True)
    with pytest.raises(ConfigError, match="comes more often"):
        federation(torch.eye(4), persons=[0, 0, 1, 1], users=several, **parts)
    own = UserBounds("person", one_user_per_client=True)
    run = federation(torch.eye(4), persons=[0, 1, 2, 3], users=own, **parts).run()
    assert claimed(run, "user")["epsilon"] > 0


def test_noise_of_steps_that_hang_together_costs_a_user_so_many_times_a_sample():
    data = people(torch.ones(20))
    run, _ = trained(data, users=BOUNDS, training=short(strategy=Blt(2)))
    [charge] = run.ledger.charges
    z = charge.event.parameters["noise_multiplier"] / RECORDS
    assert claimed(run, "user")["pld"] == pytest.approx(pld_epsilon({Release.gaussian(z): 1}, 1e-5))


def test_delta_is_held_against_the_number_of_users(federation):
    ids = torch.arange(40) // 2
    data = [
        Dataset(torch.zeros(40, 1), torch.zeros(40, dtype=torch.int64), 1, {"person": ids + 20 * i})
        for i in range(3)
    ]
    with pytest.raises(ConfigError, match="not below 1 / 60"):
        Federation(
            nn.Linear(1, 1),
            data,
            data[0],
            bound=Clip(1.0),
            mechanism=Gaussian(1.0),
            training=LocalSGD(weighting="uniform"),
            aggregator=Mean(weighted=False),
            users=UserBounds("person"),
            audit=AuditConfig(delta=0.02),
        )


def test_a_model_that_was_charged_for_clients_is_no_start_for_users(federation):
    parts = {"mechanism": Gaussian(1.0), "persons": [0, 1, 2]}
    before = federation(torch.eye(3), **parts).run().ledger
    own = UserBounds("person", one_user_per_client=True)
    void = federation(torch.eye(3), start=before, users=own, **parts).run()
    assert "was charged for clients" in claimed(void, "user")["refused"]


def test_a_start_that_says_nothing_of_samples_leaves_no_claim_for_them_or_their_users(federation):
    data, bounds = people(torch.ones(20)), {"training": short()}
    of_samples = trained(data, **bounds)[0].ledger
    of_clients = federation(torch.eye(3), mechanism=Gaussian(1.0)).run().ledger
    again, _ = trained(data, start=of_samples, **bounds)
    assert claimed(again, "sample")["epsilon"] > spend(of_samples, 1e-5)[0].claim()
    for start, why in ((Ledger(), "without noise"), (of_clients, "charged for clients")):
        run, _ = trained(data, start=start, **bounds)
        assert why in claimed(run, "sample")["refused"]
    for start, why in ((Ledger(), "without noise"), (of_samples, "charged for samples")):
        run, _ = trained(data, start=start, users=BOUNDS, **bounds)
        assert why in claimed(run, "user")["refused"]
    of_rows = federation(torch.eye(3), mechanism=Gaussian(1.0), start=of_samples).run()
    assert "charged for samples" in claimed(of_rows, "client")["refused"]


def test_a_model_that_was_charged_for_users_told_apart_otherwise_is_no_start(federation):
    own = UserBounds("person", one_user_per_client=True)
    parts = {"mechanism": Gaussian(1.0), "persons": [0, 1, 2], "users": own}
    before = federation(torch.eye(3), **parts).run().ledger
    assert claimed(federation(torch.eye(3), start=before, **parts).run(), "user")["epsilon"] > 0
    device = replace(own, ids="device")
    other = [replace(charge, users=device) for charge in before.charges]
    void = federation(torch.eye(3), start=Ledger(tuple(other)), **parts).run()
    assert "users by 'device'" in claimed(void, "user")["refused"]


def test_a_budget_does_not_add_up_users_and_clients_nor_users_told_apart_otherwise(
    federation, tmp_path
):
    own = UserBounds("person", one_user_per_client=True)
    parts = {"mechanism": Gaussian(4.0), "persons": [0, 1, 2]}
    budget = Budget(50.0, 1e-5, tmp_path / "users.jsonl")
    federation(torch.eye(3), users=own, budget=budget, **parts).run()
    federation(torch.eye(3), users=own, budget=budget, **parts).run()
    with pytest.raises(BudgetSpent, match="'client' and 'user'"):
        federation(torch.eye(3), budget=budget, **parts).run()
    charge = federation(torch.eye(3), users=own, **parts).run().ledger.charges[0]
    other = replace(charge, users=replace(own, ids="household"))
    with pytest.raises(BudgetSpent, match="'household' and 'person'"):
        budget.opened().hold([other])


@pytest.mark.needs("mnist")
def test_a_config_bounds_the_writers_of_mnist():
    source = {
        "data": {"name": "mnist", "clients": 4, "partition": "iid"},
        "unit": "user",
        "users": {"ids": "writer", "max_records_per_user": 3},
        "training": {
            "name": "sgd",
            "batch_size": 16,
            "steps": 2,
            "gradient": {"name": "dp", "l2": 1.0, "noise_multiplier": 4.0},
        },
        "rounds": 1,
        "executor": "sequential",
    }
    made = Federation.from_config(source)
    writers = made.scenario.workload.data.attributes["writer"]
    held = [writers[index].tolist() for index in made.scenario.clients.values()]
    assert made.scenario.people == 539 == len({writer for one in held for writer in one})
    assert max(one.count(writer) for one in held for writer in one) == 3
    assert made.scenario.facts["users"].endswith("1,617 of 60,000 samples are kept")
    run = made.run()
    assert "user by 'writer', at most 3 samples and 1 client each" in claimed(run, "user")["claim"]
    with pytest.raises(ConfigError, match="go together"):
        Federation.from_config({**source, "unit": None})
    with pytest.raises(ConfigError, match="nothing noises what clients send"):
        Federation.from_config({**source, "unit": "client", "users": None})
    with pytest.raises(ConfigError, match="data set 'digits' has no such attribute"):
        Federation.from_config({**source, "data": {"name": "digits", "clients": 4}})
