"""A gossip run from a config: the keys of a federated run that have a meaning here, and three of
its own.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from privfl import assembly, catalog
from privfl.config import Config, apply_override, load
from privfl.core import ConfigError, Mechanism, mapping_in, unknown
from privfl.engine import Scenario
from privfl.gossip.graph import GossipGraph
from privfl.gossip.rules import UBAR, Bridge, ClippedGossip, GossipMean, GossipRule, Screened
from privfl.gossip.scenario import GossipScenario

GRAPHS: Mapping[str, Callable[..., GossipGraph]] = {
    "complete": GossipGraph.complete,
    "ring": GossipGraph.ring,
    "regular": GossipGraph.regular,
    "erdos_renyi": GossipGraph.erdos_renyi,
    "file": GossipGraph.from_file,
}
RULES: Mapping[str, Callable[..., GossipRule]] = {
    "mean": GossipMean,
    "clipped": ClippedGossip,
    "bridge": Bridge,
    "ubar": UBAR,
}
"""The rules that are made for graphs; any rule of `catalog.AGGREGATORS` that remembers nothing and
needs nothing of a server's may stand in their place.
"""
OWN = ("graph", "rule", "message_bound")
KEYS = (
    "data",
    "model",
    "training",
    "rounds",
    "bound",
    "channel",
    "mail",
    "mechanism",
    "attacks",
    "attackers_know",
    "audit",
    "executor",
    "threads",
    "seed",
    "noise_seed",
)
"""What a graph takes of a federated run's keys (`privfl.config.Config`)."""


@dataclass(frozen=True)
class GossipConfig:
    """``graph`` and ``rule`` are parts; ``message_bound`` is the L2 bound of what a node sends a
    neighbour (None: none); ``run`` holds all keys that gossip shares with a federated run.
    """

    graph: Mapping[str, Any]
    rule: Mapping[str, Any]
    message_bound: float | None
    run: Config

    def to_mapping(self) -> dict[str, Any]:
        """The resolved config, as it is saved with a run."""
        shared = self.run.model_dump()
        return {
            "graph": dict(self.graph),
            "rule": dict(self.rule),
            "message_bound": self.message_bound,
            **{key: shared[key] for key in KEYS},
        }

    def to_yaml(self) -> str:
        """As a file."""
        return yaml.safe_dump(self.to_mapping(), sort_keys=False)


def load_gossip(
    source: Path | str | Mapping[str, Any], overrides: Sequence[str] = ()
) -> GossipConfig:
    """Read a gossip run's config from a file or a mapping, with ``a.b=c`` overrides on top.

    Raises:
        ConfigError: as `privfl.config.load`, or a key that has no meaning in a graph.

    >>> load_gossip({"graph": "ring"}, ["data.clients=8"]).run.data.clients
    8
    >>> load_gossip({"sampler": "poisson"})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    privfl.core.errors.ConfigError: unknown key 'sampler' of gossip...
    """
    raw: dict[Any, Any] = dict(source) if isinstance(source, Mapping) else mapping_in(Path(source))
    for override in overrides:
        apply_override(raw, override)
    for key in raw:
        if key not in (*OWN, *KEYS):
            said = unknown("key", str(key), (*OWN, *KEYS))
            raise ConfigError(said.replace(f"'{key}'", f"'{key}' of gossip", 1))
    graph = _part("graph", raw.pop("graph", "complete"))
    rule = _part("rule", raw.pop("rule", "mean"))
    bound = raw.pop("message_bound", None)
    if bound is not None and (
        isinstance(bound, bool)
        or not isinstance(bound, int | float)
        or not 0 < bound <= sys.float_info.max
    ):
        raise ConfigError(f"message_bound is a number above 0, or none, and is {bound!r}.")
    return GossipConfig(graph, rule, bound, load(raw))


def _part(key: str, given: Any) -> Mapping[str, Any]:
    part = {"name": given} if isinstance(given, str) else given
    if not isinstance(part, Mapping) or not isinstance(part.get("name"), str):
        raise ConfigError(f"{key} must be a name, or a mapping with a name, and is {given!r}.")
    return dict(part)


def gossip_scenario(config: GossipConfig) -> GossipScenario:
    """The scenario that a config describes.

    Raises:
        ConfigError: an unknown name or key, a value that cannot be, or parts that do not go
            together.
        DataMissing: the data set is not on this machine.
    """
    if "epsilon" in config.run.mechanism:
        raise ConfigError(
            "mechanism.epsilon is not solved for in gossip: give local_gaussian's"
            " noise_multiplier, and read the epsilon in the report."
        )
    if config.run.data.root:
        raise ConfigError(
            f"data.root is {config.run.data.root}, samples that a server keeps for itself, and no"
            " node of a graph is one: leave it out."
        )
    run = assembly.scenario(config.run)
    if config.run.audit.held_out != Config().audit.held_out or config.run.audit.attacks:
        raise ConfigError("audit.attacks and audit.held_out are privfl audit's: leave them out.")
    if config.run.audit.keep != Config().audit.keep:
        raise ConfigError(
            "audit.keep says what a server's run keeps of its transcripts, and gossip's command"
            " keeps none: leave it out, and ask privfl.gossip.audit in Python."
        )
    graph = catalog.build("graph", GRAPHS, config.graph, {"nodes": len(run.clients)})
    facts = {key: value for key, value in run.facts.items() if key != "the server reads"}
    return GossipScenario(
        workload=run.workload,
        clients=run.clients,
        test=run.measured_on,
        graph=graph,
        rounds=run.rounds,
        rule=rule_of(config.rule),
        channel=run.channel,
        bound=run.bound,
        message_bound=math.inf if config.message_bound is None else float(config.message_bound),
        mechanism=_own_noise(run),
        attackers=run.attackers,
        attackers_know=run.attackers_know,
        mail=run.mail,
        seed=run.seed,
        noise=run.noise,
        facts=facts,
    )


def rule_of(part: Mapping[str, Any]) -> GossipRule:
    """The rule that a part of a config describes.

    Raises:
        ConfigError: as `catalog.build`, or a rule that no node can run.

    >>> rule_of({"name": "clipped", "delta": 0.2})
    ClippedGossip(delta=0.2)
    >>> rule_of({"name": "median"}).rule
    Median()
    """
    if part["name"] in RULES:
        made: GossipRule = catalog.build("rule", RULES, part)
        return made
    if part["name"] not in catalog.AGGREGATORS:
        raise ConfigError(unknown("rule", part["name"], {*RULES, *catalog.AGGREGATORS}))
    kind = catalog.AGGREGATORS[part["name"]]
    if catalog.needs_of(kind):
        raise ConfigError(
            f"rule '{part['name']}' needs what a server has ({', '.join(catalog.needs_of(kind))}),"
            f" and no node of a graph is one: use {', '.join(RULES)}."
        )
    return Screened(catalog.build("rule", catalog.AGGREGATORS, part))


def _own_noise(run: Scenario) -> Mechanism | None:
    if run.mechanism is not None and run.mechanism.remembers:
        raise ConfigError(
            f"{type(run.mechanism).__name__} hangs together over rounds of one aggregate, and no"
            " node of a graph releases one: use local_gaussian."
        )
    return run.mechanism
