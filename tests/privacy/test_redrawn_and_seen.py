"""What a claim is not about: a sample that was not drawn anew, and attackers that see the rows."""

import pytest
import torch

from privfl import Federation, PrivateAggregation
from privfl.core import RoundFailed, Sampling
from privfl.dp import Clip, Gaussian, spent_epsilon

SAMPLED = {
    "bound": Clip(1.0),
    "mechanism": Gaussian(1.0),
    "sampling": Sampling("poisson", rate=0.1, population=50),
    "denominator": 5,
}


def failing_once(layer, monkeypatch):
    def fails(*args, **more):
        raise RoundFailed("the relay was down.")

    monkeypatch.setattr(layer._session, "play", fails)
    with pytest.raises(RoundFailed):
        layer.aggregate({client: torch.ones(3) for client in range(4)})
    monkeypatch.undo()


def test_another_try_with_the_same_clients_is_no_fresh_draw(monkeypatch):
    layer, twice = PrivateAggregation(**SAMPLED), PrivateAggregation(**SAMPLED)
    failing_once(layer, monkeypatch)
    again = layer.aggregate({client: torch.ones(3) for client in range(4)})[1].epsilon
    for first in (0, 10):  # two rounds of clients that were drawn apart
        apart = twice.aggregate({first + c: torch.ones(3) for c in range(4)})[1].epsilon
    assert again > 1.3 * apart


def test_a_try_with_other_clients_and_a_round_after_one_that_ended_are_fresh_draws(monkeypatch):
    layer = PrivateAggregation(**SAMPLED)
    failing_once(layer, monkeypatch)
    layer.aggregate({client: torch.ones(3) for client in range(1, 5)})
    multipliers = [c.event.parameters["noise_multiplier"] for c in layer.ledger.charges]
    assert multipliers == [1.0, 1.0]


CONFIG = {
    "data": {"name": "digits", "clients": 8},
    "model": "softmax",
    "rounds": 1,
    "bound": {"name": "clip", "l2": 1.0},
    "mechanism": {"name": "gaussian", "noise_multiplier": 1.0},
}


@pytest.mark.parametrize(("attack", "void"), [("alie", True), ("min_max", True), ("zero", False)])
def test_attackers_that_are_handed_honest_rows_void_the_claim_in_words(attack, void):
    attacks = [{"name": attack, "clients": [0, 1, 2]}]
    run = Federation.from_config({**CONFIG, "attacks": attacks}).run()
    epsilon, note = spent_epsilon(run.ledger, 1e-5)
    assert (epsilon is None) == void
    assert (f"attack '{attack}' is handed" in note) == void
