"""What two servers open of an honest round does not change with what they check: digests of the
results, recorded before a lying server was guarded against.
"""

import dataclasses
import hashlib
from functools import partial

import pytest
import torch

from privfl import hybrid
from privfl.aggregators import CosineFilter, FLTrust, Krum, Mean
from privfl.core import Bounded, Context, RoundPlan, client_party, drive
from privfl.crypto.enrolled import Enrolled

TwoServer = partial(hybrid.TwoServer, security="semi_honest")
SignTwoServer = partial(hybrid.SignTwoServer, security="semi_honest")

N, D = 9, 130


def held(seed=0):
    g = torch.Generator().manual_seed(seed)
    middle = torch.randn(D, generator=g)
    rows = {who: middle + torch.randn(D, generator=g) for who in range(1, N + 1)}
    rows[3] = -rows[3]
    made = {who: 0.98 * x / x.norm() for who, x in rows.items()}
    made[4] = 0.4 * made[4]
    made[5] = 3.0 * made[5]  # skips its clip
    return middle, made


MIDDLE, ROWS = held()


def trust(**more):
    return FLTrust(lambda context: MIDDLE, **more)


def along(threshold):
    return CosineFilter(threshold, lambda rows, context: MIDDLE)


CHANNELS = {
    "mean, scores": TwoServer(Mean(weighted=False), reveal="scores"),
    "mean, selection": TwoServer(Mean(weighted=False)),
    "mean, aggregate": TwoServer(Mean(weighted=False), reveal="aggregate"),
    "mean, weighted": TwoServer(Mean()),
    "mean, ring 64": TwoServer(Mean(weighted=False), ring=64, bits=20),
    "mean, ring 32": TwoServer(Mean(weighted=False), ring=32, bits=12),
    **{
        f"krum, {reveal}": TwoServer(Krum(f=2, m=4), reveal=reveal)
        for reveal in ("scores", "selection", "aggregate")
    },
    "krum, aggregate, ring 64": TwoServer(Krum(f=2, m=4), reveal="aggregate", ring=64),
    **{
        f"fltrust, {reveal}": TwoServer(trust(), reveal=reveal)
        for reveal in ("scores", "selection", "aggregate")
    },
    "fltrust, fixed, aggregate": TwoServer(trust(fixed=True), reveal="aggregate"),
    **{
        f"cosine {threshold}, {reveal}": TwoServer(along(threshold), reveal=reveal)
        for reveal in ("scores", "selection", "aggregate")
        for threshold in (-0.3, 0.0, 0.4)
    },
    "signs, scores": SignTwoServer(trust(), reveal="scores"),
    "signs, aggregate": SignTwoServer(trust(), reveal="aggregate"),
}


def digest_of(channel):
    """What a round opened, whom it excluded and what it disclosed, as one digest."""
    everybody = Enrolled.fresh(channel, ROWS)
    plan = RoundPlan(0, tuple(ROWS), D, l2=1.0, session=b"digests")
    everybody.server.inform(Context(plan, torch.zeros(D), torch.Generator()))
    parties = {
        client_party(i): everybody.clients[i].enter(plan, Bounded.claimed(i, row, 1.0))
        for i, row in ROWS.items()
    }
    parties |= {who: helper.enter(plan) for who, helper in everybody.helpers.items()}
    outcome = drive(everybody.server.enter(plan), parties)
    out = outcome.opened
    assert out is not None, dict(outcome.aborts)
    told = hashlib.sha256(out.what.value.numpy().tobytes())
    told.update(repr((out.what.weight, out.what.count, out.survivors)).encode())
    told.update(repr(sorted(out.excluded.items())).encode())
    for name, value in sorted(out.disclosed.items()):
        told.update(name.encode() + str(value.dtype).encode() + value.numpy().tobytes())
    return told.hexdigest()[:16]


RECORDED = {
    "mean, scores": "e14d9b47f41d07f0",
    "mean, selection": "ea9fe89468a4dc6a",
    "mean, aggregate": "ea9fe89468a4dc6a",
    "mean, weighted": "ea9fe89468a4dc6a",
    "mean, ring 64": "2edc0465c0c56e34",
    "mean, ring 32": "40aafb89cd318be2",
    "krum, scores": "21f688d979d5c789",
    "krum, selection": "4755860066a19e2c",
    "krum, aggregate": "d6898041bde91799",
    "krum, aggregate, ring 64": "d6898041bde91799",
    "fltrust, scores": "3f0159b44da778b7",
    "fltrust, selection": "1bd029caa93ac476",
    "fltrust, aggregate": "73afe53580320fd2",
    "fltrust, fixed, aggregate": "1e3e0afcbae63363",
    "cosine -0.3, scores": "6b603acf8916468f",
    "cosine 0.0, scores": "6b603acf8916468f",
    "cosine 0.4, scores": "6b603acf8916468f",
    "cosine -0.3, selection": "ae96d1a77f122a9b",
    "cosine 0.0, selection": "ae96d1a77f122a9b",
    "cosine 0.4, selection": "ae96d1a77f122a9b",
    "cosine -0.3, aggregate": "c6afbb7b5ad9fa83",
    "cosine 0.0, aggregate": "c6afbb7b5ad9fa83",
    "cosine 0.4, aggregate": "c6afbb7b5ad9fa83",
    "signs, scores": "77b35ea37610df5b",
    "signs, aggregate": "64c331c1dcf23ff2",
}


@pytest.mark.parametrize("name", CHANNELS)
def test_an_honest_round_opens_bit_for_bit_what_it_opened_before(name):
    assert digest_of(CHANNELS[name]) == RECORDED[name]


ENFORCED = [
    "mean, scores",
    "mean, aggregate",
    "mean, weighted",
    "mean, ring 32",
    "krum, scores",
    "fltrust, scores",
    "cosine 0.4, scores",
    "cosine 0.0, selection",
    "cosine 0.0, aggregate",
]


@pytest.mark.parametrize("name", ENFORCED)
def test_an_enforced_rule_opens_bit_for_bit_the_same(name):
    channel = dataclasses.replace(CHANNELS[name], security="malicious")
    assert digest_of(channel) == RECORDED[name]
