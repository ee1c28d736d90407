"""A dealer that dealt before the rounds, into a file for each server, and is not there in them."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from privfl import hybrid
from privfl.aggregators import CosineFilter, FLTrust, Krum, Mean
from privfl.core import Bounded, ConfigError, Context, Faults, RoundPlan
from privfl.crypto.mpc import UsedUp
from privfl.crypto.mpc.dealt_file import used_by
from privfl.crypto.primitives import Identity
from privfl.engine import Session
from privfl.hybrid.two_server.ahead.files import FILES
from privfl.hybrid.two_server.parameters import CLAIM, DIFFERENCES, HELD, MASKED
from privfl.testing import check_guarantee, contributions
from privfl.testing.played_rounds import D as LENGTH
from privfl.testing.played_rounds import N as GUESTS
from privfl.testing.played_rounds import plan_of
from tests.protocol.opened import opened

TwoServer = partial(hybrid.TwoServer, security="semi_honest")

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


def bits(outcome):
    """All that a round opened and disclosed."""
    said = outcome.opened.disclosed if outcome.opened else {}
    return opened(outcome), {name: value.tolist() for name, value in said.items()}


@pytest.mark.parametrize(("rule", "reveal"), CASES)
def test_a_round_whose_dealer_is_not_there_ends_with_the_same_bits(rule, reveal, tmp_path):
    online = TwoServer(RULES[rule], reveal=reveal, bits=12)
    ahead = dealt(online, tmp_path)
    assert ahead.helpers == ("server/1",)
    without, with_it = of(ahead), of(online)
    assert bits(played(without)) == bits(played(with_it))
    later = replace(PLAN, number=1)
    gone = (2, 5)
    assert bits(played(without, later, gone)) == bits(played(with_it, later, gone))


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


def kinds(outcome, sender):
    return {message.body[4] for message in outcome.messages if message.sender == sender}


@pytest.mark.parametrize("who", ["server", "server/1"])
def test_a_server_whose_disk_was_put_back_alone_uses_no_mask_twice(who, tmp_path):
    """The state before a round is written back over the state after it, inodes and all; the other
    server remembers, and nothing that hangs on a mask is sent.
    """
    ahead = dealt(TwoServer(RULES["krum"], bits=12), tmp_path, 4)
    path = tmp_path / FILES[who]
    played(of(ahead))
    before = {file: file.read_bytes() for file in (path, used_by(path))}
    second = played(of(ahead), keep_bodies=True)
    for file, content in before.items():
        file.write_bytes(content)
    session = of(ahead)
    outcome = played(session, keep_bodies=True)
    if who == "server/1":
        assert outcome.opened is None
        assert "both are lost" in str(outcome.aborts["server/1"])
        assert DIFFERENCES not in kinds(outcome, "server/1")
        assert MASKED not in kinds(outcome, "server")
        outcome = played(session, replace(PLAN, number=1))
    assert bits(outcome) == bits(second)


def test_a_dealing_serves_one_session_whatever_its_rounds_are_called(tmp_path):
    ahead = dealt(TwoServer(RULES["mean"], bits=12), tmp_path, 2)
    assert bits(played(of(ahead))) == bits(played(of(ahead)))
    with pytest.raises(UsedUp, match="all 2 dealings"):
        played(of(ahead))


def test_files_of_two_dealings_do_not_go_together_and_nothing_is_sent_that_hangs_on_a_mask(
    tmp_path,
):
    ahead = dealt(TwoServer(RULES["mean"], bits=12), tmp_path / "one")
    dealt(TwoServer(RULES["mean"], bits=12), tmp_path / "other")
    (tmp_path / "other" / FILES["server"]).replace(tmp_path / "one" / FILES["server"])
    outcome = played(of(ahead), keep_bodies=True)
    assert outcome.opened is None
    assert "not of one dealing" in str(outcome.aborts["server/1"])
    assert DIFFERENCES not in kinds(outcome, "server/1")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"reveal": "scores"}, "other parameters"),
        ({"bits": 10}, "other parameters"),
        ({"rule": Krum(f=2, m=4)}, "other parameters"),
        ({"colluders": 1}, "other parameters"),
        ({"dealer_key": Identity.fresh("dealer").public.signing.hex()}, "was not signed by"),
    ],
)
def test_a_dealing_for_another_config_or_of_another_dealer_is_refused(other, said, tmp_path):
    ahead = dealt(TwoServer(RULES["krum"], bits=12), tmp_path)
    with pytest.raises(ConfigError, match=said):
        played(of(replace(ahead, **other)))
    with pytest.raises(ConfigError, match="other parameters"):
        played(of(ahead), replace(PLAN, cohort=tuple(range(N - 1))), silent={N - 1})


def test_swapped_files_are_refused(tmp_path):
    ahead = dealt(TwoServer(RULES["mean"], bits=12), tmp_path)
    one, other = (tmp_path / name for name in FILES.values())
    one.rename(tmp_path / "there")
    other.rename(one)
    (tmp_path / "there").rename(other)
    with pytest.raises(ConfigError, match="swapped"):
        played(of(ahead))


def test_clients_that_fix_their_rows_have_a_dealer_that_is_online(tmp_path):
    with pytest.raises(ConfigError, match="clients tell the dealer"):
        dealt(TwoServer(security="malicious"), tmp_path)
    key = DEALER.public.signing.hex()
    with pytest.raises(ConfigError, match="clients tell the dealer"):
        TwoServer(security="malicious", preprocessing=str(tmp_path), dealer_key=key)
    for folder, told in (("", key), (str(tmp_path), ""), (str(tmp_path), "00" * 32)):
        with pytest.raises(ConfigError, match="dealer_key"):
            TwoServer(preprocessing=folder, dealer_key=told)


@pytest.mark.parametrize("kind", [HELD, CLAIM, DIFFERENCES, MASKED])
@pytest.mark.parametrize("where", [24, -1])
def test_a_garbled_letter_ends_the_round_or_leaves_it_as_it_is(kind, where, tmp_path):
    ahead = dealt(TwoServer(RULES["krum"], bits=12), tmp_path)

    def garbled(body):
        if body[4] != kind:
            return body
        changed = bytearray(body)
        changed[where] ^= 1
        return bytes(changed)

    faults = Faults(malformed={"server": garbled, "server/1": garbled})
    outcome = played(of(ahead), faults=faults)
    assert outcome.opened is None
    assert all(abort.blamed is None for abort in outcome.aborts.values())


def test_doubled_letters_change_nothing(tmp_path):
    ahead = dealt(TwoServer(RULES["krum"], bits=12), tmp_path)
    doubled = Faults(duplicated=frozenset({"server", "server/1", "client/3"}))
    told = bits(played(of(ahead), faults=doubled))
    assert told == bits(played(of(ahead, "signed")))
    assert isinstance(told[0], tuple)  # a sum, and no reason why there is none


def left_of(folder):
    """How many dealings no server has used up."""
    taken = 0
    for name in FILES.values():
        path = used_by(folder / name)
        entries = path.read_bytes()[50:] if path.exists() else b""
        numbers = [
            int.from_bytes(entries[at : at + 4], "little") for at in range(0, len(entries), 16)
        ]
        taken = max([taken, *(number + 1 for number in numbers)])
    return 20 - taken


@pytest.mark.parametrize(("who", "kind"), [("server/1", HELD), ("server", CLAIM)])
@pytest.mark.parametrize("number", [5, (1 << 32) - 1])
def test_who_names_a_dealing_that_is_far_off_ends_its_round_and_uses_up_no_file(
    who, kind, number, tmp_path
):
    """One letter, which anybody can write over bare mail, once cost all dealings before its own."""
    ahead = dealt(TwoServer(RULES["mean"], bits=12), tmp_path, 20)
    session = of(ahead)

    def far(body):
        named = number.to_bytes(4, "little")
        return body[:8] + named + body[12:] if body[4] == kind else body

    outcome = played(session, faults=Faults(malformed={who: far}))
    assert outcome.opened is None
    rounds = (replace(PLAN, number=number) for number in range(1, 4))
    lost = next(i for i, plan in enumerate(rounds) if played(session, plan).opened is not None)
    assert lost <= 1
    assert left_of(tmp_path) >= 20 - 4 - lost


def test_rounds_that_only_one_server_took_a_dealing_for_are_made_up_for_a_few_at_a_time(tmp_path):
    ahead = dealt(TwoServer(RULES["mean"], bits=12), tmp_path, 20)
    session = of(ahead)
    for number in range(4):  # too few clients: ``server`` takes nothing
        assert played(session, replace(PLAN, number=number), range(7)).opened is None
    assert played(session, replace(PLAN, number=4)).opened is None
    assert played(session, replace(PLAN, number=5)).opened is not None
