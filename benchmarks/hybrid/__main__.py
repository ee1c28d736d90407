"""The cases of `benchmarks.hybrid`."""

from __future__ import annotations

from benchmarks.harness import main
from benchmarks.hybrid.apart_servers import fltrust_blocks
from benchmarks.hybrid.cosine import encrypted_cosine
from benchmarks.hybrid.dealt_ahead import dealt_ahead
from benchmarks.hybrid.defence import defence, tailored
from benchmarks.hybrid.groups import bucketed, groups
from benchmarks.hybrid.hostile import hostile
from benchmarks.hybrid.leaks import leaks
from benchmarks.hybrid.lying_servers import two_server_lies
from benchmarks.hybrid.two_servers import (
    two_server_fltrust,
    two_server_krum,
    two_server_malicious,
    two_server_mean,
    two_server_signs,
)

CASES = {
    "bucketed": bucketed,
    "dealt_ahead": dealt_ahead,
    "groups": groups,
    "hostile": hostile,
    "leaks": leaks,
    "defence": defence,
    "tailored": tailored,
    "encrypted_cosine": encrypted_cosine,
    "fltrust_blocks": fltrust_blocks,
    "two_server_fltrust": two_server_fltrust,
    "two_server_krum": two_server_krum,
    "two_server_malicious": two_server_malicious,
    "two_server_mean": two_server_mean,
    "two_server_signs": two_server_signs,
    "two_server_lies": two_server_lies,
}

if __name__ == "__main__":
    main("hybrid", CASES)
