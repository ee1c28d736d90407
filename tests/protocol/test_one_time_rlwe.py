"""One-time-pad RLWE in whole rounds: exact sums, drop-outs, parties that sleep, what coalitions
compute, refusals at its limits.
"""

import pickle
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from privfl.core import (
    OUTSIDER,
    BadUpdate,
    Bounded,
    ConfigError,
    Faults,
    RoundPlan,
    Rows,
    SecretsStay,
    StateKey,
    Total,
    client_party,
    drive,
    drive_all,
    seal_state,
    unseal_state,
)
from privfl.crypto import OneTimeRLWE
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.he.mprlwe.ring import N
from privfl.crypto.he.onetime.pad import ShortStream, empty, unmasked
from privfl.crypto.he.wire import SignedMessage
from privfl.crypto.post import drive_signed, round_scene

CHANNELS = {
    "2 of 3": OneTimeRLWE(),
    "3 of 3": OneTimeRLWE(threshold=3),
    "3 of 5": OneTimeRLWE(holders=5, threshold=3),
    "2 of 2, gaussian": OneTimeRLWE(holders=2, secrets="gaussian"),
    "20 bits": OneTimeRLWE(bits=20),
    "stochastic": OneTimeRLWE(rounding="stochastic"),
}
WEIGHTS = (1.0, 2.0, 0.5, 1.5)


class Scene:
    """The members of a channel for four clients, set up."""

    def __init__(self, channel, n=4, d=50, setup_faults=Faults()):
        self.channel, self.n, self.d, self.number = channel, n, d, 100
        self.all = Enrolled.fresh(channel, range(n))
        self.members = dict(self.all.members)
        self.set_up(setup_faults)
        rows = torch.randn(n, d, generator=torch.Generator().manual_seed(5))
        self.rows = 0.9 * rows / rows.norm(dim=1, keepdim=True)

    def set_up(self, faults=Faults()):
        self.setup = drive_all(
            {who: member.set_up() for who, member in self.members.items()}, faults
        )

    def plan(self, number=0):
        cohort = tuple(range(self.n))
        return RoundPlan(number, cohort, self.d, l2=1.0, max_weight=2.0, session=b"test")

    def parties(self, plan, restless=None):
        wrap = (lambda party: restless(party, self.all.directory)) if restless else lambda p: p
        out = {who: wrap(self.members[who].enter(plan)) for who in self.channel.helpers}
        for i in plan.cohort:
            update = Bounded(i, self.rows[i], 1.0, WEIGHTS[i % 4])
            out[client_party(i)] = wrap(self.members[client_party(i)].enter(plan, update))
        return wrap(self.members["server"].enter(plan)), out

    def play(self, faults=Faults(), restless=None, driver=None, plan=None):
        self.number += 1
        server, others = self.parties(plan or self.plan(self.number), restless)
        return drive(server, others, faults, keep_bodies=True, driver=driver)

    def exact(self, survivors):
        return sum(WEIGHTS[i % 4] * self.rows[i] for i in survivors)

    def view(self, outcome, *who):
        seen = self.members if OUTSIDER in who else who
        return self.channel.decode(
            outcome.received(seen), {w: m for w, m in self.members.items() if w in who}
        )

    def assert_opened(self, outcome, survivors):
        assert outcome.opened is not None, outcome.aborts
        assert outcome.opened.survivors == tuple(survivors)
        total = outcome.opened.what
        assert total.count == len(survivors)
        assert total.weight == pytest.approx(sum(WEIGHTS[i % 4] for i in survivors), abs=2e-3)
        assert (total.value - self.exact(survivors)).abs().max() < 4e-4


@pytest.fixture(scope="module")
def scenes():
    return {name: Scene(channel) for name, channel in CHANNELS.items()}


@pytest.fixture
def scene(request, scenes):
    return scenes[request.param]


every_scene = pytest.mark.parametrize("scene", CHANNELS, indirect=True)


@every_scene
def test_the_weighted_sum_is_right_and_every_party_can_sleep_between_exchanges(scene, restless):
    outcome = scene.play()
    scene.assert_opened(outcome, range(4))
    assert outcome.opened.excluded == {}
    scene.assert_opened(scene.play(restless=restless), range(4))


@every_scene
def test_members_survive_sleep_and_refuse_to_be_pickled(scene):
    key = StateKey()
    for who, member in scene.members.items():
        scene.members[who] = unseal_state(
            seal_state(member, key), key, type(member), lent=scene.all.directory
        )
        with pytest.raises(SecretsStay):
            pickle.dumps(member)
        assert "secrets" in repr(member)
    scene.assert_opened(scene.play(), range(4))


def test_a_client_sends_one_message_and_nothing_after_it():
    scene = Scene(OneTimeRLWE(), d=1000)
    outcome = scene.play()
    for i in range(4):
        sent = [m for m in outcome.messages if m.sender == client_party(i)]
        assert [m.receiver for m in sent] == ["server"]
        assert sent[0].exchange == 1


def test_a_million_values_take_three_bytes_each_and_26_kilobytes():
    channel = OneTimeRLWE()
    plan = RoundPlan(0, tuple(range(10)), d=1_000_000, l2=1.0)
    assert channel.layout(plan).size <= 3.1 * plan.d
    small = Scene(channel, n=10, d=10)
    sent = next(m for m in small.play().messages if m.sender == "client/0")
    assert sent.size - channel.layout(small.plan()).size <= 26_000


@every_scene
def test_a_silent_client_and_a_garbled_one_are_left_out_by_name(scene):
    def flip(body):
        return bytes(body[:-9]) + bytes([body[-9] ^ 1]) + bytes(body[-8:])

    outcome = scene.play(Faults(silent_from={"client/0": 0}, malformed={"client/2": flip}))
    scene.assert_opened(outcome, (1, 3))
    assert "not what was signed" in outcome.opened.excluded["client/2"]


@every_scene
@pytest.mark.parametrize("exchange", [0, 1, 2, 3, 4])
def test_clients_may_fall_silent_at_any_stage(scene, exchange):
    for gone in (("client/1",), ("client/0", "client/3")):
        outcome = scene.play(Faults(silent_from=dict.fromkeys(gone, exchange)))
        left = [i for i in range(4) if exchange > 0 or client_party(i) not in gone]
        scene.assert_opened(outcome, left)


@pytest.mark.parametrize("cut", [0, 3, 60, 300, 40_000, -1])
def test_a_truncated_message_is_refused_by_name(scenes, cut):
    outcome = scenes["2 of 3"].play(Faults(malformed={"client/1": lambda body: bytes(body[:cut])}))
    scenes["2 of 3"].assert_opened(outcome, (0, 2, 3))
    assert "client/1" in outcome.opened.excluded


@every_scene
def test_a_message_that_comes_late_is_not_in_the_sum_and_its_client_is_named(scene):
    outcome = scene.play(Faults(late={"client/3": 1}))
    scene.assert_opened(outcome, (0, 1, 2))
    assert "after the sum was made" in outcome.opened.excluded["client/3"]


@every_scene
def test_duplicated_mail_changes_nothing(scene):
    everybody = {"client/0", "server", "decryptor/0", "decryptor/1"}
    scene.assert_opened(scene.play(Faults(duplicated=everybody)), range(4))


@every_scene
def test_a_message_of_another_round_or_session_or_part_is_refused(scene):
    plan = scene.plan(71)
    strangers = [scene.plan(70), replace(plan, session=b"another"), replace(plan, part="control")]
    for stranger in strangers:
        server, others = scene.parties(plan)
        others["client/0"] = scene.members["client/0"].enter(
            stranger, Bounded(0, scene.rows[0], 1.0)
        )
        for who in scene.channel.helpers:
            scene.members[who].memory.opened.clear()
        outcome = drive(server, others)
        scene.assert_opened(outcome, (1, 2, 3))
        assert "client/0" in outcome.opened.excluded


def test_too_few_clients_stay_closed():
    scene = Scene(OneTimeRLWE(min_clients=3))
    outcome = scene.play(Faults(silent_from={"client/0": 0, "client/1": 0}))
    assert outcome.opened is None
    assert "sums of fewer than 3 stay closed" in str(outcome.aborts["server"])


@every_scene
@pytest.mark.parametrize("exchange", [0, 1, 2, 3, 4])
def test_a_round_survives_the_decryptors_that_it_can_spare_and_no_more(scene, exchange):
    names, t = scene.channel.decryptors, scene.channel.threshold
    spare = len(names) - t
    for gone in combinations(names, spare):
        outcome = scene.play(Faults(silent_from=dict.fromkeys(gone, exchange)))
        scene.assert_opened(outcome, range(4))
    outcome = scene.play(Faults(silent_from=dict.fromkeys(names[: spare + 1], exchange)))
    assert outcome.opened is None
    if spare + 1 < len(names):
        assert f"{t - 1} of {len(names)} decryptors are there" in str(outcome.aborts["server"])


def test_a_decryptor_that_missed_the_set_up_is_done_without():
    scene = Scene(OneTimeRLWE(), setup_faults=Faults(silent_from={"decryptor/1": 0}))
    outcome = scene.play()
    scene.assert_opened(outcome, range(4))
    assert not any("lied" in why for why in outcome.opened.excluded.values())


def test_a_client_that_heard_too_few_decryptors_says_so():
    scene = Scene(OneTimeRLWE(), setup_faults=Faults(silent_from={"client/1": 0}))
    outcome = scene.play()
    scene.assert_opened(outcome, (0, 2, 3))
    assert "heard 0 of 3 decryptors" in str(outcome.aborts["client/1"])


@every_scene
def test_letters_may_be_signed_and_sealed(scene):
    plan = scene.plan(900)

    def driver(parties, faults, *, keep_bodies):
        return drive_signed(
            parties,
            faults,
            keys=scene.all.keys,
            directory=scene.all.directory,
            scene=round_scene([plan]),
            keep_bodies=keep_bodies,
        )

    outcome = scene.play(driver=driver, plan=plan)
    scene.assert_opened(outcome, range(4))
    assert isinstance(scene.view(outcome, "server"), Total)


# ---- what coalitions compute


@every_scene
def test_server_and_one_decryptor_too_few_and_all_clients_but_two_read_no_row(scene):
    outcome, names = scene.play(), scene.channel.decryptors
    for few in combinations(names, scene.channel.threshold - 1):
        seen = scene.view(outcome, "server", *few, "client/0", "client/1")
        assert isinstance(seen, Total)
        assert (seen.value - scene.exact(range(4))).abs().max() < 4e-4
        assert scene.view(outcome, *few, "client/0", "client/1") is None


@every_scene
def test_server_and_enough_decryptors_read_every_row(scene):
    outcome = scene.play()
    for enough in combinations(scene.channel.decryptors, scene.channel.threshold):
        seen = scene.view(outcome, "server", *enough)
        assert isinstance(seen, Rows)
        order = sorted(range(4), key=seen.ids.__getitem__)
        assert (seen.values[order] - scene.rows).abs().max() < 4e-4
        assert seen.weights[order].tolist() == pytest.approx(WEIGHTS, abs=1e-3)


def test_a_tap_on_the_servers_wires_reads_no_row_with_all_decryptors_and_their_keys():
    """Contributions are sealed to the server: without its key nobody sees one."""
    scene = Scene(OneTimeRLWE())
    outcome = scene.play()
    everybody_else = [who for who in scene.members if who not in ("server", "client/3")]
    assert scene.view(outcome, OUTSIDER, *everybody_else) is None


@pytest.mark.parametrize("place", [0, 40, -1], ids=["key", "content", "tag"])
def test_a_contribution_changed_on_the_way_is_refused_by_name_whichever_byte(place):
    scene = Scene(OneTimeRLWE())

    def changed(body):
        message = SignedMessage.read(body)
        box = bytearray(message.parts[0])
        box[place] ^= 1
        return replace(message, parts=(bytes(box), *message.parts[1:])).to_bytes()

    outcome = scene.play(Faults(malformed={"client/2": changed}))
    scene.assert_opened(outcome, (0, 1, 3))
    why = {0: "not what was signed", 40: "does not open", -1: "not what was signed"}
    assert why[place] in outcome.opened.excluded["client/2"]


@every_scene
def test_all_decryptors_and_a_tap_on_every_wire_read_nothing_without_the_other(scene):
    outcome = scene.play()
    assert scene.view(outcome, *scene.channel.decryptors) is None
    assert scene.view(outcome, OUTSIDER) is None
    assert scene.view(outcome, OUTSIDER, "client/0", "client/1", "client/2") is None


def test_no_two_contributions_share_a_key_and_no_two_rounds_a_public_polynomial():
    scene = Scene(OneTimeRLWE(), d=10)
    topics = [scene.channel.topic(scene.plan(number)) for number in (1, 2)]
    topics.append(scene.channel.topic(replace(scene.plan(1), part="control")))
    topics.append(scene.channel.topic(replace(scene.plan(1), session=b"another")))
    zero, layout = np.zeros(N, dtype=np.int64), scene.channel.layout(scene.plan(1))
    total = empty(layout)
    total[:, 1] += np.arange(layout.blocks * N, dtype=np.uint64).reshape(layout.blocks, N)
    plan, update = scene.plan(1), Bounded(0, scene.rows[0], 1.0)
    bodies = {
        bytes(scene.members["client/0"].enter(plan, update).step({})["server"])[-30_000:]
        for _ in range(3)
    }
    assert len(bodies) == 3
    assert len({(topic.facts, topic.number) for topic in topics}) == 4
    assert unmasked(total, zero, topics[0], layout) is None


def test_short_vectors_have_the_distribution_that_is_stated():
    for secrets, deviation, most in (("binomial", 12**0.5, 24), ("gaussian", 6.4, 57)):
        drawn = ShortStream(secrets).take(100)
        assert drawn.shape == (100, N)
        assert abs(drawn.astype(float).std() / deviation - 1) < 0.01
        assert abs(drawn.astype(float).mean()) < 0.05
        assert np.abs(drawn).max() <= most


# ---- refusals


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"holders": 4, "threshold": 2}, "more than half of the holders"),
        ({"holders": 3, "threshold": 4}, "threshold"),
        ({"holders": 10}, "holders"),
        ({"threshold": 1}, "threshold"),
        ({"bits": 25}, "bits"),
        ({"min_clients": 1}, "min_clients"),
        ({"corrupt": 1.0}, "corrupt"),
        ({"secrets": "ternary"}, "secrets"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings, word):
    with pytest.raises(ConfigError, match=word):
        OneTimeRLWE(**settings)


def test_a_cohort_whose_keys_do_not_fit_the_field_of_the_shares_is_refused():
    def plan(n):
        return RoundPlan(0, tuple(range(n)), d=10, l2=1.0)

    channel = OneTimeRLWE()
    assert channel.layout(plan(1364)).slots == 2
    assert channel.layout(plan(1300)).slots == 3
    with pytest.raises(ConfigError, match="the one-time keys of 1366 clients sum to up to 32784"):
        channel.layout(plan(1366))
    assert OneTimeRLWE(secrets="gaussian").layout(plan(10_000)).slots == 2
    with pytest.raises(ConfigError, match="needs digits of 33 bits, and there are 32"):
        OneTimeRLWE(bits=24).layout(plan(300))
    scene = Scene(channel)
    crowd = replace(scene.plan(), cohort=tuple(range(1400)))
    for enter in (
        lambda: scene.members["client/0"].enter(crowd, Bounded(0, scene.rows[0], 1.0)),
        lambda: scene.members["server"].enter(crowd),
        lambda: scene.members["decryptor/0"].enter(crowd),
    ):
        with pytest.raises(ConfigError, match="Ask fewer clients"):
            enter()


def test_a_cohort_smaller_than_two_more_than_the_corrupt_is_refused():
    for channel, n in ((OneTimeRLWE(), 1), (OneTimeRLWE(corrupt=0.8), 5), (OneTimeRLWE(), 0)):
        with pytest.raises(ConfigError, match="a sum opens from"):
            channel.layout(RoundPlan(0, tuple(range(n)), d=10, l2=1.0))
    with pytest.raises(ConfigError, match="bound"):
        OneTimeRLWE().layout(RoundPlan(0, (0, 1), d=10, l2=float("inf")))


def test_updates_of_the_wrong_kind_are_refused_by_name():
    scene = Scene(OneTimeRLWE())
    party = scene.members["client/3"].enter(scene.plan(), Bounded(3, torch.zeros(4), 1.0))
    with pytest.raises(BadUpdate, match="client 3"):
        party.step({})


def test_what_is_said_aloud_names_who_reads_what_leaks_and_that_nobody_audited_it():
    said = OneTimeRLWE().describe()
    assert "Single updates are read by server with any 2 of 3 decryptors." in said
    assert "the sum of the one-time keys and errors of those who are summed" in said
    assert "unaudited" in said
    assert OneTimeRLWE().able.warnings
