"""A federation of few clients: what its only samples give is no luck, and what is luck is none."""

from __future__ import annotations

import pytest
import torch

from privfl import Federation
from privfl.attacks import GradientInversion, LinearLeakage
from privfl.audit import Attacks, audit, card
from privfl.data import load
from privfl.models import initialised, mlp

DIGITS = load("digits")


def lines(clients: int, hidden: int, *probe: object) -> dict[str, object]:
    parts = [DIGITS.train.take(range(60 * k, 60 * k + 60)) for k in range(clients)]
    net = initialised(mlp, (1, 8, 8), 10, seed=0, hidden=(hidden,))
    run = Federation(net, parts, DIGITS.test, rounds=1, executor="stacked")
    report = audit(run, adversaries=["server"], attacks=Attacks(probe=probe), lies=None)
    return {line.asset: line for line in card(report)}


@pytest.mark.parametrize("clients", [1, 2])
def test_a_sample_that_is_rebuilt_to_the_bit_leaks_however_few_clients_there_are(
    clients: int,
) -> None:
    probe = (LinearLeakage(), LinearLeakage(target="sum"), GradientInversion(iterations=5))
    line = lines(clients, 32, *probe)["samples"]
    assert line.figures["recognised"].value == 1
    assert line.looks == 3
    assert line.verdict == "leaks"


def records(*probe: object) -> dict[str, object]:
    adult = load("adult")
    client, test = adult.train.take(range(40)), adult.test.take(range(100))
    net = initialised(mlp, tuple(client.x.shape[1:]), 2, seed=0, hidden=(32,))
    run = Federation(net, [client], test, rounds=1, executor="stacked")
    report = audit(run, adversaries=["server"], attacks=Attacks(probe=probe), lies=None)
    return {line.asset: line for line in card(report)}


def test_a_record_that_is_rebuilt_leaks_where_there_is_one_client() -> None:
    line = records(LinearLeakage(), GradientInversion(iterations=2))["samples"]
    assert line.figures["fields"].value > 0.9
    assert line.looks == 2
    assert line.verdict == "leaks"


def test_a_record_of_which_nothing_is_rebuilt_does_not_leak() -> None:
    line = records(GradientInversion(iterations=1), GradientInversion(iterations=2))["samples"]
    assert line.verdict == "not found"


def test_a_client_of_whom_nothing_is_rebuilt_does_not_leak() -> None:
    torch.manual_seed(0)
    line = lines(1, 32, GradientInversion(iterations=1), GradientInversion(iterations=2))["samples"]
    assert line.verdict == "not found"
