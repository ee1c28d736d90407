"""The pretended device, for the tests beside this file, which run in a process of their own
(`make test` does so): torch must know a device before its first backward pass, and then knows it
in all that a process does.
"""

import pytest
import torch

from tests.device import pretended

pretended.installed()


@pytest.fixture
def device(monkeypatch):
    """The name of the pretended device, with a generator and a count of waits that nobody used."""
    monkeypatch.setattr(torch.Tensor, "__deepcopy__", pretended.copied_deeply)
    monkeypatch.setattr(torch.Tensor, "__reduce_ex__", pretended.refused_pickle)
    pretended.BACKEND.generator.manual_seed(0)
    pretended.BACKEND.waits.clear()
    return pretended.NAME
