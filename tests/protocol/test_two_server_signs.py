"""Rows of signs between two servers: weighed by Hamming distance as in plaintext, whatever bits a
liar sends, and read by nobody alone.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from scipy import stats

from privfl.aggregators import FLTrust
from privfl.core import (
    Bounded,
    Channel,
    ConfigError,
    Context,
    Faults,
    RoundPlan,
    Rows,
    Total,
    client_party,
    drive,
)
from privfl.crypto.enrolled import Enrolled
from privfl.hybrid.two_server import SignTwoServer
from privfl.hybrid.two_server.parameters import STEPS
from privfl.hybrid.two_server.sealing import open_steps

D = 203  # the last byte has five bits of padding
G = torch.Generator().manual_seed(8)
ROOT = torch.randn(D, generator=G)
CHANNEL: Channel[Total] = SignTwoServer(FLTrust(lambda context: ROOT))


@dataclass
class Scene:
    channel: SignTwoServer = field(
        default_factory=lambda: SignTwoServer(FLTrust(lambda context: ROOT))
    )
    n: int = 8
    runs: int = 0

    def __post_init__(self):
        self.all = Enrolled.fresh(self.channel, range(1, self.n + 1))
        self.helpers, self.server = dict(self.all.helpers), self.all.server
        self.plan = RoundPlan(0, tuple(range(1, self.n + 1)), D, l2=2.0, session=b"signs")
        draw = torch.Generator().manual_seed(4)
        rows = {who: ROOT + 2 * torch.randn(D, generator=draw) for who in self.plan.cohort}
        rows[2] = -rows[2]
        self.updates = {who: Bounded(who, 1.9 * row / row.norm(), 2.0) for who, row in rows.items()}

    def run(self, faults=Faults(), keep_bodies=False, wrap=lambda party: party):
        if self.runs:  # server/1 enters a round once
            self.plan = replace(self.plan, session=b"signs" + bytes([self.runs]))
        self.runs += 1
        self.server.inform(Context(self.plan, torch.zeros(D), torch.Generator()))
        parties = {
            client_party(i): wrap(self.all.clients[i].enter(self.plan, u))
            for i, u in self.updates.items()
        }
        parties |= {who: wrap(helper.enter(self.plan)) for who, helper in self.helpers.items()}
        return drive(wrap(self.server.enter(self.plan)), parties, faults, keep_bodies=keep_bodies)

    def plain(self, who, threshold=0.5):
        """The weights and the weighted mean of signs, written out."""
        signs = np.array([[1 if float(v) >= 0 else -1 for v in self.updates[i].delta] for i in who])
        root = np.array([1 if float(v) >= 0 else -1 for v in ROOT])
        weights = np.maximum(int(threshold * D) - (signs != root).sum(axis=1), 0)
        mean = weights @ signs / max(weights.sum(), 1) * 2.0 / np.sqrt(D)
        return weights, torch.from_numpy(mean)


REVEALS = pytest.mark.parametrize(
    ("reveal", "security"),
    [(r, s) for r in ("scores", "aggregate") for s in ("semi_honest", "malicious")],
)


def shown(reveal, **more):
    return Scene(SignTwoServer(FLTrust(lambda context: ROOT), reveal=reveal, **more))


@REVEALS
@pytest.mark.parametrize("threshold", [0.42, 0.5, 1.0])
def test_the_result_is_the_plain_weighted_mean_of_signs(reveal, security, threshold):
    scene = shown(reveal, threshold=threshold, security=security)
    out = scene.run().opened
    weights, mean = scene.plain(scene.plan.cohort, threshold)
    assert torch.allclose(out.what.mean().double(), mean, atol=1e-7)
    assert (out.what.weight, out.what.count) == (float(weights.sum()), int((weights > 0).sum()))
    if reveal == "scores":
        assert out.disclosed["weights"].tolist() == weights.tolist()
        assert set(out.disclosed) == {"clients", "distances", "weights"}
    else:
        assert set(out.disclosed) == {"clients", "count"}


@REVEALS
def test_bits_behind_the_last_sign_count_for_nothing(reveal, security):
    scene = shown(reveal, security=security)
    honest = scene.run().opened.what

    padded = []

    def pad(party):
        padded.append(party.who)
        party.vector[-1] ^= 0b11111000
        return party

    lied = scene.run(Faults(byzantine={"client/1": pad, "client/3": pad})).opened
    assert torch.equal(lied.what.value, honest.value)
    assert padded == [1, 3]


@REVEALS
def test_a_liar_can_send_no_more_than_a_row_of_signs(reveal, security):
    scene = shown(reveal, security=security)
    scene.updates[3] = Bounded.claimed(3, 1e6 * torch.sign(ROOT) * torch.arange(1, D + 1), 2.0)
    out = scene.run().opened
    _, mean = scene.plain(scene.plan.cohort)
    assert torch.allclose(out.what.mean().double(), mean, atol=1e-7)
    assert float(out.what.mean().norm()) <= 2.0


@REVEALS
def test_dropouts_and_garbage_leave_out_their_clients_alone(reveal, security):
    scene = shown(reveal, security=security)
    out = scene.run(
        Faults(silent_from={"client/5": 0}, malformed={"client/6": lambda b: bytes(b[:-1])})
    ).opened
    who = [1, 2, 3, 4, 7, 8]
    assert out.survivors == tuple(who)
    assert torch.allclose(out.what.mean().double(), scene.plain(who)[1], atol=1e-7)
    assert "client/6" in out.excluded


@pytest.mark.parametrize("security", ["semi_honest", "malicious"])
def test_a_change_between_the_servers_ends_the_round(security):
    scene = shown("aggregate", security=security)
    whole = scene.run().opened.what
    for sender in ("server", "server/1", "dealer"):
        outcome = scene.run(
            Faults(malformed={sender: lambda b: bytes(b[:-1]) + bytes([b[-1] ^ 1])})
        )
        assert outcome.opened is None or torch.equal(outcome.opened.what.value, whole.value)
        assert outcome.aborts


@REVEALS
def test_every_party_can_sleep_between_exchanges(reveal, security, restless):
    scene = shown(reveal, security=security)
    assert torch.equal(scene.run(wrap=restless).opened.what.value, scene.run().opened.what.value)


@REVEALS
def test_one_server_reads_the_result_alone_and_two_of_three_every_row_of_signs(reveal, security):
    scene = shown(reveal, security=security)
    outcome = scene.run(keep_bodies=True)
    members = {**scene.helpers, "server": scene.server}

    def reads(*who):
        return scene.channel.decode(outcome.received(who), {name: members[name] for name in who})

    assert torch.equal(reads("server").value, outcome.opened.what.value)
    assert reads("server/1") is None
    assert reads("dealer") is None
    for pair in (("server", "server/1"), ("server", "dealer"), ("server/1", "dealer")):
        rows = reads(*pair)
        assert isinstance(rows, Rows)
        for who, row in zip(rows.ids, rows.values, strict=True):
            assert torch.equal(row > 0, scene.updates[who].delta >= 0)


def test_what_the_servers_exchange_before_the_weights_is_uniform():
    scene = Scene(n=40)
    outcome = scene.run(keep_bodies=True)
    now = scene.channel.round(scene.plan)
    key = scene.server.kept[now.tag].key
    for sender, label in (("server", b"1"), ("server/1", b"2")):
        first = next(x.body for x in outcome.messages if x.sender == sender and x.body[4] == STEPS)
        bits = np.frombuffer(open_steps(now, key, label, first), np.uint8)[8 : 8 + 40 * 26]
        assert stats.binomtest(int(np.bitwise_count(bits).sum()), 8 * len(bits)).pvalue > 1e-6


def test_too_few_that_count_and_impossible_settings_are_refused():
    scene = Scene(SignTwoServer(FLTrust(lambda context: scene.updates[1].delta), threshold=0.02))
    outcome = scene.run()
    assert outcome.opened is None
    assert "would open a client" in str(outcome.aborts["server"])
    nobody = Scene(SignTwoServer(FLTrust(lambda context: ROOT), threshold=0.0))
    assert torch.equal(nobody.run().opened.what.mean(), torch.zeros(D))
    zero = Scene(SignTwoServer(FLTrust(lambda context: torch.zeros(D))))
    assert "no signs" in str(zero.run().aborts["server"])
    with pytest.raises(ConfigError, match="fixed"):
        SignTwoServer(FLTrust(lambda context: ROOT, fixed=True))
    with pytest.raises(ConfigError, match="ask fewer"):
        Scene().channel.round(RoundPlan(0, tuple(range(2000)), d=1_000_000, l2=1.0))
