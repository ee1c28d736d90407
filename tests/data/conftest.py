"""Real data where this machine has it; tests that need a set which is absent are skipped by its
name.
"""

import functools
import json
from pathlib import Path

import pytest

from privfl.data import load, present

PUBLISHED = json.loads((Path(__file__).parents[1] / "vectors" / "data.json").read_text())


@functools.cache
def _loaded(name, options):
    return load(name, **dict(options))


@pytest.fixture(scope="session")
def real():
    """``real(name, **options)``: the split, loaded once a session."""

    def loader(name, **options):
        if not present(name):
            pytest.skip(f"data set {name} is not on this machine")
        return _loaded(name, tuple(sorted(options.items())))

    yield loader
    _loaded.cache_clear()


@pytest.fixture(scope="session")
def published():
    """Published counts by data set, with their sources."""
    return PUBLISHED
