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


def test_a_client_of_whom_nothing_is_rebuilt_does_not_leak() -> None:
    torch.manual_seed(0)
    line = lines(1, 32, GradientInversion(iterations=1), GradientInversion(iterations=2))["samples"]
    assert line.verdict == "not found"
