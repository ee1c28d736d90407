"""The cases of `benchmarks.gpu` run, wherever they are told to."""

import math

import pytest
import torch

from benchmarks import gpu


@pytest.mark.parametrize("case", ["training", "rules"])
def test_a_case_gives_figures(case, monkeypatch):
    monkeypatch.setattr(gpu, "COHORTS", (2,))
    monkeypatch.setattr(gpu, "STEPS", 1)
    monkeypatch.setattr(gpu, "D", 1000)
    rows = list(gpu.CASES[case](torch.device("cpu"), True))
    assert len(rows) >= 3
    assert all(math.isfinite(row.ratio) for row in rows)
