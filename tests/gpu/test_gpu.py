"""What the pretended device of tests/device cannot show: a GPU's own kernels."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from privfl import Federation
from privfl.core import Dataset, FlatModel, LocalPlan, exact_products
from privfl.core.geometry import squared_distances
from privfl.dp import DPGradient
from privfl.training import LocalSGD
from tests.device.test_federations import CASES, DATA, layers, played


@pytest.mark.parametrize("case", set(CASES) - {"secure aggregation"})
def test_a_run_on_a_gpu_is_near_the_run_on_the_cpu(case, device):
    kind, settings = CASES[case]
    there, here = (played(kind, on, **settings()) for on in (device, "cpu"))
    assert next(there.model.parameters()).is_cuda
    assert not [one for record in there.history for one in record.incidents]
    assert torch.allclose(there.state.parameters, here.state.parameters, atol=1e-3)


def test_dropout_on_a_gpu_repeats_with_the_seed_of_the_run(device):
    first = played("dropout", device).state.parameters
    torch.rand(9, device=device)
    before = torch.cuda.get_rng_state()
    assert torch.equal(first, played("dropout", device).state.parameters)
    assert torch.equal(before, torch.cuda.get_rng_state())


@pytest.fixture
def careless():
    """A process that lets every product of float32 be rounded."""
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.set_float32_matmul_precision("highest")


def test_products_are_whole_where_the_process_lets_them_be_rounded(device, careless):
    a, b = (torch.randn(512, 512, device=device) for _ in range(2))
    x, kernel = torch.randn(8, 64, 16, 16, device=device), torch.randn(64, 64, 3, 3, device=device)
    with exact_products():
        product, folded = a @ b, functional.conv2d(x, kernel)
    exact, exactly = a.double() @ b.double(), functional.conv2d(x.double(), kernel.double())
    assert float((product - exact).abs().max()) < 1e-3
    assert float((folded - exactly).abs().max()) < 1e-3
    assert torch.get_float32_matmul_precision() == "medium"


def test_distances_of_close_rows_are_right_where_products_may_be_rounded(device, careless):
    rows = 1 + 0.05 * torch.randn(12, 50_000, device=device)
    exact = torch.cdist(rows.double(), rows.double()).square()
    assert torch.allclose(squared_distances(rows), exact, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_no_clipped_gradient_is_longer_than_its_clip(kind, device, careless):
    model = FlatModel(layers(kind), device)
    data, gradient = DATA.to(device), DPGradient(0.01, 0.0, 1)

    def loss(module, x, y):
        return functional.cross_entropy(module(x), y)

    for i in range(8):
        gradient(model, loss, data.x[i : i + 1], data.y[i : i + 1])
        assert float(torch.linalg.vector_norm(model.grad.double())) <= 0.01


def test_a_larger_network_trains_on_a_gpu(device):
    rng = torch.Generator().manual_seed(0)
    data = Dataset(torch.randn(256, 3, 32, 32, generator=rng), torch.arange(256) % 10, 10)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 10),
    )  # fmt: skip
    clients = [data.take(range(i, 256, 4)) for i in range(4)]
    training = LocalSGD(plan=LocalPlan(batch_size=16))
    run = Federation(module, clients, data, rounds=2, training=training, device=device).run()
    assert bool(run.state.parameters.isfinite().all())
