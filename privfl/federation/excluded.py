"""What a run's claim of privacy does not count, by name."""

from __future__ import annotations

from privfl.core import Ledger, Oracle
from privfl.engine import Scenario

BESIDE = (
    "all that the run shows or keeps beside public/: test accuracy, training losses, accuracies and"
    " label counts of clients, cohorts, drop-outs, what went wrong and what defences did, their"
    " judgements of single clients (made of rows without noise, of those who were drawn), traffic,"
    " times, the log, checkpoints and charges by round"
)
CHOSEN = (
    "learning rates, bounds, seeds, the best of several runs or rounds and when to stop, wherever"
    " they were chosen on these data"
)
ROOT = "the samples that the server keeps itself (data.root)"
VALIDATION = (
    "the samples on which models are measured (data.validation), and what is chosen by them"
)
SIZES = (
    "how many samples each client holds, from which the rates of its batches and its epsilon follow"
)
FAILED = (
    "whether a client's training fails, as on samples that the model or the loss refuses together"
    " and not one by one: it then sends nothing, or zero"
)
LARGEST = "the largest client's number of samples, which every client is told"
START = "whatever the model held before the first round: the start was not declared public"
BEFORE = (
    "whatever the runs before it excluded, such as a first start that nobody declared public: their"
    " own statements name it"
)


def excluded_from(scenario: Scenario) -> tuple[str, ...]:
    """What this run did with clients' data that no epsilon of it counts."""
    found = [START] if scenario.start is None else []
    found += [BEFORE] if isinstance(scenario.start, Ledger) else []
    found += [*scenario.uncharged, CHOSEN, BESIDE]
    kept = (Oracle.ROOT, Oracle.LOSS, Oracle.ACCURACY, Oracle.FEATURES)
    needs = [scenario.aggregator.needs, scenario.bound.needs]
    needs += [defence.needs for defence in scenario.defences]
    if any(oracle in kept for each in needs for oracle in each.values()):
        found.append(ROOT)
    if scenario.validation is not None:
        found.append(VALIDATION)
    if scenario.workload.method.gradient.private:
        found += [SIZES, FAILED]
    if scenario.workload.method.weighting != "uniform" and scenario.max_weight is None:
        found.append(LARGEST)
    return tuple(found)
