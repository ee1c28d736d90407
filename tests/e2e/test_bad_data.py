"""Data that nobody can train on are refused in a sentence, or lose their own client alone."""

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.core import ConfigError, DataCorrupt, Dataset, RoundFailed

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))

HOLED = torch.where(torch.arange(8)[:, None] == 3, torch.nan, X)


def data(x=X, y=None, classes=2):
    return Dataset(x, torch.arange(len(x)) % 2 if y is None else y, classes=classes)


def ran(held, test=None, **parts):
    parts = {"rounds": 2, "executor": "sequential", **parts}
    model = parts.pop("model", None) or nn.Linear(4, 2)
    return Federation(model, held, test or data(), **parts).run()


@pytest.mark.parametrize(
    ("held", "test", "words"),
    [
        ([data(), data(y=torch.full((8,), 5))], None, "client 1 has a label 5, and with 2 classes"),
        ([data(), data(y=torch.full((8,), -1))], None, "client 1 has a label -1"),
        ([data(), data()], data(y=torch.full((8,), 5)), "the test set has a label 5"),
        ([data(), data(x=X[:0])], None, "client 1 has no data"),
        ([data(x=X[:0])] * 2, None, "client 0 has no data"),
        ([data(), data()], data(x=X[:0]), "an empty data set has no accuracy"),
        ([data(), data()], data(x=HOLED), "the test set holds NaN or infinite values, .* sample 3"),
        ([], None, "there are no clients"),
        ([data(), data(x=torch.randn(8, 5))], None, r"client 1 are float32 \[5\] each"),
        ([data(), data(x=X.double())], None, r"client 1 are float64 \[4\] each"),
        ([data(), data(y=torch.rand(8))], None, "labels of client 1 are float32"),
    ],
)
def test_data_that_no_model_can_train_on_are_refused(held, test, words):
    with pytest.raises(ConfigError, match=words):
        ran(held, test)


def test_validation_samples_that_measure_nothing_are_refused():
    with pytest.raises(ConfigError, match="the validation set holds NaN or infinite values"):
        ran([data(), data()], validation=data(x=HOLED))


@pytest.mark.parametrize("device", ["cuda", "toaster"])
def test_a_device_that_is_not_here_is_refused(device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("it is here")
    with pytest.raises(ConfigError, match=f"cannot use '{device}' here"):
        ran([data()], device=device)
    with pytest.raises(ConfigError, match=f"cannot use '{device}' here"):
        Federation.from_config({"device": device})


def test_samples_without_labels_are_refused():
    with pytest.raises(DataCorrupt, match="8 samples, but 3 labels"):
        Dataset(X, torch.zeros(3, dtype=torch.long), classes=2)


def test_a_model_that_does_not_fit_the_data_is_a_sentence():
    with pytest.raises(RoundFailed, match="training failed at every client"):
        ran([data(), data()], model=nn.Linear(7, 2))


@pytest.mark.parametrize("lost", [1, 2])
def test_clients_of_nothing_but_nan_are_excluded_by_name(lost):
    held = [data(x=X * float("nan"))] * lost + [data()] * (2 - lost)
    run = ran(held)
    assert "client 0: the update holds NaN" in run.history[0].incidents[0]
    assert torch.isfinite(run.parameters).all()
