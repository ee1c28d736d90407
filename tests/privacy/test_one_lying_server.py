"""What one server gets that lies on its own, played through the real parties: each lie read honest
updates while only clients were guarded against.
"""

import math
from functools import partial

import numpy as np
import pytest
import torch

from benchmarks.hybrid.lying_servers import CHANNELS, Told, aborts, adds, frames, fuzz, held
from privfl import Federation, hybrid
from privfl.aggregators import CosineFilter, FLTrust, Krum, Mean
from privfl.core import ConfigError
from privfl.hybrid.two_server.checks import PASSED
from privfl.hybrid.two_server.lies import reads_a_weighted_row
from privfl.hybrid.two_server.oblivious_selection import ObliviousSum
from privfl.hybrid.two_server.parameters import direct
from privfl.hybrid.two_server.proved_choice import ShowChoice
from privfl.hybrid.two_server.registers import SUM, WEIGHTS
from privfl.hybrid.two_server.rushing import (
    chooses,
    forges,
    forges_scores,
    names_wrong_seeds,
    opens,
    spoils_rows,
)
from privfl.testing import Contributions, PlayedRound

TwoServer = partial(hybrid.TwoServer, security="semi_honest")

N, D = 9, 20


def rows(seed=0):
    g = torch.Generator().manual_seed(seed)
    made = torch.randn(D, generator=g) + torch.randn(N, D, generator=g)
    return 0.98 * made / made.norm(dim=1, keepdim=True)


HELD = Contributions(rows())
TRUST = FLTrust(lambda context: HELD.together)
ALONG = CosineFilter(0.0, lambda plain, context: HELD.together)
WIDE = CosineFilter(0.2, lambda plain, context: HELD.together)


def played(channel, lie, who="server"):
    return PlayedRound.play(channel, HELD, lie, {who})


SERVERS = pytest.mark.parametrize("who", ["server", "server/1"])
HONEST = {"server": "server/1", "server/1": "server"}


def refusal(round_, who):
    """With what the honest server itself ended the round; nothing where something was opened."""
    abort = round_.outcome.aborts.get(HONEST[who])
    return str(abort) if abort is not None and round_.outcome.opened is None else ""


@pytest.mark.parametrize(
    ("rule", "ring"),
    [(Krum(f=2, m=4), 40), (Krum(f=2, m=4), 64), (ALONG, 40), (ALONG, 64), (WIDE, 64)],
    ids=["krum/40", "krum/64", "cosine/40", "cosine/64", "wide/64"],
)
def test_a_power_of_two_on_a_hidden_weight_ends_the_round(rule, ring):
    channel = TwoServer(rule, reveal="aggregate", ring=ring)
    told = played(channel, reads_a_weighted_row())
    assert "hidden weights" in refusal(told, "server")
    assert told.took == {}


@pytest.mark.parametrize("reveal", ["selection", "aggregate"])
def test_what_is_not_stopped_fltrusts_hidden_weights_still_open_a_row_to_a_lying_server(reveal):
    channel = TwoServer(TRUST, reveal=reveal)
    (who, row), *_ = played(channel, reads_a_weighted_row()).took.items()
    assert torch.cosine_similarity(row.double(), HELD.rows[who].double(), dim=0) > 0.999
    assert channel.guarantee.liars()["server"] == "read"
    assert "to one server that lies: any row" in channel.describe()


@SERVERS
def test_a_selection_of_two_is_refused_where_krum_chooses_more(who):
    told = played(TwoServer(Krum(f=2, m=4)), chooses({0, 1}), who)
    assert "the rule chooses 4" in refusal(told, who)


@SERVERS
def test_a_selection_of_two_is_refused_where_a_client_may_collude(who):
    lie = chooses({0, 1})
    told = played(TwoServer(ALONG, colluders=1), lie, who)
    assert "fewer than 3 would open" in refusal(told, who)


@SERVERS
def test_a_server_that_opens_another_selection_gets_the_sum_of_as_many_rows(who):
    channel = TwoServer(Krum(f=2, m=4))
    out = played(channel, chooses({0, 1, 2, 3}), who).outcome.opened
    assert out.what.count == 4
    assert torch.allclose(out.what.value, HELD.rows[:4].sum(dim=0), atol=1e-3)


def trust_of(channel):
    """A round's ring words for the largest product that two vectors can have."""
    now = channel.round(PlayedRound.play(channel, HELD).plan)
    square = direct(HELD.together, now.steep).square
    return now, now.longest**2, math.isqrt(now.longest**2 * square)


@SERVERS
def test_opened_products_that_no_vectors_have_end_the_round(who):
    channel = TwoServer(TRUST, reveal="scores")
    _, norm, most = trust_of(channel)
    longer = forges_scores([2 * most] + [-1] * 8, [norm] * 9)
    assert "larger" in refusal(played(channel, longer, who), who)
    unproved = forges_scores([0] * 9, [2 * norm] * 9)
    assert "proved" in refusal(played(channel, unproved, who), who)
    krum = TwoServer(Krum(f=2, m=4), reveal="scores")
    forged = np.full((N, N), 2 * norm, dtype=np.uint64)
    np.fill_diagonal(forged, norm)
    gram = opens("gram", lambda machine, honest: forged.reshape(-1))
    assert "larger" in refusal(played(krum, gram, who), who)


@SERVERS
def test_what_is_not_stopped_possible_scores_still_tell_two_rows_apart_in_one_sum(who):
    channel = TwoServer(TRUST, reveal="scores")
    now, norm, most = trust_of(channel)
    dots = [most, most // now.fine + 1] + [-1] * 7
    out = played(channel, forges_scores(dots, [norm] * 9), who).outcome.opened
    heavy = out.what.mean()
    assert torch.cosine_similarity(heavy, HELD.rows[0], dim=0) > 0.999
    assert channel.guarantee.liars()[who] == "read"
    assert "to one server that lies: any row" in channel.describe()


def test_a_row_that_rounding_alone_can_make_has_no_trust():
    channel = TwoServer(TRUST, reveal="scores")
    tiny = HELD.rows.clone()
    tiny[0] = 0.0
    tiny[0, 3] = 1.6 / 32767
    out = PlayedRound.play(channel, Contributions(tiny)).outcome.opened
    assert out.disclosed["trust"][0] == 0
    assert (out.disclosed["trust"][1:] > 0).all()


@pytest.mark.parametrize("colluders", [0, 1])
@pytest.mark.parametrize(
    ("who", "lie"),
    [
        ("server", lambda: spoils_rows(dict.fromkeys(range(2, N), (0, 1 << 38)))),
        ("server/1", lambda: names_wrong_seeds(range(2, N))),
    ],
    ids=["moved rows", "wrong seeds"],
)
def test_who_spoils_all_rows_but_two_gets_no_sum_of_a_colluder_and_one_other(who, lie, colluders):
    channel = TwoServer(Mean(weighted=False), threshold=0.0, colluders=colluders)
    told = played(channel, lie(), who)
    abort = told.outcome.aborts.get(HONEST[who])
    if abort is not None and "dealer tagged" in str(abort):
        return  # a spoilt row of 256 passes its check by chance, and its tag does not
    if colluders:
        assert "2 of 9 clients are left, and the threshold is 3" in refusal(told, who)
    else:  # two honest rows, if nobody is said to collude
        assert told.outcome.opened.what.count == 2


@SERVERS
def test_of_all_margins_of_a_row_one_bit_is_opened(who):
    channel, seen = TwoServer(Mean(weighted=False)), []

    def note(step, machine, mine, theirs):
        seen.append(machine)
        return mine, theirs

    assert played(channel, forges(note), who).outcome.opened is not None
    rows = channel.round(PlayedRound.play(channel, HELD).plan).rows
    assert rows > 40
    assert {name: len(value) for name, value in seen[0].public.items() if name != SUM} == {
        PASSED: N,
        WEIGHTS: N,
    }


def test_what_is_not_stopped_a_moved_row_tells_one_coordinate_by_its_opened_norm():
    channel = TwoServer(Mean(weighted=False), reveal="scores")
    now = channel.round(PlayedRound.play(channel, HELD).plan)

    def squares(round_):
        norms = round_.outcome.opened.disclosed["norms"] * now.scale
        return [round(float(norm) ** 2) for norm in norms]

    before, after = squares(PlayedRound.play(channel, HELD)), None
    after = squares(played(channel, spoils_rows({0: (3, -500)})))
    coordinate = round(float(HELD.rows[0, 3]) * now.scale)
    assert (after[0] - before[0] - 500**2) // -1000 == coordinate
    assert after[1:] == before[1:]
    assert "of rows that it has moved" in channel.describe()


def test_a_sample_of_random_lies_at_every_frame_gets_no_wrong_sum_past_the_other_server():
    passed, wrong, places = fuzz(120)
    assert wrong == 0
    assert 0 < passed < 120
    assert places > 300


def test_the_fuzz_finds_what_gets_past_a_server_that_checks_no_proof(monkeypatch):
    monkeypatch.setattr(ShowChoice, "hear", lambda self, machine, theirs: True)
    channel = CHANNELS["krum, aggregate"]
    (number,) = [
        i for i, (step, _) in enumerate(frames(channel, "server")) if isinstance(step, ObliviousSum)
    ]
    told = Told(channel, "server", adds(number, 1 << 20, np.random.default_rng(0)))
    assert told.passed
    assert told.wrong


def test_a_wrong_weight_ends_the_round_as_often_whatever_the_honest_rows_are():
    channel = CHANNELS["krum, aggregate"]
    assert [aborts(channel, held(seed), "server", 20, 3, (20, 39)) for seed in (0, 1)] == [1.0, 1.0]


@pytest.mark.parametrize("error", [1, 1 << 20, 1 << 39, 1 << 40, 1 << 63])
def test_what_a_lie_about_a_hidden_weight_passes_with_changes_nothing_in_the_ring(error):
    channel = CHANNELS["krum, aggregate"]
    (number,) = [
        i
        for i, (step, _) in enumerate(frames(channel, "server/1"))
        if isinstance(step, ObliviousSum)
    ]
    draw = np.random.default_rng(1)
    told = [Told(channel, "server/1", adds(number, error, draw)) for _ in range(20)]
    assert not any(round_.wrong for round_ in told)
    if error < 1 << 63:  # a multiple of 2^63 is 0 under half of the keys, and 0 in 40 bits
        assert not any(round_.passed for round_ in told)


def test_who_runs_the_dealer_is_in_config_and_report_and_nobody_runs_two_parts():
    names = ["a hospital", "another hospital", "a university"]
    config = {
        "data": {"name": "digits", "clients": 7},
        "model": {"name": "softmax"},
        "training": {"name": "sgd", "lr": 0.3, "steps": 2, "batch_size": 16},
        "bound": {"name": "clip", "l2": 1.0},
        "rounds": 1,
        "executor": "sequential",
    }
    run = Federation.from_config(
        {**config, "channel": {"name": "two_server", "run_by": names}}
    ).run()
    said = run.summary["guarantees"]["channel"]["settings"]["run"]
    assert "dealer by a university" in said
    assert "nobody says" in TwoServer().guarantee.settings(7)["run"]
    with pytest.raises(ConfigError, match="any two of the three"):
        TwoServer(run_by=("a", "b", "a"))


def test_an_audit_asks_every_server_and_the_dealer_alone_and_with_a_client():
    asked = TwoServer().guarantee.adversaries(PlayedRound.play(TwoServer(), HELD).plan)
    for party in ("server", "server/1", "dealer"):
        assert frozenset({party}) in asked
        assert frozenset({party, "client/0"}) in asked
