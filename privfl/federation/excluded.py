"""What a run's claim of privacy does not count, by name."""

from __future__ import annotations

from privfl.core import Oracle
from privfl.engine import Scenario

REPORTED = (
    "losses, label counts and accuracies of clients, which the run's folder reports as they are"
)
CHOSEN = (
    "learning rates, bounds, seeds, the best of several runs or rounds and when to stop, wherever"
    " they were chosen on these data"
)
ROOT = "the samples that the server keeps itself (data.root)"
LARGEST = "the largest client's number of samples, which every client is told"
START = "whatever the model held before the first round: the start was not declared public"


def excluded_from(scenario: Scenario) -> tuple[str, ...]:
    """What this run did with clients' data that no epsilon of it counts."""
    found = [START] if scenario.start is None else []
    found += [*scenario.uncharged, CHOSEN, REPORTED]
    kept = (Oracle.ROOT, Oracle.LOSS, Oracle.ACCURACY)
    needs = [scenario.aggregator.needs, scenario.bound.needs]
    needs += [defence.needs for defence in scenario.defences]
    if any(oracle in kept for each in needs for oracle in each.values()):
        found.append(ROOT)
    if scenario.workload.method.weighting != "uniform":
        found.append(LARGEST)
    return tuple(found)
