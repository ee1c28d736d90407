"""What a server can do with several sums: overlapping ones in a round, old ones in a new session,
more than a key's noise allows.
"""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from privfl import Federation, PrivateAggregation
from privfl.config import AuditConfig
from privfl.core import (
    Abort,
    Bounded,
    ConfigError,
    Dataset,
    Faults,
    RoundFailed,
    RoundPlan,
    StateKey,
    client_party,
    drive,
    drive_all,
    seal_state,
    unseal_state,
)
from privfl.crypto import BFV, CKKS, MultiPartyRLWE, Paillier
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.he.boxes import letter
from privfl.crypto.he.decryption_policy import SUM, forwarded, opened_answer, request
from privfl.crypto.he.mprlwe.keys import add_c0
from privfl.crypto.he.wire import SignedMessage, pack, unpack_numbers
from privfl.dp import AdaptiveClip, Clip
from privfl.training import LocalSGD

SMALL = {"key_bits": 512, "insecure_for_tests": True}
D = 20


class Session:
    """A set-up session of four clients."""

    def __init__(self, channel):
        self.channel = channel
        self.members = dict(Enrolled.fresh(channel, range(4)).members)
        self.set_up()
        generator = torch.Generator().manual_seed(8)
        rows = torch.randn(4, D, generator=generator)
        self.rows = 0.9 * rows / rows.norm(dim=1, keepdim=True)

    def set_up(self):
        drive_all({who: member.set_up() for who, member in self.members.items()})

    def plan(self, number=1, cohort=(0, 1, 2, 3), session=b"s", part="delta"):
        return RoundPlan(number, cohort, D, l2=1.0, session=session, part=part)

    def ciphertexts(self, plan):
        entered = {
            i: self.members[client_party(i)].enter(plan, Bounded(i, self.rows[i], 1.0))
            for i in plan.cohort
        }
        server = self.members["server"].ring.identity
        return [
            SignedMessage.read(letter(server, party.step({})["server"], client_party(i)))
            for i, party in entered.items()
        ]

    def play(self, plan, faults=Faults()):
        parties = {
            client_party(i): (
                self.members[client_party(i)].enter(plan, Bounded(i, self.rows[i], 1.0))
            )
            for i in plan.cohort
        }
        parties |= {who: self.members[who].enter(plan) for who in self.channel.helpers}
        return drive(self.members["server"].enter(plan), parties, faults)

    def ask(self, who, plan, messages, pieces=None):
        """A decryptor's answer for these ciphertexts, read by the server."""
        party = self.members[who].enter(plan)
        party.step({})
        if pieces is None:
            body = request(self.members["server"].ring, who, messages)
        else:
            body = pack([pack([bytes(pieces)]), forwarded(messages, left_out=[0])])
        answer = SignedMessage.read(party.step({"server": body})["server"])
        return opened_answer(answer, self.members["server"].ring)[1]


class TestTwoSumsOfOneRound:
    """The server asks two groups of decryptors for sums that differ by one client. Honest groups
    meet in somebody who refuses.
    """

    def paillier(self, session, group, plan, messages):
        parts = {who: session.ask(who, plan, messages) for who in group}
        numbers = session.channel.scheme.combine(
            session.members["server"].ring.public, parts, plan, len(messages), 2
        )
        return session.channel.scheme.total(numbers, plan, len(messages)).value

    def joint(self, session, group, plan, messages):
        parts, needed = [], {0, 1, 2}
        for who in group:
            mine = needed & session.members[who].held.keys()
            needed -= mine
            parts.append(session.ask(who, plan, messages, sorted(mine))[1])
        c0 = add_c0([message.whole()[0] for message in messages])
        numbers = session.members["server"].ring.public.opened(c0, parts, plan)
        return session.channel.scheme.total(numbers, plan, len(messages)).value

    @pytest.mark.parametrize("second", list(combinations(range(3), 2)), ids=str)
    @pytest.mark.parametrize("scheme", ["paillier", "joint"])
    def test_honest_decryptors_open_one_of_them_whoever_is_asked(self, scheme, second):
        session = Session(
            Paillier(keys="threshold", **SMALL) if scheme == "paillier" else MultiPartyRLWE()
        )
        plan = session.plan()
        messages, read = session.ciphertexts(plan), getattr(self, scheme)
        total = read(session, ("decryptor/0", "decryptor/1"), plan, messages)
        assert (total - session.rows.sum(dim=0)).abs().max() < 3e-4
        with pytest.raises(Abort, match="already opened"):
            read(session, tuple(f"decryptor/{i}" for i in second), plan, messages[:3])

    @pytest.mark.parametrize("scheme", ["paillier", "joint"])
    def test_with_one_of_three_corrupt_it_works_as_the_channel_says_aloud(self, scheme):
        session = Session(
            Paillier(keys="threshold", **SMALL) if scheme == "paillier" else MultiPartyRLWE()
        )
        plan = session.plan()
        messages, read = session.ciphertexts(plan), getattr(self, scheme)
        total = read(session, ("decryptor/0", "decryptor/1"), plan, messages)
        session.members["decryptor/0"].ring.answered.clear()  # it runs its own code
        less = read(session, ("decryptor/0", "decryptor/2"), plan, messages[:3])
        assert (total - less - session.rows[3]).abs().max() < 3e-4
        assert "groups of decryptors that meet in 1 that collude" in session.channel.describe()

    def test_where_all_decryptors_are_needed_one_honest_one_is_enough(self):
        session = Session(MultiPartyRLWE(threshold=3))
        plan = session.plan()
        messages = session.ciphertexts(plan)
        for who in ("decryptor/0", "decryptor/1", "decryptor/2"):
            session.ask(who, plan, messages, sorted(session.members[who].held))
        for corrupt in ("decryptor/0", "decryptor/1"):
            session.members[corrupt].ring.answered.clear()
        with pytest.raises(Abort, match="already opened"):
            session.ask(
                "decryptor/2", plan, messages[:3], sorted(session.members["decryptor/2"].held)
            )
        assert "overlapping" not in session.channel.describe()

    @pytest.mark.parametrize(
        "make",
        [
            lambda: Paillier(keys="threshold", holders=4, threshold=2, **SMALL),
            lambda: MultiPartyRLWE(holders=4, threshold=2),
            lambda: MultiPartyRLWE(holders=5, threshold=2),
        ],
    )
    def test_groups_that_need_not_meet_are_refused(self, make):
        with pytest.raises(ConfigError, match="more than half of the holders"):
            make()


@pytest.mark.parametrize(
    "channel", [BFV(), Paillier(**SMALL), MultiPartyRLWE()], ids=["bfv", "paillier", "mp-rlwe"]
)
def test_another_cohort_does_not_make_a_round_a_new_one(channel):
    session = Session(channel)
    assert session.play(session.plan()).opened is not None
    outcome = session.play(session.plan(cohort=(0, 1, 2)))
    assert outcome.opened is None
    assert any("already opened" in str(abort) for abort in outcome.aborts.values())
    assert session.play(session.plan(part="control")).opened is not None
    assert session.play(session.plan(number=2)).opened is not None


@pytest.mark.parametrize(
    "make",
    [lambda f: BFV(key_file=f), lambda f: Paillier(key_file=f, **SMALL)],
    ids=["bfv", "paillier"],
)
def test_ciphertexts_of_an_earlier_session_under_a_kept_key_cannot_be_replayed(tmp_path, make):
    session = Session(make(str(tmp_path / "key")))
    plan = session.plan()
    old = session.ciphertexts(plan)
    key = session.members["server"].ring.public.key_id
    session.set_up()
    assert session.members["server"].ring.public.key_id == key
    with pytest.raises(Abort, match="in another set-up"):
        session.ask("decryptor/0", plan, old)


@pytest.mark.parametrize(
    "make",
    [lambda f: BFV(key_file=f), lambda f: Paillier(key_file=f, **SMALL)],
    ids=["bfv", "paillier"],
)
def test_a_kept_key_works_in_named_sessions_only(tmp_path, make):
    session = Session(make(str(tmp_path / "key")))
    nameless = session.plan(session=b"")
    for enter in (
        lambda: session.members["client/0"].enter(nameless, Bounded(0, session.rows[0], 1.0)),
        lambda: session.members["server"].enter(nameless),
        lambda: session.members["decryptor/0"].enter(nameless),
    ):
        with pytest.raises(ConfigError, match=r"plan\.session must hold fresh random bytes"):
            enter()


def test_two_runs_with_one_key_file_never_share_a_session(tmp_path):
    channel = Paillier(key_file=str(tmp_path / "key"), **SMALL)
    seen = set()
    for _ in range(2):
        layer = PrivateAggregation(bound=Clip(l2=1.0), channel=channel)
        quarter = np.full(3, 0.25, np.float32)
        mean, _ = layer.aggregate({0: quarter, 1: quarter})
        assert mean == pytest.approx(np.full(3, 0.25), abs=1e-4)
        seen.add(layer._id)
    assert len(seen) == 2


def test_a_round_that_failed_has_used_its_number_up_in_the_wrapper():
    layer = PrivateAggregation(bound=Clip(l2=1.0), channel=BFV(min_clients=3))
    with pytest.raises(RoundFailed, match=r"round 0 opened nothing.*fewer than 3"):
        layer.aggregate({0: torch.ones(3), 1: torch.ones(3)})
    _, receipt = layer.aggregate({i: torch.ones(3) for i in range(3)})
    assert receipt.round == 1


def test_a_round_that_failed_has_used_its_number_up_in_a_run():
    generator = torch.Generator().manual_seed(1)
    parts = [
        Dataset(torch.randn(10, 4, generator=generator), torch.arange(10) % 2, classes=2)
        for _ in range(3)
    ]
    federation = Federation(
        torch.nn.Linear(4, 2),
        parts,
        parts[0],
        rounds=3,
        training=LocalSGD(lr=0.1),
        bound=Clip(l2=1.0),
        channel=BFV(),
        executor="sequential",
        audit=AuditConfig(keep="all"),
    )
    run = federation.run(faults=Faults(silent_from={"client/1": 0, "client/2": 0}))
    assert [run.transcript(i).plan.number for i in range(3)] == [0, 1, 2]
    assert all("fewer than 2 stay closed" in " ".join(record.incidents) for record in run.history)
    assert len({run.transcript(i).plan.session for i in range(3)}) == 1
    again = federation.run()
    assert again.transcript(0).plan.session != run.transcript(0).plan.session
    assert again.history[0].survivors == 3


def test_a_ckks_key_opens_as_many_sums_as_its_noise_was_made_for():
    session = Session(CKKS(releases=2))
    for number in (1, 2):
        assert session.play(session.plan(number)).opened is not None
    outcome = session.play(session.plan(3))
    assert outcome.opened is None
    assert "has opened 2 sums under this key" in str(outcome.aborts["decryptor/0"])
    session.set_up()
    assert session.play(session.plan(3)).opened is not None


@pytest.mark.parametrize("make", [CKKS, MultiPartyRLWE], ids=["ckks", "mp-rlwe"])
def test_every_part_of_a_round_is_a_release_and_a_new_key_begins_anew(make):
    session = Session(make(releases=3))
    assert session.channel.able.sums == 3
    for number, part in ((1, "delta"), (1, "control"), (2, "delta")):
        assert session.play(session.plan(number, part=part)).opened is not None
    outcome = session.play(session.plan(2, part="control"))
    assert outcome.opened is None
    assert any("has opened 3 sums under this key" in str(a) for a in outcome.aborts.values())
    session.set_up()  # as a run that is resumed does
    assert session.play(session.plan(3)).opened is not None


def test_releases_survive_a_decryptors_sleep():
    session = Session(MultiPartyRLWE(releases=1))
    assert session.play(session.plan(1)).opened is not None
    key = StateKey()
    for who in session.channel.helpers:
        member = session.members[who]
        session.members[who] = unseal_state(
            seal_state(member, key), key, type(member), lent=member.ring.directory
        )
    assert session.play(session.plan(2)).opened is None


def test_the_bits_of_an_adaptive_bound_are_releases_too():
    """Three rounds open six sums; a key that opens five would fail in the last one."""
    parts = [Dataset(torch.zeros(4, 4), torch.arange(4) % 2, classes=2) for _ in range(4)]

    def federation(releases):
        return Federation(
            torch.nn.Linear(4, 2),
            parts,
            parts[0],
            rounds=3,
            bound=AdaptiveClip(),
            channel=CKKS(releases=releases, min_clients=2),
            executor="sequential",
        )

    with pytest.raises(ConfigError, match="3 rounds open 6 sums under one key, and it opens 5"):
        federation(5).run()
    assert len(federation(6).run().history) == 3


def test_smudging_that_does_not_hide_the_key_over_all_releases_is_refused():
    plan = replace(Session(MultiPartyRLWE()).plan(), d=1_000_000, cohort=tuple(range(100)))
    MultiPartyRLWE().scheme.headroom(plan)
    assert MultiPartyRLWE().smudging_distance(plan) < 2**-40
    for channel in (MultiPartyRLWE(releases=3000), MultiPartyRLWE(smudge_bits=62)):
        assert channel.smudging_distance(plan) > 2**-40
        with pytest.raises(ConfigError, match="set releases to"):
            channel.scheme.headroom(plan)


def test_a_run_of_more_sums_than_a_key_opens_is_refused_before_it_starts():
    parts = [Dataset(torch.zeros(4, 4), torch.arange(4) % 2, classes=2) for _ in range(2)]
    options = {"bound": Clip(l2=1.0), "channel": CKKS(releases=2), "executor": "sequential"}
    with pytest.raises(
        ConfigError, match="3 rounds open 3 sums under one key, and it opens 2: raise releases"
    ):
        Federation(torch.nn.Linear(4, 2), parts, parts[0], rounds=3, **options).run()


def test_where_clients_share_the_key_a_lying_server_reads_one_of_them_as_the_channel_says_aloud():
    session = Session(BFV(keys="shared"))
    plan = session.plan()
    ring = session.members["server"].ring
    victim = session.ciphertexts(plan)[3].whole()
    lie = SignedMessage.signed(
        ring.identity,
        SUM,
        ring.topic(plan),
        "server",
        ((4).to_bytes(4, "little"), *victim),
    )
    reader = session.members["client/0"].enter(plan, Bounded(0, session.rows[0], 1.0))
    reader.step({})
    answer = SignedMessage.read(reader.step({"server": lie.to_bytes()})["server"])
    numbers = unpack_numbers(opened_answer(answer, ring)[1][0])
    taken = session.channel.scheme.total(numbers, plan, 4).value
    assert (taken - session.rows[3]).abs().max() < 1e-4
    assert (
        "calls one client's ciphertext a sum (and a chosen one shows the key): can read"
        in session.channel.describe()
    )


class TurnedOver:
    """A client's key that opens another sum than it decrypts."""

    def __init__(self, honest, factor=-1):
        self.honest, self.factor = honest, factor

    def encrypt(self, numbers, plan):
        return self.honest.encrypt(numbers, plan)

    def decrypt(self, ciphertext, plan, count):
        numbers = self.honest.decrypt(ciphertext, plan, count).copy()
        numbers[:-1] *= self.factor
        return numbers


@pytest.mark.parametrize("make", [BFV, CKKS], ids=["bfv", "ckks"])
class TestReadersWhoShareTheKey:
    """The server asks three clients to open the sum; what most of those say counts."""

    def lied(self, session, **factors):
        for who, factor in factors.items():
            ring = session.members[who.replace("_", "/")].ring
            ring.secret = TurnedOver(ring.secret, factor)
        return session.play(session.plan())

    def test_one_that_lies_is_outvoted_and_named(self, make):
        session = Session(make(keys="shared"))
        opened = self.lied(session, client_0=-1).opened
        assert (opened.what.value - session.rows.sum(dim=0)).abs().max() < 3e-4
        assert opened.excluded == {"client/0": "it opened another sum than most"}
        assert opened.survivors == (0, 1, 2, 3)

    def test_two_that_lie_each_for_itself_open_nothing_and_nobody_is_blamed(self, make):
        outcome = self.lied(Session(make(keys="shared")), client_0=-1, client_1=0)
        assert outcome.opened is None
        assert outcome.aborts["server"].blamed is None
        assert "no 2 of them say the same" in str(outcome.aborts["server"])

    def test_one_answer_of_three_is_no_majority(self, make):
        session = Session(make(keys="shared"))
        gone = Faults(silent_from={"client/1": 1, "client/2": 1})
        assert session.play(session.plan(), gone).opened is None


def test_holders_of_one_ckks_key_release_a_sum_once():
    channel = CKKS(keys="shared", releases=2)
    assert channel.scheme.releases == 2
    session = Session(channel)
    plan, scheme = session.plan(), channel.scheme
    holders = [session.members[client_party(i)].ring.secret for i in range(4)]
    sent = [
        holders[i].encrypt(scheme.encode(Bounded(i, session.rows[i], 1.0), plan), plan)
        for i in range(4)
    ]
    total = holders[0].public.add(sent, plan)
    released = [holder.decrypt(total, plan, 4) for holder in holders]
    assert all((numbers == released[0]).all() for numbers in released)
    for other in (session.plan(2), session.plan(part="control"), session.plan(session=b"t")):
        assert (holders[0].decrypt(total, other, 4) != released[0]).all()
    assert (holders[0].decrypt(total, plan, 3) != released[0]).all()


def test_shared_ckks_keys_open_as_many_sums_as_their_noise_was_made_for():
    channel = CKKS(keys="shared", releases=2)
    session = Session(channel)
    for number in (1, 2):
        assert session.play(session.plan(number)).opened is not None
    assert session.play(session.plan(3)).opened is None


@pytest.mark.parametrize(
    "channel",
    [BFV(), BFV(keys="shared"), Paillier(keys="threshold", **SMALL), CKKS(), MultiPartyRLWE()],
    ids=["bfv", "bfv-shared", "paillier-threshold", "ckks", "mp-rlwe"],
)
def test_clients_may_fall_silent_at_any_stage_in_any_number_that_leaves_enough(channel):
    session = Session(replace(channel, min_clients=2))
    number = 0
    for exchange in (0, 1, 2, 3):
        for size in (1, 2):
            for gone in combinations(range(4), size):
                number += 1
                outcome = session.play(
                    session.plan(number),
                    Faults(silent_from={client_party(i): exchange for i in gone}),
                )
                there = [i for i in range(4) if exchange > 0 or i not in gone]
                readers = {0, 1, 2} - set(gone)
                if channel.arrangement.keys == "shared" and exchange in (1, 2) and len(readers) < 2:
                    assert outcome.opened is None  # no majority of those asked
                    continue
                assert outcome.opened.survivors == tuple(there)
                assert (
                    outcome.opened.what.value - session.rows[there].sum(dim=0)
                ).abs().max() < 3e-4


def test_an_overflowing_cohort_is_refused_by_every_party_before_the_round():
    for channel in (BFV(max_clients=3), MultiPartyRLWE(smudge_bits=76)):
        session = Session(channel)
        crowd = replace(session.plan(), cohort=tuple(range(300)))
        for enter in (
            lambda s=session, p=crowd: s.members["client/0"].enter(p, Bounded(0, s.rows[0], 1.0)),
            lambda s=session, p=crowd: s.members["server"].enter(p),
            lambda s=session, p=crowd: s.members["decryptor/0"].enter(p),
        ):
            with pytest.raises(ConfigError, match="can overflow"):
                enter()
