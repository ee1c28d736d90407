"""Everything that a gossip run is made of, as objects, and what is refused of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from privfl.core import (
    Bound,
    Channel,
    ClientId,
    ConfigError,
    Dataset,
    Guarantee,
    Knows,
    Liars,
    Mechanism,
    NoiseSource,
    OsNoise,
    RoundPlan,
    poisons_updates,
)
from privfl.crypto import Plain
from privfl.dp import NoBound
from privfl.engine import Attacker, MailMode
from privfl.gossip.graph import GossipGraph
from privfl.gossip.rules import GossipMean, GossipRule
from privfl.training import Workload

FEWEST = 3
"""The fewest rows that a sum may hold: of two, whoever knows one reads the other."""


@dataclass(frozen=True)
class GossipScenario:
    """A gossip run's parts: node i of ``graph`` is client i, with its positions ``clients[i]`` in
    ``workload.data``, and the server of a run of its own with its neighbours.

    ``bound`` is that of a node's own training in a round (local noise needs it), ``message_bound``
    the L2 bound of what a node sends a neighbour, the change since its last send; a channel that
    computes on integers needs a finite one. Over a channel that opens sums the rule is the mean,
    and every node has `FEWEST` neighbours at least. ``mechanism`` is noise of each node's own on
    its training, before anything leaves it. Attackers rewrite what their nodes send to each
    neighbour, in that neighbour's coordinates; they know ``attackers_know`` at most.

    Raises:
        ConfigError: parts that do not go together.
    """

    workload: Workload
    clients: Mapping[ClientId, Tensor]
    test: Dataset
    graph: GossipGraph
    rounds: int
    rule: GossipRule = field(default_factory=GossipMean)
    channel: Channel[Any] = field(default_factory=Plain)
    bound: Bound = field(default_factory=NoBound)
    message_bound: float = math.inf
    mechanism: Mechanism | None = None
    attackers: Sequence[Attacker] = ()
    attackers_know: Knows = "rule"
    mail: MailMode = "bare"
    seed: int = 0
    noise: NoiseSource = field(default_factory=OsNoise)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if sorted(self.clients) != list(range(self.graph.n)):
            raise ConfigError(
                f"a graph of {self.graph.n} nodes needs the clients 0 to {self.graph.n - 1}, one"
                f" at each, and these are {len(self.clients)} clients."
            )
        if self.rounds < 1:
            raise ConfigError(f"rounds must be at least 1, and is {self.rounds}.")
        if not self.message_bound > 0:
            raise ConfigError(f"message_bound must be above 0, and is {self.message_bound}.")
        self._check_training()
        self._check_channel()
        self.rule.check(self.graph)
        for attacker in self.attackers:
            if attacker.attack.seats != {"update"} or not poisons_updates(attacker.attack):
                raise ConfigError(
                    f"attack '{attacker.name}' acts elsewhere than on updates, or remembers rounds:"
                    " a liar of a graph rewrites what it sends to each neighbour. Use dissensus,"
                    " alie, sign_flip or another poison of updates without memory."
                )
            if len(attacker.clients) >= self.graph.n:
                raise ConfigError(f"attack '{attacker.name}' has every node: nobody is honest.")

    @property
    def summed(self) -> bool:
        """Whether nodes read sums of their neighbours, and no single one."""
        return self.channel.kind.opens == "total"

    @cached_property
    def liars(self) -> frozenset[int]:
        """All nodes through which an attacker acts."""
        return frozenset(client for one in self.attackers for client in one.clients)

    @property
    def guarantee(self) -> Guarantee[Liars]:
        """The channel's, in which node i is the server of its own run and its neighbours are the
        clients.
        """
        said = self.channel.guarantee
        return said.signed() if self.mail == "signed" else said

    def describe(self) -> str:
        """Who reads what of whom in one round, in sentences."""
        if not self.summed:
            return (
                f"{self.graph.describe()}. Every node reads every row that its neighbours send it."
            )
        fewest = min(self.channel.able.fewest(self.graph.degree(i)) for i in range(self.graph.n))
        return (
            f"{self.graph.describe()}. Every node reads the weighted sum of its neighbours' rows,"
            f" of {fewest} at least, so a node with {fewest - 1} of its neighbours reads a row"
            " where the others are away; colluders add their own sums, and rounds add up."
        )

    def _check_training(self) -> None:
        method = self.workload.method
        if method.parts(1):
            raise ConfigError(
                f"{type(method).__name__} sends more than its update, and nodes exchange models"
                " alone: use sgd, fedprox or fedsgd."
            )
        if method.gradient.private:
            raise ConfigError(
                "training with a private gradient is not accounted for in gossip: add a mechanism,"
                " noise of each node's own, instead."
            )
        if self.mechanism is None:
            return
        if not self.mechanism.local or self.mechanism.remembers:
            raise ConfigError(
                f"{type(self.mechanism).__name__} is noise on an aggregate, and no node of a graph"
                " releases one: use local_gaussian, noise of each node's own."
            )
        if self.rule.asks_data:
            raise ConfigError(
                f"{type(self.rule).__name__} asks a node's own data whom to follow, and no noise is"
                " on what it picks: use the mean, clipped or bridge beside noise."
            )
        if not math.isfinite(self.bound.l2):
            raise ConfigError("noise of a node's own needs a bound on its training: set a clip.")

    def _check_channel(self) -> None:
        channel, able = self.channel, self.channel.able
        name = type(channel).__name__
        if able.hosts is not None or able.groups is not None or not channel.kind.named:
            raise ConfigError(
                f"{name} runs a rule of its own servers, or groups rows: over a graph use plain"
                " or secagg."
            )
        simulated = channel.guarantee.fidelity == "ideal"  # its one helper is the simulator's
        if (channel.helpers and not simulated) or able.noise is not None:
            raise ConfigError(
                f"{name} has helpers, or carries noise in shares, and a node meets its neighbours"
                " alone: use plain or secagg."
            )
        if channel.kind.opens == "rows":
            return
        if not self.rule.linear:
            raise ConfigError(
                f"{name} opens sums alone, and {type(self.rule).__name__} compares rows: over sums"
                " the rule is the mean."
            )
        plan = RoundPlan(0, (0, 1), d=1, l2=1.0)
        if able.approximate is not None and able.approximate(plan):
            raise ConfigError(f"{name} sums approximately, so nodes would drift: use secagg.")
        if not math.isfinite(self.message_bound):
            raise ConfigError(
                f"{name} computes on integers, so what a node sends needs a finite bound: set"
                " message_bound."
            )
        for node in range(self.graph.n):
            degree = self.graph.degree(node)
            if degree < FEWEST or able.fewest(degree) < FEWEST:
                raise ConfigError(
                    f"node {node} has {degree} neighbours, and {name} would open a sum of"
                    f" {min(degree, able.fewest(degree))} of them: of two rows, who knows one reads"
                    f" the other. Give every node {FEWEST + 1} neighbours, or {FEWEST} and a"
                    f" channel that sums {FEWEST} at least (threshold: {FEWEST})."
                )
