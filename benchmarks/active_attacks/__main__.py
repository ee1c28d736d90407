"""The cases of `benchmarks.active_attacks`."""

from __future__ import annotations

from benchmarks.active_attacks.defences import defences, noise
from benchmarks.active_attacks.membership import pushing, whose
from benchmarks.active_attacks.properties import properties
from benchmarks.active_attacks.published import published
from benchmarks.active_attacks.servers import active_server, bins
from benchmarks.active_attacks.words import words
from benchmarks.harness import Case, main

CASES: dict[str, Case] = {
    "active_server": active_server,
    "bins": bins,
    "pushing": pushing,
    "whose": whose,
    "words": words,
    "properties": properties,
    "published": published,
    "noise": noise,
    "defences": defences,
}

if __name__ == "__main__":
    main("active_attacks", CASES)
