"""Every homomorphic channel: exact sums, views that show what a coalition can compute, rounds that
go on without whoever fails.
"""

from dataclasses import replace

import pytest
import torch

from privfl.core import (
    Abort,
    BadUpdate,
    Bounded,
    Channel,
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
from privfl.crypto import BFV, CKKS, MultiPartyRLWE, Paillier
from privfl.crypto.enrolled import Enrolled

SMALL = {"key_bits": 512, "insecure_for_tests": True}
CHANNELS = {
    "paillier-authority": Paillier(**SMALL),
    "paillier-unverified": Paillier(verify_sum=False, **SMALL),
    "paillier-shared": Paillier(keys="shared", **SMALL),
    "paillier-threshold": Paillier(keys="threshold", **SMALL),
    "paillier-3-of-5": Paillier(keys="threshold", holders=5, threshold=3, **SMALL),
    "bfv-authority": BFV(),
    "bfv-seeded": BFV(keys="shared", encryption="seeded"),
    "bfv-symmetric": BFV(keys="shared", encryption="symmetric"),
    "bfv-24-bits": BFV(bits=24, max_clients=1000),
    "bfv-processes": BFV(workers=2),
    "ckks-authority": CKKS(),
    "ckks-seeded": CKKS(keys="shared", encryption="seeded"),
    "mp-rlwe": MultiPartyRLWE(),
    "mp-rlwe-3-of-3": MultiPartyRLWE(threshold=3),
    "mp-rlwe-3-of-5": MultiPartyRLWE(holders=5, threshold=3),
    "mp-rlwe-unverified": MultiPartyRLWE(verify_sum=False),
}
CHANNELS = {name: replace(channel, min_clients=2) for name, channel in CHANNELS.items()}
every_channel = pytest.mark.parametrize("channel", CHANNELS.values(), ids=CHANNELS.keys())
WEIGHTS = (1.0, 2.0, 0.5, 1.5)


class Scene:
    """The members of a channel for four clients, set up."""

    def __init__(self, channel, n=4, d=50, setup_faults=Faults()):
        self.channel, self.n, self.d, self.number = channel, n, d, 100
        self.all = Enrolled.fresh(channel, range(n))
        self.members = dict(self.all.members)
        self.setup = drive_all(
            {who: member.set_up() for who, member in self.members.items()},
            setup_faults,
            keep_bodies=True,
        )
        generator = torch.Generator().manual_seed(5)
        rows = torch.randn(n, d, generator=generator)
        self.rows = 0.9 * rows / rows.norm(dim=1, keepdim=True)

    def plan(self, number=0):
        return RoundPlan(
            number, tuple(range(self.n)), self.d, l2=1.0, max_weight=2.0, session=b"test"
        )

    def parties(self, plan, restless=None):
        directory = self.all.directory
        wrap = (lambda party: restless(party, directory)) if restless else (lambda party: party)
        out = {}
        for who, member in self.members.items():
            if who == "server":
                continue
            if who.startswith("client/"):
                i = int(who[7:])
                out[who] = wrap(member.enter(plan, Bounded(i, self.rows[i], 1.0, WEIGHTS[i])))
            else:
                out[who] = wrap(member.enter(plan))
        return wrap(self.members["server"].enter(plan)), out

    def play(self, faults=Faults(), restless=None):
        self.number += 1
        plan = self.plan(self.number)
        server, others = self.parties(plan, restless)
        return drive(server, others, faults, keep_bodies=True)

    def exact(self, survivors):
        return sum(WEIGHTS[i] * self.rows[i] for i in survivors)

    def view(self, outcome, *who):
        return self.channel.decode(outcome.received(who), {w: self.members[w] for w in who})

    def assert_opened(self, outcome, survivors):
        assert outcome.opened is not None, outcome.aborts
        assert outcome.opened.survivors == tuple(survivors)
        total = outcome.opened.what
        assert total.count == len(survivors)
        assert total.weight == pytest.approx(sum(WEIGHTS[i] for i in survivors), abs=2e-3)
        assert (
            total.value - self.exact(survivors)
        ).abs().max() < 3e-4  # steps of 2 l2 / 2^15, four times half of one


@pytest.fixture(scope="module")
def scenes():
    return {name: Scene(channel) for name, channel in CHANNELS.items()}


@pytest.fixture
def scene(request, scenes):
    return scenes[request.param]


every_scene = pytest.mark.parametrize("scene", CHANNELS, indirect=True)


@every_scene
def test_the_sum_is_right_and_every_party_can_sleep_between_exchanges(scene, restless):
    assert isinstance(scene.channel, Channel)
    scene.assert_opened(scene.play(), range(4))
    scene.assert_opened(scene.play(restless=restless), range(4))


@every_scene
def test_members_survive_sleep_and_refuse_to_be_pickled(scene):
    import pickle

    key = StateKey()
    for who, member in scene.members.items():
        scene.members[who] = unseal_state(
            seal_state(member, key), key, type(member), lent=scene.all.directory
        )
        with pytest.raises(SecretsStay):
            pickle.dumps(member)
        assert "secrets" in repr(member)
    scene.assert_opened(scene.play(), range(4))


@every_scene
def test_a_silent_client_and_a_garbled_one_are_left_out_by_name(scene):
    def flip(body):
        return bytes(body[:-9]) + bytes([body[-9] ^ 1]) + bytes(body[-8:])

    outcome = scene.play(faults=Faults(silent_from={"client/0": 0}, malformed={"client/2": flip}))
    if (
        scene.channel.arrangement.keys == "shared"
    ):  # client/2 garbles what it opens too, and is outvoted
        assert outcome.opened.survivors == (1, 3)
        return
    scene.assert_opened(outcome, (1, 3))
    assert "does not open" in outcome.opened.excluded["client/2"]


@every_scene
@pytest.mark.parametrize(
    "cut", [0, 3, 60, 300, -1], ids=["empty", "head", "half a head", "half", "one byte short"]
)
def test_a_truncated_message_is_refused_by_name(scene, cut):
    first = iter([True])

    def truncate(body):
        return bytes(body[:cut]) if next(first, False) else body

    outcome = scene.play(faults=Faults(malformed={"client/1": truncate}))
    scene.assert_opened(outcome, (0, 2, 3))
    assert "client/1" in outcome.opened.excluded


@every_scene
def test_a_message_that_comes_late_is_not_in_the_sum(scene):
    outcome = scene.play(faults=Faults(late={"client/3": 1}))
    scene.assert_opened(outcome, (0, 1, 2))


@every_scene
def test_duplicated_mail_changes_nothing(scene):
    everybody = {"client/0", "client/1", "decryptor/0", "decryptor/1"}
    scene.assert_opened(scene.play(faults=Faults(duplicated=everybody)), range(4))


@every_scene
def test_a_message_of_another_round_or_session_is_refused(scene):
    old, plan = scene.plan(70), scene.plan(71)
    stranger = replace(plan, session=b"another")
    server, others = scene.parties(plan)
    for i, other in ((0, old), (1, stranger)):
        others[client_party(i)] = scene.members[client_party(i)].enter(
            other, Bounded(i, scene.rows[i], 1.0, WEIGHTS[i])
        )
    if scene.channel.arrangement.keys == "shared":
        others["client/0"] = others["client/1"] = others["client/1"]
    outcome = drive(server, others)
    assert outcome.opened is None or outcome.opened.survivors == (2, 3)
    if scene.channel.arrangement.keys != "shared":
        assert "round 70" in outcome.opened.excluded["client/0"]
        assert "another session" in outcome.opened.excluded["client/1"]


@every_scene
def test_too_few_clients_stay_closed(scene):
    outcome = scene.play(
        faults=Faults(silent_from=dict.fromkeys(("client/0", "client/1", "client/2"), 0))
    )
    assert outcome.opened is None
    assert "fewer than 2" in str(outcome.aborts["server"])


@every_scene
def test_the_server_reads_the_sum_and_nothing_else(scene):
    outcome = scene.play()
    seen = scene.view(outcome, "server")
    assert isinstance(seen, Total)
    assert (seen.value - scene.exact(range(4))).abs().max() < 3e-4


@every_scene
def test_a_colluding_client_reads_rows_exactly_where_it_holds_the_key(scene):
    outcome = scene.play()
    seen = scene.view(outcome, "server", "client/0")
    assert isinstance(seen, Rows) == (scene.channel.arrangement.keys == "shared")
    assert (
        scene.view(outcome, "client/1", "client/2") is None
        or scene.channel.arrangement.keys == "shared"
    )


@every_scene
def test_key_holders_with_the_server_read_every_row(scene):
    outcome = scene.play()
    seen = scene.view(outcome, "server", *scene.channel.key_holders(range(4)))
    assert isinstance(seen, Rows)
    order = sorted(range(4), key=seen.ids.__getitem__)
    assert (seen.values[order] - scene.rows).abs().max() < 3e-4
    assert seen.weights[order].tolist() == pytest.approx(WEIGHTS, abs=1e-3)


@pytest.mark.parametrize(
    "scene",
    ["paillier-threshold", "paillier-3-of-5", "mp-rlwe", "mp-rlwe-3-of-3", "mp-rlwe-3-of-5"],
    indirect=True,
)
def test_one_decryptor_too_few_reads_nothing_more_than_the_sum(scene):
    outcome = scene.play()
    few = scene.channel.arrangement.decryptors[: scene.channel.arrangement.threshold - 1]
    assert scene.view(outcome, *few) is None
    assert isinstance(scene.view(outcome, "server", *few), Total)


def test_decryptors_of_the_multi_party_scheme_read_nothing_without_the_server(scenes):
    scene = scenes["mp-rlwe"]
    assert scene.view(scene.play(), *scene.channel.arrangement.decryptors) is None


@every_scene
def test_an_outsider_who_taps_every_wire_reads_nothing(scene):
    outcome = scene.play()
    assert scene.channel.decode(outcome.received(scene.members), {}) is None


@pytest.mark.parametrize(
    "scene", ["paillier-threshold", "paillier-3-of-5", "mp-rlwe", "mp-rlwe-3-of-5"], indirect=True
)
@pytest.mark.parametrize("exchange", [0, 1, 2])
def test_a_round_survives_the_decryptors_that_it_can_spare_and_no_more(scene, exchange):
    arrangement = scene.channel.arrangement
    spare = arrangement.holders - arrangement.threshold
    for first in range(arrangement.holders - spare + 1):
        gone = arrangement.decryptors[first : first + spare]
        outcome = scene.play(faults=Faults(silent_from=dict.fromkeys(gone, exchange)))
        if len(outcome.opened.survivors if outcome.opened else ()) == 4:
            scene.assert_opened(outcome, range(4))
        else:  # they all fell silent after they were asked, and nobody was left to wake the server
            assert isinstance(scene.channel, MultiPartyRLWE)
            assert exchange == 2
    gone = arrangement.decryptors[: spare + 1]
    outcome = scene.play(faults=Faults(silent_from=dict.fromkeys(gone, exchange)))
    assert outcome.opened is None


@pytest.mark.parametrize("scene", CHANNELS, indirect=True)
def test_no_message_carries_a_secret(scene):
    secrets = []
    for member in scene.members.values():
        ring = member.ring
        secrets += [ring.identity.signing, ring.identity.box]
        if ring.secret is not None:
            secrets.append(ring.secret.to_bytes()[:64])
            secrets += [getattr(ring.secret, "secret", b"?" * 64)[40:72]]
            for prime in (getattr(ring.secret, "p", 0), getattr(ring.secret, "q", 0)):
                secrets += (
                    [prime.to_bytes(64, "little")[:16], prime.to_bytes(64, "big")[-16:]]
                    if prime
                    else []
                )
        if ring.share is not None:
            secrets.append(ring.share.to_bytes()[20:60])
        secrets += [piece.to_bytes()[:64] for piece in getattr(member, "held", {}).values()]
    outcome = scene.play()
    for message in (*scene.setup.messages, *outcome.messages):
        for secret in secrets:
            assert secret not in message.body, f"{message.sender} told {message.receiver} a secret"


@every_channel
def test_what_is_said_aloud_names_who_can_read(channel):
    said = channel.describe()
    if channel.arrangement.keys == "shared":
        assert "Single updates are read by server with any client." in said
    if isinstance(channel, CKKS):
        assert "flooding noise of standard deviation at most" in said
    if isinstance(channel, MultiPartyRLWE):
        assert "unaudited" in said
        assert ("a chosen one shows the key" in said) == (not channel.verify_sum)


@every_channel
def test_updates_of_the_wrong_kind_are_refused_by_name(channel):
    plan = RoundPlan(0, (0, 1), d=3, l2=1.0)
    scheme = channel.scheme
    with pytest.raises(BadUpdate, match="client 7"):
        scheme.encode(Bounded(7, torch.zeros(4), 1.0), plan)
    with pytest.raises(BadUpdate, match="client 7: weight"):
        scheme.encode(Bounded(7, torch.zeros(3), 1.0, weight=2.0), plan)
    with pytest.raises(ConfigError, match="bound"):
        scheme.headroom(RoundPlan(0, (0, 1), d=3, l2=float("inf")))


def test_a_missing_key_maker_leaves_clients_without_a_key_and_says_so():
    for channel in (BFV(min_clients=2), MultiPartyRLWE(min_clients=2)):
        scene = Scene(channel, setup_faults=Faults(silent_from={"decryptor/0": 0}))
        outcome = scene.play()
        assert outcome.opened is None
        assert all("key" in str(outcome.aborts[client_party(i)]) for i in range(4))


def test_a_client_that_missed_the_set_up_is_left_out():
    scene = Scene(Paillier(**SMALL), setup_faults=Faults(silent_from={"client/1": 0}))
    outcome = scene.play()
    assert outcome.opened.survivors == (0, 2, 3)
    assert isinstance(outcome.aborts["client/1"], Abort)


GARBLERS = {
    "zeros": lambda body: bytes(len(body)),
    "ones": lambda body: b"\xff" * len(body),
    "cut": lambda body: bytes(body[: len(body) // 2]),
    "empty": lambda body: b"",
    "longer": lambda body: bytes(body) + b"x",
    "flipped": (
        lambda body: bytes(body[:40]) + bytes(b ^ 0x5A for b in body[40:50]) + bytes(body[50:])
    ),
    "hello": lambda body: bytes(64),
}


@pytest.mark.parametrize("garble", GARBLERS.values(), ids=GARBLERS)
@pytest.mark.parametrize(
    ("name", "who"),
    [
        (name, who)
        for name in ("paillier-shared", "paillier-threshold", "bfv-authority", "mp-rlwe")
        for who in ("client/1", "server", *CHANNELS[name].helpers)
    ],
)
def test_garbage_in_the_set_up_or_in_a_round_never_crashes_anybody_and_never_falsifies_a_sum(
    name, who, garble
):
    channel = CHANNELS[name]
    broken = Scene(channel, d=10, setup_faults=Faults(malformed={who: garble}))
    outcomes = [broken.play()]
    if garble is GARBLERS["flipped"]:
        whole = Scene(channel, d=10)
        outcomes += [whole.play(faults=Faults(malformed={who: garble}))]
    for outcome in outcomes:
        if outcome.opened is not None:
            broken.assert_opened(outcome, outcome.opened.survivors)


def test_a_lying_decryptor_is_noticed_when_its_sum_cannot_be_one():
    class Twisted:
        def __init__(self, secret):
            self.secret = secret

        def decrypt(self, parts, plan, count):
            return self.secret.decrypt(parts, plan, count) * 1000

        def encrypt(self, numbers, plan):
            return self.secret.encrypt(numbers, plan)

        def to_bytes(self):
            return b""

    def liar(honest):
        honest.ring.secret = Twisted(honest.ring.secret)
        return honest

    scene = Scene(BFV())
    outcome = scene.play(faults=Faults(byzantine={"decryptor/0": liar}))
    assert outcome.opened is None
    assert outcome.aborts["server"].blamed is None  # a client that encrypts garbage looks the same
