"""DP-SGD in one client whose steps' noise hangs together."""

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from privfl import Federation
from privfl.core import ConfigError, Dataset, FlatModel, LocalPlan, Participation
from privfl.dp import DPGradient, epsilon, spend
from privfl.dp.strategies import Banded, Bisr, Blt
from privfl.training import LocalSGD

N, BATCH, EPOCHS = 10, 4, 2
PLAN = LocalPlan(BATCH, epochs=EPOCHS)
RUN = Participation(rounds=6, most=2, apart=3)


def gradient(strategy=None, z=1.0, **parts):
    return DPGradient(1.0, z, BATCH, strategy=strategy or Blt(2), **parts)


def loss(module, x, y):
    return F.cross_entropy(module(x), y)


def test_batches_come_in_one_order_pass_by_pass():
    made = gradient()
    batches = list(made.batches(N, PLAN, torch.Generator().manual_seed(0)))
    assert made.steps(N, PLAN) == len(batches) == 6
    assert [len(batch) for batch in batches] == [4, 4, 2, 4, 4, 2]
    assert sorted(torch.cat(batches[:3]).tolist()) == list(range(N))
    assert all(torch.equal(a, b) for a, b in zip(batches[:3], batches[3:], strict=True))


@pytest.mark.parametrize("strategy", [Bisr(2), Banded(3), Blt(2)], ids=repr)
def test_noise_of_the_steps_is_whitened_by_the_strategy(strategy):
    d, z = 8_000, 0.7
    model = FlatModel(nn.Linear(d, 1, bias=False))
    made, rows = gradient(strategy, z), []
    for _ in made.batches(N, PLAN, torch.Generator()):
        made(model, loss, torch.zeros(0, d), torch.zeros(0, dtype=torch.long))
        rows.append(model.grad.clone())
    matrix = strategy.matrix(RUN)
    noise = torch.stack(rows).double().numpy() / (z * matrix.sens(2, 3) / BATCH)
    white = matrix.dense() @ noise
    error = np.sqrt((1 + np.eye(6)) / d)
    assert (np.abs(white @ white.T / d - np.eye(6)) <= 4.5 * error).all()


def test_a_training_is_one_gaussian_without_amplification():
    data = Dataset(torch.randn(N, 3), torch.arange(N) % 2, classes=2)
    training = LocalSGD(plan=PLAN, weighting="uniform", gradient=gradient(z=2.0))
    run = Federation(
        nn.Linear(3, 2), [data, data], data, training=training, rounds=2, executor="sequential"
    ).run()
    assert {(c.count, c.relation, c.sampling.scheme) for c in run.ledger.charges} == {
        (1, "zero_out", "all")
    }
    for spent in spend(run.ledger, 1e-3):
        alone = epsilon(
            noise_multiplier=2.0, sample_rate=1.0, steps=2, delta=1e-3, sampler="all",
            relation="zero_out",
        )  # fmt: skip
        assert spent.rdp == pytest.approx(alone)


def test_fewer_steps_cost_what_the_first_rows_move():
    [all_steps], [first] = (gradient().noisy(N, PLAN, steps) for steps in (6, 1))
    matrix = Blt(2).matrix(RUN)
    assert all_steps.event.parameters["noise_multiplier"] == 1.0
    said = first.event.parameters["noise_multiplier"]
    assert said == pytest.approx(matrix.sens(2, 3) / matrix.sens(2, 3, 1))


def test_what_the_noise_remembers_does_not_travel():
    made = gradient()
    next(made.batches(N, PLAN, torch.Generator()))
    copied = pickle.loads(pickle.dumps(made))
    model = FlatModel(nn.Linear(3, 2))
    with pytest.raises(ConfigError, match="none has begun"):
        copied(model, loss, torch.zeros(1, 3), torch.zeros(1, dtype=torch.long))
    assert "tensor" not in repr(made.ongoing)
