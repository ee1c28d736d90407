"""LASA looks for a long layer's least entries between two bounds from a sample of it: whatever the
sample says, length and signs are those of a sorted row.
"""

import numpy as np
import pytest
import torch

from privfl.aggregators import LASA

D, SPARSITY = 40_000, 0.3
RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=D).astype(np.float32)
SAMPLED = np.arange(D) % (D // 4096) < 4
ROWS = {
    "as weights are": NORMAL,
    "large where the sample looks": np.where(SAMPLED, 1000 + NORMAL, NORMAL),
    "small where the sample looks": np.where(SAMPLED, NORMAL / 1000, NORMAL),
    "of one size": np.sign(NORMAL),
    "mostly zeros": np.where(RNG.random(D) < 0.9, 0, NORMAL),
    "zeros": np.zeros(D),
    "one entry": np.eye(1, D, 17)[0],
    "tiny": 1e-30 * NORMAL,
    "rising": np.linspace(-1, 2, D),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_long_layers_length_and_signs_are_those_of_a_sorted_row(row):
    row = row.astype(np.float32)
    lengths, shares = LASA([D], sparsity=SPARSITY)._told(torch.tensor(row)[None])
    cut = np.sort(np.abs(row))[int(SPARSITY * D)]
    kept = row[(np.abs(row) >= cut) & (row != 0)].astype(np.float64)
    assert lengths[0].item() == pytest.approx(np.linalg.norm(kept), rel=1e-6)
    assert shares[0].item() == ((kept > 0).mean() if len(kept) else 0.5)
