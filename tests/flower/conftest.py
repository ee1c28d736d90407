"""Tests that need Flower run in an environment of their own: `python -m benchmarks.flower_env -m
pytest tests/flower`. `make test` runs them but for the ``long`` ones (minutes each): every channel
for three rounds, Flower's own nodes, a hostile SuperLink, kill -9 at every exchange, a SuperLink
that is killed and its run resumed.

    python -m benchmarks.flower_env -m pytest -m long tests/flower
"""

import pytest


def pytest_configure(config):
    """Flower and Ray warn of their own dependencies, which is nothing of ours."""
    config.addinivalue_line("markers", "long: minutes, and no part of make test")
    for ours in ("flwr", "click", "ray", "starlette", "google", "typer"):
        config.addinivalue_line("filterwarnings", f"ignore::DeprecationWarning:{ours}")
    config.addinivalue_line("filterwarnings", "ignore::FutureWarning:ray")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A federation over a relay that does what it is told."""
    from tests.flower.hostile_federation import Federation

    federation = Federation(tmp_path_factory.mktemp("hostile") / "fed")
    yield federation
    federation.end()
