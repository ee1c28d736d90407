"""What a dealer gets that lies alone or with a client, played through the real parties: it sees no
row and no opened word, and knows every mask and every key.
"""

import dataclasses
import random
import secrets

import numpy as np
import pytest
import torch

from privfl.aggregators import CosineFilter, FLTrust, Krum, Mean
from privfl.crypto.mpc.authentication import KEYS
from privfl.hybrid.two_server import TwoServer
from privfl.hybrid.two_server.dealer_lies import deals, deals_a_shorter_norm
from privfl.hybrid.two_server.dealt_lies import (
    FalseFixedDealer,
    OtherWords,
    asks_about_a_norm,
    stretch,
    tells_a_difference,
)
from privfl.hybrid.two_server.fixed_stock import (
    Comparisons,
    Joint,
    Masks,
    deal,
    outcome_of,
    receive,
    turned,
)
from privfl.testing import Contributions, PlayedRound, contributions, what_it_does

HELD = contributions()
N, D = HELD.rows.shape


def along(rows, context):
    return HELD.together


TRUST = FLTrust(lambda context: HELD.together)
RULES = {
    "mean, selection": TwoServer(Mean(weighted=False), bits=8, ring=40),
    "krum, scores": TwoServer(Krum(f=1, m=3), reveal="scores", bits=8, ring=40),
    "krum, selection": TwoServer(Krum(f=1, m=3), bits=8, ring=40),
    "krum, selection of two": TwoServer(Krum(f=1, m=2), bits=8, ring=40),
    "krum, aggregate": TwoServer(Krum(f=1, m=3), reveal="aggregate", bits=8, ring=40),
    "fltrust, scores": TwoServer(TRUST, reveal="scores", bits=8, ring=40),
    "fltrust, selection": TwoServer(TRUST),
    "fltrust, aggregate": TwoServer(TRUST, reveal="aggregate"),
    "cosine filter, selection": TwoServer(CosineFilter(0.0, along), bits=8, ring=40),
    "cosine filter, aggregate": TwoServer(
        CosineFilter(0.0, along), reveal="aggregate", bits=8, ring=40
    ),
    "over 0.1, aggregate": TwoServer(CosineFilter(0.1, along), reveal="aggregate", bits=8),
    "over -0.2, aggregate": TwoServer(CosineFilter(-0.2, along), reveal="aggregate", bits=8),
}
SECURITIES = ("semi_honest", "malicious")
HIDDEN = [name for name in RULES if "aggregate" in name or name == "fltrust, selection"]


def under(name, security):
    return dataclasses.replace(RULES[name], security=security)


def of_dealer(channel):
    lies = [lie for lie in channel.guarantee.lies if "dealer" in lie.who.parties]
    return [lie for lie in lies if lie.does != "falls silent"]


@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("name", RULES)
def test_every_lie_of_the_dealer_does_what_the_record_says(name, security):
    channel = under(name, security)
    for lie in of_dealer(channel):
        assert what_it_does(channel, lie) == lie.can, lie.does


@pytest.mark.parametrize("name", RULES)
def test_a_dealer_alone_reads_a_row_where_no_number_of_its_weights_is_opened(name):
    """It was said to shift the result under hidden Krum, where no count of weights is opened."""
    alone = {security: under(name, security).guarantee.liars()["dealer"] for security in SECURITIES}
    trusted = name == "fltrust, aggregate"
    assert (alone["semi_honest"] == "read") == (trusted or name == "krum, aggregate")
    assert (alone["malicious"] == "read") == (trusted or name == "fltrust, selection")
    for security, power in alone.items():
        said = "to a dealer that lies: any row" in under(name, security).describe()
        assert said == (power == "read")


@pytest.mark.parametrize("name", [name for name in HIDDEN if "fltrust" not in name])
def test_a_proved_choice_tells_a_lying_dealer_the_difference_of_two_rows(name, monkeypatch):
    """Whatever the words of the round are: under one of these seeds each of these rules once ended
    it, because a masked value had another top bit than its mask.
    """
    channel = dataclasses.replace(under(name, "malicious"), bits=16, ring=None)
    assert "the difference of any two rows" in channel.describe()
    apart = HELD.rows[0] - HELD.rows[1]
    for seed in (2, 5, 13):
        monkeypatch.setattr(secrets, "token_bytes", random.Random(seed).randbytes)
        told = PlayedRound.play(channel, HELD, tells_a_difference(), {"dealer"})
        assert told.published is not None, (seed, told.outcome.aborts)
        found = told.published.what.value / told.published.what.value.norm()
        assert float(found @ (apart / apart.norm())) > 0.9999


class EveryMask:
    """Comparisons in 8 bits with every mask there is, made other numbers (a `RuleStock`)."""

    most = 0

    def __init__(self, more):
        self.more = more

    def items(self, now, n):
        return {"all": Comparisons(256, 7)}

    def known(self, now, n, masks, joint):
        told = outcome_of(np.arange(256, dtype=np.uint64), 8)
        for at in range(256):
            stretch(told, at, self.more)
        return {"all": told}


def test_an_outcome_that_a_dealer_makes_another_number_is_it_under_every_mask():
    """Under half of them a sum of mask and value has another top bit than the mask."""
    now, more = under("cosine filter, aggregate", "malicious").round(HELD.agreed), 1 << 25
    stock = EveryMask(more)
    nobody, seeds = np.zeros(N, dtype=np.uint64), (bytes(32), bytes(31) + b"1")
    keys, hidden = np.arange(5, 5 + KEYS, dtype=np.uint64), np.zeros((0, 0), dtype=np.uint64)
    masks = Masks(nobody, nobody, hidden, nobody)
    both, theirs = deal(stock, now, masks, keys, 1, Joint(seeds, now))
    letters = [b"".join(both), b"".join([*both, *theirs])]
    one = np.concatenate([np.ones(1, dtype=np.uint64), keys])
    every, wrapped = np.arange(256, dtype=np.uint64), 0
    servers = [
        (at == 0, receive(stock, now, N, seeds[at], at == 0, memoryview(letters[at])).compare)
        for at in range(2)
    ]
    for value in range(-128, 128):
        points = (every + np.uint64(value % 256)) % np.uint64(256)
        wrapped += int((points >> np.uint64(7) != every >> np.uint64(7)).sum())
        told = [
            turned(compare["all"].at(now, first, points), points, 8, one * np.uint64(first))
            for first, compare in servers
        ]
        wanted = np.uint64((1 + more if value < 0 else -more) % (1 << 64))
        assert (told[0] + told[1] == wanted * one).all(), value
    assert wrapped == 256 * 128


def lengths(first):
    """The rows, the first of them of another length."""
    rows = HELD.rows.clone()
    rows[0] *= first / rows[0].norm()
    return Contributions(rows)


def as_if_longer(security):
    """A dealer by whose words the first row's square seems three quarters of the largest more."""
    if security == "malicious":
        return asks_about_a_norm(lambda now: 3 * now.longest**2 // 4)
    return deals(lambda dealing: [dealing.norm(0, 3 * dealing.now.longest**2 // 4)])


@pytest.mark.parametrize("security", SECURITIES)
def test_who_is_refused_tells_a_lying_dealer_whether_a_norm_is_beyond_a_bound_of_its_own(security):
    channel = TwoServer(Mean(weighted=False), security=security)
    assert "one bit a row and round (whether a norm is over its bound)" in channel.describe()
    for length, refused in ((0.45, False), (0.55, True)):
        told = PlayedRound.play(channel, lengths(length), as_if_longer(security), {"dealer"})
        assert ("client/0" in told.published.excluded) == refused


def test_a_row_that_a_lying_dealer_makes_short_weighs_nearly_all_where_its_cosine_is_small():
    """Under FLTrust's open scores a row weighs by 1 / its length, and its product alone bounds how
    short it can seem.
    """
    signs = torch.ones(1, 1)
    for _ in range(7):  # Hadamard: 128 directions that are orthogonal, of equal entries
        signs = torch.cat([torch.cat([signs, signs], 1), torch.cat([signs, -signs], 1)])
    rows = signs[:6] + 0.02 * signs[6]
    held = Contributions(0.98 * rows / rows.norm(dim=1, keepdim=True))
    root = signs[6] + 0.1 * signs[7]
    trust = FLTrust(lambda context: root)
    channel = TwoServer(trust, reveal="scores", security="semi_honest")

    def short(dealing):
        norm = round((0.98 * dealing.now.code.top) ** 2)
        return [dealing.norm(0, norm // 1000 - norm)]

    told = PlayedRound.play(channel, held, deals(short), {"dealer"}).published.what.mean()
    assert torch.cosine_similarity(told, held.rows[0], dim=0) > 0.99
    assert "one of which may weigh nearly all" in channel.describe()
    enforced = dataclasses.replace(channel, security="malicious")
    assert "one of which may weigh nearly all" not in enforced.describe()


def test_opened_scores_of_fixed_rows_are_words_that_the_dealer_cannot_move():
    """They are the clients' and the servers' words; of the dealer are the tags and the MACs."""

    class OtherTags(OtherWords):
        def _tags(self, first, second, weights):
            a0, a1, *rest = super()._tags(first, second, weights)
            a0[0, 0] += np.uint64(1)
            return (a0, a1, *rest)

    class Moves(FalseFixedDealer):
        def _dealing(self):
            made, kept = super()._dealing()
            parts = (made.now, made.extent, made.first, made.second, made.seeds)
            return OtherTags(*parts), kept

    def enter(plan, honest):
        dealer = honest["dealer"]
        return {"dealer": Moves(dealer.now, dealer.recipe, dealer.identity)}

    channel = under("fltrust, scores", "malicious")
    moved = dataclasses.replace(tells_a_difference(), enter=enter)
    told = PlayedRound.play(channel, HELD, moved, {"dealer"})
    assert told.published is None
    (abort,) = {str(abort) for abort in told.outcome.aborts.values() if "tagged" in str(abort)}
    assert "or the dealer lied" in abort


def moves_a_norm():
    """A dealer by whose words the first two clients lied about their norms, or are too long."""

    def enter(plan, honest):
        dealer = honest["dealer"]
        parts = (dealer.now, dealer.recipe, dealer.identity)
        return {"dealer": FalseFixedDealer(*parts, norms={0: 1}, compared={1: 1 << 38})}

    return dataclasses.replace(tells_a_difference(), enter=enter)


def test_who_is_refused_by_a_lie_of_the_dealer_is_not_said_to_have_lied_itself():
    channel = under("mean, selection", "malicious")
    told = PlayedRound.play(channel, HELD, moves_a_norm(), {"dealer"}).published
    assert set(told.excluded) == {"client/0", "client/1"}
    assert "or the dealer" in told.excluded["client/0"]


@pytest.mark.parametrize("security", SECURITIES)
def test_a_dealer_that_lets_too_many_rows_fail_for_krum_is_among_those_who_may_have_lied(security):
    channel = under("krum, selection", security)

    def enter(plan, honest):
        dealer = honest["dealer"]
        parts = (dealer.now, dealer.recipe, dealer.identity)
        return {"dealer": FalseFixedDealer(*parts, compared={1: 1 << 38, 2: 1 << 38})}

    liars = deals(lambda dealing: [dealing.norm(row, 1 << 36) for row in (1, 2)])
    if security == "malicious":
        liars = dataclasses.replace(liars, enter=enter)
    told = PlayedRound.play(channel, HELD, liars, {"dealer"})
    abort = next(abort for abort in told.outcome.aborts.values() if "tolerates" in str(abort))
    assert abort.blamed is None
    assert "dealer" in abort.who
    assert {"client/1", "client/2"} < set(abort.who)


def test_a_long_row_of_a_client_that_a_dealer_lets_pass_has_products_that_no_row_can_have():
    """Its product with another row is -1.16 of the largest square, whatever the dealer says."""
    channel = under("krum, scores", "semi_honest")
    told = PlayedRound.play(channel, HELD, deals_a_shorter_norm(), {"dealer", "client/0"})
    assert told.published is None
    (abort,) = told.outcome.aborts.values()
    assert "larger than its two vectors' norms" in str(abort)
