"""Whatever of somebody's own code a run computes with is part of the run."""

import importlib
import sys

import pytest
import torch

from privfl import Federation
from privfl.core import ConfigError, Dataset, LocalPlan
from privfl.training import LocalSGD

RULE = """
import torch

SCALE = 1.0

def helper(rows):
    return rows.mean(dim=0)

def outer(rows, times=1.0):
    return helper(rows) * times

class Loss:
    power = 1.0

    def __init__(self):
        self.base = torch.nn.CrossEntropyLoss()

    def __call__(self, model, x, y, *, weight=1.0):
        return self.scaled(self.base(model(x), y)) * weight * self.more

    @staticmethod
    def scaled(value):
        return value * SCALE

    @property
    def more(self):
        return 1.0 if 1 in {1, 5, 7} else outer(torch.ones(1, 1))

class Net(torch.nn.Module):
    def __init__(self, gain=1.0):
        super().__init__()
        self.linear = torch.nn.Linear(4, 2)
        self.gain = gain

    def forward(self, x):
        return self.linear(x) * self.gain
"""


def made(folder, monkeypatch, text, gain=1.0):
    """A run of a model and a loss of a module of this text."""
    (folder / "own_parts.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    sys.modules.pop("own_parts", None)
    importlib.invalidate_caches()
    own = importlib.import_module("own_parts")
    torch.manual_seed(0)
    held = [Dataset(torch.ones(4, 4) * i, torch.arange(4) % 2, classes=2) for i in range(3)]
    plan = LocalSGD(lr=0.1, plan=LocalPlan(4, steps=1))
    return Federation(
        own.Net(gain),
        held,
        held[0],
        loss=own.Loss(),
        training=plan,
        rounds=1,
        executor="sequential",
    )


@pytest.fixture
def begun(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    made(tmp_path, monkeypatch, RULE).run(tmp_path / "run")
    yield tmp_path
    sys.modules.pop("own_parts", None)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("return value * SCALE", "return value + SCALE"),
        ("SCALE = 1.0", "SCALE = 2.0"),
        ("power = 1.0", "power = 2.0"),
        ("weight=1.0", "weight=2.0"),
        ("1.0 if 1 in", "2.0 if 1 in"),
        ("{1, 5, 7}", "{1, 5, 8}"),
        ("times=1.0", "times=2.0"),
        ("rows.mean(dim=0)", "rows.sum(dim=0)"),
    ],
)
def test_code_that_a_part_only_names_is_part_of_the_run(begun, monkeypatch, before, after):
    assert RULE.count(before) == 1
    other = made(begun, monkeypatch, RULE.replace(before, after))
    with pytest.raises(ConfigError, match="loss is"):
        other.run(begun / "run", resume=True)


def test_a_setting_of_ones_own_model_is_part_of_the_run(begun, monkeypatch):
    with pytest.raises(ConfigError, match="model is"):
        made(begun, monkeypatch, RULE, gain=2.0).run(begun / "run", resume=True)


def test_the_same_code_read_again_is_the_same_run(begun, monkeypatch):
    again = made(begun, monkeypatch, f"# said\n{RULE}").run(begun / "run", resume=True)
    assert len(again.history) == 1
