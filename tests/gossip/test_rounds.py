"""Rounds of gossip through real sessions, parties and training."""

import math
from dataclasses import replace
from statistics import NormalDist

import pytest
import torch

from privfl.aggregators import FLTrust, Mean, Median, TrimmedMean
from privfl.attacks import ALIE, AGRTailored, Dissensus, LabelFlip
from privfl.core import ConfigError, Rows, SeededNoise
from privfl.crypto import CKKS, Plain, SecAgg
from privfl.dp import Clip, Gaussian, LocalGaussian, NoBound, PerRound, ScheduledClip, spend
from privfl.engine import Attacker, Engine, Scenario
from privfl.gossip import (
    UBAR,
    Bridge,
    ClippedGossip,
    Gossip,
    GossipGraph,
    GossipMean,
    Screened,
)
from privfl.hybrid import BucketedSecAgg
from privfl.training import Sequential

SUMMED = {"channel": SecAgg(fidelity="ideal"), "message_bound": 4.0}


def played(scenario, rounds=None, silent=None, keep=False):
    gossip = Gossip(scenario)
    states, rows = [gossip.begin()], []
    for number in range(rounds or scenario.rounds):
        state, row = gossip.play(states[-1], (silent or {}).get(number, {}), keep=keep)
        states.append(state)
        rows.append(row)
    return gossip, states, rows


def test_on_a_complete_graph_the_mean_is_federated_averaging(on):
    scenario = on(GossipGraph.complete(6), rounds=5)
    _, states, _ = played(scenario)
    parts = Scenario(
        scenario.workload,
        scenario.clients,
        scenario.test,
        NoBound(),
        Plain(),
        Mean(),
        rounds=5,
    )
    engine = Engine(parts, Sequential(scenario.workload))
    state = engine.begin("sequential")
    for number in range(5):
        state = engine.play(state).state
        apart = (states[number + 1].models - state.parameters).abs().max()
        assert apart < 1e-6
    assert (states[5].models - states[0].models).norm() > 0.1, "nothing was learnt at all"


@pytest.mark.parametrize(
    "parts",
    [{}, {"message_bound": 0.05}, SUMMED, {**SUMMED, "message_bound": 0.2}],
    ids=["rows", "rows, cut", "sums", "sums, cut"],
)
def test_the_average_moves_by_the_mean_of_what_nodes_trained_and_by_nothing_else(on, parts):
    """Also where what is sent is cut short or rounded: the sender adds up what it sent."""
    _, states, rounds = played(on(GossipGraph.regular(8, 4), rounds=6, **parts))
    for before, after, done in zip(states, states[1:], rounds, strict=False):
        moved = after.models.mean(dim=0) - before.models.mean(dim=0)
        assert (moved - done.trained.mean(dim=0)).abs().max() < 1e-5


@pytest.mark.parametrize("parts", [{}, SUMMED], ids=["rows", "sums"])
def test_without_training_nodes_that_differ_come_together_at_their_average(on, parts):
    scenario = on(GossipGraph.regular(8, 4), **parts)
    still = replace(scenario.workload, method=replace(scenario.workload.method, lr=1e-12))
    gossip = Gossip(replace(scenario, workload=still))
    start = gossip.begin()
    models = torch.randn(start.models.shape, generator=torch.Generator().manual_seed(3))
    state = replace(start, models=models.double())
    for _ in range(25):
        state, _ = gossip.play(state)
    assert (state.models - models.double().mean(dim=0)).abs().max() < 2e-3


def test_sums_over_secure_aggregation_lead_where_rows_in_the_clear_do(on):
    graph = GossipGraph.regular(6, 4)
    _, plain, _ = played(on(graph, rounds=2))
    _, real, rounds = played(on(graph, rounds=2, channel=SecAgg(), message_bound=4.0))
    _, ideal, _ = played(on(graph, rounds=2, **SUMMED))
    assert torch.equal(real[-1].models, ideal[-1].models)
    assert (real[-1].models - plain[-1].models).abs().max() < 1e-3
    assert all(run.opened.what.count == 4 for run in rounds[0].runs.values())


def test_a_node_that_is_away_for_a_round_is_caught_up_with(on):
    """Its neighbours mix without it, nobody counts what it did not send, and what it sends next is
    all that it has changed since.
    """
    graph = GossipGraph.regular(8, 4)
    for parts in ({}, SUMMED):
        _, states, rounds = played(on(graph, rounds=4, **parts), silent={1: {3: 0}})
        assert torch.equal(states[2].models[3], states[1].models[3])
        assert not rounds[1].trained[3].any()
        beside = graph.neighbours[3]
        assert all(3 not in rounds[1].runs[k].survivors for k in beside)
        assert all(torch.equal(states[2].sent[3, k], states[1].sent[3, k]) for k in beside)
        half = states[3].models[3] + rounds[3].trained[3]
        for k in beside:
            assert (states[4].sent[3, k] - half).abs().max() < 1e-3


def test_a_node_that_dies_in_the_middle_of_a_protocol_shifts_no_sum(on):
    """Over real secure aggregation: after it has sent its masked row, or before."""
    graph = GossipGraph.regular(8, 6)
    scenario = on(graph, rounds=3, channel=SecAgg(), message_bound=4.0)
    for at in (1, 2, 3):
        _, states, rounds = played(scenario, silent={1: {0: at}})
        for i in graph.neighbours[0]:
            held = states[-1].sums[i]
            told = sum(
                scenario.graph.weights[i, k] * states[-1].sent[k, i] for k in graph.neighbours[i]
            )
            assert (held - told).abs().max() < 1e-4
            assert rounds[1].runs[i].opened is not None
        assert torch.equal(states[2].models[0], states[1].models[0] + rounds[1].trained[0])


def test_a_liar_tells_each_neighbour_something_else(on):
    graph = GossipGraph.regular(8, 4)
    liar = Attacker("dissensus", Dissensus(2.0), frozenset({0}))
    scenario = on(graph, rounds=2, attackers=[liar])
    _, states, _ = played(scenario, rounds=1)
    held = [states[1].sent[0, k] for k in graph.neighbours[0]]
    assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(held) for b in held[:i])
    honest = [states[1].sent[1, k] for k in graph.neighbours[1]]
    assert all((a - honest[0]).abs().max() < 1e-6 for a in honest)


def test_dissensus_moves_a_node_away_from_its_neighbours_by_the_papers_formula(on):
    """By 1 - epsilon times the pull of the honest ones, whatever its liars weigh together."""
    graph = GossipGraph.complete(5)
    liar = Attacker("dissensus", Dissensus(1.5), frozenset({3, 4}))
    _, states, rounds = played(on(graph, attackers=[liar]), rounds=1)
    half = states[0].models + rounds[0].trained
    for i in range(3):
        pull = sum((half[k] - half[i]) / 5 for k in range(3))
        assert (states[1].models[i] - half[i] - (1 - 1.5) * pull).abs().max() < 1e-6


@pytest.mark.parametrize("rule", [ClippedGossip(1 / 7), Bridge(1), UBAR(0.6), Screened(Median())])
def test_a_liar_that_sends_anything_at_all_moves_no_robust_node_far(on, rule):
    graph = GossipGraph.regular(8, 6)
    far = Attacker("dissensus", Dissensus(1e6), frozenset({0}))
    _, lied, rounds = played(on(graph, rule=rule, attackers=[far]), rounds=1)
    half = rounds[0].trained
    longest = half.norm(dim=1).max()
    moved = (lied[1].models - lied[0].models)[1:].norm(dim=1).max()
    assert moved < 5 * longest
    _, taken, _ = played(on(graph, attackers=[far]), rounds=1)
    assert (taken[1].models - taken[0].models)[1:].norm(dim=1).max() > 1e3 * longest


def test_a_row_over_the_bound_or_not_finite_is_left_out_by_name(on):
    graph = GossipGraph.regular(6, 4)
    bad = Attacker("not finite", Dissensus(1e300), frozenset({0}))
    _, states, rounds = played(on(graph, attackers=[bad]), rounds=1)
    assert any("client/0 was left out" in one for one in rounds[0].incidents)
    assert states[1].models[1:].isfinite().all()


def test_noise_of_a_nodes_own_is_charged_as_so_many_gaussians(on):
    scenario = on(
        GossipGraph.ring(4),
        bound=Clip(1.0),
        mechanism=LocalGaussian(noise_multiplier=3.0),
    )
    gossip, _, rounds = played(scenario)
    [spent] = spend(gossip.ledger, 1e-5)
    assert [charge.round for charge in gossip.ledger.charges] == [0, 1, 2]
    assert {charge.relation for charge in gossip.ledger.charges} == {"replace_one"}
    # three Gaussians of multiplier 3 are one of multiplier sqrt(3) (Balle, Wang 2018, theorem 8)
    phi, mu, epsilon = NormalDist().cdf, 1 / math.sqrt(3), spent.claim()
    least = [
        phi(mu / 2 - e / mu) - math.exp(e) * phi(-mu / 2 - e / mu)
        for e in (epsilon, 0.98 * epsilon)
    ]
    assert least[0] <= 1e-5 < least[1]
    noise = torch.cat([one.trained.flatten() for one in rounds])
    assert abs(float(noise.std()) - 3.0 * 2.0) < 1.5


def test_repeatable_noise_claims_nothing(on):
    scenario = on(
        GossipGraph.ring(4),
        bound=Clip(1.0),
        mechanism=LocalGaussian(noise_multiplier=3.0),
        noise=SeededNoise(1),
    )
    gossip, _, _ = played(scenario, rounds=1)
    [spent] = spend(gossip.ledger, 1e-5)
    with pytest.raises(ConfigError):
        spent.claim()


def poison(attack):
    return [Attacker("it", attack, frozenset({0}))]


@pytest.mark.parametrize(
    ("graph", "parts", "says"),
    [
        (GossipGraph.ring(6), SUMMED, "has 2 neighbours"),
        (GossipGraph.regular(6, 3), SUMMED, "open a sum of 2"),
        (GossipGraph.regular(6, 4), {"channel": SecAgg()}, "set message_bound"),
        (GossipGraph.regular(6, 4), {**SUMMED, "rule": Bridge(1)}, "sums alone"),
        (GossipGraph.regular(6, 4), {"rule": Bridge(2)}, "needs 5 neighbours"),
        (GossipGraph.regular(6, 4), {"rule": ClippedGossip(0.4)}, "cuts everything"),
        (GossipGraph.regular(6, 4), {"rule": Screened(TrimmedMean(3))}, "TrimmedMean"),
        (GossipGraph.regular(6, 4), {"channel": CKKS(), "message_bound": 1.0}, "helpers|drift"),
        (GossipGraph.regular(6, 4), {"channel": BucketedSecAgg()}, "groups rows"),
        (GossipGraph.regular(6, 4), {"mechanism": Gaussian(1.0)}, "local_gaussian"),
        (GossipGraph.regular(6, 4), {"mechanism": LocalGaussian(1.0)}, "set a clip"),
        (GossipGraph.regular(6, 4), {"attackers": poison(LabelFlip())}, "acts elsewhere"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_sent(on, graph, parts, says):
    with pytest.raises(Exception, match=says) as refused:
        on(graph, **parts)
    assert refused.type.__module__ == "privfl.core.errors"


def test_an_attack_that_needs_a_server_or_more_than_it_may_know_is_refused(on):
    graph = GossipGraph.regular(6, 4)
    with pytest.raises(ConfigError, match="there is none in a graph"):
        Gossip(on(graph, attackers=poison(AGRTailored())))
    with pytest.raises(ConfigError, match="needs to know more"):
        Gossip(on(graph, attackers=poison(ALIE(z=1.0)), attackers_know="own"))


def test_a_rule_that_needs_a_servers_samples_is_refused():
    with pytest.raises(ConfigError, match="no node of a graph is a server"):
        Screened(FLTrust(lambda context: context.parameters))


def test_three_neighbours_are_enough_where_all_three_must_answer(on):
    graph = GossipGraph.regular(6, 3)
    parts = {"channel": SecAgg(threshold=3, fidelity="ideal"), "message_bound": 4.0}
    _, states, rounds = played(on(graph, rounds=2, **parts), silent={1: {0: 0}})
    for i in graph.neighbours[0]:
        assert rounds[1].runs[i].opened is None
        assert torch.equal(states[2].models[i], states[1].models[i] + rounds[1].trained[i])


def test_the_mail_of_one_nodes_run_is_of_no_use_in_anothers(on):
    _, _, rounds = played(on(GossipGraph.ring(4)), rounds=2)
    sessions = {run.plan.session for one in rounds for run in one.runs.values()}
    assert len(sessions) == 4
    assert len({run.plan.digest for one in rounds for run in one.runs.values()}) == 8


def test_signed_mail_leads_to_the_same_models(on):
    graph = GossipGraph.ring(4)
    _, bare, _ = played(on(graph))
    _, signed, _ = played(on(graph, mail="signed"))
    assert torch.equal(bare[-1].models, signed[-1].models)


def test_the_mean_says_so():
    assert GossipMean.linear
    assert not Bridge.linear


def test_noise_is_refused_beside_a_rule_that_asks_the_nodes_own_data(on):
    """What such a rule picks shows the data, and no noise is on that: the same node with other
    samples moves elsewhere although its training, noise and all, did the same.
    """
    graph = GossipGraph.ring(4)
    rows = [torch.ones(2), -torch.ones(2)]
    moves = []
    for sign in (1, -1):
        rule, seen = UBAR(rho=1.0), Rows(torch.stack(rows), torch.full((2,), 1 / 3))
        moves.append(rule(seen, lambda move, sign=sign: sign * float(move.sum())))
    assert not torch.equal(*moves)
    noise = {"bound": Clip(1.0), "mechanism": LocalGaussian(noise_multiplier=3.0)}
    with pytest.raises(ConfigError, match="no noise is on"):
        on(graph, rule=UBAR(), **noise)
    assert on(graph, rule=ClippedGossip(0.1), **noise).mechanism is not None


@pytest.mark.parametrize("parts", [{"mail": "signed"}, {"channel": SecAgg(mode="active")}])
def test_secure_sums_also_with_signed_mail_and_against_lying_servers(on, parts):
    graph = GossipGraph.regular(6, 4)
    given = {"channel": SecAgg(), "message_bound": 4.0, "rounds": 1, **parts}
    _, states, rounds = played(on(graph, **given))
    assert not rounds[0].incidents
    moved = states[1].models.mean(dim=0) - states[0].models.mean(dim=0)
    assert (moved - rounds[0].trained.mean(dim=0)).abs().max() < 1e-5


def test_noise_follows_the_clip_of_its_round_also_where_that_grows(on):
    """A node's training may move by twice that round's clip, so the noise is a multiple of it."""
    bound = ScheduledClip(1.0, PerRound((1.0, 50.0)))
    noise = LocalGaussian(noise_multiplier=3.0)
    _, _, rounds = played(on(GossipGraph.ring(5), bound=bound, mechanism=noise), rounds=2)
    assert 4 < float(rounds[0].trained.std()) < 8
    assert 200 < float(rounds[1].trained.std()) < 400


def test_a_liar_whose_row_is_refused_ends_no_run_of_a_rule_that_then_has_too_few(on):
    liar = Attacker("not finite", Dissensus(1e300), frozenset({0}))
    graph = GossipGraph.regular(8, 4)
    parts = {"rule": Screened(TrimmedMean(2)), "attackers": [liar]}
    _, states, rounds = played(on(graph, **parts), rounds=1)
    for i in graph.neighbours[0]:
        assert torch.equal(states[1].models[i], states[0].models[i] + rounds[0].trained[i])
