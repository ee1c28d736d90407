"""Accounting says nothing of its own arithmetic to people: no warning reaches them."""

import warnings

from privfl.dp import Release
from privfl.dp.accounting import pld_epsilon


def test_a_group_with_many_records_in_few_batches_is_accounted_without_a_warning():
    release = Release.gaussian(4.0, rate=0.32, scheme="poisson", relation="zero_out", group=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 10 < pld_epsilon({release: 40}, 1e-5) < 14
