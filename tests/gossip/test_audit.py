"""What curious nodes read of a gossip run, alone and together, solved from their own mail."""

from dataclasses import replace
from fractions import Fraction
from itertools import combinations

import pytest
import torch

from privfl.attacks import SignFlip
from privfl.core import ConfigError, NotVisible
from privfl.crypto import SecAgg
from privfl.engine import Attacker
from privfl.gossip import ClippedGossip, Gossip, GossipGraph
from privfl.gossip.audit import (
    exposure,
    least_coalition,
    meeting_of,
    nodes_of,
    opening_sets,
    solve,
    view,
)
from privfl.gossip.knowledge import KnowledgeMatrix, Meeting
from privfl.gossip.span import PRIME, RowSpace, multipliers, residue


def kept(scenario, rounds, silent=None):
    gossip = Gossip(scenario)
    state, made = gossip.begin(), []
    for number in range(rounds):
        state, one = gossip.play(state, (silent or {}).get(number, {}), keep=True)
        made.append(one)
    return gossip, made


def colluders(*nodes):
    return (
        f"colluders({', '.join(f'node/{i}' for i in nodes)})" if nodes[1:] else f"node/{nodes[0]}"
    )


BRIDGED = GossipGraph.of_edges(
    9,
    [(a, b) for side in (range(4), range(5, 9)) for a, b in combinations(side, 2)]
    + [(4, k) for k in (0, 1, 7, 8)],
)
"""Two cliques, and node 4 between them."""


@pytest.mark.parametrize("graph", [GossipGraph.ring(5), GossipGraph.regular(6, 3), BRIDGED])
@pytest.mark.parametrize("nodes", [(0,), (1, 3)])
def test_what_the_audit_says_is_solved_is_recovered_from_the_coalitions_mail(on, graph, nodes):
    gossip, rounds = kept(on(graph, samples=4), 3)
    seen = view(gossip, rounds, colluders(*nodes))
    found = solve(gossip, rounds, seen)
    assert {number for _, number in found.values} >= {0}
    for (node, number), value in found.values.items():
        assert node not in nodes
        error = (value - rounds[number].trained[node]).abs().max()
        assert error < 1e-6 * found.lengthened[node, number]


def test_solving_is_exact_where_values_are(on):
    """The same algebra on whole numbers modulo the prime, in which nothing is rounded."""
    graph = GossipGraph.erdos_renyi(8, 0.4, seed=1)
    known = KnowledgeMatrix.of(graph, [Meeting.of_all(graph)] * 6, summed=True, trains="once")
    rng = torch.Generator().manual_seed(0)
    truth = torch.randint(1 << 60, (8,), generator=rng).tolist()
    for node in range(8):
        heard = [*known.own({node}).values(), *known.heard_by({node}).values()]
        told = [sum(residue(c) * truth[u] for u, c in one.items()) % PRIME for one in heard]
        solved = known.solved({node})
        numbers = [known.unknowns.index(one) for one in solved]
        found = multipliers(heard, numbers)
        assert sorted(found) == sorted(numbers)
        for number, by in found.items():
            value = sum(residue(times) * told[position] for position, times in by.items()) % PRIME
            assert value == truth[number]
    assert solved


def everybody(graph, rounds):
    return [Meeting.of_all(graph)] * rounds


def slow_rank(rows):
    """By fractions, without a prime."""
    left, rank = [list(row) for row in rows], 0
    for column in range(len(left[0]) if left else 0):
        pivot = next((row for row in left if row[column]), None)
        if pivot is None:
            continue
        left.remove(pivot)
        rank += 1
        left = [
            [a - row[column] / pivot[column] * b for a, b in zip(row, pivot, strict=True)]
            for row in left
        ]
    return rank


@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("trains", ["once", "every round"])
def test_ranks_modulo_the_prime_are_those_of_fractions(summed, trains):
    graph = GossipGraph.regular(6, 3, seed=2)
    known = KnowledgeMatrix.of(graph, [Meeting.of_all(graph)] * 3, summed=summed, trains=trains)
    width = len(known.unknowns)
    for coalition in ({0}, {0, 3}):
        combos = [*known.own(coalition).values(), *known.heard_by(coalition).values()]
        rows = [[one.get(u, Fraction(0)) for u in range(width)] for one in combos]
        rank = slow_rank(rows)
        assert known.span(coalition).rank == rank
        units = [[Fraction(int(u == k)) for k in range(width)] for u in range(width)]
        follows = [known.unknowns[u] for u in range(width) if slow_rank([*rows, units[u]]) == rank]
        assert known.solved(coalition) == sorted(one for one in follows if one[0] not in coalition)


@pytest.mark.parametrize("real", [False, True], ids=["ideal", "real"])
def test_no_row_is_in_a_view_that_its_coalition_cannot_solve_for(on, real):
    """What the channel decodes of a coalition's mail, against what follows from the public protocol
    alone; with real secure aggregation also where so many neighbours collude that they unmask.
    """
    graph = GossipGraph.regular(6, 4)
    channel = SecAgg() if real else SecAgg(fidelity="ideal")
    gossip, rounds = kept(on(graph, samples=4, channel=channel, message_bound=4.0), 2)
    met = list(map(meeting_of, rounds))
    known = KnowledgeMatrix.of(graph, met, summed=True, trains="every round")
    single = KnowledgeMatrix.of(graph, met, summed=False, trains="every round")
    beside = graph.neighbours[0]
    for nodes in ((0,), (0, beside[0]), (0, *beside[:2]), (0, *beside[:3]), beside[:3]):
        seen = view(gossip, rounds, colluders(*nodes))
        span = known.span(nodes)
        for (number, node, sender), value in seen.heard.items():
            if sender is None:
                assert node in nodes
                assert seen.counts[number, node, None] == 4
                assert span.holds(known.told[number, node, None])
            elif sender not in nodes:
                assert span.holds(single.told[number, node, sender])
                assert value.isfinite().all()
    alone = view(gossip, rounds, "node/0")
    assert set(alone.heard) == {(0, 0, None), (1, 0, None)}


def test_a_curious_pair_reads_no_row_of_four_and_a_pair_of_two_would(on):
    four = GossipGraph.regular(8, 4)
    assert opening_sets(four, 1, summed=True) == opening_sets(four, 2, summed=True) == []
    ring = GossipGraph.ring(8)
    assert opening_sets(ring, 2, summed=True) == [
        pair for pair in combinations(range(8), 2) if (pair[1] - pair[0]) % 8 in (1, 7)
    ]
    with pytest.raises(ConfigError, match="who knows one reads the other"):
        on(ring, channel=SecAgg(), message_bound=4.0)


def test_the_least_coalition_reads_a_row_through_secure_sums(on):
    """Fewer than a node and all but one of its neighbours, because each adds a sum of its own."""
    graph = GossipGraph.regular(6, 4)
    scenario = on(graph, samples=4, channel=SecAgg(fidelity="ideal"), message_bound=4.0)
    least = least_coalition(graph, summed=True)
    assert least is not None
    assert len(least) == 3
    gossip, rounds = kept(scenario, 1)
    found = solve(gossip, rounds, view(gossip, rounds, colluders(*least)))
    assert found.values
    for (node, number), value in found.values.items():
        error = (value - rounds[number].trained[node]).abs().max()
        assert error < 1e-3 * found.lengthened[node, number]
    assert not opening_sets(graph, 2, summed=True)


def test_a_node_with_two_of_four_neighbours_reads_the_third_where_the_fourth_is_away(on):
    """So few open, and that is what the scenario says."""
    graph = GossipGraph.regular(12, 4, seed=3)
    parts = {"channel": SecAgg(fidelity="ideal"), "message_bound": 4.0}
    scenario = on(graph, samples=4, **parts)
    assert "of 3 at least, so a node with 2 of its neighbours" in scenario.describe()
    a, b, away, last = graph.neighbours[0]
    together = solve(*(it := kept(scenario, 1)), view(*it, colluders(0, a, b)))
    assert (last, 0) not in together.values
    it = kept(scenario, 1, silent={0: {away: 0}})
    alone = solve(*it, view(*it, colluders(0, a, b)))
    assert (alone.values[last, 0] - it[1][0].trained[last]).abs().max() < 1e-2


def test_over_rounds_one_node_reads_through_sums_and_the_limit_says_when(on):
    """Pure averaging over secure sums: before the limit nothing follows, in the round after it
    somebody's value does, and it is recovered.
    """
    graph = GossipGraph.regular(6, 3, seed=1)
    said = exposure(graph, 8, summed=True)
    assert said.limit is not None
    for rounds in (said.limit, said.limit + 1):
        known = KnowledgeMatrix.of(graph, everybody(graph, rounds), summed=True, trains="once")
        found = [known.solved({i}) for i in range(6)]
        assert any(found) == (rounds > said.limit)
    assert {i: len(one) for i, one in enumerate(found) if one} == said.first
    assert f"ROUND LIMIT {said.limit}" in said.describe()


def test_a_planted_bridge_is_named_and_all_that_its_sides_learn_passes_through_it():
    said = exposure(BRIDGED, 3, summed=False)
    assert said.cuts == {4: ((0, 1, 2, 3), (5, 6, 7, 8))}
    assert "{0, 1, 2, 3} and {5, 6, 7, 8} learn of each other passes through node 4" in (
        said.describe()
    )
    left, right = range(4), range(5, 9)

    def ranks(graph):
        """Of all that the left side together learns of the right one, and of what node 4 sends."""
        known = KnowledgeMatrix.of(graph, [Meeting.of_all(graph)] * 5, summed=False, trains="once")
        learnt, passed = RowSpace(), RowSpace()
        for (_, receiver, sender), one in known.told.items():
            beyond = {u: c for u, c in one.items() if known.unknowns[u][0] in right}
            if receiver in left:
                learnt.add(beyond)
            if receiver in left and sender == 4:
                passed.add(beyond)
        return learnt.rank, passed.rank

    assert ranks(BRIDGED)[0] == ranks(BRIDGED)[1] > 0
    edges = [(a, b) for a in range(9) for b in BRIDGED.neighbours[a]]
    beside = GossipGraph.of_edges(9, [*edges, (3, 5)])
    assert exposure(beside, 3, summed=False).cuts == {}
    assert ranks(beside)[0] > ranks(beside)[1]


def test_a_coalition_over_rounds_with_a_node_that_was_away_still_solves_exactly(on):
    graph = GossipGraph.regular(6, 3, seed=1)
    gossip, rounds = kept(on(graph, samples=4), 4, silent={1: {2: 0}, 2: {5: 0}})
    found = solve(gossip, rounds, view(gossip, rounds, colluders(0, 1)))
    assert (2, 1) not in found.values
    for (node, number), value in found.values.items():
        error = (value - rounds[number].trained[node]).abs().max()
        assert error < 1e-6 * found.lengthened[node, number]


def test_what_is_no_known_combination_is_not_solved_for(on):
    graph = GossipGraph.regular(6, 4)
    for parts, says in (
        ({"rule": ClippedGossip(0.1)}, "another rule"),
        ({"attackers": [Attacker("flip", SignFlip(), frozenset({1}))]}, "liar"),
        ({"message_bound": 0.01}, "cut to message_bound"),
    ):
        gossip, rounds = kept(on(graph, samples=4, **parts), 1)
        with pytest.raises(ConfigError, match=says):
            solve(gossip, rounds, view(gossip, rounds, "node/0"))


def test_a_view_needs_kept_messages_and_nodes_that_are_there(on):
    gossip = Gossip(on(GossipGraph.ring(4), samples=4))
    _, one = gossip.play(gossip.begin())
    with pytest.raises(NotVisible, match="keep=True"):
        view(gossip, [one], "node/0")
    with pytest.raises(NotVisible, match="node/9"):
        view(gossip, [one], "node/9")
    for name in ("server", "outsider", "client/1"):
        with pytest.raises(ConfigError, match="is in a graph"):
            nodes_of(name)


def test_a_receiver_that_denies_what_arrived_is_told_a_whole_model_and_a_bound_keeps_it_short(on):
    """Senders take its word: of the neighbour that it denies the sum then holds all that it has
    changed since the start, beside the others' last round.
    """
    graph = GossipGraph.regular(8, 4)
    victim = graph.neighbours[0][0]
    for bound, near in ((40.0, True), (0.25, False)):
        channel = SecAgg(fidelity="ideal")
        gossip = Gossip(on(graph, channel=channel, message_bound=bound))
        start = state = gossip.begin()
        for _ in range(20):
            state, _ = gossip.play(state)
        denied = replace(state, sent={**state.sent, (victim, 0): start.models[victim]})
        _, one = gossip.play(denied)
        opened = one.runs[0].opened
        assert opened is not None
        guess = opened.what.value / graph.weights[0, victim]
        whole = state.models[victim] + one.trained[victim] - start.models[victim]
        assert bool((guess - whole).norm() < 0.15 * whole.norm()) == near
        assert near or guess.norm() < 5 * bound


def test_rows_that_colluders_read_out_of_a_sum_are_solved_with(on):
    """Who keeps a round's secrets opens single rows with fewer nodes than linear algebra needs."""
    graph = GossipGraph.complete(8)
    channel = SecAgg(forward_secrecy=False)
    gossip, rounds = kept(on(graph, samples=4, channel=channel, message_bound=8.0), 1)
    found = solve(gossip, rounds, view(gossip, rounds, colluders(*range(5))))
    assert sorted(found.values) == [(5, 0), (6, 0), (7, 0)]
    for (node, number), value in found.values.items():
        assert (value - rounds[number].trained[node]).abs().max() < 1e-2


@pytest.mark.parametrize("parts", [{}, {"channel": SecAgg(fidelity="ideal"), "message_bound": 8.0}])
def test_mail_of_a_node_that_fell_silent_before_it_opened_its_run_is_solved_with(on, parts):
    graph = GossipGraph.complete(5)
    gossip, rounds = kept(on(graph, samples=4, **parts), 2, silent={1: {2: 2 if parts else 1}})
    assert rounds[1].runs[2].opened is None
    seen = view(gossip, rounds, "node/2")
    assert any(heard[:2] == (1, 2) for heard in seen.heard)
    solve(gossip, rounds, seen)
