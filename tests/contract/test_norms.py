"""A norm is as exact as it says, whatever a vector holds, and no `Bounded` is over its bound."""

import math

import numpy as np
import pytest
import torch

from privfl.core import BadUpdate, Bounded
from privfl.core.update import norm

SHORT, LONG = 300, 20_000
KINDS = {
    torch.float64: (1e-310, 1e-200, 1e-30, 1.0, 1e30, 1e200, 1e303),
    torch.float32: (1e-45, 1e-30, 1e-19, 1.0, 1e19, 1e38),
    torch.float16: (1e-7, 1.0, 6e3),
    torch.bfloat16: (1e-40, 1.0, 1e37),
}
CASES = [(kind, size, d) for kind, sizes in KINDS.items() for size in sizes for d in (SHORT, LONG)]


def exact(vector):
    values = vector.double().numpy().astype(np.longdouble)  # 80 bits: squares of 1e303 fit
    return float(np.sqrt((values * values).sum()))


@pytest.mark.parametrize(("kind", "size", "d"), CASES, ids=str)
def test_a_norm_is_within_what_it_says_of_the_exact_one(kind, size, d):
    drawn = torch.rand(d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
    vector = ((drawn + 0.2) * size).to(kind)
    assert norm(vector) == pytest.approx(exact(vector), rel=5e-7, abs=0)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("d", [SHORT, LONG])
def test_a_norm_is_finite_exactly_where_all_entries_are(kind, d):
    largest = torch.finfo(kind).max / (1e6 if kind is torch.float64 else 1)
    assert math.isfinite(norm(torch.full((d,), largest, dtype=kind)))
    for bad in (math.nan, math.inf, -math.inf):
        vector = torch.full((d,), largest, dtype=kind)
        vector[d // 2] = bad
        assert not math.isfinite(norm(vector))
    assert norm(torch.zeros(0, dtype=kind)) == norm(torch.zeros(d, dtype=kind)) == 0.0


@pytest.mark.parametrize(
    ("vector", "l2"),
    [
        (torch.full((2,), 1e-170, dtype=torch.float64), 1e-200),
        (torch.full((LONG,), 1e-170, dtype=torch.float64), 1e-170),
        (torch.linspace(1, 2, LONG).bfloat16(), None),
        (torch.linspace(1, 1.3, LONG).half(), None),
    ],
    ids=["tiny", "long and tiny", "bfloat16", "half"],
)
def test_nothing_is_bounded_by_less_than_its_norm(vector, l2):
    length = exact(vector)
    with pytest.raises(BadUpdate, match="over its bound"):
        Bounded(client=0, delta=vector, l2=l2 or length / (1 + 1e-5))
    assert Bounded(client=0, delta=vector, l2=length * (1 + 1e-6)).l2 > length


def test_a_long_finite_update_that_is_far_too_long_is_told_so_and_not_that_it_is_infinite():
    with pytest.raises(BadUpdate, match=r"norm 1.41421e\+200 is over its bound"):
        Bounded(client=0, delta=torch.full((2,), 1e200, dtype=torch.float64), l2=1.0)
