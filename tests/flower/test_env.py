"""The environment in which Flower is, is the one that is written down, and tells nobody."""

import os
from importlib.metadata import version

from benchmarks.flower_env import CONSTRAINTS, QUIET


def test_flower_and_what_it_pins_have_the_versions_that_are_written_down():
    import flwr

    pinned = dict(line.split("==") for line in CONSTRAINTS.read_text().split())
    for name in ("flwr", "ray", "pycryptodome", "typer", "rich", "packaging", "cryptography"):
        assert version(name) == pinned[name]
    assert flwr.__version__ == pinned["flwr"]


def test_no_usage_statistics_leave_the_machine():
    assert {name: os.environ.get(name) for name in QUIET} == QUIET
