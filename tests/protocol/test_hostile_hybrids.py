"""A sample of the hostile rounds that `python -m benchmarks.hybrid --only hostile` plays."""

import pytest

from benchmarks.hybrid.hostile import CHANNELS, fuzz
from privfl.aggregators import FLTrust
from privfl.core import RoundPlan
from privfl.hybrid import BucketedSecAgg, EncryptedCosine


@pytest.mark.parametrize("name", list(CHANNELS))
def test_hostile_mail_crashes_nobody_convicts_no_honest_party_and_opens_nothing_wrong(name):
    tally, wrong = fuzz(name, 24, seed=7)
    assert wrong == []
    assert tally["right"] == 24


def test_default_audits_ask_each_server_and_each_server_with_clients():
    plan = RoundPlan(0, tuple(range(6)), d=4, l2=1.0)
    cosine = EncryptedCosine(FLTrust(lambda context: context.parameters)).guarantee
    asked = set(cosine.adversaries(plan))
    for who in ({"server"}, {"key_holder"}, {"server", "key_holder"}):
        assert frozenset(who) in asked
    assert any({"server"} < who and "client" in str(sorted(who)) for who in asked)
    for channel in (BucketedSecAgg(), BucketedSecAgg(bucketing_seed=None)):
        asked = set(channel.guarantee.adversaries(plan))
        assert frozenset({"server"}) in asked
        assert any({"server"} < who and len(who) == 3 for who in asked)
