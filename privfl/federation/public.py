"""What a run that claims privacy may publish: the last model, the recipe, and the statement that
covers both. No file is a function of clients' data but through the released models, nor of who was
drawn where the claim rests on nobody knowing that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from privfl.config import AuditConfig, Config
from privfl.core import Ledger
from privfl.dp import statement
from privfl.engine import Scenario
from privfl.federation.drowned import drowned
from privfl.federation.excluded import excluded_from
from privfl.training import plain

FORMAT = "privfl/1/public"
_WITHOUT_SEEDS = (
    "# without seed and noise_seed: whoever knows them can draw again what the claim hides\n"
)
_IN_PYTHON = "# this run was put together in Python\n"
_ENDED = (
    "A budget ended the run before its last round. Where a seed draws cohorts or batches, when that"
    " was follows from them, and no epsilon counts it."
)
_SAMPLES_LEFT_OUT = (
    "What is claimed for single samples is not published: it is counted by client and round, which"
    " would show who took part."
)


def claims_privacy(scenario: Scenario) -> bool:
    """Whether a run claims differential privacy of clients or of their samples."""
    return scenario.pipeline().private or scenario.workload.method.gradient.private


def public_files(
    scenario: Scenario,
    audit: AuditConfig,
    config: Config | None,
    ledger: Ledger,
    summary: Mapping[str, Any],
    model: bytes,
    ended: str = "",
) -> dict[str, str | bytes]:
    """The files of ``public/`` by name, once a run has ended with this ``ledger`` and ``summary``;
    ``ended`` is the summary's warning that a budget ended it early, which has private figures.

    Files are made from the model, the recipe and the statement. Counts of clients, times and what a
    test set shows are left out: they hang on who is there, on who was drawn, or on data of which
    nobody has said that they are public.
    """
    said = statement_in_public(scenario, audit, ledger, summary)
    if ended:
        said["warnings"] = [line for line in said["warnings"] if line != ended] + [_ENDED]
    facts = {
        "format": FORMAT,
        "rounds": summary["rounds"],
        "parameters": scenario.workload.model.d,
        "facts": _facts(scenario),
        **said,
    }
    return {
        "config.yaml": _recipe(scenario, config),
        "model.safetensors": model,
        "statement.json": json.dumps(facts, indent=1),
        "README.md": _readme(said["privacy"]),
    }


def statement_in_public(
    scenario: Scenario, audit: AuditConfig, ledger: Ledger, summary: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """The lines and warnings that say nothing of a hidden cohort.

    A ledger names the cohorts that a seed has drawn, so that each client pays for its own rounds
    against those who know that seed. The largest of these sums would tell how often somebody was
    drawn; here everybody pays for every round, which is no less.
    """
    pipeline = scenario.pipeline()
    lines = list(summary["privacy"])
    private = drowned(ledger, scenario.workload.model.d)
    warnings = [line for line in summary["warnings"] if line not in private]
    shown = ledger
    if pipeline.private and not pipeline.sees_cohort:
        shown = Ledger(tuple(replace(charge, cohort=None) for charge in ledger.charges))
    if shown != ledger:
        told = statement(shown, audit.delta, excluded_from(scenario))
        lines = [line.to_json() for line in told.lines]
    if pipeline.private and any(line["unit"] == "sample" for line in lines):
        lines = [line for line in lines if line["unit"] != "sample"]
        warnings.append(_SAMPLES_LEFT_OUT)
    return {"privacy": lines, "warnings": warnings}


def _facts(scenario: Scenario) -> dict[str, str]:
    """The recipe in words, for runs that have no config."""
    sampling = scenario.sampling
    drawn = "" if sampling.rate == 1 else f", rate {sampling.rate:g}"
    mechanism, facts = scenario.mechanism, scenario.facts
    noise = "none on aggregates" if mechanism is None else type(mechanism).__name__
    if scenario.channel.able.noise is not None:
        noise = "in shares, by the channel"
    return {
        "training": type(plain(scenario.workload.method)).__name__,
        "sampler": f"{type(scenario.sampler).__name__}{drawn}",
        "coins of the sampler": scenario.threat.sampling,
        "bound": scenario.bound.describe(),
        "channel": str(facts.get("channel", type(scenario.channel).__name__)),
        "aggregator": type(scenario.aggregator).__name__,
        "noise": noise,
    }


def public_recipe(scenario: Scenario, config: Config | None) -> Mapping[str, Any]:
    """The config without its seeds, or the recipe in words for a run that has none."""
    if config is None:
        return _facts(scenario)
    return config.model_dump(exclude={"seed": True, "noise_seed": True, "budget": {"ledger"}})


def _recipe(scenario: Scenario, config: Config | None) -> str:
    if config is None:
        return _IN_PYTHON
    return _WITHOUT_SEEDS + yaml.safe_dump(public_recipe(scenario, config), sort_keys=False)


def _readme(lines: Sequence[Mapping[str, Any]]) -> str:
    claims = "\n".join(f"- {line['claim']}" for line in lines) or "- Nothing is claimed."
    return f"""# What may be published of this run

{claims}

| file | is |
| --- | --- |
| `model.safetensors` | the model after the last round |
| `statement.json` | what is claimed, against whom, what is excluded, and public facts |
| `config.yaml` | the recipe, without its seeds |
| `report.html` | the same as a page, where one was drawn |

The statement covers this folder, and nothing else of the run.
"""
