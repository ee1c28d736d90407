"""Fixed point by the compiled kernel: the integers of the path in doubles, or no answer."""

import shutil

import numpy as np
import pytest
import torch

from privfl.core import BadUpdate, Bounded, RoundPlan
from privfl.core import native as built
from privfl.crypto import FixedPoint
from privfl.crypto.fixed_kernel import agrees_with_doubles, encoded


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler here")
    place = tmp_path_factory.mktemp("kernels")
    built.build_kernels(agrees_with_doubles, place)
    return place


def by_both(code, update, plan, dtype, folder, monkeypatch):
    """What a code makes of an update with the kernel and without."""
    monkeypatch.setattr(built, "kernel_folder", lambda: folder)
    monkeypatch.delenv("PRIVFL_NATIVE", raising=False)
    found = code.encode(update, plan, dtype=dtype)
    monkeypatch.setenv("PRIVFL_NATIVE", "off")
    return found, code.encode(update, plan, dtype=dtype)


@pytest.mark.parametrize("rotation", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 8, 15, 16, 23, 24, 25, 28, 29, 30, 31])
def test_words_are_those_of_doubles_at_every_width(bits, rotation, folder, monkeypatch):
    rng = torch.Generator().manual_seed(bits)
    code = FixedPoint(bits, rotation=rotation, words=2)
    for d, l2, weight, dtype in (
        (1, 1.0, 1.0, np.int32),
        (999, 0.37, 0.2, np.int64),
        (70_000, 3e-20, 1.0, np.int32),
        (64, 1e30, 0.99, np.int64),
    ):
        plan = RoundPlan(1, (1, 2), d=d, l2=l2)
        values = torch.empty(d).normal_(generator=rng)
        values *= l2 / values.norm()
        ties = torch.arange(min(d, 40)) - 20.5
        values[: len(ties)] = ties * plan.max_weight / weight / code.scale(plan)
        values[-1] = -2 * l2  # a liar's, which is cut to the range
        update = Bounded(1, values, l2=2 * float(values.norm()), weight=weight)
        found, wanted = by_both(code, update, plan, dtype, folder, monkeypatch)
        assert found.dtype == wanted.dtype
        assert np.array_equal(found, wanted)
        assert np.abs(found[:d]).max() <= code.top


@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_refused_with_the_kernel_as_without(odd, folder, monkeypatch):
    values = torch.zeros(100)
    values[99] = odd
    monkeypatch.setattr(built, "kernel_folder", lambda: folder)
    out = np.zeros(100, dtype=np.int32)
    assert encoded(np.zeros(100, dtype=np.float32), 1.0, 7, out)
    assert not encoded(values.numpy(), 1.0, 7, out)
    plan, update = RoundPlan(0, (1, 2), d=100, l2=1.0), Bounded(1, torch.zeros(100), l2=1.0)
    update.delta[99] = odd  # after it was found to be finite
    with pytest.raises(BadUpdate, match="NaN or infinite"):
        FixedPoint(16).encode(update, plan)


def test_types_and_factors_without_a_kernel_are_left_to_numpy(folder):
    library, values = built.kernels(folder), np.ones(8, dtype=np.float32)
    assert encoded(values, 3.0, 100, np.empty(8, dtype=np.int32), library)
    for other, factor, dtype in (
        (values.astype(np.float64), 3.0, np.int32),
        (values[::2], 3.0, np.int32),
        (values, 3.0, np.int16),
        (values, 1e300, np.int32),
        (values, np.inf, np.int32),
        (values, np.nan, np.int32),
    ):
        assert not encoded(other, factor, 100, np.empty(len(other), dtype=dtype), library)
