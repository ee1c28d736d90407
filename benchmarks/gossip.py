"""Gossip on digits: liars against rules, what secure sums cost, and what exact ranks read of a
graph.

16 nodes, an MLP 64-32-10, Dirichlet 0.5, one epoch a round at rate 0.5 clipped to 2. Liars are
nodes 0 and 1. Nothing was tuned on test samples but the rate, which is that of the other tables.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import torch

from benchmarks.harness import Case, Row, cost, gain, main, say
from privfl.attacks import ALIE, Dissensus, SignFlip
from privfl.core import Attack, Dataset, FlatModel, LocalPlan
from privfl.crypto import SecAgg
from privfl.data import Dirichlet, load
from privfl.dp import Clip
from privfl.engine import Attacker
from privfl.gossip import Bridge, ClippedGossip, GossipGraph, GossipMean, GossipScenario
from privfl.gossip.audit import exposure, opening_sets
from privfl.gossip.knowledge import KnowledgeMatrix, Meeting
from privfl.gossip.play import GossipRun, play_gossip
from privfl.gossip.rules import GossipRule
from privfl.gossip.span import PRIME, multipliers, residue
from privfl.models import initialised, mlp
from privfl.training import LocalSGD, Workload, cross_entropy

NODES = 16
ERDOS = 8
"""A seed whose graph has nodes with two neighbours, as sparse graphs do."""
SEEDS = (0, 1, 2)
RULES: dict[str, GossipRule] = {
    "mean": GossipMean(),
    "bridge b=2": Bridge(f=2),
    "clipped 2/7": ClippedGossip(delta=2 / 7),
}
ATTACKS: dict[str, Attack | None] = {
    "nobody": None,
    "dissensus 1.5": Dissensus(epsilon=1.5),
    "alie 1.5": ALIE(z=1.5),
    "flip x4": SignFlip(scale=4.0),
}


def scenario(graph: GossipGraph, seed: int, **parts: Any) -> GossipScenario:
    """Digits on a graph."""
    split = load("digits")
    dealt = Dirichlet(alpha=0.5)(split.train, graph.n, torch.Generator().manual_seed(seed))
    net = initialised(mlp, split.shape, split.classes, seed=seed, hidden=(32,))
    method = LocalSGD(lr=0.5, plan=LocalPlan(32, epochs=1), weighting="uniform")
    train: Dataset = split.train
    workload = Workload(FlatModel(net), cross_entropy, method, train)
    given: dict[str, Any] = {"rounds": 15, "bound": Clip(2.0), "seed": seed, **parts}
    return GossipScenario(workload, dict(enumerate(dealt)), split.test, graph, **given)


def liars(quick: bool) -> Iterator[Row]:
    """Two liars of 16 on a 6-regular graph: accuracy and spread of honest nodes, rule by rule."""
    seeds = SEEDS[:1] if quick else SEEDS
    for name, attack in ATTACKS.items():
        shown = []
        for rule_name, rule in RULES.items():
            runs: list[GossipRun] = []
            for seed in seeds:
                lying = [] if attack is None else [Attacker(name, attack, frozenset({0, 1}))]
                graph = GossipGraph.regular(NODES, 6, seed=seed)
                runs.append(play_gossip(scenario(graph, seed, rule=rule, attackers=lying)))
            accuracy = statistics.mean(run.last.accuracy for run in runs)
            apart = statistics.mean(run.last.spread for run in runs)
            shown.append(f"{rule_name} {accuracy:.3f} / {apart:.2f}")
            if name == "dissensus 1.5" and rule_name == "mean":
                least = min(run.last.spread for run in runs)
                yield gain("liars", "spread 5", "dissensus: least spread of the mean", least, 5, 1)
            if name == "dissensus 1.5" and rule_name == "clipped 2/7":
                yield gain("liars", "0.85", "dissensus: accuracy of clipped", accuracy, 0.85, 1)
            peer = f"{rule_name}, spread {apart:.3g}"
            yield gain("liars", peer, f"{name}: accuracy", accuracy, 1.0)
        say(f"  {name}: {'; '.join(shown)}  (accuracy / spread, mean of {len(seeds)} seeds)")


GRAPHS = {
    "ring": GossipGraph.ring(NODES),
    "4-regular": GossipGraph.regular(NODES, 4),
    "6-regular": GossipGraph.regular(NODES, 6),
    "erdos-renyi .3": GossipGraph.erdos_renyi(NODES, 0.3, seed=ERDOS),
}


def ranks(quick: bool) -> Iterator[Row]:
    """Pure averaging on 16 nodes: the share of others' values that one curious node solves, by
    number of rounds; and pairs that open a row of a single round of sums. Every value that is said
    to follow is solved for, from whole numbers modulo 2^61 - 1, and must be the true one.
    """
    for name, graph in GRAPHS.items():
        plain = exposure(graph, 8, summed=False)
        sums = exposure(graph, 16, summed=True)
        pairs = opening_sets(graph, 2, summed=True)
        share = len(pairs) / (graph.n * (graph.n - 1) / 2)
        wrong, solved = recovered(graph, 16, summed=True)
        more = recovered(graph, 8, summed=False)
        wrong, solved = wrong + more[0], solved + more[1]
        say(
            f"  {name} ({graph.describe()}): rows T=4 {plain.shares[3]:.2f}, T=8"
            f" {plain.shares[7]:.2f}; sums T=4 {sums.shares[3]:.2f}, T=8 {sums.shares[7]:.2f}, T=16"
            f" {sums.shares[15]:.2f}; round limit of sums {sums.limit}; pairs"
            f" {share:.1%}; {solved} values solved for, {wrong} of them wrongly"
        )
        right = solved - wrong
        yield gain("ranks", name, "values solved for, of those that follow", right, solved, 1)
        yield gain("ranks", name, "share one node solves, rows, T=4", plain.shares[3], 1.0)
        yield gain("ranks", name, "share one node solves, sums, T=16", sums.shares[15], 1.0)
        yield gain("ranks", name, "pairs that open a row of sums", share, 1.0)


def recovered(graph: GossipGraph, rounds: int, *, summed: bool) -> tuple[int, int]:
    """How many values that follow for a node are not what it solves for, and how many follow."""
    known = KnowledgeMatrix.of(
        graph, [Meeting.of_all(graph)] * rounds, summed=summed, trains="once"
    )
    truth = torch.randint(1 << 60, (graph.n,), generator=torch.Generator().manual_seed(0)).tolist()
    wrong = total = 0
    for node in range(graph.n):
        heard = [*known.own({node}).values(), *known.heard_by({node}).values()]
        told = [sum(residue(Fraction(c)) * truth[u] for u, c in one.items()) for one in heard]
        numbers = [known.unknowns.index(one) for one in known.solved({node})]
        found = multipliers(heard, numbers)
        for number in numbers:
            by = found.get(number, {})
            value = sum(residue(times) * told[at] for at, times in by.items()) % PRIME
            wrong += value != truth[number]
        total += len(numbers)
    return wrong, total


def secure(quick: bool) -> Iterator[Row]:
    """Sums over secure aggregation in every neighbourhood of a 4-regular graph, beside rows in the
    clear: accuracy, bytes and time.
    """
    graph = GossipGraph.regular(NODES, 4)
    found = {}
    for name, parts in (
        ("rows in clear", {"message_bound": 6.0}),
        ("secure sums", {"message_bound": 6.0, "channel": SecAgg()}),
    ):
        began = time.process_time()
        run = play_gossip(scenario(graph, 0, **parts))
        seconds = time.process_time() - began
        sent = sum(one.bytes_sent or 0 for one in run.records) / NODES / len(run.records) / 1e3
        found[name] = (run.last.accuracy, sent, seconds)
        say(
            f"  {name}: accuracy {run.last.accuracy:.3f}, spread {run.last.spread:.3f},"
            f" {sent:.1f} kB a node and round, {seconds:.1f} CPU seconds"
        )
    ours, theirs = found["secure sums"], found["rows in clear"]
    yield gain("secure", "rows in clear", "accuracy", ours[0], theirs[0])
    yield cost("secure", "rows in clear", "kB a node and round", ours[1], theirs[1])
    yield cost("secure", "rows in clear", "CPU seconds", ours[2], theirs[2])


CASES: dict[str, Case] = {"liars": liars, "ranks": ranks, "secure": secure}

if __name__ == "__main__":
    main("gossip", CASES)
