"""Two servers run robust rules on shares: equal to the plain rules on the quantised updates,
whoever lies, drops, or listens in.
"""

import itertools
import math
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from privfl import hybrid
from privfl.aggregators import CosineFilter, FLTrust, Krum, Mean
from privfl.core import (
    Bounded,
    Channel,
    ConfigError,
    Context,
    Faults,
    InformedServer,
    KeepsSecrets,
    RoundPlan,
    Rows,
    StateKey,
    Total,
    client_party,
    drive,
    seal_state,
)
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.mpc.operations import Open
from privfl.crypto.mpc.words import ring_mask
from privfl.dp import DistributedSkellam
from privfl.hybrid.two_server.checks import PASSED
from privfl.hybrid.two_server.malicious.client import FixedClientParty
from privfl.hybrid.two_server.opened_scores import SCORES, Gather
from privfl.hybrid.two_server.parameters import DEALT, HELD, MORE, PIECE, SERVERS, STEPS
from privfl.hybrid.two_server.registers import WEIGHTS
from privfl.hybrid.two_server.sealing import open_steps, seal_dealt, unseal_dealt
from privfl.hybrid.two_server.soundness import RINGS, passes, projections
from privfl.hybrid.two_server.tags import OpenTagged
from privfl.hybrid.two_server.tampering import after, tampered

TwoServer = partial(hybrid.TwoServer, security="semi_honest")
SignTwoServer = partial(hybrid.SignTwoServer, security="semi_honest")

CHANNEL: Channel[Total] = TwoServer()


def updates_for(plan, seed=0, spread=1.0, length=0.98):
    g = torch.Generator().manual_seed(seed)
    middle = torch.randn(plan.d, generator=g)
    made = {}
    for who in plan.cohort:
        x = middle + spread * torch.randn(plan.d, generator=g)
        made[who] = Bounded(who, length * plan.l2 * x / x.norm(), plan.l2, weight=1.0)
    return made


def toward(vector):
    return FLTrust(lambda context: vector)


@dataclass
class Scene:
    channel: Channel[Total] = field(default_factory=TwoServer)
    n: int = 9
    d: int = 130
    max_weight: float = 1.0
    number: int = 0
    runs: int = 0
    helpers: dict = field(default_factory=dict)

    def __post_init__(self):
        self.all = Enrolled.fresh(self.channel, range(1, self.n + 1))
        self.helpers, self.server = dict(self.all.helpers), self.all.server
        self.plan = RoundPlan(
            self.number,
            tuple(range(1, self.n + 1)),
            self.d,
            l2=1.0,
            max_weight=self.max_weight,
            session=b"test",
        )
        self.updates = updates_for(self.plan)

    def run(self, faults=Faults(), keep_bodies=False, wrap=lambda party: party):
        if self.runs:  # server/1 enters a round once
            self.plan = replace(self.plan, session=b"test" + bytes([self.runs]))
        self.runs += 1
        context = Context(self.plan, torch.zeros(self.d), torch.Generator())
        assert isinstance(self.server, InformedServer)
        self.server.inform(context)
        parties = {
            client_party(i): wrap(self.all.clients[i].enter(self.plan, u))
            for i, u in self.updates.items()
        }
        parties |= {who: wrap(helper.enter(self.plan)) for who, helper in self.helpers.items()}
        return drive(wrap(self.server.enter(self.plan)), parties, faults, keep_bodies=keep_bodies)

    def quantised(self, who):
        """Integer rows [n, d] of these clients, as any implementation of the fixed point would make
        them.
        """
        scale = (2 ** (self.channel.bits - 1) - 1) / self.plan.l2
        return (
            np.stack(
                [
                    np.rint(self.updates[i].delta.numpy().astype(np.float64) * scale).astype(
                        np.int64
                    )
                    for i in who
                ]
            ),
            scale,
        )

    def rows(self, who):
        integers, scale = self.quantised(who)
        return Rows(torch.from_numpy(integers / scale), torch.ones(len(who)), tuple(who))

    def lie(self, who, vector):
        self.updates[who] = Bounded.claimed(who, vector, self.plan.l2)


def opened(outcome):
    assert outcome.opened is not None, {who: str(a) for who, a in outcome.aborts.items()}
    return outcome.opened


# ---- equal to the plain rules


@pytest.mark.parametrize(
    ("ring", "bits", "reveal"),
    [
        (40, 16, "scores"),
        (64, 16, "selection"),
        (64, 20, "aggregate"),
        (32, 12, "selection"),
        (None, 16, "scores"),
    ],
)
def test_the_mean_is_exactly_the_mean_of_the_quantised_updates(ring, bits, reveal):
    scene = Scene(TwoServer(Mean(weighted=False), reveal=reveal, ring=ring, bits=bits))
    what = opened(scene.run()).what
    integers, scale = scene.quantised(scene.plan.cohort)
    assert torch.equal(
        what.value, torch.from_numpy((integers.sum(axis=0) * (1 / scale)).astype(np.float32))
    )
    assert (what.weight, what.count) == (9.0, 9)


def test_the_weighted_mean_sends_weights_inside_the_shares():
    scene = Scene(TwoServer(Mean()), max_weight=4.0)
    scene.updates = {
        i: Bounded(i, u.delta, 1.0, weight=1.0 + i % 4) for i, u in scene.updates.items()
    }
    what = opened(scene.run()).what
    plain = Mean()(
        Rows(
            torch.stack([u.delta for u in scene.updates.values()]),
            torch.tensor([u.weight for u in scene.updates.values()]),
        )
    )
    assert torch.allclose(what.mean(), plain, atol=1e-4)
    assert math.isclose(what.weight, sum(u.weight for u in scene.updates.values()), rel_tol=1e-4)


REVEALS = pytest.mark.parametrize("reveal", ["scores", "selection", "aggregate"])


@REVEALS
@pytest.mark.parametrize(
    ("f", "m", "seed"), [(0, 7, 0), (2, 2, 1), (2, 5, 2), (3, 4, 3), (2, 7, 4)]
)
def test_krum_chooses_whom_the_plain_rule_chooses_and_opens_their_exact_mean(f, m, seed, reveal):
    scene = Scene(TwoServer(Krum(f=f, m=m), reveal=reveal))
    scene.updates = updates_for(scene.plan, seed)
    what = opened(scene.run()).what
    rows = scene.rows(scene.plan.cohort)
    chosen = Krum(f=f, m=m).select(rows.values)
    integers, scale = scene.quantised(scene.plan.cohort)
    exact = integers[chosen.numpy()].sum(axis=0) * (1 / scale)
    assert torch.equal(what.value, torch.from_numpy(exact.astype(np.float32)))
    assert (what.weight, what.count) == (float(m), m)


@REVEALS
@pytest.mark.parametrize("threshold", [-0.3, 0.0, 0.4, 0.6])
def test_the_cosine_filter_keeps_whom_the_plain_rule_keeps(threshold, reveal):
    scene = Scene()
    reference = scene.updates[1].delta + scene.updates[2].delta
    scene.lie(3, -scene.updates[3].delta)
    scene.lie(4, torch.zeros(scene.d))
    scene.lie(5, 0.3 * scene.updates[5].delta + 0.4 * scene.updates[6].delta.flip(0))
    rule = CosineFilter(threshold, lambda rows, context: reference)
    hidden = Scene(TwoServer(rule, reveal=reveal))
    hidden.updates = scene.updates
    out = opened(hidden.run())
    verdict, _ = rule.judge_step(
        hidden.rows(hidden.plan.cohort),
        None,
        Context(hidden.plan, torch.zeros(hidden.d), torch.Generator()),
    )
    integers, scale = hidden.quantised(hidden.plan.cohort)
    exact = integers[verdict.kept.numpy()].sum(axis=0) * (1 / scale)
    assert torch.equal(out.what.value, torch.from_numpy(exact.astype(np.float32)))
    if reveal == "scores":
        assert torch.allclose(
            out.disclosed["cosines"].double(), verdict.scores["cosine"].double(), atol=1e-3
        )
    if reveal == "selection":
        assert torch.equal(out.disclosed["selected"], verdict.kept)


@REVEALS
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("root_l2", [math.inf, 0.5])
def test_fltrust_is_the_plain_rule_to_the_fineness_of_its_weights_and_lengths(
    fixed, root_l2, reveal
):
    scene = Scene()
    root = 3.0 * scene.updates[1].delta
    rule = FLTrust(lambda context: root, fixed=fixed, root_l2=root_l2)
    scene = Scene(TwoServer(rule, reveal=reveal))
    scene.lie(3, -scene.updates[3].delta)
    scene.lie(4, 1e-2 * scene.updates[4].delta)  # length has no effect
    out = opened(scene.run())
    if reveal != "scores":  # clients bring their rows to one length before they are rounded
        scene.updates = {
            i: Bounded.claimed(i, u.delta / u.delta.norm(), 1.0) for i, u in scene.updates.items()
        }
    plain, _ = rule.step(
        scene.rows(scene.plan.cohort),
        None,
        Context(scene.plan, torch.zeros(scene.d), torch.Generator()),
    )
    assert (out.what.mean() - plain).norm() <= 3e-4 * plain.norm()
    assert out.excluded == {}
    if reveal == "selection":
        assert out.disclosed["selected"].tolist() == [i != 3 for i in scene.plan.cohort]


def test_a_zero_update_has_no_direction_and_its_client_says_so():
    scene = Scene(TwoServer(toward(torch.ones(130)), reveal="aggregate"))
    scene.lie(4, torch.zeros(scene.d))
    outcome = scene.run()
    assert opened(outcome).survivors == (1, 2, 3, 5, 6, 7, 8, 9)
    assert "no direction" in str(outcome.aborts["client/4"])


@pytest.mark.parametrize("length", [0.9, 1.1])
def test_under_hidden_weights_a_row_of_another_length_than_the_common_one_is_refused(length):
    scene = Scene(TwoServer(toward(torch.ones(130)), reveal="aggregate"))
    x = scene.updates[4].delta
    words = np.rint(x.numpy() / np.linalg.norm(x.numpy()) * length * 32767).astype(int).tolist()
    out = opened(
        scene.run(Faults(byzantine={"client/4": lambda party: SendsIntegers(party, words)}))
    )
    assert list(out.excluded) == ["client/4"]


@REVEALS
def test_where_nobody_is_trusted_the_model_stays(reveal):
    scene = Scene()
    scene.channel = TwoServer(toward(-sum(u.delta for u in scene.updates.values())), reveal=reveal)
    scene.__post_init__()
    assert torch.equal(opened(scene.run()).what.mean(), torch.zeros(scene.d))


@REVEALS
def test_a_zero_root_update_trusts_nobody_and_a_zero_reference_has_cosine_zero(reveal):
    assert torch.equal(
        opened(Scene(TwoServer(toward(torch.zeros(130)), reveal=reveal)).run()).what.mean(),
        torch.zeros(130),
    )
    for threshold, kept in ((-0.5, 9), (0.0, 0), (0.5, 0)):
        rule = CosineFilter(threshold, lambda rows, context: torch.zeros(130))
        assert opened(Scene(TwoServer(rule, reveal=reveal)).run()).what.count == kept


def test_krum_on_shares_with_ties_opens_rows_of_the_same_scores():
    scene = Scene(TwoServer(Krum(f=2, m=4), reveal="selection"))
    for who in (2, 3, 4):
        scene.updates[who] = Bounded(who, scene.updates[1].delta.clone(), 1.0)
    out = opened(scene.run())
    plain = Krum(f=2, m=4).judge(scene.rows(scene.plan.cohort))
    assert torch.equal(out.disclosed["selected"], plain.kept)


def test_the_cosine_filter_filters_nobody_before_the_model_moves_and_then_by_the_last_change():
    scene = Scene(TwoServer(CosineFilter(0.0), reveal="scores", reference="previous"))
    scene.lie(3, -scene.updates[3].delta)
    assert opened(scene.run()).what.count == 9
    moved = sum(u.delta for u in scene.updates.values())
    plan = scene.plan = RoundPlan(1, scene.plan.cohort, scene.d, l2=1.0, session=b"test")
    scene.server.inform(Context(plan, moved, torch.Generator()))
    parties = {
        client_party(i): scene.all.clients[i].enter(plan, u) for i, u in scene.updates.items()
    }
    parties |= {who: helper.enter(plan) for who, helper in scene.helpers.items()}
    out = opened(drive(scene.server.enter(plan), parties))
    assert out.what.count == 8
    assert out.disclosed["cosines"][2] < 0


# ---- lying clients


@pytest.mark.parametrize("reveal", ["scores", "selection", "aggregate"])
def test_a_client_that_skips_its_clip_is_refused_by_name(reveal):
    scene = Scene(TwoServer(Mean(weighted=False), reveal=reveal))
    scene.lie(4, 3.0 * scene.updates[4].delta)
    out = opened(scene.run())
    assert out.excluded == {"client/4": "its update failed the norm check"}
    assert out.survivors == (1, 2, 3, 5, 6, 7, 8, 9)
    integers, scale = scene.quantised(out.survivors)
    assert torch.equal(
        out.what.value, torch.from_numpy((integers.sum(axis=0) * (1 / scale)).astype(np.float32))
    )


class SendsIntegers:
    """A client whose code is its own: it shares these ring words."""

    def __init__(self, party, words):
        self.party = party
        self.party.vector = np.array([w % (1 << 64) for w in words], dtype=np.uint64)

    def step(self, mail):
        return self.party.step(mail)


def crafted(ring, d):
    """Vectors that are enormous, and whose squares, or whose words, wrap around to something
    small.
    """
    q = 1 << ring
    root = 1 << (ring // 2)
    return {
        "two coordinates of half the ring": [q // 2, q // 2] + [0] * (d - 2),
        "one coordinate of half the ring": [q // 2] + [0] * (d - 1),
        "a coordinate whose square is zero": [root] + [0] * (d - 1),
        "its negative": [-root] + [0] * (d - 1),
        "many whose squares are zero together": [root // 2] * 4 + [0] * (d - 4),
        "a square that wraps to little": [root, root, 5] + [0] * (d - 3),
        "spread out": [math.isqrt(q // d) + 1] * d,
        "a little over the clip": [40_000] + [0] * (d - 1),
        "all of the ring's largest": [q // 2 - 1] * d,
        "minus one everywhere, on a large one": [q // 2 - d] + [1] * (d - 1),
    }


@pytest.mark.parametrize("ring", [40, 64])
@pytest.mark.parametrize("name", list(crafted(40, 130)))
def test_words_that_wrap_around_the_ring_do_not_pass_the_norm_check(ring, name):
    scene = Scene(TwoServer(Mean(weighted=False), ring=ring))
    words = crafted(ring, scene.d)[name]
    out = opened(
        scene.run(Faults(byzantine={"client/5": lambda party: SendsIntegers(party, words)}))
    )
    assert "client/5" in out.excluded
    assert out.what.count == 8


def test_bits_above_the_ring_change_nothing():
    scene = Scene(TwoServer(Mean(weighted=False), ring=40))
    integers, _ = scene.quantised([5])
    words = [int(x) + (1 << 40) * (j % 7) for j, x in enumerate(integers[0])]
    honest = opened(scene.run()).what
    lied = opened(
        scene.run(Faults(byzantine={"client/5": lambda party: SendsIntegers(party, words)}))
    )
    assert lied.excluded == {}
    assert torch.equal(lied.what.value, honest.value)


def test_a_weight_that_is_tiny_beside_the_largest_is_no_lie():
    scene = Scene(TwoServer(Mean()), max_weight=1e6)
    scene.updates = {
        i: Bounded(i, u.delta, 1.0, weight=1.0 if i < 4 else 1e5) for i, u in scene.updates.items()
    }
    out = opened(scene.run())
    assert out.excluded == {}
    assert math.isclose(out.what.weight, 6e5, rel_tol=1e-3)


@pytest.mark.parametrize("claimed", [-1, -5, 32768, 10**9])
def test_a_weight_outside_of_its_range_is_refused(claimed):
    scene = Scene(TwoServer(Mean()), max_weight=4.0)

    class Claims:
        def __init__(self, party):
            self.party = party
            self.party.vector[-1] = np.uint64(claimed % (1 << 64))

        def step(self, mail):
            return self.party.step(mail)

    out = opened(scene.run(Faults(byzantine={"client/2": Claims})))
    assert list(out.excluded) == ["client/2"]


def test_liars_found_by_the_norm_check_count_among_krums_f():
    scene = Scene(TwoServer(Krum(f=2, m=4), reveal="scores"))
    for who in (1, 2):
        scene.lie(who, 5.0 * scene.updates[who].delta)
    assert opened(scene.run()).what.count == 4
    scene.lie(3, 5.0 * scene.updates[3].delta)
    outcome = scene.run()
    assert outcome.opened is None
    assert "tolerates 2 Byzantine" in str(outcome.aborts["server"])


def test_a_single_projection_lets_no_more_through_than_its_bound():
    draw = np.random.default_rng(5)
    d, ring, longest, tries = 200, 40, 1 << 15, 4000
    for words in crafted(ring, d).values():
        x = np.array(words, dtype=object)
        if sum(int(v) ** 2 for v in x) < 1 << ring:
            continue  # its square does not wrap: the norm itself finds it
        coins = draw.choice([-1, 0, 0, 1], size=(tries, d)).astype(object)
        z = [((int(value) + (1 << 39)) % (1 << 40)) - (1 << 39) for value in coins @ x]
        share = np.mean([abs(value) <= 7 * longest for value in z])
        assert share <= passes(longest, ring, d) + 4 * math.sqrt(0.25 / tries)


# ---- a lying second server


class ShiftsTheSum:
    """A second server that adds to its share of the sum, and to the blinds what it hopes fits."""

    def __init__(self, party, error, guess=0):
        self.party, self.error, self.guess = party, error, guess

    def step(self, mail):
        before = self.party.machine
        answer = self.party.step(mail)
        if before is None and self.party.machine is not None:
            self.party.machine.program = (*self.party.machine.program[:-1], self)
        return answer

    def say(self, machine):
        words = np.frombuffer(OpenTagged().say(machine), dtype="<u8").copy()
        shift = np.zeros_like(words)
        shift[3], shift[-1] = self.error % (1 << 64), self.guess % (1 << 64)
        return (words + shift).tobytes()

    def hear(self, machine, theirs):
        return OpenTagged().hear(machine, theirs)


@pytest.mark.parametrize("error", [1, -(1 << 20), 1 << 39, 1 << 63, (1 << 40) + 1])
@pytest.mark.parametrize(("rule", "reveal"), [(Krum(f=2, m=4), "scores"), (Mean(), "selection")])
def test_a_second_server_that_shifts_the_sum_ends_the_round(rule, reveal, error):
    scene = Scene(
        TwoServer(rule, reveal=reveal, ring=64 if error == 1 << 63 else 40)
    )  # 2^63 is nothing in a ring of 40 bits
    for guess in (0, -error):
        outcome = scene.run(
            Faults(
                byzantine={"server/1": lambda party, guess=guess: ShiftsTheSum(party, error, guess)}
            )
        )
        assert outcome.opened is None
        abort = outcome.aborts["server"]
        assert (abort.stage, abort.blamed) == ("sum", None)  # the dealer can make the same
        assert abort.who == ("server/1", "dealer")


@pytest.mark.parametrize(
    ("ring", "error"), [(40, 1 << 30), (64, 1 << 30), (64, 1 << 62), (64, 1 << 63)]
)
def test_a_second_server_that_shifts_fltrusts_sum_ends_the_round(ring, error):
    scene = Scene(TwoServer(toward(torch.ones(130)), reveal="scores", ring=ring))
    outcome = scene.run(Faults(byzantine={"server/1": lambda party: ShiftsTheSum(party, error)}))
    assert outcome.opened is None
    assert outcome.aborts["server"].who == ("server/1", "dealer")
    assert (
        opened(
            scene.run(Faults(byzantine={"server/1": lambda party: ShiftsTheSum(party, 0)}))
        ).what.count
        > 0
    )


class DealsOtherTags:
    """A dealer whose tags, well sealed, are those of other masks."""

    def __init__(self, party):
        self.party, self.seed = party, b""

    def step(self, mail):
        now = self.party.now
        if "server" in mail:
            _, self.seed = self.party.read_seeds("server", mail["server"])
        out = self.party.step(mail)
        if "server" in out:
            sealed = bytes(now.read(out["server"], DEALT)[1])
            words = bytes(len(unseal_dealt(now, self.seed, sealed)))
            out["server"] = now.write(DEALT, 0, seal_dealt(now, self.seed, words))
        return out


def test_a_dealer_that_tags_other_masks_gets_nobody_else_convicted():
    outcome = Scene().run(Faults(byzantine={"dealer": DealsOtherTags}))
    assert outcome.opened is None
    assert outcome.aborts["server"].blamed is None
    assert "dealer" in outcome.aborts["server"].who


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("liar", ["server", "server/1"])
@pytest.mark.parametrize("amount", [-(1 << 38), 1 << 38, -1])
@pytest.mark.parametrize(
    "rule", [Mean(), toward(torch.ones(130)), CosineFilter(reference=lambda rows, context: ONES)]
)
def test_a_server_that_opens_norms_that_were_never_proved_ends_the_round(rule, amount, liar):
    def shifts(party):
        def change(steps):
            return after(after(steps, Gather, ShiftsNorms(amount)), Open, KeepsTrueNorms(amount))

        party.recipe = tampered(party.recipe, change)
        return party

    scene = Scene(TwoServer(rule, reveal="scores"))
    if amount == -1:  # all but certainly within what could have been proved: nobody can tell
        assert not scene.run(Faults(byzantine={liar: shifts})).aborts
        return
    outcome = scene.run(Faults(byzantine={liar: shifts}))
    assert outcome.opened is None
    honest = "server/1" if liar == "server" else "server"
    assert outcome.aborts[honest].blamed is None
    assert set(outcome.aborts[honest].who) == {liar, "dealer"}


ONES = torch.ones(130)


@dataclass(frozen=True)
class KeepsTrueNorms:
    amount: int

    def act(self, machine):
        if SCORES in machine.public:
            scores = machine.public[SCORES].copy()
            scores[-1] -= np.uint64(self.amount % (1 << 64))
            machine.public[SCORES] = scores & ring_mask(machine.now.ring)


@dataclass(frozen=True)
class ShiftsNorms:
    amount: int

    def act(self, machine):
        scores = machine.shares[SCORES].copy()
        scores[-1] += np.uint64(self.amount % (1 << 64))
        machine.shares[SCORES] = scores


# ---- dropouts, garbage, replays


def test_a_client_that_reached_one_server_alone_is_left_out():
    scene = Scene(TwoServer(Mean(weighted=False)))
    for wanted, lost in ((0, "server"), (1, "server/1")):
        seen = [0]

        def lose(body, wanted=wanted, seen=seen):
            seen[0] += 1
            return b"" if seen[0] - 1 == wanted else body

        out = opened(scene.run(Faults(malformed={"client/3": lose}, silent_from={"client/8": 0})))
        assert out.survivors == (1, 2, 4, 5, 6, 7, 9), lost
        assert "stage share" in out.excluded["client/3"]


@pytest.mark.parametrize(
    "garble",
    [
        lambda b: b"",
        lambda b: bytes(b[:40]),
        lambda b: bytes(len(b)),
        lambda b: bytes(b) + b"\0",
        lambda b: bytes(b[:4]) + b"\x09" + bytes(b[5:]),
    ],
)
def test_clients_that_send_garbage_are_excluded_by_name(garble):
    scene = Scene(TwoServer(Mean(weighted=False)))
    out = opened(scene.run(Faults(malformed={"client/3": garble})))
    assert "client/3" in out.excluded
    assert out.what.count == 8


def test_fewer_than_the_threshold_open_nothing():
    scene = Scene(TwoServer(Mean(weighted=False), threshold=0.8))
    outcome = scene.run(Faults(silent_from={"client/1": 0, "client/2": 0}))
    assert outcome.opened is None
    assert outcome.aborts["server"].stage == "agree"
    scene.lie(1, 9.0 * scene.updates[1].delta)
    outcome = scene.run(Faults(silent_from={"client/2": 0}))
    assert outcome.opened is None
    assert outcome.aborts["server"].stage == "check"


@pytest.mark.parametrize("who", ["server/1", "dealer", "server"])
@pytest.mark.parametrize("exchange", range(0, 16, 4))
def test_a_helper_that_falls_silent_leaves_nothing_opened_or_everything(who, exchange):
    scene = Scene(TwoServer(Krum(f=2, m=4), reveal="scores"))
    whole = opened(scene.run()).what
    got = scene.run(Faults(silent_from={who: exchange})).opened
    assert got is None or torch.equal(got.what.value, whole.value)


@pytest.mark.parametrize("sender", ["server", "server/1", "dealer"])
@pytest.mark.parametrize("where", [4, 29, -1])
def test_a_changed_byte_between_the_servers_ends_the_round_and_never_gives_a_wrong_sum(
    sender, where
):
    scene = Scene(TwoServer(Krum(f=2, m=4), reveal="scores"))
    whole = opened(scene.run()).what
    for turn in range(4):
        seen = [0]

        def change(body, turn=turn, seen=seen):
            seen[0] += 1
            if seen[0] != turn + 1:
                return body
            made = bytearray(body)
            made[where] ^= 0x41
            return bytes(made)

        outcome = scene.run(Faults(malformed={sender: change}))
        assert outcome.opened is None or torch.equal(outcome.opened.what.value, whole.value)
        if seen[0] > turn:
            assert outcome.aborts


def test_messages_that_come_twice_change_nothing():
    scene = Scene(TwoServer(Krum(f=2, m=4), reveal="scores"))
    whole = opened(scene.run()).what
    everybody = {"server", "server/1", "dealer", *(client_party(i) for i in scene.plan.cohort)}
    assert torch.equal(opened(scene.run(Faults(duplicated=everybody))).what.value, whole.value)


def test_an_earlier_rounds_messages_are_refused():
    scene = Scene(TwoServer(Mean(weighted=False)))
    recorded = []
    scene.run(Faults(malformed={"client/1": lambda b: recorded.append(bytes(b)) or b}))
    scene.plan = RoundPlan(1, scene.plan.cohort, d=scene.d, l2=1.0, session=b"test")
    replay = iter(recorded)
    out = opened(scene.run(Faults(malformed={"client/1": lambda b: next(replay)})))
    assert "another round" in out.excluded["client/1"]


@pytest.mark.parametrize(
    ("rule", "reveal"),
    [
        (Mean(), "scores"),
        (Krum(f=2, m=4), "aggregate"),
        (toward(torch.ones(130)), "scores"),
        (toward(torch.ones(130)), "aggregate"),
    ],
    ids=["mean", "krum", "fltrust scores", "fltrust hidden"],
)
def test_every_party_can_sleep_between_exchanges(rule, reveal, restless):
    scene = Scene(TwoServer(rule, reveal=reveal))
    awake = opened(scene.run()).what
    assert torch.equal(opened(scene.run(wrap=restless)).what.value, awake.value)


SEVERAL = pytest.mark.parametrize(
    ("rule", "reveal"),
    [
        (Mean(), "selection"),
        (Krum(f=1, m=2), "aggregate"),
        (toward(torch.ones(9000)), "scores"),
        (toward(torch.ones(9000)), "aggregate"),
    ],
    ids=["weighted mean", "krum hidden", "fltrust scores", "fltrust hidden"],
)


@SEVERAL
def test_masked_rows_in_several_letters_open_the_same_also_doubled_and_asleep(
    rule, reveal, monkeypatch, restless
):
    scene = Scene(TwoServer(rule, reveal=reveal, bits=10), n=5, d=9000)
    whole = scene.run()
    monkeypatch.setattr("privfl.hybrid.two_server.row_letters.LETTER", 1)
    parted = scene.run(keep_bodies=True)
    assert torch.equal(opened(parted).what.value, opened(whole).what.value)
    assert [m.sender for m in parted.messages if m.body[4] in (PIECE, MORE)] == [*SERVERS[::-1]]
    doubled = scene.run(Faults(duplicated={"server", "server/1", "dealer"}))
    assert torch.equal(opened(doubled).what.value, opened(whole).what.value)
    assert torch.equal(opened(scene.run(wrap=restless)).what.value, opened(whole).what.value)
    parted = scene.run(keep_bodies=True)
    members = {"server": scene.server, **scene.helpers}
    for pair in (("server", "server/1"), ("server", "dealer"), ("server/1", "dealer")):
        mine = {who: members[who] for who in pair}
        rows = scene.channel.decode(parted.received(pair), mine)
        assert isinstance(rows, Rows)
        for who, row in zip(rows.ids, rows.values, strict=True):
            assert torch.cosine_similarity(row, scene.updates[who].delta, dim=0) > 0.99
    alone = scene.channel.decode(parted.received(["server"]), {"server": scene.server})
    assert torch.equal(alone.value, opened(parted).what.value)


class WithoutSeed:
    """A client that the second server never hears."""

    def __init__(self, inner):
        self.inner = inner

    def step(self, mail):
        return {who: body for who, body in self.inner.step(mail).items() if who != "server/1"}


@pytest.mark.parametrize("lost", [None, 1, 3, 5])
@pytest.mark.parametrize("silent", [{}, {"client/2": 0}])
def test_rows_that_are_laid_out_as_they_are_written_open_what_those_that_come_together_do(
    lost, silent
):
    scene = Scene(hybrid.TwoServer(Mean(weighted=False), bits=10), n=5, d=300)

    def wrap(party):
        known = isinstance(party, FixedClientParty) and party.who == lost
        return WithoutSeed(party) if known else party

    laid = scene.run(Faults(silent_from=silent), wrap=wrap)
    together = scene.run(Faults(silent_from=silent), wrap=wrap, keep_bodies=True)
    assert torch.equal(opened(laid).what.value, opened(together).what.value)
    left = tuple(i for i in range(1, 6) if i != lost and f"client/{i}" not in silent)
    assert opened(laid).survivors == opened(together).survivors == left
    assert [m.size for m in laid.messages] == [m.size for m in together.messages]


@pytest.mark.parametrize("kind", [PIECE, MORE])
def test_a_letter_of_masked_rows_out_of_order_ends_the_round(kind, monkeypatch):
    monkeypatch.setattr("privfl.hybrid.two_server.row_letters.LETTER", 1)
    scene = Scene(TwoServer(Mean(weighted=False), bits=10), n=3, d=25_000)
    changed = []

    def skips(body):
        if body[4] != kind or changed:
            return body
        changed.append(True)
        number, content = scene.channel.round(scene.plan).read(body, kind)
        return scene.channel.round(scene.plan).write(kind, number + 1, content)

    liar = "server" if kind == PIECE else "server/1"
    outcome = scene.run(Faults(malformed={liar: skips}))
    assert changed
    assert outcome.opened is None
    assert any("than the next" in str(abort) for abort in outcome.aborts.values())


def test_no_party_or_member_prints_or_pickles_its_secrets():
    scene = Scene()
    parties = [
        scene.server.enter(scene.plan),
        scene.all.clients[1].enter(scene.plan, scene.updates[1]),
    ]
    parties += [helper.enter(scene.plan) for helper in scene.helpers.values()]
    for thing in (*parties, scene.server, *scene.helpers.values()):
        assert "holds secrets" in repr(thing)
        assert isinstance(thing, KeepsSecrets)


# ---- who reads what


@pytest.mark.parametrize(
    "channel",
    [
        TwoServer(Mean()),
        TwoServer(Krum(f=2, m=4), reveal="scores"),
        TwoServer(toward(torch.ones(130)), reveal="aggregate"),
    ],
    ids=["mean", "krum", "fltrust"],
)
def test_one_server_reads_the_result_alone_and_any_two_of_the_three_read_every_row(channel):
    scene = Scene(channel)
    outcome = scene.run(Faults(silent_from={"client/9": 0}), keep_bodies=True)
    members = {**scene.helpers, "server": scene.server}

    def reads(*who):
        return channel.decode(
            outcome.received(who), {name: members[name] for name in who if name in members}
        )

    assert torch.equal(reads("server").value, opened(outcome).what.value)
    assert torch.equal(reads("server", "client/3").value, opened(outcome).what.value)
    for alone in ("server/1", "dealer", "client/3"):
        assert reads(alone) is None
    everybody = {"server", "server/1", "dealer", *(client_party(i) for i in scene.plan.cohort)}
    assert (
        channel.decode(outcome.received(everybody), {}) is None
    )  # who only taps the wires reads nothing
    for pair in (("server", "server/1"), ("server", "dealer"), ("server/1", "dealer")):
        rows = reads(*pair)
        assert isinstance(rows, Rows)
        assert rows.ids == tuple(range(1, 9))
        for who, row in zip(rows.ids, rows.values, strict=True):
            sent = scene.updates[who].delta
            assert torch.allclose(
                row, sent / sent.norm() if channel.recipe.traits.normalised else sent, atol=1e-4
            )


GARBLES = {
    "cut": lambda body: bytes(body[: len(body) // 2]),
    "a header alone": lambda body: bytes(body[:28]),
    "longer": lambda body: bytes(body) + b"x",
    "its end flipped": lambda body: bytes(body[:-1]) + bytes([body[-1] ^ 1]),
    "a middle flipped": lambda body: bytes(body[:29]) + bytes(b ^ 0xFF for b in body[29:]),
}


@pytest.mark.parametrize("garble", GARBLES)
@pytest.mark.parametrize("who", ["client/3", "server", "server/1", "dealer"])
@pytest.mark.parametrize("channel", [TwoServer(), SignTwoServer(toward(torch.ones(130)))])
def test_a_coalition_reads_past_messages_that_are_none(channel, who, garble):
    scene = Scene(channel)
    outcome = scene.run(Faults(malformed={who: GARBLES[garble]}), keep_bodies=True)
    members = {**scene.helpers, "server": scene.server}
    for size in (1, 2, 3):
        for some in itertools.combinations(members, size):
            read = scene.channel.decode(outcome.received(some), {p: members[p] for p in some})
            if "server" in some and size == 1 and outcome.opened is not None:
                assert torch.equal(read.value, outcome.opened.what.value)
            if who == "client/3" and size > 1:
                assert set(range(1, 10)) - {3} <= set(read.ids)


def test_a_letter_of_an_earlier_round_hides_nothing_from_what_the_server_reads():
    scene = Scene()
    first = scene.run(keep_bodies=True)
    old = next(m.body for m in first.messages if (m.sender, m.receiver) == ("client/1", "server"))
    scene.plan = RoundPlan(1, scene.plan.cohort, scene.d, l2=1.0, session=b"test")
    outcome = scene.run(Faults(malformed={"client/1": lambda body: old}), keep_bodies=True)
    assert 1 not in opened(outcome).survivors
    read = scene.channel.decode(outcome.received(["server"]), {"server": scene.server})
    assert read is not None
    assert torch.equal(read.value, outcome.opened.what.value)


def test_a_client_that_claims_anothers_place_hides_nothing_from_a_coalition():
    def second(body):
        return bytes(body[:8]) + (1).to_bytes(4, "little") + bytes(body[12:])

    scene = Scene()
    outcome = scene.run(
        Faults(malformed={"client/1": second, "client/9": second}), keep_bodies=True
    )
    members = {**scene.helpers, "server": scene.server}
    rows = scene.channel.decode(outcome.received(["server", "server/1"]), members)
    expected = scene.rows(rows.ids).values.float()
    assert rows.ids == opened(outcome).survivors == tuple(range(2, 9))
    assert torch.allclose(rows.values, expected, atol=1e-6)


@pytest.mark.parametrize(
    "told", [b"client/99\tx", b"client/2\tx", b"client/5\t\x1b[2J", b"\xff\tx"]
)
def test_a_second_server_that_excludes_a_stranger_or_whom_it_heard_ends_the_round(told):
    scene = Scene()
    silent = {"client/5": 0}

    def names(body):
        return bytes(body) + told if body[4] == HELD else body

    outcome = scene.run(Faults(silent, malformed={"server/1": names}))
    assert outcome.opened is None
    assert outcome.aborts["server"].letter_of == "server/1"
    assert "reasons are no" in str(outcome.aborts["server"]) or "it excludes" in str(
        outcome.aborts["server"]
    )


def test_what_the_server_remembers_of_a_round_does_not_grow_with_the_model():
    sizes = []
    for d in (130, 3000):
        scene = Scene(TwoServer(toward(torch.ones(d)), reveal="aggregate"), d=d)
        opened(scene.run())
        sizes.append(
            len(seal_state(scene.server.kept[scene.channel.round(scene.plan).tag], StateKey()).body)
        )
    assert abs(sizes[1] - sizes[0]) < 100


def test_what_is_disclosed_is_what_the_mode_says():
    named = {
        (Mean(weighted=False), "selection"): {"clients", "accepted"},
        (Mean(weighted=False), "scores"): {"clients", "accepted", "norms"},
        (Krum(f=2, m=4), "scores"): {"clients", "accepted", "gram"},
        (Krum(f=2, m=4), "selection"): {"clients", "accepted", "selected"},
        (Krum(f=2, m=4), "aggregate"): {"clients", "accepted", "count"},
        (toward(torch.ones(130)), "selection"): {"clients", "accepted", "selected"},
        (toward(torch.ones(130)), "aggregate"): {"clients", "accepted", "count"},
        (toward(torch.ones(130)), "scores"): {"clients", "accepted", "norms", "trust"},
        (CosineFilter(0.0, lambda rows, context: torch.ones(130)), "scores"): {
            "clients",
            "accepted",
            "norms",
            "cosines",
        },
    }
    for (rule, reveal), names in named.items():
        assert set(opened(Scene(TwoServer(rule, reveal=reveal)).run()).disclosed) == names


@pytest.mark.parametrize("rule", [Krum(f=2, m=4), toward(torch.ones(130))], ids=["krum", "fltrust"])
def test_a_refused_liar_cannot_have_the_others_products_with_its_own_row_opened(rule):
    scene = Scene(TwoServer(rule, reveal="scores"))
    seen = []
    probe = [1 << 30] + [0] * 129  # its products with other rows would be their first coordinates
    faults = Faults(byzantine={"client/4": lambda party: SendsIntegers(party, probe)})
    out = opened(scene.run(faults, wrap=lambda party: seen.append(party) or party))
    assert out.disclosed["accepted"].tolist() == [i != 4 for i in scene.plan.cohort]
    for machine in (party.machine for party in seen if hasattr(party, "machine")):
        for name, register in machine.public.items():
            assert 9 not in register.shape or name in (WEIGHTS, PASSED), name


@pytest.mark.parametrize("sign", [1, -1])
def test_all_that_a_server_is_sent_before_the_choice_is_uniform_whatever_the_updates_are(sign):
    scene = Scene(TwoServer(Krum(f=3, m=4), reveal="aggregate"), n=16)
    for who in (1, 2, 3):
        scene.lie(who, sign * scene.updates[who].delta)
    outcome = scene.run(keep_bodies=True)
    now = scene.channel.round(scene.plan)
    key = scene.server.kept[now.tag].key
    for sender, label in (("server", b"1"), ("server/1", b"2")):
        steps = [x.body for x in outcome.messages if x.sender == sender and x.body[4] == STEPS]
        frames = b"".join(
            open_steps(now, key, label, body)[8:] for body in steps[8:-6]
        )  # after the checks, before anything opens
        counts = np.bincount(np.frombuffer(frames, np.uint8), minlength=256)
        assert len(frames) > 50_000
        assert stats.chisquare(counts).pvalue > 1e-7
        assert set(counts[counts == 0]) == set()
    vector = next(
        x.body for x in outcome.messages if x.sender == "client/1" and x.receiver == "server"
    )[-5 * scene.d :]
    assert np.bincount(np.frombuffer(vector, np.uint8), minlength=256).max() < 20


@REVEALS
def test_a_reference_that_would_read_one_coordinate_of_everybody_is_refused_by_the_second_server(
    reveal,
):
    scene = Scene(TwoServer(toward(torch.eye(130)[7]), reveal=reveal))
    outcome = scene.run()
    assert outcome.opened is None
    assert "single coordinate" in str(outcome.aborts["server/1"])


def test_masks_are_fresh_when_a_round_is_tried_again():
    scene = Scene(TwoServer(Mean(weighted=False)))
    sent = []
    for _ in range(2):
        outcome = scene.run(keep_bodies=True)
        sent.append(
            [
                x.body[60:]
                for x in outcome.messages
                if x.sender in ("client/1", "server", "dealer") and x.size > 500
            ]
        )
    for one, other in zip(*sent, strict=True):
        same = (
            np.frombuffer(one, np.uint8)[: len(other)] == np.frombuffer(other, np.uint8)[: len(one)]
        )
        assert same[100:].mean() < 0.1


# ---- settings


def test_rules_that_would_open_a_single_client_are_refused():
    with pytest.raises(ConfigError, match="min_selected"):
        TwoServer(Krum(f=1, m=1))
    with pytest.raises(ConfigError, match="min_selected must be at least 2"):
        TwoServer(Krum(f=1, m=1), reveal="scores", min_selected=1)
    with pytest.raises(ConfigError, match="colluders=2"):
        TwoServer(Krum(f=2, m=3), colluders=2)
    alone = Scene()
    for who in range(2, 10):
        alone.lie(who, -alone.updates[who].delta)
    hidden = Scene(
        TwoServer(CosineFilter(0.0, lambda rows, context: alone.updates[1].delta), reveal="scores")
    )
    hidden.updates = alone.updates
    outcome = hidden.run()
    assert outcome.opened is None
    assert "would open a client" in str(outcome.aborts["server"])


def test_impossible_settings_are_refused_with_the_way_out():
    with pytest.raises(ConfigError, match="previous"):
        TwoServer(CosineFilter())
    with pytest.raises(ConfigError, match=r"bound=0\.5: leave it out"):
        TwoServer(CosineFilter(0.0, lambda rows, context: torch.ones(130), bound=0.5))
    with pytest.raises(ConfigError, match="weighted=False"):
        TwoServer(Mean(), noise=DistributedSkellam(1.0))
    with pytest.raises(ConfigError, match="norms"):
        TwoServer(Mean(weighted=False), noise=DistributedSkellam(1.0), reveal="scores")
    with pytest.raises(ConfigError, match="lower bits"):
        TwoServer(Mean(), ring=32, bits=16).round(RoundPlan(0, (1, 2), d=10, l2=1.0))
    with pytest.raises(ConfigError, match="finite bound"):
        TwoServer().round(RoundPlan(0, (1, 2), d=10, l2=math.inf))
    with pytest.raises(ConfigError, match="reveal: scores"):
        TwoServer(Krum(f=2, m=4)).round(RoundPlan(0, tuple(range(200)), d=10, l2=1.0))
    with pytest.raises(ConfigError, match="at least 2"):
        TwoServer().round(RoundPlan(0, (1,), d=10, l2=1.0))
    scene = Scene(TwoServer(toward(torch.ones(130)), reveal="scores"))
    with pytest.raises(ConfigError, match="inform"):
        scene.server.enter(scene.plan)


def test_a_root_update_that_is_not_finite_ends_the_round_in_words():
    scene = Scene(TwoServer(toward(torch.full((130,), math.nan)), reveal="scores"))
    outcome = scene.run()
    assert outcome.opened is None
    assert "NaN" in str(outcome.aborts["server"])


def test_the_ring_is_the_smallest_that_proves_the_norms():
    def ring(rule, d=1000, n=50, **more):
        return TwoServer(rule, **more).round(RoundPlan(0, tuple(range(n)), d=d, l2=1.0)).ring

    assert ring(Krum(f=2, m=4), bits=16, reveal="scores") == 40
    assert ring(Mean(), bits=11) == 32
    assert ring(Mean(), bits=20) == 64
    for tried in RINGS:
        rows = projections(1 << 11, tried, 1000, 40)
        assert rows is not None
        assert passes(1 << 11, tried, 1000) ** rows <= 2.0**-40


# ---- noise


def test_each_server_adds_the_whole_noise_and_the_event_counts_one():
    noise = DistributedSkellam(2.0)
    channel = TwoServer(Mean(weighted=False), noise=noise, bits=10)
    scene = Scene(channel, d=4000)
    what = opened(scene.run(keep_bodies=True)).what
    integers, scale = scene.quantised(scene.plan.cohort)
    residue = what.value.double().numpy() * scale - integers.sum(axis=0)
    unit = channel.round(scene.plan).longest
    event = channel.noise_event(scene.plan, 9)
    assert event.parameters["variance"] == (2.0 * unit) ** 2
    assert 0.9 < residue.var() / (2 * event.parameters["variance"]) < 1.1
    assert TwoServer().noise_event(scene.plan, 9) is None


def test_the_first_server_can_take_off_its_own_noise_and_no_more():
    channel = TwoServer(Mean(weighted=False), noise=DistributedSkellam(2.0), bits=10)
    scene = Scene(channel, d=4000)
    outcome = scene.run(keep_bodies=True)
    seen = channel.decode(outcome.received(["server"]), {"server": scene.server})
    integers, scale = scene.quantised(scene.plan.cohort)
    residue = seen.value.double().numpy() * scale - integers.sum(axis=0)
    assert 0.9 < residue.var() / channel.noise_event(scene.plan, 9).parameters["variance"] < 1.1
