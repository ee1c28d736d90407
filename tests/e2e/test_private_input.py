"""Bad input under differential privacy, through the public face: named, survived, and never
silently averaged.
"""

import math

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.aggregators import Mean
from privfl.core import ConfigError, Dataset, LocalPlan, RoundFailed
from privfl.dp import Clip, DPGradient, Gaussian, PrivacyWarning
from privfl.training import LocalSGD

PUBLIC = Mean(weighted=False, denominator=2.0)


def data(n=20, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return Dataset(
        torch.randn(n, 6, generator=rng), torch.randint(0, 3, (n,), generator=rng), classes=3
    )


def sgd(batch_size=4, steps=5, **gradient):
    seat = DPGradient(l2=1.0, batch_size=batch_size, **{"noise_multiplier": 1.0, **gradient})
    return LocalSGD(lr=0.1, plan=LocalPlan(batch_size, steps=steps), gradient=seat)


def federation(clients, module=None, **parts):
    parts = {"training": sgd(), "rounds": 2, "executor": "sequential", **parts}
    return Federation(module or nn.Linear(6, 3), clients, data(seed=9), **parts)


def test_samples_without_a_gradient_leave_pure_noise():
    still = Dataset(torch.zeros(20, 6), torch.zeros(20, dtype=torch.int64), classes=3)
    run = federation([still, data()], nn.Linear(6, 3, bias=False)).run()
    assert torch.isfinite(run.parameters).all()
    assert not run.history[0].incidents


def test_a_sample_with_nan_counts_as_zero_and_its_owner_is_warned():
    bad = data()
    bad.x[3] = float("nan")
    with pytest.warns(PrivacyWarning, match="NaN or infinite gradient"):
        run = federation([bad, data(seed=1)], training=sgd(batch_size=20)).run()
    assert torch.isfinite(run.parameters).all()


def test_a_client_whose_gradients_are_all_nan_sends_noise_as_one_without_samples_does():
    """To name it and leave it out would tell of the data that made them so."""
    broken = Dataset(
        torch.full((20, 6), float("nan")), torch.zeros(20, dtype=torch.int64), classes=3
    )
    with pytest.warns(PrivacyWarning, match="count as zero"):
        run = federation([broken, data()], training=sgd(batch_size=20)).run()
    assert torch.isfinite(run.parameters).all()
    assert not run.history[0].incidents


def test_empty_poisson_batches_are_steps_that_are_paid_for():
    run = federation([data(n=200)], training=sgd(batch_size=1, steps=30), rounds=1).run()
    assert run.ledger.charges[0].count == 30
    assert torch.isfinite(run.parameters).all()


@pytest.mark.parametrize("seat", ["client", "sample"])
def test_no_noise_is_an_infinite_epsilon(seat):
    parts = (
        {"bound": Clip(1.0), "mechanism": Gaussian(0.0), "aggregator": PUBLIC}
        if seat == "client"
        else {}
    )
    training = LocalSGD(weighting="uniform") if seat == "client" else sgd(noise_multiplier=0.0)
    run = federation([data(), data(seed=1)], training=training, **parts).run()
    told = run.history[-1].epsilon
    assert told
    assert all(unit.startswith(f"{seat} level") for unit in told)
    assert set(told.values()) == {math.inf}
    assert any("infinite" in warning for warning in run.summary["warnings"])


def test_a_zero_update_passes_a_clip_and_an_update_of_nan_is_named():
    still = Dataset(torch.zeros(20, 6), torch.zeros(20, dtype=torch.int64), classes=3)
    broken = Dataset(
        torch.full((20, 6), float("nan")), torch.zeros(20, dtype=torch.int64), classes=3
    )
    private = {
        "training": LocalSGD(weighting="uniform"),
        "bound": Clip(1.0),
        "mechanism": Gaussian(1.0),
        "aggregator": PUBLIC,
    }
    run = federation([still, broken], nn.Linear(6, 3, bias=False), **private).run()
    assert torch.isfinite(run.parameters).all()
    assert any("client 1" in what and "NaN" in what for what in run.history[0].incidents)
    assert run.history[0].survivors == 2  # as a row of zeros: its data do not tell whether it came


class Scaled(nn.Module):
    """A layer with weights of its own has per-sample gradients that book-keeping does not know."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.scale * x


def scaled():
    return nn.Sequential(nn.Linear(6, 3), Scaled())


def test_a_layer_that_an_engine_cannot_do_is_named_with_one_that_can():
    with pytest.raises(RoundFailed, match=r"layer '1' .*engine 'vmap'"):
        federation([data()], scaled()).run()
    run = federation([data()], scaled(), training=sgd(engine="vmap")).run()
    assert torch.isfinite(run.parameters).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"noise_multiplier": -1.0}, "noise_multiplier"),
        ({"noise_multiplier": math.nan}, "noise_multiplier"),
        ({"l2": 0.0}, "l2"),
        ({"engine": "ghost"}, "'bookkeeping', 'opacus' or 'vmap'"),
        ({"clipping": "none"}, "clipping"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, words):
    config = {
        "training": {
            "name": "sgd",
            "gradient": {"name": "dp", "l2": 1.0, "noise_multiplier": 1.0, **changes},
        }
    }
    with pytest.raises(ConfigError, match=words):
        Federation.from_config(config)
