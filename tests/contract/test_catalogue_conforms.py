"""Everything in the catalogue is held to what `privfl.testing` asks of its seam."""

import pytest

from privfl import catalog
from privfl.core import DataMissing
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
CHECKS = [check for table, checks in SEAMS for kind in table.values() for check in checks(kind)]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_everything_in_the_catalogue_conforms(check):
    try:
        check()
    except DataMissing as missing:
        pytest.skip(str(missing))
