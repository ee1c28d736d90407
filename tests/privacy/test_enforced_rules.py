"""Two servers of whom one lies, where rules are enforced: what passes is the declared function of
the rows that take part, and all else is an abort that tells nothing of them.
"""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.hybrid.lying_servers import ENFORCED, SERVERS, Told, adds, frames, fuzz, held
from privfl.aggregators import FLTrust, Mean
from privfl.core import Bounded, ConfigError, Context, Faults, RoundPlan, client_party, drive
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.mpc import Demand
from privfl.crypto.mpc.authentication import KEYS, FailedMac, OpenChecked
from privfl.crypto.mpc.dcf import Corrections, evaluate, generate
from privfl.crypto.mpc.machine import Authenticated, TwoPartyMachine
from privfl.crypto.mpc.preprocessing import first_preprocessing
from privfl.crypto.mpc.words import pack, unpack
from privfl.crypto.primitives import backend
from privfl.hybrid.two_server import TwoServer
from privfl.hybrid.two_server.fixed_checks import Announce
from privfl.hybrid.two_server.forged import ForgesFrames
from privfl.hybrid.two_server.rushing import forges
from privfl.hybrid.two_server.tampering import server_of
from privfl.testing import PlayedRound, contributions

HONEST = {"server": "server/1", "server/1": "server"}
HELD = contributions()
TRUST = FLTrust(lambda context: HELD.together)


def enforced(rule=Mean(weighted=False), **more):
    return TwoServer(rule, security="malicious", **more)


# ---- lies at every frame


def test_a_sample_of_lies_at_every_frame_gets_nothing_but_the_declared_function_past_the_other():
    passed, wrong, places = fuzz(24, channels=ENFORCED)
    assert (wrong, places) == (0, 338)
    assert passed < 24


def first_of(channel, liar, kind):
    return next(i for i, (step, _) in enumerate(frames(channel, liar)) if isinstance(step, kind))


@pytest.mark.parametrize("liar", SERVERS)
def test_the_fuzz_finds_what_gets_past_a_server_that_checks_no_proof(monkeypatch, liar):
    """The count of failed margins opens first, in three frames; next are the scores."""
    channel = ENFORCED["fltrust, scores, malicious"]
    honest = OpenChecked.hear

    def believes(self, machine, theirs):
        if machine.unchecked is None or not machine.sealed.pop("their proof", None):
            return honest(self, machine, theirs)
        machine.public[self.what], _ = machine.unchecked
        machine.unchecked = None
        return True

    monkeypatch.setattr(OpenChecked, "hear", believes)
    number = first_of(channel, liar, OpenChecked) + 3
    lies = [adds(number, 1 << 20, np.random.default_rng(seed)) for seed in range(3)]
    told = [Told(channel, liar, lie) for lie in lies]
    assert any(round_.passed and round_.wrong for round_ in told)


@pytest.mark.parametrize("liar", SERVERS)
@pytest.mark.parametrize("power", [0, 39])
def test_a_lie_in_the_ring_about_any_product_ends_the_round_whatever_the_honest_rows_are(
    liar, power
):
    channel = ENFORCED["mean, selection, malicious"]
    for rows in (held(0), -0.1 * held(1)):
        draw = np.random.default_rng(power)
        told = [
            Told(channel, liar, in_products(1 << power, int(draw.integers(300))), rows)
            for _ in range(2)
        ]
        assert not any(round_.passed for round_ in told)
        assert all("announced" in str(round_.aborts[HONEST[liar]]) for round_ in told)


def in_products(amount, at):
    """A lie about one announced word, and not about the differences of norms that come after."""

    def forge(step, machine, mine, theirs):
        if not isinstance(step, Announce):
            return mine, theirs
        words = np.frombuffer(mine[: 8 * at + 8], dtype="<u8").copy()
        words[at] += np.uint64(amount)
        return words.tobytes() + mine[8 * at + 8 :], theirs

    return forge


def test_what_a_lie_above_the_ring_passes_with_changes_nothing():
    channel = ENFORCED["mean, selection, malicious"]  # 2^63 passes two keys with chance 1/4
    told = [Told(channel, "server", in_products(1 << 63, 3)) for _ in range(8)]
    assert not any(round_.wrong for round_ in told)


def test_who_failed_a_proof_has_ended_the_session():
    channel = enforced()
    plans = [RoundPlan(i, tuple(range(6)), 10, l2=1.0, session=b"ends") for i in range(2)]
    everybody = Enrolled.fresh(channel, range(6))

    def play(plan, faults):
        parties = {
            client_party(i): member.enter(plan, Bounded(i, HELD.rows[i], 1.0))
            for i, member in everybody.clients.items()
        }
        parties |= {who: helper.enter(plan) for who, helper in everybody.helpers.items()}
        everybody.server.inform(Context(plan, torch.zeros(10), torch.Generator()))
        return drive(everybody.server.enter(plan), parties, faults)

    lie = in_products(1, 0)
    liar = Faults(byzantine={"server": lambda party: ForgesFrames(server_of(party), lie)})
    assert play(plans[0], liar).opened is None
    outcome = play(plans[1], Faults())
    assert outcome.opened is None
    assert "session ended" in str(outcome.aborts["server/1"])


# ---- clients and references


class TellsTheDealerAnother:
    """A client that tells the dealer other seeds than the servers."""

    def __init__(self, party):
        self.party, self.other = party, dataclasses.replace(party, vector=party.vector.copy())

    def step(self, mail):
        return {**self.party.step(mail), "dealer": self.other.step(mail).get("dealer", b"")}


def test_a_client_that_tells_the_dealer_other_seeds_is_left_out_by_name():
    plan = RoundPlan(0, tuple(range(6)), 10, l2=1.0, session=b"seeds")
    everybody = Enrolled.fresh(enforced(), range(6))
    parties = {
        client_party(i): member.enter(plan, Bounded(i, HELD.rows[i], 1.0))
        for i, member in everybody.clients.items()
    }
    parties |= {who: helper.enter(plan) for who, helper in everybody.helpers.items()}
    outcome = drive(
        everybody.server.enter(plan), parties, Faults(byzantine={"client/2": TellsTheDealerAnother})
    )
    assert outcome.opened.survivors == (0, 1, 3, 4, 5)
    assert "not the same" in outcome.opened.excluded["client/2"]


def test_a_server_that_says_it_knows_no_root_cannot_make_fltrust_a_mean():
    def knows_none(party):
        party.direction, party.unknown = None, True
        return party

    for security in ("semi_honest", "malicious"):
        channel = TwoServer(TRUST, reveal="scores", security=security)
        plan = RoundPlan(0, tuple(range(6)), 10, l2=1.0, session=b"root")
        made = Enrolled.fresh(channel, range(6))
        made.server.inform(Context(plan, torch.zeros(10), torch.Generator()))
        parties = {
            client_party(i): member.enter(plan, Bounded(i, HELD.rows[i], 1.0))
            for i, member in made.clients.items()
        }
        parties |= {who: helper.enter(plan) for who, helper in made.helpers.items()}
        outcome = drive(made.server.enter(plan), parties, Faults(byzantine={"server": knows_none}))
        assert "knows no reference" in str(outcome.aborts["server/1"])


def test_a_ring_that_leaves_no_room_for_proofs_is_refused_in_words():
    with pytest.raises(ConfigError, match="64 has none"):
        enforced(ring=64)


def test_enforcing_takes_fewer_exchanges_than_following():
    channels = [TwoServer(TRUST, reveal="scores", security=s) for s in ("semi_honest", "malicious")]
    before, after = (PlayedRound.play(c, HELD).outcome.exchanges for c in channels)
    assert after < before
    assert torch.equal(*(PlayedRound.play(c, HELD).published.what.value for c in channels))


def drops(places):
    """A server by whose word so many clients lied about their norms."""

    def off(machine, said):
        size = 5 * machine.n
        words = unpack(said[-size:], 40, machine.n)
        words[:places] += np.uint64(1)
        return said[:-size] + pack(words, 40)

    def forge(step, machine, mine, theirs):
        if not isinstance(step, Announce):
            return mine, theirs
        return off(machine, mine), off(machine, theirs)

    return forges(forge)


@pytest.mark.parametrize("liar", SERVERS)
def test_who_leaves_out_all_but_a_quorum_gets_no_smaller_sum(liar):
    channel = enforced(colluders=3, ring=40)  # a quorum of 5, of 6
    assert PlayedRound.play(channel, HELD, drops(1), {liar}).published.what.count == 5
    told = PlayedRound.play(channel, HELD, drops(2), {liar})
    assert told.published is None
    assert "threshold is 5" in str(told.outcome.aborts[HONEST[liar]])


# ---- the pieces


@given(st.integers(1, 39), st.lists(st.integers(0, 2**39 - 1), min_size=1, max_size=6), st.data())
@settings(max_examples=25, deadline=None)
def test_compared_words_add_up_to_beta_exactly_where_x_is_smaller(levels, numbers, data):
    alpha = np.array([n % (1 << levels) for n in numbers], dtype=np.uint64)
    m, draw = len(alpha), np.random.default_rng(1)
    words = draw.integers(0, 1 << 63, (2, m, 3), dtype=np.uint64)
    beta, starts = words[0], draw.integers(0, 1 << 63, (2, m, 2), dtype=np.uint64)
    keys = {
        name: generate(alpha, beta, starts, levels, backend(name).permutation(bytes(16)))
        for name in ("cryptography", "pycryptodome")
    }
    raw = {b"".join(made.pieces()) for made in keys.values()}
    assert len(raw) == 1
    keys = Corrections.from_bytes(raw.pop(), levels, m, 3)
    permute = backend().permutation(bytes(16))
    points = data.draw(st.lists(st.integers(0, (1 << levels) - 1), min_size=m, max_size=m))
    x = np.stack([np.array(points, dtype=np.uint64), alpha])
    one, two = (evaluate(b, starts[b], keys, x, permute) for b in (0, 1))
    assert (one + two == np.where((x < alpha)[..., None], beta, np.uint64(0))).all()


WORD = Authenticated("word")


def pair(values, draw):
    """Two machines that share these words under fresh keys."""
    words = lambda *shape: draw.integers(0, 1 << 63, shape, dtype=np.uint64) * np.uint64(2)
    alpha = draw.integers(0, 1 << 64, (2, KEYS), dtype=np.uint64)
    whole = np.concatenate([values[:, None], values[:, None] * (alpha[0] + alpha[1])], axis=1)
    mine = words(*whole.shape)
    nothing = first_preprocessing(bytes(32), Demand(), backend())
    return [
        TwoPartyMachine(
            first=first,
            names=("server", "server/1"),
            ring=40,
            tag=b"tag",
            preprocessing=nothing,
            shares={WORD: share},
            keys=keys,
        )
        for first, share, keys in ((True, mine, alpha[0]), (False, whole - mine, alpha[1]))
    ]


def opened_with(error, draw):
    """Whether the second party believes an opening that the first has moved by ``error``."""
    one, two = pair(draw.integers(0, 1 << 63, 3, dtype=np.uint64), draw)
    step = OpenChecked(WORD)
    said, other = np.frombuffer(step.say(one), dtype="<u8").copy(), step.say(two)
    said[1:2] += np.uint64(error)
    step.hear(one, memoryview(other))
    step.hear(two, memoryview(said.tobytes()))
    commitments = step.say(one), step.say(two)
    step.hear(one, memoryview(commitments[1]))
    step.hear(two, memoryview(commitments[0]))
    if not error:
        assert step.hear(one, memoryview(step.say(two)))
        assert (one.public[WORD] == one.shares[WORD][:, 0] + two.shares[WORD][:, 0]).all()
        return True
    try:
        return step.hear(two, memoryview(step.say(one)))
    except FailedMac:
        return False


def test_an_error_in_an_opening_passes_with_the_chance_that_two_keys_leave_it():
    draw = np.random.default_rng(0)
    assert opened_with(0, draw)
    assert not any(opened_with(1 << power, draw) for power in (0, 20, 39) for _ in range(20))
    for power, tries in ((62, 1_000), (61, 5_000)):
        chance = 4.0 ** (power - 64)  # of each key 2^(power - 64)
        share = np.mean([opened_with(1 << power, draw) for _ in range(tries)])
        assert abs(share - chance) < 5 * np.sqrt(chance * (1 - chance) / tries)


def test_a_proof_that_is_sent_back_is_no_proof():
    one, two = pair(np.arange(3, dtype=np.uint64), np.random.default_rng(1))
    step = OpenChecked(WORD)
    said = step.say(two)
    step.say(one)
    step.hear(one, memoryview(said))
    step.hear(one, memoryview(step.say(one)))
    with pytest.raises(FailedMac, match="server/1 or the dealer"):
        step.hear(one, memoryview(step.say(one)))
