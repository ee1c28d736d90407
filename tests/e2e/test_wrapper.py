"""The wrapper around somebody else's loop."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from privfl import PrivateAggregation
from privfl.aggregators import Mean
from privfl.core import BadUpdate, ConfigError, Sampling
from privfl.crypto import AdditiveSharing, Plain, SecAgg
from privfl.dp import Clip, Gaussian
from privfl.engine import Budget


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_in_numpy_out(dtype):
    mean, receipt = PrivateAggregation(float64="round").aggregate(
        {3: np.array([1, 2], dtype), 5: np.array([3, 6], dtype)}
    )
    assert mean.dtype == dtype
    assert mean.tolist() == [2, 4]
    assert receipt.survivors == (3, 5)
    assert receipt.bytes_sent == 2 * (32 + 8)
    assert receipt.epsilon is None
    assert receipt.epsilon_note


def test_torch_in_torch_out_of_the_same_type_and_the_callers_tensors_stay():
    updates = {i: torch.randn(5, dtype=torch.float64) * 10 for i in range(3)}
    copies = {i: u.clone() for i, u in updates.items()}
    layer = PrivateAggregation(bound=Clip(l2=1.0), float64="round")
    mean, receipt = layer.aggregate(updates)
    assert mean.dtype == torch.float64
    assert mean.norm() <= 1
    assert receipt.server_reads == "every update"
    assert all(torch.equal(updates[i], copies[i]) for i in updates)


def test_it_counts_its_rounds_and_takes_new_clients():
    layer = PrivateAggregation()
    _, first = layer.aggregate({1: torch.ones(2)})
    _, second = layer.aggregate({1: torch.ones(2), 2: torch.zeros(2)})
    assert (first.round, second.round) == (0, 1)
    assert second.survivors == (1, 2)


def test_bad_updates_are_refused_with_the_client_named():
    layer = PrivateAggregation()
    with pytest.raises(BadUpdate, match="no updates"):
        layer.aggregate({})
    with pytest.raises(BadUpdate, match="client 2"):
        layer.aggregate({1: torch.ones(3), 2: torch.ones(4)})
    with pytest.raises(BadUpdate, match="client 2"):
        layer.aggregate({1: torch.ones(3), 2: torch.tensor([0.0, float("nan"), 0.0])})


def test_more_clients_over_time_than_the_population_are_refused():
    layer = PrivateAggregation(
        bound=Clip(1.0),
        mechanism=Gaussian(2.0),
        sampling=Sampling("poisson", 0.5, 4),
        denominator=2,
    )
    for start in (0, 2):
        layer.aggregate({start: torch.ones(3), start + 1: torch.ones(3)})
    spent = layer.ledger
    with pytest.raises(ConfigError, match=r"5 clients .* a population of 4"):
        layer.aggregate({4: torch.ones(3)})
    assert layer.ledger == spent
    layer.aggregate({0: torch.ones(3), 3: torch.ones(3)})


def test_a_public_denominator_divides_instead_of_the_number_present():
    mean, _ = PrivateAggregation(bound=Clip(l2=10.0), denominator=4).aggregate(
        {1: np.array([2.0], np.float32), 2: np.array([6.0], np.float32)}
    )
    assert mean.tolist() == [2.0]
    with pytest.raises(ConfigError, match="leave one of the two"):
        PrivateAggregation(denominator=4, rule=Mean())


def test_the_example_loop_runs_and_learns(capsys):
    example = Path(__file__).parents[2] / "examples" / "own_loop.py"
    torch.manual_seed(0)
    runpy.run_path(str(example), run_name="__main__")
    assert float(capsys.readouterr().out.split()[1].rstrip(";")) > 0.85


@pytest.mark.parametrize("channel", [Plain(), SecAgg(), AdditiveSharing()], ids=str)
def test_a_receipt_says_whether_mail_was_signed_and_signing_changes_no_aggregate(channel):
    updates = {i: torch.full((8,), 0.1 * (i + 1)) for i in range(4)}
    found = {}
    for mail in ("bare", "signed"):
        layer = PrivateAggregation(bound=Clip(l2=2.0), channel=channel, mail=mail)
        for _ in range(2):
            found[mail] = layer.aggregate(updates)
    (bare, plainly), (signed, posted) = found["bare"], found["signed"]
    assert torch.equal(bare, signed)
    assert plainly.mail == "not signed, all parties in one process"
    assert posted.mail.startswith("signed by its sender")
    assert posted.bytes_sent >= plainly.bytes_sent + 4 * 72


def test_what_is_of_another_type_is_refused_with_its_value(unchecked):
    """Types are not checked here before the layer sees a value."""
    right = {"bound": Clip(1.0), "mechanism": Gaussian(noise_multiplier=1.0)}
    rows = {c: torch.ones(3) for c in range(5)}
    for wrong, updates, words in (
        (
            lambda: {"bound": 1.0},
            rows,
            "bound must be one of privfl.dp, as in Clip(l2=1.0), and is 1.0.",
        ),
        (
            lambda: {"mechanism": "gaussian"},
            rows,
            "mechanism 'gaussian' is no noise on an aggregate",
        ),
        (
            lambda: {"relation": "replace-one"},
            rows,
            "unknown relation 'replace-one'; did you mean 'replace_one'?",
        ),
        (
            dict,
            list(rows.values()),
            "updates are given by client, as in {'ward 1': vector",
        ),
        (
            dict,
            {"a": "ones"},
            "client 'a': an update is made of numpy arrays or torch tensors",
        ),
        (
            lambda: {"budget": Budget("3", 1e-5, Path("x"))},
            rows,
            "budget.epsilon must be a number, and is '3'.",
        ),
        (
            lambda: {"budget": Budget(3.0, None, Path("x"))},
            rows,
            "budget.delta must be a number, and is None.",
        ),
        (
            lambda: {"budget": Budget(3.0, 1e-5, "x")},
            rows,
            "budget.ledger must be a Path, and is 'x'.",
        ),
    ):
        kind = BadUpdate if words.startswith(("updates", "client")) else ConfigError
        with pytest.raises(kind) as told:
            PrivateAggregation(**(right | wrong())).aggregate(updates)
        assert type(told.value) is kind
        assert str(told.value).startswith(words)
