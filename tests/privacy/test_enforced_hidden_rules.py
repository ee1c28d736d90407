"""Rules whose scores stay hidden, enforced against one server that lies: the same results as
between servers that follow the protocol, and nothing else past a lie.
"""

import pickle

import numpy as np
import pytest
import torch

from benchmarks.hybrid.lying_servers import ALONG, ENFORCED, SERVERS, Told, frames, fuzz, held
from privfl.aggregators import CosineFilter, FLTrust, Krum
from privfl.core import Bounded, ConfigError, Context, RoundPlan, SecretsStay
from privfl.crypto import lies
from privfl.crypto.mpc import Wide
from privfl.crypto.mpc.authentication import OpenChecked
from privfl.crypto.mpc.wide import halves, numbers
from privfl.engine import Session
from privfl.hybrid.two_server import TwoServer
from privfl.hybrid.two_server.fixed_lies import hides_a_norm, moves_the_sum
from privfl.hybrid.two_server.frame_lies import FrameLie
from privfl.hybrid.two_server.lifting import Lifting
from privfl.testing import PlayedRound, contributions

HONEST = {"server": "server/1", "server/1": "server"}
HIDDEN = [
    "cosine filter over -0.2, selection, malicious",
    "cosine filter over 0.3, aggregate, malicious",
    "krum, selection, malicious",
    "krum, aggregate, malicious",
    "fltrust, selection, malicious",
    "fltrust, aggregate, malicious",
]


NEAR = CosineFilter(-0.6, lambda rows, context: torch.ones_like(context.parameters))
TRUST = FLTrust(lambda context: 0.5 * torch.ones_like(context.parameters), root_l2=1.0)
FIXED = FLTrust(TRUST.root, fixed=True, root_l2=1.0)


def follows(step, machine, mine, theirs):
    return mine, theirs


def both(rule, reveal, rows, **more):
    """What both kinds of servers open of the same rows."""
    return [
        Told(TwoServer(rule, reveal=reveal, security=s, **more), "server", follows, rows)
        for s in ("semi_honest", "malicious")
    ]


def same(one, other):
    left, right = one.opened, other.opened
    assert torch.equal(left.what.value, right.what.value)
    assert (left.what.weight, left.what.count) == (right.what.weight, right.what.count)
    assert left.survivors == right.survivors
    for what in {"selected", "count"} & left.disclosed.keys():
        assert torch.equal(left.disclosed[what], right.disclosed[what])
    return left.what.count


def over(threshold):
    return CosineFilter(threshold, lambda rows, context: ALONG)


@pytest.mark.parametrize("reveal", ["selection", "aggregate"])
def test_a_threshold_on_hidden_cosines_lets_through_whom_it_does_without_proofs(reveal):
    counts = [
        same(*both(over(threshold), reveal, sign * held(seed), bits=8))
        for threshold in (-0.6, -0.2, 0.3, 0.6)
        for seed, sign in ((0, 1), (1, -1))
    ]
    assert len(set(counts)) > 3


@pytest.mark.parametrize("reveal", ["selection", "aggregate"])
@pytest.mark.parametrize(("bits", "fixed"), [(8, False), (16, False), (8, True)])
def test_hidden_trust_weighs_rows_as_it_does_without_proofs(reveal, bits, fixed):
    rule = FLTrust(lambda context: ALONG, fixed=fixed, root_l2=1.0)
    for rows in (-held(0), -held(1)):
        assert same(*both(rule, reveal, rows, bits=bits)) >= 2


def test_hidden_trust_of_over_16_bits_differs_by_how_its_reference_is_rounded_and_no_more():
    rule = FLTrust(lambda context: ALONG + held(1)[0], root_l2=1.0)
    left, right = (told.opened.what for told in both(rule, "aggregate", -held(0), bits=20))
    assert not torch.equal(left.value, right.value)
    assert torch.allclose(left.value / left.weight, right.value / right.weight, atol=1e-5)
    assert left.count == right.count


def test_what_the_dealer_knows_of_lifted_values_is_in_nothing_that_is_printed():
    words = np.array([1234567], dtype=np.uint64)
    assert "1234567" not in repr(Lifting(words, words))
    with pytest.raises(SecretsStay):
        pickle.dumps(Lifting(words, words))


@pytest.mark.parametrize("reveal", ["selection", "aggregate"])
@pytest.mark.parametrize(("f", "m", "bits"), [(1, 3, 8), (2, 2, 8), (0, 7, 8), (1, 6, 16)])
def test_hidden_krum_chooses_whom_it_does_without_proofs(reveal, f, m, bits):
    assert same(*both(Krum(f=f, m=m), reveal, held(f), bits=bits)) == m


def test_hidden_krum_chooses_the_first_of_equal_rows_as_it_does_without_proofs():
    rows = held(2)
    rows[4], rows[6] = rows[1], rows[1]
    assert same(*both(Krum(f=1, m=2), "selection", rows, bits=8)) == 2


@pytest.mark.parametrize(
    "rule",
    [
        Krum(f=1, m=2),
        FLTrust(lambda context: contributions().together),
        CosineFilter(-0.5, lambda rows, context: contributions().together),
    ],
    ids=["krum", "fltrust", "cosine"],
)
def test_rows_that_were_refused_are_in_no_hidden_choice(rule):
    long = lies.skips_its_clip("nothing", "").how
    told = [
        PlayedRound.play(
            TwoServer(rule, reveal="aggregate", security=security, bits=8),
            contributions(),
            long(),
            {"client/0"},
        ).published
        for security in ("semi_honest", "malicious")
    ]
    refused = set() if isinstance(rule, FLTrust) else {"client/0"}  # its rows have one length
    assert told[0].excluded.keys() == told[1].excluded.keys() == refused
    assert torch.equal(told[0].what.value, told[1].what.value)
    assert told[0].what.count == told[1].what.count >= 2


@pytest.mark.parametrize("liar", SERVERS)
def test_a_row_of_a_colluding_client_with_another_norm_ends_the_round_of_hidden_krum(liar):
    channel = TwoServer(Krum(f=1, m=3), reveal="aggregate", security="malicious", bits=8)
    told = PlayedRound.play(channel, contributions(), hides_a_norm(), {liar, "client/0"})
    assert told.published is None
    assert "another norm than was proved" in str(told.outcome.aborts[HONEST[liar]])


def test_hidden_krum_with_proofs_refuses_more_rows_than_it_deals_for_in_words():
    channel = TwoServer(Krum(f=1, m=3), security="malicious")
    with pytest.raises(ConfigError, match="at most 64 rows, and 65"):
        channel.round(RoundPlan(0, tuple(range(65)), 10, l2=1.0))
    TwoServer(Krum(f=1, m=3), security="semi_honest").round(
        RoundPlan(0, tuple(range(65)), 10, l2=1.0)
    )


@pytest.mark.parametrize("name", HIDDEN)
def test_lies_at_every_frame_get_nothing_but_the_rule_past_the_other(name):
    passed, wrong, places = fuzz(14, channels={name: ENFORCED[name]})
    assert not wrong
    assert passed < 14 <= places


def opening_of(channel, liar, kind):
    """The first frame in which a register of this kind is opened."""
    return next(
        i
        for i, (step, _) in enumerate(frames(channel, liar))
        if isinstance(step, OpenChecked) and isinstance(step.what, kind)
    )


@pytest.mark.parametrize("name", [name for name in HIDDEN if "krum" not in name])
@pytest.mark.parametrize("liar", SERVERS)
def test_a_lie_in_the_highest_of_64_bits_ends_the_round_whatever_the_honest_rows_are(name, liar):
    """Under keys of 64 bits one in four would pass."""
    channel = ENFORCED[name]
    number = opening_of(channel, liar, Wide)
    for rows in (held(0), held(1)):
        for at in (0.0, 0.3):
            told = Told(channel, liar, FrameLie(number, "adds", 1 << 63, at).forge(), rows)
            assert not told.passed
            assert "opened is not what was shared" in str(told.aborts[HONEST[liar]])


@pytest.mark.parametrize("liar", SERVERS)
def test_the_fuzz_finds_a_wide_word_that_is_opened_without_a_proof(monkeypatch, liar):
    name = "cosine filter over 0.3, aggregate, malicious"
    honest = OpenChecked.hear

    def believes(self, machine, theirs):
        if machine.unchecked is None or not machine.sealed.pop("their proof", None):
            return honest(self, machine, theirs)
        machine.public[self.what], _ = machine.unchecked
        machine.unchecked = None
        return True

    monkeypatch.setattr(OpenChecked, "hear", believes)
    channel = ENFORCED[name]
    number = opening_of(channel, liar, Wide)
    lies = [FrameLie(number, "adds", 1 << 63, i / 7, believed=True) for i in range(7)]
    told = [Told(channel, liar, lie.forge(), -held(1)) for lie in lies]
    assert any(round_.passed and round_.wrong for round_ in told)


@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_promised_of_hidden_rules_is_the_rule_and_who_takes_part(name):
    channel = ENFORCED[name]
    said = channel.describe()
    assert channel.guarantee.settings(7)["security"] == "malicious"
    assert "to one server that lies: which clients take part, at least a quorum" in said
    assert channel.recipe.rule.leaks in said
    assert "to one server that lies: any row" not in said
    liars = channel.guarantee.liars()
    assert not any("read" in liars[who] for who in ("server", "server/1"))


@pytest.mark.parametrize("rule", [Krum(f=1, m=3), NEAR, TRUST, FIXED])
def test_a_constant_in_the_sum_makes_the_result_no_longer_than_a_row(rule):
    channel = TwoServer(rule, reveal="aggregate", bits=8)
    lied = PlayedRound.play(channel, contributions(), moves_the_sum(), {"server/1"})
    honest = PlayedRound.play(channel, contributions())
    assert not torch.equal(honest.published.what.value, lied.published.what.value)
    assert lied.published.what.mean().norm() <= 1.05 * lied.plan.l2


@pytest.mark.parametrize("n", [2, 3, 4])
def test_hidden_krum_of_a_few_rows_chooses_or_says_that_they_are_too_few(n):
    rows = torch.eye(n)
    channels = [
        TwoServer(Krum(f=0, m=2), security=security, bits=8)
        for security in ("semi_honest", "malicious")
    ]
    outcomes = [play(channel, {i: 0.9 * rows[i] for i in range(n)}) for channel in channels]
    if n == 2:
        assert all("n > 2f + 2" in str(o.aborts["server"]) for o in outcomes)
    else:
        one, other = (outcome.opened.what.value for outcome in outcomes)
        assert torch.equal(one, other)


def play(channel, sent):
    session = Session(channel)
    updates = {i: Bounded(i, row, 1.0) for i, row in sent.items()}
    session.enrol(updates)
    plan = RoundPlan(0, tuple(sent), len(sent), l2=1.0, session=b"few")
    session.inform(Context(plan, torch.zeros(plan.d), torch.Generator()))
    return session.play(plan, updates)


def test_halves_are_integers_of_128_bits():
    draw = np.random.default_rng(0)
    words = draw.integers(0, 1 << 64, (5, 2), dtype=np.uint64)
    assert (halves(numbers(words)) == words).all()
    squares = numbers(words) * numbers(words) + (1 << 200)
    assert numbers(halves(squares)).tolist() == [int(x) ** 2 % 2**128 for x in numbers(words)]
