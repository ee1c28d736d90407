"""Names, weights and tries that would have the layer say something else than it did."""

import math
import os
from enum import Enum

import numpy as np
import pytest
import torch

from privfl import PrivateAggregation
from privfl.core import BadUpdate, BudgetSpent, ConfigError, Sampling
from privfl.crypto import Plain, SecAgg
from privfl.dp import Clip, Gaussian, PrivacyWarning
from privfl.engine.journal import Journal
from privfl.wrapper.asked import Asked
from privfl.wrapper.names import Names


class Ward(str, Enum):  # noqa: UP042  whose str() is another text than the one it equals
    NORTH = "north"


class Loud(str):
    __slots__ = ()

    def __eq__(self, other):
        return self is other

    def __hash__(self):
        return 7


class Killed(BaseException):
    """The process ends here."""


class MortalNoise:
    """Noise of the operating system that a kill may come before: the round was charged by then."""

    repeatable = False

    def __init__(self, killed=False):
        self.killed = killed

    def at(self, round):
        return self

    def random_bytes(self, n):
        if self.killed:
            raise Killed
        return os.urandom(n)


def private(**parts):
    parts = {"bound": Clip(1.0), "channel": Plain(), "denominator": 4.0, **parts}
    return PrivateAggregation(mechanism=Gaussian(2.0), **parts)


ROUND = {name: torch.ones(2) for name in "abcd"}


# ---- names


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Ward.NORTH, "north"),
        (np.str_("north"), "north"),
        (np.float32(3.0), 3),
        (True, 1),
        (-0.0, 0),
        (np.int64(2**60), 2**60),
        ((1, Ward.NORTH), (1.0, "north")),
    ],
)
def test_names_that_python_holds_for_equal_are_one_client_in_every_process(one, other):
    assert one == other
    assert Names().number(one) == Names().number(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, "1"),
        (b"a", "a"),
        (Ward.NORTH, "Ward.NORTH"),
        (2**53, 2**53 + 1),
        ("a", ("a",)),
        (1, (1,)),
    ],
)
def test_names_that_are_not_equal_are_two_clients(one, other):
    assert len(set(Names().numbers([one, other]))) == 2
    assert Names().number(one) != Names().number(other)


def test_a_text_that_is_equal_to_nothing_else_does_not_outlive_its_process():
    names = Names()
    assert names.number(Loud("north")) != names.number("north")
    with pytest.raises(ConfigError, match="outlives this process"):
        names.require_lasting("a ledger file")


def test_a_name_of_which_a_part_is_missing_is_refused():
    with pytest.raises(BadUpdate, match="not equal to itself"):
        Names().number(("north", math.nan))


# ---- weights


@pytest.mark.parametrize("weight", [math.nan, -3.0, math.inf, 0.0])
def test_no_weight_stops_a_round_under_noise_for_that_would_tell_of_its_client(weight):
    layer = private(max_weight=10.0, denominator=40.0)
    weights = {**dict.fromkeys("abc", 1.0), "d": weight}
    if weight in (0.0, math.inf):
        layer.aggregate(ROUND, weights=weights)
        return
    with pytest.warns(PrivacyWarning, match="client 'd'.*counts as 0"):
        layer.aggregate(ROUND, weights=weights)


@pytest.mark.parametrize("most", [1e4, 1e6, 1e12])
def test_weights_that_integers_would_round_to_nothing_are_refused(most):
    weights = {name: i + 1.0 for i, name in enumerate(ROUND)}
    with pytest.raises(ConfigError, match="client 'a' weighs 1 of max_weight"):
        PrivateAggregation(bound=Clip(1.0), channel=SecAgg(), max_weight=most).aggregate(
            ROUND, weights=weights
        )


def test_a_client_that_weighs_next_to_nothing_among_others_is_nothing_wrong():
    weights = {"a": 1e-3, "b": 1e3, "c": 1e3, "d": 1e3}
    updates = {name: torch.full((2,), float(name != "a")) / 2 for name in ROUND}
    mean, _ = PrivateAggregation(bound=Clip(1.0), channel=SecAgg()).aggregate(
        updates, weights=weights
    )
    assert torch.allclose(mean, torch.full((2,), 0.5), atol=1e-3)


@pytest.mark.parametrize("weight", [1e308, 1e-310])
def test_weights_whose_sum_floats_do_not_hold_are_refused(weight):
    with pytest.raises(BadUpdate, match="another unit"):
        PrivateAggregation().aggregate(ROUND, weights=dict.fromkeys(ROUND, weight))


# ---- shapes


def test_a_view_of_what_torch_has_not_negated_yet_is_read():
    lazy = torch.tensor([1 + 2j, 3 - 4j]).conj().imag
    assert lazy.is_neg()
    mean, _ = PrivateAggregation().aggregate({"a": lazy})
    assert mean.tolist() == [-2.0, 4.0]


def test_a_round_leaves_updates_as_they_are_and_no_later_round_changes_what_it_returned():
    given = {name: torch.full((3,), 9.0, requires_grad=True) for name in "ab"}
    layer = PrivateAggregation(bound=Clip(1.0))
    first, _ = layer.aggregate(given)
    before = first.clone()
    layer.aggregate({name: -one.detach() for name, one in given.items()})
    assert all(one.tolist() == [9.0] * 3 for one in given.values())
    assert torch.equal(first, before)


# ---- tries


def test_an_old_save_takes_nothing_back_that_a_try_after_it_was_charged(tmp_path):
    def layer(killed=False):
        return private(ledger_file=tmp_path / "ledger.jsonl", noise=MortalNoise(killed))

    first = layer(killed=True)
    with pytest.raises(Killed):
        first.aggregate(ROUND)
    first.save(tmp_path / "old")
    for _ in range(2):  # from one save twice, as a loop does that is killed before it saves again
        again = layer()
        again.load(tmp_path / "old")
        _, receipt = again.aggregate(ROUND)
    straight = private()
    for _ in range(3):
        _, three = straight.aggregate(ROUND)
    assert receipt.epsilon == pytest.approx(three.epsilon)


def test_two_layers_that_share_a_ledger_do_not_both_take_its_last_round(tmp_path, monkeypatch):
    asked = {
        "bound": Clip(1.0),
        "mechanism": Gaussian,
        "sampling": Sampling("all", 1.0, 4),
        "denominator": 4.0,
        "epsilon": 4.0,
        "rounds": 1,
        "ledger_file": tmp_path / "ledger.jsonl",
    }
    one, other = PrivateAggregation(**asked), PrivateAggregation(**asked)
    allowed = Asked.refuse_beyond
    looked = []

    def slow(self, *args):
        """What was asked allows the round, and the other layer plays one before it begins."""
        allowed(self, *args)
        looked.append(self)
        if len(looked) == 1:
            other.aggregate(ROUND)

    monkeypatch.setattr(Asked, "refuse_beyond", slow)
    with pytest.raises(BudgetSpent, match="nothing of it was sent"):
        one.aggregate(ROUND)
    assert len(PrivateAggregation(**asked).ledger.charges) == len(other.ledger.charges) == 1


def test_two_layers_do_not_both_try_one_failed_round_again(tmp_path, monkeypatch):
    shared = {"ledger_file": tmp_path / "ledger.jsonl"}
    first = private(**shared, noise=MortalNoise(killed=True))
    with pytest.raises(Killed):
        first.aggregate(ROUND)
    first.save(tmp_path / "saved")
    one, other = private(**shared, noise=MortalNoise()), private(**shared, noise=MortalNoise())
    one.load(tmp_path / "saved")
    other.load(tmp_path / "saved")
    enter = Journal.enter
    came_before = []

    def late(self, *args):
        """The other layer's try is entered first."""
        if not came_before:
            came_before.append(True)
            other.aggregate(ROUND)
        return enter(self, *args)

    monkeypatch.setattr(Journal, "enter", late)
    with pytest.raises(ConfigError, match="the same failed round"):
        one.aggregate(ROUND)
