"""Tests that need Flower run in an environment of their own: `python -m benchmarks.flower_env -m
pytest tests/flower`. `make test` runs them but for the ``long`` ones, in which processes are killed
and more channels played: minutes.
"""


def pytest_configure(config):
    """Flower and Ray warn of their own dependencies, which is nothing of ours."""
    config.addinivalue_line("markers", "long: minutes, and no part of make test")
    for ours in ("flwr", "click", "ray", "starlette", "google", "typer"):
        config.addinivalue_line("filterwarnings", f"ignore::DeprecationWarning:{ours}")
    config.addinivalue_line("filterwarnings", "ignore::FutureWarning:ray")
