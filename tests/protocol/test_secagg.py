"""Secure aggregation opens the survivors' sum and nothing else: dropouts, garbage, key loss, rest,
views.
"""

import itertools
import struct
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy import stats

from privfl.core import (
    Bounded,
    ConfigError,
    DpEvent,
    Faults,
    RoundPlan,
    Rows,
    SecretsStay,
    StateKey,
    Total,
    client_party,
    drive,
    seal_state,
    unseal_state,
)
from privfl.crypto import FixedPoint, SecAgg
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.primitives import fields
from privfl.crypto.ring import lift
from privfl.dp import DistributedSkellam
from tests.protocol.opened import opened, told

MODES = ("semi_honest", "active")


def updates_for(plan, seed=0):
    g = torch.Generator().manual_seed(seed)
    made = {}
    for who in plan.cohort:
        x = torch.randn(plan.d, generator=g)
        made[who] = Bounded(who, 0.99 * x / x.norm(), 1.0, weight=1.0 + who % 3)
    return made


@dataclass
class Scene:
    """One channel, its members, and as many rounds as are asked for."""

    channel: SecAgg
    n: int = 6
    d: int = 40
    max_weight: float = 4.0
    members: dict = field(default_factory=dict)
    server: object = None

    def __post_init__(self):
        self.all = Enrolled.fresh(self.channel, range(1, self.n + 1))
        self.members, self.server = dict(self.all.clients), self.all.server

    def plan(self, number=0):
        return RoundPlan(
            number,
            tuple(self.members),
            d=self.d,
            l2=1.0,
            max_weight=self.max_weight,
            session=b"test",
        )

    def parties(self, plan, updates=None):
        updates = updates or updates_for(plan)
        parties = {
            client_party(i): member.enter(plan, updates[i]) for i, member in self.members.items()
        }
        return {
            **parties,
            **{name: helper.enter(plan) for name, helper in self.all.helpers.items()},
        }

    def run(
        self, faults=Faults(), number=0, updates=None, keep_bodies=False, wrap=lambda party: party
    ):
        plan = self.plan(number)
        parties = {name: wrap(party) for name, party in self.parties(plan, updates).items()}
        return drive(wrap(self.server.enter(plan)), parties, faults, keep_bodies=keep_bodies)

    def exactly(self, survivors, number=0, updates=None):
        """What `opened` has to be: the sum of what these clients encode."""
        total = expected_integers(self, survivors, number, updates)
        return told(survivors, self.channel.code.decode(total, self.plan(number), len(survivors)))


def expected_integers(scene, survivors, number=0, updates=None):
    plan = scene.plan(number)
    made = updates or updates_for(plan)
    return sum(scene.channel.code.encode(made[i], plan) for i in survivors)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("graph", ["complete", 4])
@pytest.mark.parametrize(("ring", "bits"), [(16, 8), (24, 16), (32, 20), (None, 16)])
def test_the_sum_is_exactly_the_sum_of_the_quantised_updates(mode, graph, ring, bits):
    scene = Scene(SecAgg(mode=mode, graph=graph, ring=ring, bits=bits, corrupt=0.0), n=7)
    assert opened(scene.run()) == scene.exactly(range(1, 8))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stage", range(5))
def test_dropouts_at_every_stage_and_of_every_subset_leave_the_survivors_sum(mode, stage):
    """Exchange 2 s is where clients speak for the s-th time: advertise, share keys, masked input,
    (consistency,) unmask.
    """
    if stage == 4 and mode == "semi_honest":
        stage = 3
    for gone in itertools.chain.from_iterable(
        itertools.combinations(range(1, 6), r) for r in (1, 2)
    ):
        scene = Scene(SecAgg(mode=mode, graph="complete", corrupt=0.0), n=5, d=9)
        outcome = scene.run(Faults(silent_from={client_party(i): 2 * stage for i in gone}))
        survivors = [i for i in range(1, 6) if stage > 2 or i not in gone]
        assert opened(outcome) == scene.exactly(survivors)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([0, 2, 4, 6, 8, None, None, None]), min_size=9, max_size=9),
    st.sampled_from(MODES),
    st.sampled_from(["complete", 4]),
)
def test_any_pattern_of_dropouts_opens_the_exact_sum_or_nothing(silent, mode, graph):
    scene = Scene(SecAgg(mode=mode, graph=graph, corrupt=0.0), n=9, d=5)
    faults = Faults(
        silent_from={client_party(i + 1): e for i, e in enumerate(silent) if e is not None}
    )
    outcome = scene.run(faults)
    if outcome.opened is None:
        return
    assert opened(outcome) == scene.exactly(outcome.opened.survivors)
    assert len(outcome.opened.survivors) >= scene.channel.parameters(scene.plan()).quorum
    assert set(outcome.opened.survivors) <= {
        i + 1 for i, e in enumerate(silent) if e is None or e > 4
    }


def test_never_shared_and_shared_then_dropped_are_two_things():
    scene = Scene(SecAgg(graph="complete"), n=6)
    outcome = scene.run(Faults(silent_from={"client/1": 2, "client/2": 4}), keep_bodies=True)
    assert opened(outcome) == scene.exactly([3, 4, 5, 6])
    unmask = max(message.exchange for message in outcome.messages)
    for message in (x for x in outcome.messages if x.exchange == unmask):
        seeds = struct.unpack_from("<I", message.body, 28)[0]
        keys = struct.unpack_from("<I", message.body, 28 + 4 + 36 * seeds)[0]
        revealed = struct.unpack_from("<I", message.body, 28 + 4 + 36 * seeds + 4)[0]
        assert (seeds, keys, revealed) == (
            4,
            1,
            1,
        )  # only client 2's key (position 1); client 1 left no mask behind


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stage", range(5))
def test_fewer_survivors_than_the_threshold_open_nothing_and_say_at_which_stage(mode, stage):
    if stage == 4 and mode == "semi_honest":
        return
    scene = Scene(SecAgg(mode=mode, graph="complete", corrupt=0.0), n=6)
    outcome = scene.run(Faults(silent_from={client_party(i): 2 * stage for i in (1, 2, 3)}))
    assert outcome.opened is None
    abort = outcome.aborts["server"]
    names = [
        "advertise",
        "share_keys",
        "masked_input",
        "consistency" if mode == "active" else "unmask",
        "unmask",
    ]
    assert abort.stage == names[stage]
    assert {"client/1", "client/2", "client/3"} <= set(abort.who)
    assert "client/1" in str(abort)


def test_late_messages_drop_their_sender_and_doubled_ones_change_nothing():
    scene = Scene(SecAgg(graph="complete"), n=6)
    outcome = scene.run(Faults(late={"client/2": 2}, duplicated={"client/3", "server"}))
    assert opened(outcome) == scene.exactly([1, 3, 4, 5, 6])
    assert not outcome.opened.excluded


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stage", range(5))
@pytest.mark.parametrize("garble", ["random", "cut", "empty", "long", "flipped kind"])
def test_a_client_that_sends_garbage_is_excluded_by_name_and_nobody_crashes(mode, stage, garble):
    ways = {
        "random": lambda b: np.random.default_rng(1).bytes(len(b)),
        "cut": lambda b: bytes(b[: len(b) // 2]),
        "empty": lambda b: b"",
        "long": lambda b: bytes(b) + b"\0" * 7,
        "flipped kind": lambda b: bytes(b[:4]) + b"\xff" + bytes(b[5:]),
    }
    sent = [0]

    def spoil(body):
        sent[0] += 1
        return ways[garble](body) if sent[0] - 1 == stage else body

    scene = Scene(SecAgg(mode=mode, graph="complete", corrupt=0.0), n=6)
    outcome = scene.run(Faults(malformed={"client/4": spoil}))
    last = 4 if mode == "active" else 3
    if stage > last:
        assert opened(outcome) == scene.exactly(range(1, 7))
        return
    survivors = [i for i in range(1, 7) if stage > 2 or i != 4]
    assert opened(outcome) == scene.exactly(survivors)
    assert "stage" in outcome.opened.excluded["client/4"]


def test_a_stranger_is_named_and_ignored():
    class Stranger:
        said = False

        def step(self, mail):
            first, self.said = not self.said, True
            return {"server": b"let me in"} if first else {}

    scene = Scene(SecAgg(graph="complete"), n=4)
    plan = scene.plan()
    parties = {**scene.parties(plan), "client/99": Stranger()}
    outcome = drive(scene.server.enter(plan), parties)
    assert opened(outcome) == scene.exactly([1, 2, 3, 4])
    assert "not in the cohort" in outcome.opened.excluded["client/99"]


@pytest.mark.parametrize("bad", ["nan", "short", "heavy"])
def test_an_update_that_cannot_be_encoded_drops_its_client_by_name(bad):
    scene = Scene(SecAgg(graph="complete"), n=5)
    updates = updates_for(scene.plan())
    lie = {
        "nan": torch.full((40,), float("nan")),
        "short": torch.zeros(3),
        "heavy": torch.zeros(40),
    }[bad]
    updates[2] = Bounded.claimed(2, lie, 1.0, weight=99.0 if bad == "heavy" else 1.0)
    outcome = scene.run(updates=updates)
    assert opened(outcome) == scene.exactly([1, 3, 4, 5], updates=updates)
    assert outcome.aborts["client/2"].blamed == "client/2"
    assert outcome.aborts["client/2"].stage == "enter"


def test_a_lying_client_exceeds_its_clip_and_plain_secure_aggregation_cannot_tell():
    """The wire attack succeeds: this is the limit that the guarantee names."""
    scene = Scene(SecAgg(graph="complete", bits=16), n=5, d=4, max_weight=1.0)
    plan = scene.plan()
    honest = {i: Bounded(i, torch.tensor([0.1, 0.0, 0.0, 0.0]), 1.0) for i in plan.cohort}
    lies = {**honest, 3: Bounded.claimed(3, torch.tensor([-1.0, -1.0, -1.0, -1.0]), 1.0)}
    outcome = scene.run(updates=lies)
    assert not outcome.opened.excluded
    moved = outcome.opened.what.value - torch.tensor([0.5, 0.0, 0.0, 0.0])
    assert (
        moved.norm() > 2.0
    )  # twice the clip, where an honest client moves the sum by at most 2 l2 = 2 and here by 0.9


def test_wrong_shares_are_outvoted_and_their_holder_is_named():
    """Client 2 answers with changed seed shares: the commitment tells, the others' shares do."""
    scene = Scene(SecAgg(graph="complete"), n=6)
    sent = [0]

    def spoil(body):
        sent[0] += 1
        if sent[0] != 4:
            return body
        changed = bytearray(body)
        for row in range(6):
            changed[28 + 4 + 24 + 32 * row] ^= 1
        return bytes(changed)

    outcome = scene.run(Faults(malformed={"client/1": spoil}))
    assert opened(outcome) == scene.exactly(range(1, 7))
    assert "another share" in outcome.opened.excluded["client/1"]


def test_a_client_that_shares_garbage_fails_the_round_and_is_blamed_and_no_partial_sum_leaves():
    scene = Scene(SecAgg(graph="complete"), n=6)
    sent = [0]

    def spoil(body):
        sent[0] += 1
        return bytes(body[: 28 + 32 + 4 + 20]) + bytes(len(body) - 84) if sent[0] == 2 else body

    outcome = scene.run(Faults(malformed={"client/5": spoil}))
    assert outcome.opened is None
    assert outcome.aborts["server"].stage == "unmask"
    assert outcome.aborts["server"].who == ("client/5",)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fidelity", ["real", "ideal"])
def test_parties_that_sleep_between_exchanges_open_the_same(mode, fidelity, restless):
    scene = Scene(SecAgg(mode=mode, graph="complete", corrupt=0.0, fidelity=fidelity), n=4)
    faults = Faults(silent_from={"client/1": 4}) if fidelity == "real" else Faults()
    outcome = scene.run(faults, wrap=lambda party: restless(party, scene.all.directory))
    assert opened(outcome) == scene.exactly([2, 3, 4] if fidelity == "real" else [1, 2, 3, 4])


def test_members_sleep_and_wake_with_their_identities_and_keys_ahead():
    scene = Scene(SecAgg(mode="active", graph="complete", carry=True, corrupt=0.0), n=4)
    assert opened(scene.run()) == scene.exactly(range(1, 5))
    key = StateKey()
    scene.members = {
        i: unseal_state(seal_state(m, key), key, type(m), lent=scene.all.directory)
        for i, m in scene.members.items()
    }
    scene.server = unseal_state(
        seal_state(scene.server, key), key, type(scene.server), lent=scene.all.directory
    )
    outcome = scene.run(number=1)
    assert opened(outcome) == scene.exactly(range(1, 5), number=1)
    assert outcome.exchanges == 8


def test_secrets_do_not_pickle_or_print():
    import copy
    import pickle

    scene = Scene(SecAgg(), n=3)
    for secret in (
        scene.members[1],
        *scene.parties(scene.plan()).values(),
        scene.server.enter(scene.plan()),
    ):
        assert "holds secrets" in repr(secret)
        for take in (pickle.dumps, copy.deepcopy):
            with pytest.raises(SecretsStay):
                take(secret)


@pytest.mark.parametrize(
    ("mode", "carry", "uploads"),
    [
        ("semi_honest", False, 4),
        ("active", False, 5),
        ("active", True, 4),
        ("semi_honest", True, 3),
    ],
)
def test_exchanges_a_round(mode, carry, uploads):
    scene = Scene(SecAgg(mode=mode, carry=carry, graph="complete", corrupt=0.0), n=5)
    scene.run()
    outcome = scene.run(number=1)
    assert opened(outcome) == scene.exactly(range(1, 6), number=1)
    assert (
        len(
            {
                x.exchange
                for x in outcome.messages
                if x.receiver == "server" and x.sender != "server"
            }
        )
        == uploads
    )


def test_whoever_lost_its_carried_keys_is_called_and_the_silent_are_left_out():
    scene = Scene(SecAgg(mode="active", carry=True, graph="complete", corrupt=0.0), n=6)
    scene.run(Faults(silent_from={"client/1": 8, "client/2": 4}))
    outcome = scene.run(Faults(silent_from={"client/2": 0}), number=1)
    assert opened(outcome) == scene.exactly([1, 3, 4, 5, 6], number=1)
    outcome = scene.run(number=2)
    assert opened(outcome) == scene.exactly(range(1, 7), number=2)


def test_a_first_round_in_which_all_that_are_called_are_silent_aborts():
    scene = Scene(SecAgg(carry=True, graph="complete"), n=4)
    outcome = scene.run(Faults(silent_from={client_party(i): 0 for i in range(1, 5)}))
    assert outcome.aborts["server"].stage == "advertise"


def test_ideal_fidelity_gives_the_same_total_bit_for_bit():
    for kwargs in ({}, {"rotation": True}, {"bits": 20}, {"ring": 16, "bits": 10}):
        real, ideal = (
            Scene(SecAgg(graph="complete", fidelity=f, **kwargs), n=8, d=100).run()
            for f in ("real", "ideal")
        )
        assert torch.equal(real.opened.what.value, ideal.opened.what.value)
        assert real.opened.what.weight == ideal.opened.what.weight
        assert real.opened.survivors == ideal.opened.survivors


def test_the_ideal_server_hears_the_sum_alone_and_keeps_the_quorum():
    scene = Scene(SecAgg(fidelity="ideal"), n=5)
    outcome = scene.run(Faults(malformed={"client/2": lambda body: b"?"}), keep_bodies=True)
    assert [x.sender for x in outcome.messages if x.receiver == "server"] == ["trusted/0"]
    assert opened(outcome) == scene.exactly([1, 3, 4, 5])
    assert "client/2" in outcome.opened.excluded
    seen = scene.channel.decode(outcome.received({"server"}), {})
    assert isinstance(seen, Total)
    assert torch.equal(seen.value, outcome.opened.what.value)
    few = scene.run(Faults(silent_from={client_party(i): 0 for i in (1, 2, 3)}), number=1)
    assert few.opened is None
    assert few.aborts["trusted/0"].stage == "masked_input"


class Doubling:
    """Ring noise for the tests: adds a constant."""

    guarantee = DistributedSkellam(1.0).guarantee

    def add(self, integers, unit_l2, among, noise):
        assert integers.dtype == np.int64
        assert integers.shape == (40,)
        assert among == 4
        return integers + 1000

    def reach(self, unit_l2, among, contributors):
        return 1000 * contributors

    def event(self, unit_l2, d, among, survivors):
        return DpEvent(
            "constant", {"unit_l2": unit_l2, "d": d, "among": among, "survivors": survivors}
        )


def test_ring_noise_is_added_before_masking_and_its_reach_enlarges_the_ring():
    plain, noisy = (
        Scene(SecAgg(graph="complete"), n=6),
        Scene(SecAgg(graph="complete", noise=Doubling()), n=6),
    )
    difference = noisy.run().opened.what.value - plain.run().opened.what.value
    step = plain.max_weight / plain.channel.code.scale(plain.plan())
    assert torch.allclose(difference, torch.full((40,), 6000 * step), atol=1e-5)
    event = noisy.channel.noise_event(noisy.plan(), survivors=5)
    assert event.parameters["unit_l2"] == pytest.approx(32767 + 0.5 * 40**0.5)
    assert (event.parameters["among"], event.parameters["survivors"]) == (4, 5)
    assert plain.channel.noise_event(plain.plan(), survivors=5) is None

    class Loud(Doubling):
        def reach(self, unit_l2, among, contributors):
            return 1 << 25

    assert plain.channel.parameters(plain.plan()).ring == 24
    assert SecAgg(graph="complete", noise=Loud()).parameters(plain.plan()).ring == 32


@pytest.mark.parametrize(("ring", "bits"), [(16, 8), (24, 16), (32, 16)])
def test_headroom_is_exact_at_the_largest_cohort_and_one_past_it_is_refused(ring, bits):
    top = 2 ** (bits - 1) - 1
    largest = (2 ** (ring - 1) - 1) // top
    channel = SecAgg(graph=2, ring=ring, bits=bits, corrupt=0.0, drop=0.0)
    good, bad = (RoundPlan(0, tuple(range(n)), d=2, l2=1.0) for n in (largest, largest + 1))
    assert channel.parameters(good).ring == ring
    with pytest.raises(ConfigError, match=f"needs a ring of {ring + 1} bits"):
        channel.parameters(bad)
    words = np.full(3, (largest * top) % 2**ring, dtype=channel.parameters(good).dtype)
    assert (lift(words, ring) == largest * top).all()
    assert (lift((0 - words).astype(words.dtype), ring) == -largest * top).all()


def test_the_largest_sum_that_the_ring_holds_comes_out_right():
    n = (2**15 - 1) // (2**12 - 1)
    scene = Scene(SecAgg(ring=16, bits=13, graph="complete"), n=n, d=3, max_weight=1.0)
    updates = {i: Bounded(i, torch.tensor([1.0, 0.0, 0.0]), 1.0) for i in scene.members}
    outcome = scene.run(updates=updates)
    assert outcome.opened.what.value.tolist() == [n, 0.0, 0.0]
    with pytest.raises(ConfigError, match="lower bits"):
        Scene(SecAgg(ring=16, bits=13, graph="complete"), n=n + 1, d=3).run()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 0.0}, "0 of"),
        ({"threshold": 0.3}, None),
        ({"threshold": 2}, "2 of 6"),
        ({"threshold": 7}, "7 of 6"),
        ({"graph": "ring"}, "graph"),
        ({"graph": 0}, "graph"),
        ({"mode": "covert"}, "mode"),
        ({"ring": 20}, "ring"),
        ({"bits": 40}, "bits"),
        ({"threshold": 1.5}, "threshold"),
        ({"corrupt": 0.9}, "corrupt"),
        ({"backend": "nacl"}, "backend"),
        ({"fidelity": "x"}, "fidelity"),
    ],
)
def test_settings_that_prove_nothing_are_refused(settings, message):
    if message is None or settings.get("threshold") == 0.0:
        assert (
            SecAgg(**settings).degree(6).t == 4
        )  # a fraction under one half is lifted to the smallest safe number
        return
    with pytest.raises(
        (ConfigError, TypeCheckError), match=message
    ):  # words outside of a Literal stop at the type check, where it is on
        SecAgg(**settings).degree(6)


def test_a_cohort_of_one_and_an_update_without_a_bound_are_refused():
    channel = SecAgg()
    with pytest.raises(ConfigError, match="hides nothing"):
        Enrolled.fresh(channel, ()).server.enter(RoundPlan(0, (1,), d=2, l2=1.0))
    plan = RoundPlan(0, (1, 2), d=2, l2=float("inf"))
    with pytest.raises(ConfigError, match="bound"):
        Enrolled.fresh(channel, [1]).clients[1].enter(plan, Bounded(1, torch.ones(2), float("inf")))
    with pytest.raises(ConfigError, match="not in the cohort"):
        Enrolled.fresh(channel, [9]).clients[9].enter(
            RoundPlan(0, (1, 2), d=2, l2=1.0), Bounded(9, torch.zeros(2), 1.0)
        )


def test_the_computed_degree_matches_a_brute_force_estimate():
    """Hypergeometric tails against scipy's, for the condition that decides at n = 1000."""
    degree = SecAgg(corrupt=0.1, drop=0.1).degree(1000)
    assert (degree.k, degree.t) == (54, 28)
    at, below = (1000 * stats.hypergeom(999, 100, k).sf(t - 1) for k, t in ((54, 28), (50, 26)))
    assert at <= 2.0**-40 < below


def test_upload_and_key_material_are_as_small_as_promised():
    for ring, per_value in ((24, 3.01), (32, 4.01)):
        scene = Scene(SecAgg(mode="active", graph=20, ring=ring, corrupt=0.0), n=24, d=200_000)
        outcome = scene.run()
        sent = outcome.bytes_sent("client/7")
        # 44 bytes for each of up to 23 clients that drew it as a holder: 3543 at most
        assert sent - (scene.d + 2) * ring // 8 <= 3543
        scene.d = 1_000_000
        assert (sent + 800_000 * ring // 8) / 1_000_000 <= per_value


# ---- what is seen


def masked_words(outcome, ring=16):
    """The masked vectors on the wire, by client."""
    out = {}
    for message in outcome.messages:
        if message.receiver == "server" and message.body[4] == 5:
            packed = fields.read_facts(memoryview(message.body)[28:])[1]
            out[message.sender] = fields.unpack(packed, ring, len(packed) * 8 // ring)
    return out


def test_a_masked_vector_is_uniform_over_the_ring_whatever_it_hides():
    scene = Scene(SecAgg(ring=16, bits=10, graph="complete"), n=3, d=65_536, max_weight=1.0)
    updates = {i: Bounded(i, torch.zeros(scene.d), 1.0) for i in scene.members}
    for words in masked_words(scene.run(updates=updates, keep_bodies=True)).values():
        for half in (words & 255, words >> 8):
            counts = np.bincount(half, minlength=256)
            assert stats.chisquare(counts).pvalue > 1e-6
    plain = scene.channel.code.encode(updates[1], scene.plan()).astype(np.uint16)
    assert (
        stats.chisquare(np.bincount(plain & 255, minlength=256) + 0.0).pvalue < 1e-6
    )  # the test can tell


def test_the_servers_view_does_not_change_when_one_client_changes_and_the_sum_stays():
    """Taint: what the server can compute is the same total, and a distinguisher on the masked
    vectors has nothing to hold on to.
    """
    scene = Scene(SecAgg(graph="complete"), n=4, d=64, max_weight=1.0)
    plan = scene.plan()
    base = updates_for(plan)
    base = {i: Bounded(i, 0.5 * u.delta, 1.0) for i, u in base.items()}
    code = scene.channel.code
    shift = torch.round(0.2 * torch.ones(64) / 8 * code.scale(plan)) / code.scale(plan)
    other = {
        **base,
        1: Bounded(1, base[1].delta + shift, 1.0),
        2: Bounded(2, base[2].delta - shift, 1.0),
    }
    seen = []
    for number, updates in enumerate((base, other)):
        outcome = scene.run(updates=updates, keep_bodies=True, number=number)
        view = scene.channel.decode(outcome.received({"server"}), {"server": scene.server})
        assert isinstance(view, Total)
        seen.append(view.value)
    assert torch.allclose(seen[0], seen[1], atol=2.5 / code.scale(plan))
    assert not torch.allclose(base[1].delta, other[1].delta, atol=2.5 / code.scale(plan))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"graph": "complete"},
        {"graph": 4, "mode": "active", "corrupt": 0.0},
        {"graph": 4, "rotation": True},
    ],
)
def test_what_a_coalition_reads_is_computed_from_its_mail_and_its_keys(kwargs):
    channel = SecAgg(forward_secrecy=False, **kwargs)
    scene = Scene(channel, n=8, d=50, max_weight=4.0)
    outcome = scene.run(Faults(silent_from={"client/8": 4}), keep_bodies=True)
    updates = updates_for(scene.plan())
    names = {client_party(i): m for i, m in scene.members.items()}

    def reads(*who):
        return scene.channel.decode(
            outcome.received(who), {name: names[name] for name in who if name in names}
        )

    server = reads("server")
    assert isinstance(server, Total)
    assert torch.equal(server.value, outcome.opened.what.value)
    assert reads("client/1", "client/2") is None
    assert isinstance(reads("server", "client/1"), Total)
    threshold = scene.channel.degree(8).t
    if scene.channel.graph == "complete":
        everything = reads("server", *(client_party(i) for i in range(1, threshold + 1)))
        assert isinstance(everything, Rows)
        for who, row, weight in zip(
            everything.ids, everything.values, everything.weights, strict=True
        ):
            assert torch.allclose(row, updates[who].delta, atol=1e-3)
            assert abs(float(weight) - updates[who].weight) < 1e-3
        assert set(everything.ids) == set(range(threshold + 1, 8))
        assert isinstance(reads("server", *(client_party(i) for i in range(1, threshold))), Total)
    alone = reads("server", *(client_party(i) for i in range(1, 7)))
    assert isinstance(alone, Rows)
    assert alone.ids == (7,)


@pytest.mark.parametrize("mode", ["semi_honest", "active"])
def test_clients_forget_a_rounds_secrets_unless_they_are_told_to_keep_them(mode):
    scene = Scene(SecAgg(graph="complete", mode=mode), n=5)
    outcome = scene.run(keep_bodies=True)
    assert not any(member.kept for member in scene.members.values())
    members = {client_party(i): m for i, m in scene.members.items() if i < 5}
    assert isinstance(scene.channel.decode(outcome.received({"server"}), members), Total)


def test_a_round_that_ended_early_opens_nothing_to_its_server():
    scene = Scene(SecAgg(graph="complete"), n=6)
    outcome = scene.run(
        Faults(silent_from={client_party(i): 6 for i in range(1, 5)}), keep_bodies=True
    )
    assert outcome.opened is None
    assert scene.channel.decode(outcome.received({"server"}), {"server": scene.server}) is None


def test_stochastic_rounding_is_unbiased_through_the_channel():
    scene = Scene(
        SecAgg(graph="complete", rounding="stochastic", bits=4), n=6, d=4000, max_weight=1.0
    )
    value = torch.full((4000,), 0.3 / 4000**0.5)
    outcome = scene.run(updates={i: Bounded(i, value, 1.0) for i in scene.members})
    step = 1 / scene.channel.code.scale(scene.plan())
    error = float((outcome.opened.what.value / 6 - value).mean())
    assert abs(error) < 5 * step / (6 * 4000) ** 0.5 < float(value[0])


def test_rotation_lowers_the_error_at_the_same_number_of_bits():
    plan = RoundPlan(0, (1, 2), d=5000, l2=1.0)
    update = updates_for(plan)[1]
    errors = []
    for rotation in (False, True):
        code = FixedPoint(8, rotation=rotation)
        back = code.decode(code.encode(Bounded(1, update.delta, 1.0), plan), plan, 1)
        errors.append(float((back.value - update.delta).norm()))
    assert errors[1] < errors[0] / 4
