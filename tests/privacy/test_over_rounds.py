"""Sums over clients who change from round to round are equations for what single clients send; an
audit solves them, and finds what no sum by itself shows.
"""

from dataclasses import replace

import pytest
import torch

from privfl import Federation
from privfl.attacks import (
    ClientPresence,
    Knowledge,
    LabelCounts,
    LinearLeakage,
    NotApplicable,
    NotFound,
    UpdateMembership,
    mixed,
)
from privfl.attacks.equations import equations, single_updates
from privfl.attacks.rows import proof
from privfl.audit import Attacks, audit, named_attacks
from privfl.audit.games import AuditNotes, Truth, attack_rounds
from privfl.audit.rehearsal import divide, rehearse
from privfl.core import ConfigError, NotVisible, RoundPlan, Rows, Total, Update, View

RNG = torch.Generator().manual_seed(0)
SENT = torch.randn(6, 40, generator=RNG)
MODEL = torch.zeros(40)


def seen(number, cohort, opened=None, *, model=MODEL, **more):
    plan = RoundPlan(number, tuple(cohort), d=40, l2=9.0)
    return View("server", plan, MODEL, model, {} if opened is None else {"delta": opened}, **more)


def total(cohort, sent=SENT, weights=None):
    w = torch.ones(len(sent)) if weights is None else weights
    some = list(cohort)
    return Total(w[some] @ sent[some], float(w[some].sum()), len(some))


def cohorts(rounds, size=3, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return [sorted(torch.randperm(6, generator=rng)[:size].tolist()) for _ in range(rounds)]


def recovered(views):
    view, off = single_updates(views)
    return dict(zip(view.rows.ids, view.rows.values, strict=True)), off


def test_what_clients_send_again_and_again_comes_out_of_sums():
    found, off = recovered([seen(t, who, total(who)) for t, who in enumerate(cohorts(12))])
    assert sorted(found) == list(range(6))
    assert all(torch.allclose(found[k], SENT[k], atol=1e-2) for k in found)
    assert off < 0.02


def test_clients_of_unlike_weight_come_out_unweighted():
    weights = torch.tensor([10.0, 200.0, 30.0, 5.0, 90.0, 61.0])
    views = [seen(t, who, total(who, weights=weights)) for t, who in enumerate(cohorts(16))]
    view, _ = single_updates(views)
    told = dict(zip(view.rows.ids, view.rows.weights.tolist(), strict=True))
    found, _ = recovered(views)
    for k in (0, 1, 2, 4, 5):
        assert told[k] == pytest.approx(float(weights[k]), rel=0.02)
        assert torch.cosine_similarity(found[k], SENT[k], dim=0) > 0.99


def test_released_models_are_sums_to_whoever_reads_nothing_else():
    views = [seen(t, who, model=SENT[list(who)].mean(dim=0)) for t, who in enumerate(cohorts(12))]
    found, _ = recovered(views)
    assert all(torch.allclose(found[k], SENT[k], atol=2e-2) for k in found)


def test_means_of_groups_and_named_rows_are_equations_too():
    views = []
    for t, who in enumerate(cohorts(8)):
        rest = [k for k in range(6) if k not in who]
        means = torch.stack([SENT[list(who)].mean(0), SENT[rest].mean(0)])
        told = {
            "membership": torch.tensor([0 if k in who else 1 for k in range(6)]),
            "groups": torch.tensor([0, 1]),
        }
        views.append(seen(t, range(6), Rows(means, torch.tensor([3.0, 3.0])), disclosed=told))
    views.append(seen(8, [2], Rows(SENT[2:3], torch.ones(1), (2,))))
    found, _ = recovered(views)
    assert all(torch.allclose(found[k], SENT[k], atol=2e-2) for k in found)


def test_rounds_are_left_out_from_which_on_clients_send_something_else():
    """The same sums with later ones that are of other updates are solved from the first of them."""
    other = torch.randn(6, 40, generator=torch.Generator().manual_seed(9))
    views = [
        seen(t, who, total(who, SENT if t < 24 else other)) for t, who in enumerate(cohorts(32))
    ]
    found, off = recovered(views)
    assert all(torch.cosine_similarity(found[k], SENT[k], dim=0) > 0.99 for k in found)
    assert off < 0.05


def test_how_far_entries_are_off_is_known():
    rng = torch.Generator().manual_seed(5)
    views, noise = [], 0.3
    for t, who in enumerate(cohorts(40)):
        clean = total(who)
        views.append(
            seen(t, who, replace(clean, value=clean.value + noise * torch.randn(40, generator=rng)))
        )
    found, off = recovered(views)
    real = torch.stack([found[k] - SENT[k] for k in sorted(found)]).square().mean().sqrt()
    assert 0.6 * float(real) < off < 1.8 * float(real)


def drop_outs(rounds=24):
    """Everybody is asked in every round, and from the fourth on one is missing in every other."""
    drift = 0.02 * torch.randn(rounds, 6, 40, generator=torch.Generator().manual_seed(4))
    for t in range(rounds):
        there = [k for k in range(6) if t < 4 or t % 2 == 0 or k != t // 2 % 6]
        sent = SENT + drift[: t + 1].sum(dim=0)
        yield seen(t, range(6), total(there, sent), heard={"delta": tuple(there)})


def test_drop_outs_tell_clients_apart_where_everybody_is_asked():
    """Rounds of the same clients foretell each other best, and tell nobody apart."""
    found, _ = recovered([*drop_outs()])
    assert sorted(found) == list(range(6))
    assert all(torch.cosine_similarity(found[k], SENT[k], dim=0) > 0.98 for k in found)


def test_nothing_is_proved_of_sums_from_which_others_drop_out():
    assert not proof([*drop_outs()])
    same = [*drop_outs(3)]
    assert proof(same)
    other_plan = replace(same[1], plan=replace(same[1].plan, cohort=(0, 1, 2, 3, 4, 5, 9)))
    assert proof([same[0], other_plan])  # who was asked and never spoke is in no sum


@pytest.mark.parametrize("lost", [float("nan"), 0.0])
def test_rounds_that_were_lost_at_first_do_not_hide_the_others(lost):
    views = [
        seen(t, who, replace(total(who), value=total(who).value * (lost if t < 4 else 1.0)))
        for t, who in enumerate(cohorts(32))
    ]
    found, _ = recovered(views)
    assert sorted(found) == list(range(6))
    assert all(torch.cosine_similarity(found[k], SENT[k], dim=0) > 0.8 for k in found)


def test_sums_of_nothing_say_so():
    still = [seen(t, who, total(who, 0 * SENT)) for t, who in enumerate(cohorts(8))]
    answer = LinearLeakage(target="rounds").run(still)
    assert isinstance(answer, NotFound)
    assert "are zero" in answer.reason


def test_whoever_weighs_little_comes_out_too():
    weights = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 100.0])
    views = [seen(t, who, total(who, weights=weights)) for t, who in enumerate(cohorts(16))]
    found, _ = recovered(views)
    assert all(torch.cosine_similarity(found[k], SENT[k], dim=0) > 0.99 for k in range(6))


def test_colluders_take_their_own_updates_off_first():
    rng, views = torch.Generator().manual_seed(3), []
    for t in range(12):
        sent = SENT.clone()
        sent[0] = 30 * torch.randn(40, generator=rng)  # never twice the same, and known
        others = [1 + t % 5, 1 + (t + 1 + t // 5) % 5]
        mine = {0: Update(0, sent[0])}
        plan = RoundPlan(t, (0, *others), d=40, l2=1e9)
        opened = {"delta": total((0, *others), sent)}
        views.append(View("colluders(server,client/0)", plan, MODEL, MODEL, opened, own=mine))
    found, _ = recovered(views)
    assert sorted(found) == [1, 2, 3, 4, 5]
    assert all(torch.cosine_similarity(found[k], SENT[k], dim=0) > 0.98 for k in found)
    same = [replace(view, plan=replace(view.plan, cohort=(0, 1, 2))) for view in views[:1]]
    without = replace(same[0], own={}, opened={"delta": total((1, 2))})
    without = replace(without, plan=replace(without.plan, cohort=(1, 2)))
    assert not mixed([*same, without])  # the others are the same


def test_what_is_no_equation_is_left_out():
    views = [seen(t, who, total(who)) for t, who in enumerate(cohorts(12))]
    short = seen(12, (0, 1, 2), Total(9 * SENT[0], 2.0, 2))  # a rule left somebody out
    lost = seen(13, (0, 1), Total(torch.full((40,), float("nan")), 2.0, 2))
    assert len(equations([*views, short, lost]).sums) == 12
    heard = {"delta": (0, 1)}
    dropped = seen(14, (0, 1, 2), total((0, 1)), heard=heard)
    assert equations([dropped]).members.tolist() == [[1.0, 1.0]]
    anonymous = seen(0, range(3), Rows(SENT[:3], torch.ones(3)))
    assert not mixed([anonymous, *views])
    with pytest.raises(NotVisible, match="nobody says"):
        equations([anonymous])


def test_where_nothing_can_be_solved_the_attack_says_so():
    same = [seen(t, (0, 1, 2), total((0, 1, 2))) for t in range(3)]
    answer = LinearLeakage(target="rounds").run(same)
    assert isinstance(answer, NotApplicable)
    assert not isinstance(answer, NotFound)  # it is proved
    assert "no sums over different clients" in answer.reason
    assert not mixed(same)
    rows = [
        seen(t, who, Rows(SENT[who], torch.ones(3), tuple(who))) for t, who in enumerate(cohorts(3))
    ]
    assert not mixed(rows)
    nothing = LinearLeakage(target="rounds").run([])
    assert isinstance(nothing, NotFound)
    assert "no views" in nothing.reason


CONFIG = {
    "data": {"name": "digits", "clients": 8, "partition": "iid"},
    "model": {"name": "mlp", "hidden": [32]},
    "training": {"name": "fedsgd", "lr": 0.02, "weighting": "uniform"},
    "bound": {"name": "clip", "l2": 0.2},
    "rounds": 24,
    "sampler": {"name": "fixed_size", "size": 4},
    "channel": {"name": "secagg", "fidelity": "ideal"},
    "seed": 3,
    "executor": "sequential",
}
EVERY = Attacks(
    probe=(LinearLeakage(), LinearLeakage(target="sum")),
    rounds=(
        LabelCounts(target="rounds"),
        LinearLeakage(target="rounds"),
        UpdateMembership(statistic="cosine", target="rounds"),
    ),
)


def audited(attacks=EVERY, adversaries=("server",), **changes):
    federation = Federation.from_config({**CONFIG, **changes})
    report = audit(federation, adversaries=adversaries, attacks=attacks, lies=None)
    return {(one.adversary, one.attack): one for one in report.findings}


@pytest.fixture(scope="module")
def sampled():
    return audited(adversaries=("server", "client(0)"))


def test_secure_aggregation_of_sampled_clients_gives_samples_away_over_rounds(sampled):
    for adversary in ("server", "client(0)"):
        samples = sampled[adversary, "LinearLeakage (rounds)"]
        assert samples.verdict == "leaks", samples
        assert samples.value.value > 17
        assert samples.rates["recognised"].value >= 0.25
        assert sampled[adversary, "LabelCounts (rounds)"].value.value > 0.5
    assert sampled["server", "UpdateMembership (cosine, rounds)"].verdict == "leaks"


def test_no_round_by_itself_does(sampled):
    alone = sampled["server", "LinearLeakage (client)"]
    assert alone.verdict == "not found"  # and not proved: that holds of one round
    assert not alone.theorem
    assert "sums of others" in alone.reason


def test_everybody_in_every_round_leaves_nothing_to_solve():
    told = audited(sampler={"name": "all"}, rounds=4)
    for (_, attack), one in told.items():
        if "rounds" in attack:
            assert one.value is None
            assert "no sums over different clients" in one.reason
    report = audit(
        Federation.from_config({**CONFIG, "sampler": {"name": "all"}, "rounds": 2}),
        adversaries=["server"],
        effort="low",
        lies=None,
        presence=(),
        properties=(),
    )
    assert not [one for one in report.findings if "rounds" in one.attack]  # nobody asked by name


def test_noise_for_clients_stops_it():
    told = audited(
        mechanism={"name": "distributed_skellam", "noise_multiplier": 1.0},
    )
    assert told["server", "LinearLeakage (rounds)"].value.value < 12
    assert told["server", "LinearLeakage (rounds)"].rates["recognised"].value == 0
    assert told["server", "UpdateMembership (cosine, rounds)"].value.value < 0.6


@pytest.mark.parametrize("seed", range(3))
def test_claims_held_against_other_samples_of_the_same_clients_find_nothing(seed):
    federation = Federation.from_config({**CONFIG, "seed": seed, "rounds": 12})
    scenario = federation.scenario
    third = {client: len(index) // 3 for client, index in scenario.clients.items()}
    trained = {client: index[: third[client]] for client, index in scenario.clients.items()}
    claimed = {client: index[third[client] :] for client, index in scenario.clients.items()}
    ground = divide(replace(scenario, clients=claimed), 0.5, 0)
    knows = Knowledge(scenario.facts["forward"], auxiliary=ground.auxiliary, candidates=ground.pool)
    few = {client: index[:1] for client, index in trained.items()}
    held = {client: index[:1] for client, index in ground.members.items()}
    truth = Truth(held, scenario.workload.data, ground)
    notes = AuditNotes([], {}, {})
    run = rehearse(federation, trained, scenario.rounds)
    attack_rounds(
        notes, "blind", federation, run, few, ["server"], EVERY.rounds, knows, truth, None,
        all_asked=False,
    )  # fmt: skip
    assert len(notes.findings) == 3
    for one in notes.findings:
        assert one.value is not None, one.reason
        assert one.verdict == "not found", one


def played(spoil):
    """The notes of attacks over rounds, after ``spoil(federation, few, notes)``."""
    federation = Federation.from_config({**CONFIG, "rounds": 4})
    scenario = federation.scenario
    ground = divide(scenario, 0.5, 0)
    knows = Knowledge(scenario.facts["forward"], auxiliary=ground.auxiliary, candidates=ground.pool)
    few = {client: index[:1] for client, index in ground.members.items()}
    notes = AuditNotes([], {}, {})
    run = rehearse(federation, ground.members, scenario.rounds)
    start = scenario.workload.model.read()
    spoil(federation, few, notes)
    attack_rounds(
        notes, "none", federation, run, few, ["server"], EVERY.rounds, knows,
        Truth(few, scenario.workload.data, ground), None, all_asked=False,
    )  # fmt: skip
    assert torch.equal(scenario.workload.model.read(), start)
    return {one.attack: one for one in notes.findings}


def test_small_clients_whose_run_fails_end_no_audit():
    def spoil(federation, few, notes):
        federation.scenario.workload.data.y[torch.cat([*few.values()])] = 99  # no such label

    told = played(spoil)
    assert told["UpdateMembership (cosine, rounds)"].value is not None
    for attack in ("LinearLeakage (rounds)", "LabelCounts (rounds)"):
        assert "its run of small clients failed: " in told[attack].undone


def test_what_the_budget_left_out_is_not_passed_over():
    def spoil(federation, few, notes):
        notes.deadline = 0.0

    told = played(spoil)
    assert len(told) == 3
    assert all("budget" in one.undone for one in told.values())


@pytest.mark.needs("shakespeare")
def test_clients_who_hold_text_are_asked_by_name():
    text = {
        "data": {"name": "shakespeare", "length": 8, "clients": 4, "partition": "natural"},
        "model": {"name": "transformer", "width": 8, "heads": 2},
        "training": {"name": "sgd", "lr": 0.1, "batch_size": 16, "steps": 1},
        "sampler": {"name": "fixed_size", "size": 2},
        "rounds": 2,
    }
    named = named_attacks([{"name": "linear_leakage", "target": "rounds"}])
    told = audited(named, **text)
    assert "linear first layer" in told["server", "LinearLeakage (rounds)"].reason


def test_a_config_names_attacks_over_rounds():
    told = named_attacks(
        [
            {"name": "linear_leakage", "target": "rounds"},
            {"name": "update_membership", "target": "rounds"},
            {"name": "label_counts"},
        ]
    )
    assert told.rounds == (LinearLeakage(target="rounds"), UpdateMembership(target="rounds"))
    assert told.probe == (LabelCounts(),)
    with pytest.raises(ConfigError, match="scored by no game"):
        named_attacks([{"name": "client_presence", "target": "rounds"}])
    assert ClientPresence(target="rounds").takes_rounds
