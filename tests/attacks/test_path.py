"""Attackers that optimise try what arrives, on the rule that judges it."""

import pytest
import torch

from privfl import Federation
from privfl.aggregators import Krum, Median
from privfl.core import ConfigError, Context, Rows, Seeds
from privfl.engine import Engine
from privfl.engine.path import RealPath
from privfl.training import Sequential

CLIPPED = {
    "data": {"name": "digits", "clients": 20, "partition": {"name": "dirichlet", "alpha": 0.5}},
    "model": {"name": "mlp", "hidden": [32]},
    "training": {"name": "sgd", "lr": 0.3, "epochs": 2},
    "bound": {"name": "clip", "l2": 1.0},
    "aggregator": {"name": "krum", "f": 6, "m": 8},
    "rounds": 12,
    "executor": "stacked",
}


def left_by(attack, **changes):
    attack = {**attack, "clients": list(range(6))}
    accuracy = []
    for seed in range(3):
        config = {**CLIPPED, "attacks": [attack], "seed": seed, **changes}
        accuracy.append(Federation.from_config(config).run().accuracy)
    return accuracy


def test_agr_tailored_at_a_clip_leaves_a_fifth_and_the_papers_form_most_of_the_model():
    papers = {"along": "std", "harm": "distance", "adaptive": False}
    assert max(left_by({"name": "agr_tailored"})) <= 0.2
    assert min(left_by({"name": "agr_tailored", **papers})) > 0.6


def test_min_max_that_looks_at_what_arrives_goes_farther_than_one_that_does_not():
    naive, aware = (
        sum(left_by({"name": "min_max", "adaptive": knows}, rounds=8)) / 3
        for knows in (False, True)
    )
    assert aware < naive - 0.05


def path_of(**changes):
    """The path of a round's attackers, and the engine that it belongs to."""
    config = {**CLIPPED, "data": {"name": "digits", "clients": 12}, "rounds": 1}
    federation = Federation.from_config(
        {**config, "aggregator": {"name": "krum", "f": 2, "m": 3}, **changes}
    )
    scenario = federation.scenario
    engine = Engine(scenario, Sequential(scenario.workload))
    state = engine.begin("sequential")
    order = engine.planner.order(state, engine.server.broadcast(state.method))
    return RealPath(order, state, Seeds(0), knows_rule=True), order


def rows(n, d, scale=0.05):
    values = scale * torch.randn(n, d, generator=torch.Generator().manual_seed(1))
    return Rows(values, torch.ones(n), tuple(range(n)))


def test_what_is_too_long_arrives_clipped_and_what_a_channel_rounds_arrives_rounded():
    for channel in ("plain", "two_server", "bucketed_secagg"):
        path, order = path_of(channel=channel, aggregator="mean")
        sent = rows(3, order.plan.d, scale=9.0).values
        arrived = path.sent(sent)
        assert float(arrived.norm(dim=1).max()) <= 1.0 + 1e-3
        same = torch.equal(arrived, torch.stack([order.side.bounds["delta"](r) for r in sent]))
        assert same == (channel == "plain")


def test_under_a_hybrid_the_path_ends_at_the_rule_that_the_servers_run():
    path, order = path_of(channel="two_server")
    seen = rows(12, order.plan.d)
    assert torch.equal(path.server(seen), Krum(f=2, m=3)(seen))
    assert not torch.equal(path.server(seen), order.scenario.aggregator(seen))


def test_over_groups_the_rule_judges_means_of_groups_that_the_attackers_drew_themselves():
    path, order = path_of(channel={"name": "bucketed_secagg", "size": 2}, aggregator="median")
    seen = rows(12, order.plan.d)
    drawn = path.seeds.generator("attackers' idea of the server", 0)
    means = order.scenario.channel.able.groups.means(seen, drawn)
    assert means.n == 6
    assert torch.equal(path.server(seen), Median()(means))


def test_the_servers_own_coins_are_not_in_the_path():
    path, order = path_of(defences=[{"name": "bucketing", "size": 2}], aggregator="mean")
    seen, seat = rows(12, order.plan.d), order.scenario.defences[0]

    def mixed_by(purpose):
        rng = path.seeds.generator(purpose, order.plan.number)
        return seat.before(seen, None, Context(order.plan, order.base.parameters, rng))[0].values

    own, servers = mixed_by("attackers' idea of the server"), mixed_by("rule")
    assert not torch.equal(own, servers)
    assert torch.allclose(path.server(seen), own.mean(dim=0))


def test_a_path_without_the_rule_refuses_to_try_it():
    path, order = path_of()
    blind = RealPath(path.order, path.state, path.seeds, knows_rule=False)
    with pytest.raises(ConfigError, match="knows = 'rule'"):
        blind.server(rows(12, order.plan.d))


def test_attackers_that_craft_updates_begin_with_what_an_honest_client_would_send():
    """With momentum at the clients, an attacker's own row before it is crafted is its momentum."""
    config = {**CLIPPED, "defences": [{"name": "client_momentum", "beta": 0.9}], "rounds": 2}
    base = Federation.from_config({**config, "aggregator": "mean", "audit": {"keep": "all"}})
    honest = base.run().transcript(1).updates
    attack = {"name": "sign_flip", "scale": 1.0, "clients": [2], "first": 1}
    lied = Federation.from_config(
        {**config, "aggregator": "mean", "audit": {"keep": "all"}, "attacks": [attack]}
    ).run()
    assert torch.allclose(lied.transcript(1).updates[2].delta, -honest[2].delta, atol=1e-6)
