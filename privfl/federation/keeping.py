"""Which transcripts of a run stay in memory."""

from __future__ import annotations

from typing import Literal

from privfl.engine import Scenario

AUTO_KEEP_BYTES = 512 << 20
"""How much memory kept transcripts may take under ``audit.keep: auto``."""


def transcript_bytes(scenario: Scenario) -> int:
    """How much memory a round's transcript takes, about."""
    d, clients = scenario.workload.model.d, len(scenario.clients)
    return int(3 * 4 * d * clients * scenario.sampling.rate)


def kept(
    keep: Literal["auto", "all", "none"] | list[int], round: int, size: int, budget: int
) -> bool:
    """Whether a round's transcript of so many bytes is kept, with so many left.

    >>> kept([1, 2], 3, size=8, budget=8), kept("auto", 3, size=8, budget=8)
    (False, True)
    """
    if isinstance(keep, list):
        return round in keep
    return keep == "all" or (keep == "auto" and size <= budget)
