"""Additive sharing over servers: the exact sum of the agreed clients, whoever drops, lies or
colludes; and computing on shares.
"""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from scipy import stats

from privfl.core import (
    Bounded,
    ConfigError,
    Faults,
    RoundPlan,
    Rows,
    SecretsStay,
    Total,
    client_party,
    drive,
)
from privfl.crypto import AdditiveSharing
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.mpc import Ands, DaBits, SignBits, Triple, UsedUp
from privfl.crypto.primitives import fields
from privfl.crypto.sharing.parameters import HELD
from tests.protocol.opened import opened, told

RNG = np.random.default_rng(3)


def updates_for(plan):
    g = torch.Generator().manual_seed(plan.number)
    made = {}
    for who in plan.cohort:
        x = torch.randn(plan.d, generator=g)
        made[who] = Bounded(who, 0.99 * x / x.norm(), 1.0, weight=1.0 + who % 3)
    return made


@dataclass
class Scene:
    channel: AdditiveSharing = field(default_factory=AdditiveSharing)
    n: int = 5
    d: int = 33
    helpers: dict = field(default_factory=dict)

    def __post_init__(self):
        self.plan = RoundPlan(
            0, tuple(range(1, self.n + 1)), d=self.d, l2=1.0, max_weight=4.0, session=b"test"
        )
        self.all = Enrolled.fresh(self.channel, self.plan.cohort)
        self.clients, self.helpers = self.all.clients, dict(self.all.helpers)

    def run(self, faults=Faults(), updates=None, keep_bodies=False, wrap=lambda party: party):
        updates = updates or updates_for(self.plan)
        parties = {
            client_party(i): wrap(c.enter(self.plan, updates[i])) for i, c in self.clients.items()
        }
        parties |= {who: wrap(helper.enter(self.plan)) for who, helper in self.helpers.items()}
        return drive(
            wrap(self.all.server.enter(self.plan)), parties, faults, keep_bodies=keep_bodies
        )

    def exactly(self, survivors, updates=None):
        """What `opened` has to be: the sum of what these clients encode."""
        made, code = updates or updates_for(self.plan), self.channel.code
        total = sum(code.encode(made[i], self.plan) for i in survivors)
        return told(survivors, code.decode(total, self.plan, len(survivors)))


@pytest.mark.parametrize("servers", [2, 3, 5])
@pytest.mark.parametrize(("ring", "bits"), [(16, 8), (24, 16), (32, 20), (None, 16)])
def test_the_sum_is_exactly_the_sum_of_the_quantised_updates(servers, ring, bits):
    scene = Scene(AdditiveSharing(servers=servers, ring=ring, bits=bits))
    assert opened(scene.run()) == scene.exactly(scene.plan.cohort)


def test_the_upload_is_one_vector_and_a_seed_for_each_other_server():
    scene = Scene(AdditiveSharing(servers=4, ring=24), d=10_000)
    outcome = scene.run()
    assert outcome.bytes_sent("client/1") < 3 * 10_001 + 4 * 150
    assert len({x.exchange for x in outcome.messages if x.sender.startswith("client")}) == 1


def test_who_does_not_reach_every_server_is_left_out_by_all():
    scene = Scene(AdditiveSharing(servers=3))
    seen = [0]

    def lose_the_second(body):
        seen[0] += 1
        return b"" if seen[0] == 2 else body

    outcome = scene.run(
        Faults(silent_from={"client/2": 0}, malformed={"client/4": lose_the_second})
    )
    assert opened(outcome) == scene.exactly([1, 3, 5])
    assert "stage share" in outcome.opened.excluded["client/4"]


@pytest.mark.parametrize(
    "garble",
    [
        lambda b: b"",
        lambda b: bytes(b[:40]),
        lambda b: bytes(len(b)),
        lambda b: bytes(b) + b"\0",
        lambda b: bytes(b[:6]) + b"\x09" + bytes(b[7:]),
    ],
)
def test_clients_that_send_garbage_are_excluded_by_name(garble):
    scene = Scene()
    outcome = scene.run(Faults(malformed={"client/3": garble}))
    assert opened(outcome) == scene.exactly([1, 2, 4, 5])
    assert "client/3" in outcome.opened.excluded


def test_an_update_that_cannot_be_encoded_drops_its_client_by_name():
    scene = Scene()
    updates = updates_for(scene.plan)
    updates[2] = Bounded.claimed(2, torch.full((33,), float("nan")), 1.0)
    outcome = scene.run(updates=updates)
    assert opened(outcome) == scene.exactly([1, 3, 4, 5], updates)
    assert outcome.aborts["client/2"].stage == "enter"


def test_fewer_than_the_threshold_open_nothing_and_say_at_which_stage():
    scene = Scene(AdditiveSharing(threshold=0.8))
    outcome = scene.run(Faults(silent_from={"client/1": 0, "client/2": 0}))
    assert outcome.opened is None
    assert outcome.aborts["server"].stage == "agree"
    assert set(outcome.aborts["server"].who) == {"client/1", "client/2"}


def test_a_server_that_falls_silent_is_named_and_not_convicted():
    for exchange, stage in ((0, "agree"), (3, "sum")):
        scene = Scene(AdditiveSharing(servers=3))
        outcome = scene.run(Faults(silent_from={"server/2": exchange}))
        assert outcome.opened is None
        abort = outcome.aborts["server"]
        assert (abort.stage, abort.blamed, tuple(abort.who)) == (stage, None, ("server/2",))


@pytest.mark.parametrize(
    ("asked", "says"), [([0], "threshold"), ([0, 1, 2, 3, 4], "never reached")]
)
def test_a_first_server_that_asks_for_one_client_or_for_clients_that_nobody_heard_is_refused(
    asked, says
):
    scene = Scene()

    def edit(body):
        return bytes(body[:28]) + fields.bit_set(asked, 5) if body[4] == 3 else body

    outcome = scene.run(Faults(malformed={"server": edit}, silent_from={"client/5": 0}))
    assert outcome.opened is None
    assert says in str(outcome.aborts["server/1"])


def test_an_earlier_rounds_messages_are_refused():
    scene = Scene()
    recorded = []
    scene.run(Faults(malformed={"client/1": lambda b: recorded.append(bytes(b)) or b}))
    scene.plan = RoundPlan(1, scene.plan.cohort, d=33, l2=1.0, max_weight=4.0, session=b"test")
    replay = iter(recorded)
    outcome = scene.run(Faults(malformed={"client/1": lambda b: next(replay)}))
    assert opened(outcome) == scene.exactly([2, 3, 4, 5])
    assert "another round" in outcome.opened.excluded["client/1"]


def test_what_each_coalition_reads_is_computed():
    scene = Scene(AdditiveSharing(servers=3, rotation=True))
    outcome = scene.run(Faults(silent_from={"client/5": 0}), keep_bodies=True)

    def reads(*who):
        return scene.channel.decode(
            outcome.received(who),
            {name: scene.helpers[name] for name in who if name in scene.helpers},
        )

    assert torch.equal(reads("server").value, outcome.opened.what.value)
    assert reads("server/1") is None
    assert reads("server/1", "server/2") is None
    assert isinstance(reads("server", "server/1"), Total)
    everything = reads("server", "server/1", "server/2")
    assert isinstance(everything, Rows)
    assert everything.ids == (1, 2, 3, 4)
    for who, row in zip(everything.ids, everything.values, strict=True):
        assert torch.allclose(row, updates_for(scene.plan)[who].delta, atol=1e-3)


def test_a_helpers_message_that_comes_twice_changes_nothing():
    scene = Scene(AdditiveSharing(servers=3))
    outcome = scene.run(Faults(duplicated={"server/1", "server/2", "client/2"}))
    assert opened(outcome) == scene.exactly(range(1, 6))
    assert not outcome.aborts


@pytest.mark.parametrize("told", [b"client/99\tx", b"client/2\tx", b"client/5\t\x1b[2J"])
def test_a_helper_that_excludes_a_stranger_or_whom_it_heard_is_blamed(told):
    scene = Scene()
    silent = {"client/5": 0}

    def names(body):
        return bytes(body) + told if body[4] == HELD else body

    outcome = scene.run(Faults(silent, malformed={"server/1": names}))
    assert outcome.opened is None
    assert outcome.aborts["server"].blamed == "server/1"
    assert "reasons are no" in str(outcome.aborts["server"]) or "it excludes" in str(
        outcome.aborts["server"]
    )


class Stranger:
    def step(self, mail):
        return {} if mail else {"server": b"hello", "server/1": b"hello"}


def test_a_stranger_that_writes_to_everybody_gets_nobody_blamed():
    scene = Scene()
    parties = {
        client_party(i): c.enter(scene.plan, updates_for(scene.plan)[i])
        for i, c in scene.clients.items()
    }
    parties |= {who: helper.enter(scene.plan) for who, helper in scene.helpers.items()}
    outcome = drive(scene.all.server.enter(scene.plan), {**parties, "client/99": Stranger()})
    assert opened(outcome) == scene.exactly(range(1, 6))


def other_facts(body):
    """A vector whose sender says that rows are 255 values longer than they are."""
    changed = bytearray(body)
    if len(body) > 45 and body[4] == 0:  # a vector
        changed[37] = 1  # the second byte of d
        changed += bytes(256 * 2)
    return bytes(changed)


@pytest.mark.parametrize("liar", ["client/1", "client/5"])
@pytest.mark.parametrize("garble", [other_facts, lambda body: bytes(body[:8]) + b"\xff" * 60])
def test_a_client_that_lies_about_the_round_takes_nothing_from_what_a_coalition_reads(liar, garble):
    scene = Scene(AdditiveSharing(ring=16, bits=8))
    outcome = scene.run(Faults(malformed={liar: garble}), keep_bodies=True)
    total = scene.channel.decode(outcome.received(["server"]), {})
    assert torch.equal(total.value, outcome.opened.what.value)
    rows = scene.channel.decode(outcome.received(["server", "server/1"]), scene.helpers)
    assert set(rows.ids) == set(outcome.opened.survivors)


def test_each_servers_share_is_uniform_over_the_ring():
    scene = Scene(AdditiveSharing(ring=16, bits=10), n=2, d=65_535)
    outcome = scene.run(
        keep_bodies=True, updates={i: Bounded(i, torch.zeros(65_535), 1.0) for i in (1, 2)}
    )
    for message in outcome.messages:
        if message.sender == "client/1" and message.receiver == "server":
            words = np.frombuffer(message.body[-2 * 65_536 :], dtype="<u2")
            for half in (words & 255, words >> 8):
                assert stats.chisquare(np.bincount(half, minlength=256)).pvalue > 1e-6


def test_parties_that_sleep_between_exchanges_open_the_same(restless):
    scene = Scene(AdditiveSharing(servers=3))
    assert opened(scene.run(Faults(silent_from={"client/2": 0}), wrap=restless)) == scene.exactly(
        [1, 3, 4, 5]
    )


def test_parties_and_helpers_do_not_pickle_or_print():
    import pickle

    scene = Scene()
    update = updates_for(scene.plan)[1]
    for secret in (
        scene.helpers["server/1"],
        scene.helpers["server/1"].enter(scene.plan),
        scene.clients[1].enter(scene.plan, update),
    ):
        assert "holds secrets" in repr(secret)
        with pytest.raises(SecretsStay):
            pickle.dumps(secret)


def test_two_sets_of_helpers_of_one_channel_serve_side_by_side():
    channel = AdditiveSharing()
    first = Scene(channel)
    Scene(channel)
    assert opened(first.run()) == first.exactly(first.plan.cohort)


def test_headroom_is_refused_one_client_past_the_ring():
    channel = AdditiveSharing(ring=16, bits=13)
    scene = Scene(channel, n=8)
    assert opened(scene.run()) == scene.exactly(scene.plan.cohort)
    with pytest.raises(ConfigError, match="ring of 17 bits"):
        Scene(channel, n=9).run()
    with pytest.raises(ConfigError, match="hides nothing"):
        Scene(channel, n=1).run()
    with pytest.raises(ConfigError, match="no key of server/1"):
        Enrolled.fresh(AdditiveSharing(), [1], keyed=False).clients[1].enter(
            scene.plan, updates_for(scene.plan)[1]
        )


# ---- computing on shares


def words(*shape):
    return RNG.integers(0, 2**64, size=shape, dtype=np.uint64)


def split(values, parties):
    """Shares modulo 2^64: uniform ones, and what is missing."""
    others = [words(*values.shape) for _ in range(parties - 1)]
    return [values - sum(others, np.zeros_like(values)), *others]


def deal(parties, shape):
    """The dealer's act for products: shares of random a and b, and of a b."""
    a, b = words(*shape), words(*shape)
    shares = zip(split(a, parties), split(b, parties), split(a * b, parties), strict=True)
    return [Triple(*mine) for mine in shares]


def deal_ands(n):
    """The dealer's act for the comparison of n values: 13 rows of words."""
    a, b, a0, b0, c0 = words(5, 13, n)
    return Ands(a0, b0, c0), Ands(a ^ a0, b ^ b0, (a & b) ^ c0)


def deal_dabits(n):
    """The dealer's act for conversions: n random bits in both sharings."""
    r, mine = words(n) & np.uint64(1), words(n) & np.uint64(1)
    one, two = split(r, 2)
    return DaBits(mine, one), DaBits(r ^ mine, two)


@pytest.mark.parametrize("parties", [2, 3])
def test_products_of_shares_are_shares_of_the_product(parties):
    x, y = words(4, 6), words(4, 6)
    triples = deal(parties, x.shape)
    masked = [
        t.mask(a, b) for t, a, b in zip(triples, split(x, parties), split(y, parties), strict=True)
    ]
    d, e = sum(m[0] for m in masked), sum(m[1] for m in masked)
    product = sum(t.product(d, e, i == 0) for i, t in enumerate(triples))
    assert (product == x * y).all()


def test_correlated_randomness_serves_once():
    one, _ = deal(2, (2,))
    one.mask(words(2), words(2))
    with pytest.raises(UsedUp):
        one.mask(words(2), words(2))
    bits, _ = deal_dabits(3)
    bits.mask(words(3))
    with pytest.raises(UsedUp):
        bits.mask(words(3))


def sign_bits(values):
    shares = split(values.view(np.uint64), 2)
    one, two = (
        SignBits(s, a, first)
        for s, a, first in zip(shares, deal_ands(len(values)), (True, False), strict=True)
    )
    rounds = 0
    while one.bits is None:
        a, b = one.send(), two.send()
        one.take(b)
        two.take(a)
        rounds += 1
    return one, two, rounds


def test_comparison_gives_the_sign_bit_in_seven_rounds():
    edge = [0, 1, -1, 2**62, -(2**62), 2**63 - 1, -(2**63), 2**32, -(2**32)]
    values = np.array(edge + RNG.integers(-(2**63), 2**63 - 1, size=500).tolist(), dtype=np.int64)
    one, two, rounds = sign_bits(values)
    assert rounds == 7
    assert ((one.bits ^ two.bits) == (values < 0)).all()


def test_sign_bits_convert_to_arithmetic_shares_that_select():
    values = np.array([3, -4, 0, -1], dtype=np.int64)
    one, two, _ = sign_bits(values)
    dealt = deal_dabits(4)
    opened = dealt[0].mask(one.bits) ^ dealt[1].mask(two.bits)
    numbers = sum(
        bits.to_arithmetic(opened, first) for bits, first in zip(dealt, (True, False), strict=True)
    )
    assert numbers.tolist() == [0, 1, 0, 1]


def test_a_comparison_message_is_sent_once_and_one_of_another_round_is_refused():
    one, _ = (
        SignBits(words(3), ands, first)
        for ands, first in zip(deal_ands(3), (True, False), strict=True)
    )
    with pytest.raises(ValueError, match="does not belong"):
        one.take(b"")
    one.send()
    with pytest.raises(UsedUp):
        one.send()
    with pytest.raises(ValueError, match="does not belong"):
        one.take(b"\0" * 7 * 8)


def test_what_a_party_sends_in_a_comparison_is_uniform():
    n = 20_000
    one, _ = (
        SignBits(np.zeros(n, np.uint64), ands, first)
        for ands, first in zip(deal_ands(n), (True, False), strict=True)
    )
    assert (
        stats.chisquare(np.bincount(np.frombuffer(one.send(), np.uint8), minlength=256)).pvalue
        > 1e-6
    )
