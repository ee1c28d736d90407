"""What a run says of its pace: how stale updates were, how long it took in simulated time, and how
many of the updates really were attackers'.
"""

from __future__ import annotations

from collections.abc import Sequence

from privfl.aggregators import ToleratesByzantine
from privfl.core import TooManyByzantine
from privfl.engine import RoundRecord, Scenario

SEVERAL_MODELS = (
    "A plan of an asynchronous round names several models, so a client does not notice that the"
    " server sent it one of its own: what summing channels refuse in synchronous rounds, a model"
    " made to read one client's update in the sum, is not refused here."
)


def pace_said(scenario: Scenario, records: Sequence[RoundRecord]) -> dict[str, str]:
    """Facts about a run's pace, where it simulates time.

    >>> from privfl import Federation
    >>> pace = {"name": "buffered", "k": 2, "concurrency": 4, "durations": "equal"}
    >>> data = {"name": "digits", "clients": 8}
    >>> run = Federation.from_config({"data": data, "rounds": 2, "pace": pace}).run()
    >>> run.summary["facts"]["staleness"]
    'mean 0.5 steps, at most 1, over 4 updates'
    """
    said: dict[str, str] = {}
    stale = [steps for record in records for steps in record.staleness]
    times = [record.time for record in records if record.time is not None]
    if times:
        said["simulated time"] = f"{max(times):.4g}, where a client's task takes about 1"
    if stale:
        mean = sum(stale) / len(stale)
        said["staleness"] = (
            f"mean {mean:.2g} steps, at most {max(stale)}, over {len(stale)} updates"
        )
    if stale and scenario.attackers:
        said["updates of attackers"] = _share(scenario, records)
    return said


def pace_warned(scenario: Scenario) -> tuple[str, ...]:
    """What a reader must be warned of."""
    hides = scenario.channel.kind.opens == "total" or not scenario.channel.kind.named
    return (SEVERAL_MODELS,) if hides and not scenario.pace.synchronous else ()


def _share(scenario: Scenario, records: Sequence[RoundRecord]) -> str:
    """Of the deliveries, whatever share of the clients attackers are; beside what the rule
    tolerates.
    """
    held = frozenset().union(*(one.clients for one in scenario.attackers))
    clients, asked = len(scenario.clients), sum(record.cohort for record in records)
    liars = [len(record.liars) for record in records]
    words = (
        f"{100 * sum(liars) / max(asked, 1):.3g} % of {asked} deliveries, by"
        f" {100 * len(held) / clients:.3g} % of the clients"
    )
    inside = scenario.channel.able.hosts
    rule = scenario.aggregator if inside is None else inside
    if not isinstance(rule, ToleratesByzantine):
        return words
    try:
        most = rule.max_byzantine(scenario.expected_rows)
    except TooManyByzantine:
        return words
    over = sum(count > most for count in liars) / max(len(records), 1)
    return (
        f"{words}; over the {most} that {type(rule).__name__} tolerates in {100 * over:.3g} % of"
        " rounds"
    )
