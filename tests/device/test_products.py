"""Where a process lets a GPU round factors to TF32, clips still hold, and close rows stay apart."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from privfl.core import FlatModel, exact_products
from privfl.core.geometry import squared_distances
from privfl.dp import DPGradient

NETS = {
    "over places": (
        lambda: (nn.Linear(16, 8), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)),
        (6, 16),
    ),
    "convolution": (
        lambda: (nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)),
        (2, 6, 6),
    ),
}


@pytest.fixture
def careless():
    """A process that lets every product of float32 be rounded."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.set_float32_matmul_precision("highest")


def test_the_pretended_device_rounds_where_it_may(device, careless):
    a = torch.full((1, 1), 1 + 2.0**-13, device=device)
    assert (a @ a).item() == 1.0
    with exact_products():
        assert (a @ a).item() > 1.0
    assert (a @ a).item() == 1.0


@pytest.mark.parametrize("net", NETS)
def test_no_clipped_gradient_is_longer_than_its_clip(net, device, careless):
    made, shape = NETS[net]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        module, one = nn.Sequential(*made()), torch.randn(1, *shape)
    model = FlatModel(module, device)
    x, y = one.repeat(8, *[1] * len(shape)).to(device), torch.zeros(8, dtype=int, device=device)

    def loss(module, x, y):
        return functional.cross_entropy(module(x), y)

    DPGradient(0.01, 0.0, 8)(model, loss, x, y)  # of eight copies the mean is as long as each
    assert 0.00999 < float(torch.linalg.vector_norm(model.grad.double())) <= 0.01
    assert torch.get_float32_matmul_precision() == "high"


def test_distances_of_close_rows_are_right(device, careless):
    rows = 1 + 0.05 * torch.randn(8, 5000, generator=torch.Generator().manual_seed(0))
    exact = squared_distances(rows.double())
    assert torch.allclose(squared_distances(rows.to(device)).cpu(), exact, rtol=1e-6)


@pytest.mark.parametrize("newer", [False, True])
def test_what_the_process_asked_for_stays(newer):
    switch = torch.backends.cudnn.conv
    before = switch.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    if newer:  # which torch's older switches then cannot say any more
        switch.fp32_precision, torch.backends.cuda.matmul.fp32_precision = "ieee", "tf32"
    asked = switch.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    try:
        with exact_products():
            inside = switch.fp32_precision, torch.backends.cuda.matmul.fp32_precision
        after = switch.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    finally:
        switch.fp32_precision, torch.backends.cuda.matmul.fp32_precision = before
    assert "tf32" in asked
    assert "tf32" not in inside
    assert after == asked
