"""Everything in the catalogue is held to what `privfl.testing` asks of its seam."""

import pytest

from privfl import catalog
from privfl.core import DataMissing
from privfl.crypto import AdditiveSharing
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
TOLD = "AdditiveSharing, proved: lies do what its record says, no more and no less"
"""Told to the same channel in test_guarantees.py, where coalitions have up to four parties."""
ANSWERS = ("it answers somebody", "it repeats with the seed")
CHECKS = [
    check
    for table, checks in SEAMS
    for kind in table.values()
    for check in checks(kind)
    if not (check.subject in UNDER_SEATS and check.says.startswith(ANSWERS)) and str(check) != TOLD
]


def test_attacks_on_data_seats_alone_are_left_out():
    assert {"Unmixing", "Untransforming"} == UNDER_SEATS


def test_the_lies_that_are_left_out_are_told_to_the_same_channel_elsewhere():
    there = dict(settings_of("additive_sharing"))["proof: pine"]
    assert AdditiveSharing(**AdditiveSharing.examples["proved"]) == AdditiveSharing(**there)
    every = {str(check) for check in channel_checks(AdditiveSharing)}
    assert TOLD in every - {str(check) for check in CHECKS}


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_everything_in_the_catalogue_conforms(check):
    try:
        check()
    except DataMissing as missing:
        pytest.skip(str(missing))
