"""Graphs, their weights, and what a node's rule makes of its neighbours."""

import pytest
import torch

from privfl.aggregators import TrimmedMean
from privfl.core import ConfigError, Rows
from privfl.gossip import UBAR, Bridge, ClippedGossip, GossipGraph, Screened

GRAPHS = [
    GossipGraph.complete(7),
    GossipGraph.ring(9),
    GossipGraph.regular(12, 3, seed=4),
    GossipGraph.erdos_renyi(14, 0.3, seed=2),
]


def still(move):
    return 0.0


@pytest.mark.parametrize("graph", GRAPHS, ids=["complete", "ring", "regular", "erdos_renyi"])
def test_metropolis_weights_are_symmetric_and_average(graph):
    weights = graph.weights
    assert torch.equal(weights, weights.T)
    assert (weights.sum(dim=1) - 1).abs().max() < 1e-12
    assert (weights >= 0).all()
    assert sum(graph.weight(0, j) for j in range(graph.n)) == 1
    exact = torch.linalg.eigvalsh(weights)
    assert exact[-2] < 1 - 1e-3, "a connected graph has one direction that mixing keeps"


def test_a_random_graph_is_as_asked_for_and_another_one_by_seed():
    one, again = GossipGraph.regular(16, 6, seed=1), GossipGraph.regular(16, 6, seed=1)
    assert one == again != GossipGraph.regular(16, 6, seed=2)
    assert {one.degree(i) for i in range(16)} == {6}


def test_a_graph_of_a_file(tmp_path):
    path = tmp_path / "edges.txt"
    path.write_text("# a square and its diagonal\n0 1\n1 2\n2 3\n3 0\n\n0 2\n")
    graph = GossipGraph.from_file(path)
    assert graph.neighbours == ((1, 2, 3), (0, 2), (0, 1, 3), (0, 2))
    path.write_text("0 1\n1 x\n")
    with pytest.raises(ConfigError, match="line 2"):
        GossipGraph.from_file(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        GossipGraph.from_file(tmp_path / "nothing.txt")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: GossipGraph(((1,), ())), "both ways"),
        (lambda: GossipGraph(((0,), ())), "other nodes"),
        (lambda: GossipGraph.of_edges(4, [(0, 1), (2, 3)]), "no path joins node 0 and node 2"),
        (lambda: GossipGraph.of_edges(2, [(0, 5)]), "no two nodes"),
        (lambda: GossipGraph.regular(5, 3), "must be even"),
        (lambda: GossipGraph.regular(6, 1), "no connected graph"),
        (lambda: GossipGraph.erdos_renyi(30, 0.0), "no connected graph"),
        (lambda: GossipGraph.complete(1), "two nodes at least"),
    ],
)
def test_what_is_no_connected_graph_is_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


def test_cut_nodes_are_those_without_which_paths_are_missing():
    """By the definition, node by node, through a slow search of every pair."""
    for graph in (*GRAPHS, GossipGraph.of_edges(5, [(0, 1), (1, 2), (2, 3), (3, 4)])):
        slow = []
        for node in range(graph.n):
            left = [i for i in range(graph.n) if i != node]
            near = torch.zeros(graph.n, graph.n, dtype=torch.float64)
            for i in left:
                near[i, [k for k in graph.neighbours[i] if k != node]] = 1
            reach = torch.linalg.matrix_power(near + torch.eye(graph.n), graph.n)
            if not (reach[left][:, left] > 0).all():
                slow.append(node)
        assert graph.cut_nodes == tuple(slow)


def test_clipped_gossip_cuts_the_farthest_weight_to_the_nearest_that_is_left():
    values = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, -9.0]])
    rows = Rows(values, torch.full((4,), 0.2))
    rule = ClippedGossip(delta=0.2)
    assert rule.radius(rows) == 2.0  # 0.4 of weight is cut: the two farthest
    expected = 0.2 * (values[0] + values[1] + torch.tensor([2.0, 0.0]) + torch.tensor([0.0, -2.0]))
    assert torch.allclose(rule(rows, still), expected)
    assert ClippedGossip(0.0).radius(rows) == 9.0
    assert not ClippedGossip(0.5)(rows, still).any()


def test_bridge_is_the_trimmed_mean_of_neighbours_with_the_own_value_kept():
    rng = torch.Generator().manual_seed(0)
    rows = Rows(torch.randn(7, 20, generator=rng), torch.full((7,), 1 / 8))
    slow = []
    for column in rows.values.T.tolist():
        kept = sorted(column)[2:-2]
        slow.append(sum([*kept, 0.0]) / (len(kept) + 1))
    assert torch.allclose(Bridge(2)(rows, still), torch.tensor(slow), atol=1e-6)


def test_ubar_takes_those_near_that_do_better_and_the_best_where_none_does():
    values = torch.tensor([[1.0], [-1.0], [2.0], [100.0]])
    rows = Rows(values, torch.full((4,), 0.2))

    def towards(goal):
        return lambda move: abs(float(move[0]) - goal)

    assert UBAR(rho=0.75, alpha=0.0)(rows, towards(1.5)).tolist() == [1.5]
    assert UBAR(rho=0.75, alpha=0.0)(rows, towards(0.0)).tolist() in ([1.0], [-1.0])
    assert UBAR(rho=0.75, alpha=0.0)(rows, lambda move: float("nan")).tolist() == [0.0]
    assert UBAR(rho=1.0, alpha=0.5)(rows, towards(100.0)) == pytest.approx(0.5 * 103 / 3)


def test_a_rule_of_federated_averaging_sees_the_node_itself_as_zero():
    rows = Rows.of([[5.0], [-1.0], [70.0]])
    assert Screened(TrimmedMean(1))(rows, still).tolist() == [2.5]
