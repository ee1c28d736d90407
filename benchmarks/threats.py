"""A recipe for each threat, beside the same clients without its layers: accuracy, CPU and bytes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks.harness import Case, Row, cost, gain, main
from privfl import Federation
from privfl.federation import Run

FOLDER = Path(__file__).parents[1] / "examples" / "recipes"
LAYERS = ("bound", "channel", "mail", "mechanism", "threat", "defences", "aggregator", "attacks")
NAMES = ("honest_server", "curious_server", "lying_clients", "lying_server", "all_of_it")


def recipe(name: str) -> dict[str, Any]:
    """A recipe's config."""
    return dict(yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))


def bare(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same clients, model and rounds, plainly averaged, and nobody lies."""
    return {key: value for key, value in config.items() if key not in LAYERS}


def undefended(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same attackers against a plain average."""
    return {**bare(config), "attacks": config["attacks"]}


def played(config: Mapping[str, Any]) -> tuple[Run, float]:
    """A run, and its CPU seconds a round."""
    federation = Federation.from_config(config)
    began = time.process_time()
    run = federation.run()
    return run, (time.process_time() - began) / len(run.history)


def threat(name: str, quick: bool) -> Iterator[Row]:
    """A recipe beside the plain average of the same clients."""
    config = recipe(name)
    ours, seconds = played(config)
    plain, beside = played(bare(config))
    yield gain(name, "plain, nobody lies", "accuracy", ours.accuracy, plain.accuracy)
    if "attacks" in config:
        attacked, _ = played(undefended(config))
        yield gain(name, "plain, attacked", "accuracy", ours.accuracy, attacked.accuracy)
    yield cost(name, "plain", "CPU s a round", seconds, beside)
    sent = [sum(r.bytes_sent or 0 for r in run.history) / 1e6 for run in (ours, plain)]
    yield cost(name, "plain", "MB sent", *sent)
    for line in ours.summary["privacy"]:
        asked = float(config["mechanism"]["epsilon"])
        yield cost(name, "goal", f"epsilon of one {line['unit']}", line["epsilon"], asked, 1)


CASES: dict[str, Case] = {name: partial(threat, name) for name in NAMES}

if __name__ == "__main__":
    main("threats", CASES)
