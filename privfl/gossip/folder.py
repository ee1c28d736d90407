"""A gossip run on disk: its config, a line for each round, what it came to, and every node's
model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import yaml

from privfl.core import ConfigError, PrivflError
from privfl.dp import spend
from privfl.engine.files import append_synced, make_folder, write_atomically
from privfl.engine.folder import JOURNAL
from privfl.gossip.audit import exposure, least_coalition
from privfl.gossip.config import GossipConfig, gossip_scenario
from privfl.gossip.play import GossipRecord, GossipRun, play_gossip
from privfl.gossip.scenario import GossipScenario

CONFIG, LOG = "gossip.yaml", "gossip_rounds.jsonl"
SUMMARY, MODELS = "gossip.json", "models.safetensors"
_MOST = 200_000
"""Nodes times edges times rounds up to which ranks are computed for a report: some seconds."""


def run_in(
    folder: Path, config: GossipConfig, told: Any = None
) -> tuple[GossipRun, Mapping[str, Any]]:
    """Play a config's run, and leave it in a new folder: all of it is the owner's, and nothing in
    it is made to be published.

    Args:
        folder: new, or empty.
        config: of the run.
        told: is handed each round's record.

    Raises:
        ConfigError: the folder is not empty, or as `gossip_scenario`.
        CannotWrite: the operating system refuses.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"'{folder}' is not empty: give --out a new folder.")
    scenario = gossip_scenario(config)
    make_folder(folder)
    if scenario.mechanism is not None:
        folder.chmod(0o700)  # accuracies and models of nodes, of which no epsilon speaks
    write_atomically(folder / CONFIG, config.to_yaml())

    def written(record: GossipRecord) -> None:
        append_synced(folder / LOG, (json.dumps(record.to_json()) + "\n").encode())
        if told is not None:
            told(record)

    run = play_gossip(
        scenario,
        executor=config.run.executor,
        ledger_file=folder / JOURNAL if scenario.mechanism is not None else None,
        told=written,
    )
    models = {"models": run.state.models.float(), "mean": run.state.models.mean(dim=0).float()}
    write_atomically(folder / MODELS, safetensors.torch.save(models))
    summary = summary_of(scenario, run, config.run.audit.delta)
    write_atomically(folder / SUMMARY, json.dumps(summary, indent=1))
    return run, summary


def summary_of(scenario: GossipScenario, run: GossipRun, delta: float) -> dict[str, Any]:
    """What a run came to, and who reads what of it."""
    last = run.last
    sent = [record.bytes_sent for record in run.records]
    claims: list[dict[str, Any]] = []
    for one in spend(run.ledger, delta):
        try:
            claims.append({"epsilon": one.claim(), "delta": delta, "relation": one.relation})
        except PrivflError as refused:
            claims.append({"refused": str(refused), "delta": delta, "relation": one.relation})
    degree = max(scenario.graph.degree(i) for i in range(scenario.graph.n))
    return {
        "accuracy": last.accuracy,
        "worst": last.worst,
        "loss": last.loss,
        "spread": last.spread,
        "rounds": len(run.records),
        "nodes": scenario.graph.n,
        "liars": sorted(scenario.liars),
        "parameters": scenario.workload.model.d,
        "bytes_sent": None if None in sent else sum(one or 0 for one in sent),
        "seconds": sum(record.seconds for record in run.records),
        "executor": run.executed_by,
        "facts": {**scenario.facts, "graph": scenario.graph.describe()},
        "reads": scenario.describe(),
        "exposed": exposed(scenario),
        "privacy": claims,
        "guarantee": scenario.guarantee.record(degree),
    }


def exposed(scenario: GossipScenario) -> list[str]:
    """What linear algebra reads over a run's rounds, and the least coalition of one, in
    sentences.
    """
    graph, summed = scenario.graph, scenario.summed
    edges = sum(graph.degree(i) for i in range(graph.n))
    if not scenario.rule.linear:
        return [
            "The rule is not linear, so no ranks say what follows; every node reads its"
            " neighbours' rows in clear."
        ]
    if graph.n * edges * scenario.rounds > _MOST:
        return ["The graph is too large for ranks in a report: see privfl.gossip.audit.exposure."]
    said = [exposure(graph, scenario.rounds, summed=summed).describe()]
    if summed:
        least = least_coalition(graph, summed=True)
        who = "none of the 5,000 smallest" if least is None else f"nodes {_listed(least)}"
        said.append(
            f"The least coalition that solves for another's row in ONE round in which all take"
            f" part: {who}."
        )
    return said


def _listed(nodes: Sequence[int]) -> str:
    return ", ".join(map(str, nodes))


def read_gossip(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """A run folder's config, rounds and summary.

    Raises:
        ConfigError: the folder holds no gossip run that has ended.
    """
    done = folder / SUMMARY
    if not done.is_file():
        raise ConfigError(
            f"'{folder}' holds no gossip run that has ended: 'privfl gossip CONFIG.yaml --out"
            " FOLDER' leaves one."
        )
    lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    return config, [json.loads(line) for line in lines], json.loads(done.read_text("utf-8"))
