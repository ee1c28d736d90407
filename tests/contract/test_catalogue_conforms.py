"""Everything in the catalogue is held to what `privfl.testing` asks of its seam."""

import pytest

from privfl import catalog
from privfl.core import DataMissing
from privfl.report.guarantees import settings_of
from privfl.testing import (
    attack_checks,
    channel_checks,
    dataset_checks,
    defence_checks,
    inference_attack_checks,
    mechanism_checks,
    model_checks,
    rule_checks,
)

SEAMS = (
    (catalog.AGGREGATORS, rule_checks),
    (catalog.DEFENCES, defence_checks),
    (catalog.CHANNELS, channel_checks),
    (catalog.ATTACKS, attack_checks),
    (catalog.INFERENCE, inference_attack_checks),
    (catalog.MECHANISMS, mechanism_checks),
    (catalog.RING_NOISE, mechanism_checks),
    (catalog.DATASETS, dataset_checks),
    (catalog.MODELS, model_checks),
)
UNDER_SEATS = {
    catalog.INFERENCE[name].__name__
    for seat in catalog.DATA_SEATS.values()
    for name in seat.broken_by
}
"""Attacks that answer only where clients encode their samples, over many rounds:
tests/privacy/test_data_seats.py plays them.
"""
TOLD = {
    ("additive_sharing", "proved"): "proof: pine",
    ("bfv", ""): "keys: authority",
    ("ckks", ""): "keys: authority",
    ("mp_rlwe", ""): "2 of 3",
}
"""Examples of channels, and the settings of `privfl.report.guarantees` that are the same channel:
test_guarantees.py tells all lies to these, where coalitions have at least two parties.
"""
LIES = frozenset(
    f"{catalog.CHANNELS[name].__name__}{words and ', '}{words}: lies do what its record says, no"
    " more and no less"
    for name, words in TOLD
)
ANSWERS = ("it answers somebody", "it repeats with the seed")
CHECKS = [
    check
    for table, checks in SEAMS
    for kind in table.values()
    for check in checks(kind)
    if not (check.subject in UNDER_SEATS and check.says.startswith(ANSWERS))
    and str(check) not in LIES
]


def test_attacks_on_data_seats_alone_are_left_out():
    assert {"Unmixing", "Untransforming"} == UNDER_SEATS


@pytest.mark.parametrize(("name", "words"), TOLD)
def test_the_lies_that_are_left_out_are_told_to_the_same_channel_elsewhere(name, words):
    kind, there = catalog.CHANNELS[name], dict(settings_of(name))[TOLD[name, words]]
    here = getattr(kind, "examples", {}).get(words, {})
    assert kind(**here) == kind(**there)
    every = {str(check) for check in channel_checks(kind)}
    (left_out,) = every - {str(check) for check in CHECKS}
    assert left_out in LIES


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_everything_in_the_catalogue_conforms(check):
    try:
        check()
    except DataMissing as missing:
        pytest.skip(str(missing))
