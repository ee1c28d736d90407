"""The pretended device refuses what a GPU refuses: or the tests beside this one would show
nothing.
"""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from privfl.core import exact_products
from tests.device.pretended import BACKEND


def test_vectors_of_both_devices_do_not_mix(device):
    here, there = torch.ones(3), torch.ones(3, device=device)
    for mixed in (
        lambda: here + there,
        lambda: there.sub(here),
        lambda: torch.sub(there, there, out=here),
        lambda: here.add_(there),
        lambda: here.add_(there[0]),
        lambda: torch.dot(there, here),
        lambda: there.index_select(0, torch.tensor([1])),
        lambda: torch.cat([here, there]),
        lambda: torch.where(there > 0, here, there),
        lambda: here[torch.tensor([1], device=device)],
    ):
        with pytest.raises(RuntimeError, match=r"same device|indices should be"):
            mixed()


def test_numbers_and_indices_of_the_cpu_go_with_it(device):
    there = torch.ones(3, device=device)
    assert (there * torch.tensor(2.0)).tolist() == [2.0, 2.0, 2.0]
    assert there[torch.tensor([1, 2])].tolist() == [1.0, 1.0]
    assert torch.ones(3).copy_(there).tolist() == [1.0, 1.0, 1.0]


def test_neither_numpy_nor_buffers_nor_pickles_read_it(device):
    there = torch.ones(3, device=device)
    for read in (there.numpy, lambda: np.asarray(there), lambda: memoryview(there)):
        with pytest.raises(TypeError):
            read()
    with pytest.raises(RuntimeError, match="pickled"):
        pickle.dumps(there)


def test_generators_of_the_cpu_do_not_draw_on_it(device):
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(3, generator=torch.Generator(), device=device)


def test_the_seed_of_the_cpu_does_not_seed_it(device):
    drop = nn.Dropout(0.5)
    x = torch.ones(64, device=device)
    torch.default_generator.manual_seed(1)
    first = drop(x)
    torch.default_generator.manual_seed(1)
    assert not torch.equal(first, drop(x))


def test_fresh_memory_holds_nothing_that_could_pass_for_a_result(device):
    assert bool(torch.empty(5, device=device).isnan().all())


def test_what_waits_for_it_is_counted(device):
    there = torch.ones(3, device=device)
    there.mul_(2).add_(1)
    assert not BACKEND.waits
    assert there.sum().item() == 9
    assert there.cpu().tolist() == [3, 3, 3]
    assert BACKEND.waits == {"_local_scalar_dense": 1, "to the CPU": 1}


def test_gradients_of_convolutions_and_recurrent_layers_are_the_cpus(device):
    for layer, x in (
        (nn.Conv2d(2, 3, 3, padding=1), torch.randn(2, 2, 5, 5)),
        (nn.LSTM(3, 4), torch.randn(5, 2, 3)),
    ):
        other = copy.deepcopy(layer).to(device)
        for one, at in ((layer, x), (other, x.to(device))):
            with exact_products():
                out = one(at)
                (out[0] if isinstance(out, tuple) else out).square().sum().backward()
        for mine, theirs in zip(layer.parameters(), other.parameters(), strict=True):
            assert theirs.grad.device.type == device
            assert torch.allclose(mine.grad, theirs.grad.cpu(), atol=1e-5)
