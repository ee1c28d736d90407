"""Rows of signs between two servers of whom one lies: without proofs it picks what is published;
with them what passes is the rule's own result, and all else is an abort that tells nothing of rows.
"""

import numpy as np
import pytest
import torch

from benchmarks.hybrid.lying_servers import ENFORCED, NEAR, SERVERS, Told, aborts, fuzz, held
from privfl.aggregators import FLTrust
from privfl.crypto import lies
from privfl.crypto.mpc.authentication import OpenChecked
from privfl.crypto.mpc.words import pack, unpack
from privfl.hybrid import SignTwoServer
from privfl.hybrid.two_server.fixed_lies import changes_first, moves_the_sum
from privfl.hybrid.two_server.lies import brings_one_near, tells_signs_apart
from privfl.testing import PlayedRound, contributions

HONEST = {"server": "server/1", "server/1": "server"}
SIGNS = {name: channel for name, channel in ENFORCED.items() if name.startswith("signs")}
HELD = contributions()
TOWARD = FLTrust(lambda context: HELD.together)
BOTH = pytest.mark.parametrize("channel", SIGNS.values(), ids=SIGNS.keys())
REVEALS = pytest.mark.parametrize("reveal", ["scores", "aggregate"])
LIAR = pytest.mark.parametrize("liar", SERVERS)


def follows(step, machine, mine, theirs):
    return mine, theirs


def enforced(reveal):
    return SignTwoServer(TOWARD, reveal=reveal, security="malicious")


@LIAR
@pytest.mark.parametrize(
    ("reveal", "lie"),
    [("scores", lambda: tells_signs_apart(0.5)), ("aggregate", brings_one_near)],
)
def test_between_servers_that_should_follow_one_that_lies_gets_its_own_result_published(
    reveal, lie, liar
):
    channel = SignTwoServer(TOWARD, reveal=reveal, security="semi_honest")
    honest = PlayedRound.play(channel, HELD).published.what
    lied = PlayedRound.play(channel, HELD, lie(), {liar})
    assert lied.published is not None
    assert not torch.equal(lied.published.what.mean().sign(), honest.mean().sign())


def distances_off(amount, at=0):
    """A rushing server that opens one masked distance off by an amount."""
    told = []

    def forge(step, machine, mine, theirs):
        if not isinstance(step, OpenChecked) or told:
            return mine, theirs
        told.append(step.what.name)
        words = unpack(mine, 64, len(mine) // 8)
        words[at : at + 1] += np.uint64(amount % (1 << 64))
        return pack(words, 64), theirs

    return told, forge


@LIAR
@BOTH
@pytest.mark.parametrize("amount", [1, -1, 1 << 5, (1 << 20) + 1, 1 << 31])
def test_another_distance_ends_the_round_at_the_other_server(channel, liar, amount):
    for rows in (held(0), -held(1)):
        told, forge = distances_off(amount)
        round_ = Told(channel, liar, forge, rows)
        assert told == ["masked distances"]
        assert not round_.passed
        assert "is not what was shared" in str(round_.aborts[HONEST[liar]])


def test_a_lie_above_the_ring_passes_by_the_chance_of_its_key_and_changes_nothing():
    """An error of 2^62 leaves two bits of the key to guess."""
    channel = SIGNS["signs, scores, malicious"]
    told = [Told(channel, "server", distances_off(1 << 62)[1]) for _ in range(40)]
    assert not any(round_.wrong for round_ in told)
    assert 1 <= sum(round_.passed for round_ in told) <= 24


def test_a_sample_of_lies_at_every_frame_gets_nothing_but_the_declared_function_past_the_other():
    passed, wrong, places = fuzz(34, seed=1, channels=SIGNS)
    assert (wrong, places) == (0, 34)
    assert passed < 12


def test_how_often_a_lie_ends_the_round_does_not_hang_on_the_rows():
    channel = SIGNS["signs, aggregate, malicious"]
    one, two = (
        aborts(channel, rows, "server", 24, 3, (62, 63), OpenChecked)
        for rows in (held(0), -0.9 * held(1))
    )
    assert abs(one - two) <= 0.5
    assert 0.2 < one < 1


@REVEALS
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_honest_servers_open_what_they_open_without_proofs_bit_by_bit(reveal, seed):
    left, right = (
        Told(SignTwoServer(NEAR, reveal=reveal, security=s), "server", follows, held(seed)).opened
        for s in ("semi_honest", "malicious")
    )
    assert torch.equal(left.what.value, right.what.value)
    assert (left.what.weight, left.what.count) == (right.what.weight, right.what.count)
    assert left.disclosed.keys() == right.disclosed.keys()
    for what, value in left.disclosed.items():
        assert torch.equal(value, right.disclosed[what])


@REVEALS
@pytest.mark.parametrize("who", [*SERVERS, "dealer"])
def test_who_changes_what_a_client_fixed_leaves_that_client_out_and_no_more(reveal, who):
    told = PlayedRound.play(enforced(reveal), HELD, changes_first(), {who})
    assert told.published is not None
    assert told.published.survivors == (1, 2, 3, 4, 5)


@REVEALS
def test_a_client_that_skips_its_clip_sends_a_row_of_signs_all_the_same(reveal):
    honest = PlayedRound.play(enforced(reveal), HELD).published.what
    skipped = lies.skips_its_clip("nothing", "").how()
    lied = PlayedRound.play(enforced(reveal), HELD, skipped, {"client/0"}).published.what
    assert torch.equal(honest.value, lied.value)


@REVEALS
def test_a_constant_in_the_sum_moves_the_result_and_makes_it_no_longer_than_a_row(reveal):
    honest = PlayedRound.play(enforced(reveal), HELD).published.what
    lied = PlayedRound.play(enforced(reveal), HELD, moves_the_sum(), {"server/1"}).published.what
    l2 = PlayedRound.play(enforced(reveal), HELD).plan.l2
    assert not torch.equal(honest.value, lied.value)
    assert lied.mean().norm() <= 1.001 * l2
