"""A dealer that dealt before the rounds, into a file for each server, and is not there in them."""

from dataclasses import replace

import pytest
import torch

from privfl.aggregators import CosineFilter, FLTrust, Krum, Mean
from privfl.core import Bounded, Context, Faults, RoundPlan
from privfl.crypto.primitives import Identity
from privfl.engine import Session
from privfl.hybrid.two_server import TwoServer
from privfl.testing import check_guarantee, contributions
from privfl.testing.played_rounds import D as LENGTH
from privfl.testing.played_rounds import N as GUESTS
from privfl.testing.played_rounds import plan_of

N, D = 9, 300
G = torch.Generator().manual_seed(3)
COMMON = torch.randn(D, generator=G)
ROWS = [0.7 * (COMMON + torch.randn(D, generator=G)) / (2 * D) ** 0.5 for _ in range(N)]
PLAN = RoundPlan(0, tuple(range(N)), D, l2=1.0, max_weight=5.0, session=b"ahead")
DEALER = Identity.fresh("dealer")
TRUST = FLTrust(lambda context: COMMON)
ALONG = CosineFilter(0.0, lambda plain, context: COMMON)
WIDE = CosineFilter(0.3, lambda plain, context: COMMON)
RULES = {
    "mean": Mean(weighted=False),
    "weighted mean": Mean(weighted=True),
    "krum": Krum(f=2, m=3),
    "fltrust": TRUST,
    "cosine": ALONG,
    "cosine, other threshold": WIDE,
}
CASES = [(name, reveal) for name in RULES for reveal in ("scores", "selection", "aggregate")]


def sent(silent=()):
    return {i: Bounded(i, ROWS[i], 1.0, 1.0 + i % 5) for i in range(N) if i not in silent}


def played(session, plan=PLAN, silent=(), faults=Faults(), **kept):
    session.inform(Context(plan, torch.zeros(D), torch.Generator().manual_seed(0)))
    return session.play(plan, sent(silent), faults, **kept)


def of(channel, mail="bare"):
    session = Session(channel, mail)
    session.enrol(range(N))
    return session


def dealt(channel, folder, count=2):
    channel.deal(PLAN, folder, count, DEALER)
    key = DEALER.public.signing.hex()
    return replace(channel, preprocessing=str(folder), dealer_key=key)


def same(one, other):
    assert one.opened is not None, one.aborts
    assert torch.equal(one.opened.what.value, other.opened.what.value)
    assert one.opened.what.weight == other.opened.what.weight
    assert one.opened.survivors == other.opened.survivors
    assert one.opened.disclosed.keys() == other.opened.disclosed.keys()
    for name, value in one.opened.disclosed.items():
        assert torch.equal(value, other.opened.disclosed[name]), name


@pytest.mark.parametrize(("rule", "reveal"), CASES)
def test_a_round_whose_dealer_is_not_there_ends_with_the_same_bits(rule, reveal, tmp_path):
    online = TwoServer(RULES[rule], reveal=reveal, bits=12)
    ahead = dealt(online, tmp_path)
    assert ahead.helpers == ("server/1",)
    without, with_it = of(ahead), of(online)
    same(played(without), played(with_it))
    later = replace(PLAN, number=1)
    gone = (2, 5)
    same(played(without, later, gone), played(with_it, later, gone))


@pytest.mark.parametrize(
    ("rule", "reveal"),
    [("mean", "selection"), ("krum", "aggregate"), ("fltrust", "scores"), ("cosine", "selection")],
)
def test_the_record_of_a_channel_that_was_dealt_ahead_says_what_its_parties_do(
    rule, reveal, tmp_path
):
    root = FLTrust(lambda context: contributions().together)
    filters = CosineFilter(0.0, lambda plain, context: contributions().together)
    kinds = {"krum": Krum(f=1, m=2), "fltrust": root, "cosine": filters, "mean": Mean()}
    online = TwoServer(kinds[rule], reveal=reveal, bits=12)
    online.deal(plan_of(GUESTS, LENGTH), tmp_path, 40, DEALER)
    key = DEALER.public.signing.hex()
    channel = replace(online, preprocessing=str(tmp_path), dealer_key=key)
    assert "a dealer that dealt ahead" in channel.describe()
    assert "dealer" not in channel.guarantee.read_by()
    assert check_guarantee(channel) == []
