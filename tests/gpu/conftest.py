"""These tests want a GPU: `make gpu` runs them where there is one, and nothing else does."""

import pytest
import torch


def pytest_configure(config):
    if not torch.cuda.is_available():
        raise pytest.UsageError("tests/gpu wants a GPU, and torch.cuda finds none here.")


@pytest.fixture
def device():
    return "cuda"
