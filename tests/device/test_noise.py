"""Noise that a device computes is that of the CPU, from the same words."""

import pytest
import torch

from privfl.core import SeededNoise
from privfl.dp.noise import write_normals
from tests.device.pretended import BACKEND

LENGTHS = (0, 1, 2, 7, 5000, 300_001)
"""The last has several blocks, and radii at both ends, which are told apart by more bits."""
CASES = [(dtype, n) for dtype in (torch.float32, torch.float64) for n in LENGTHS]


@pytest.mark.parametrize(("dtype", "n"), [*CASES, (torch.bfloat16, 5000)])
def test_a_device_makes_the_same_normals_of_the_same_words(dtype, n, device):
    here = write_normals(torch.empty(n, dtype=torch.float64), 1.5, SeededNoise(3))
    BACKEND.waits.clear()
    there = write_normals(torch.empty(n, dtype=dtype, device=device), 1.5, SeededNoise(3))
    assert there.device.type == device
    assert not BACKEND.waits
    near = 2e-2 if dtype == torch.bfloat16 else 1e-5
    assert torch.allclose(there.cpu().double(), here, rtol=near, atol=near)


def test_noise_is_written_into_a_part_of_a_vector_and_nowhere_else(device):
    whole = torch.full((1000,), 9.0, device=device)
    write_normals(whole[200:701], 1.0, SeededNoise(0))
    assert (whole.cpu()[:200] == 9).all()
    assert (whole.cpu()[701:] == 9).all()
    assert not (whole.cpu()[200:701] == 9).any()
