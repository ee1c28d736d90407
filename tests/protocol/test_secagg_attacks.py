"""A lying server against clients in active mode: each attack ends in a named abort, and nothing of
the sum leaves.
"""

import secrets

import pytest
import torch

from privfl.core import Bounded, Faults, RoundPlan, client_party, drive
from privfl.crypto import SecAgg
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.primitives import backend, fields
from privfl.crypto.secagg import StageAbort, boxes
from privfl.crypto.secagg.keys import AGREED, MOVED, advertisement
from privfl.crypto.secagg.parameters import epoch
from privfl.crypto.secagg.stage import Kind

N = 6


class LyingServer:
    """Runs the honest server and edits what it sends, message by message."""

    def __init__(self, honest, edit):
        self.honest, self.edit, self.result = honest, edit, None

    def step(self, mail):
        sent = dict(self.honest.step(mail))
        return {
            to: self.edit(to, body, Kind(body[4])) if to != "server" else body
            for to, body in sent.items()
        }


def rewritten(body, *parts):
    return bytes(body[: fields.HEADER]) + b"".join(parts)


def run(
    edit,
    mode="active",
    number=0,
    everybody=None,
    channel=None,
    faults=Faults(),
    server=None,
    keep=False,
):
    channel = channel or SecAgg(mode=mode, graph="complete", corrupt=0.0)
    everybody = everybody or Enrolled.fresh(channel, range(1, N + 1))
    plan = RoundPlan(number, tuple(range(1, N + 1)), d=8, l2=1.0, session=b"run")
    parties = {
        client_party(i): m.enter(plan, Bounded(i, torch.full((8,), 0.1 * i / 8), 1.0))
        for i, m in everybody.clients.items()
    }
    honest = (server or everybody.server).enter(plan)
    lying = LyingServer(honest, edit)
    outcome = drive(lying, parties, faults, keep_bodies=keep)
    return outcome, honest, everybody, channel


def survivors(body, listed):
    """The message that lists survivors, with others in it; what clients said stays."""
    _, rest = fields.read_most(memoryview(body)[fields.HEADER :], N)
    return rewritten(body, fields.most(listed, N), bytes(rest))


def unchanged(to, body, kind):
    return body


def clients_that_abort(outcome, stage, says):
    named = {who: abort for who, abort in outcome.aborts.items() if who != "server"}
    assert all(isinstance(abort, StageAbort) for abort in named.values())
    return {who for who, abort in named.items() if abort.stage == stage and says in str(abort)}


EVERYBODY = {client_party(i) for i in range(1, N + 1)}


def test_the_honest_run_of_this_scene_opens():
    _, honest, *_ = run(unchanged)
    assert honest.result.what.count == N


def swap_keys(victims):
    """Put keys of the server's own in the place of the victims'."""
    own = {}

    def edit(to, body, kind):
        if kind is not Kind.KEYS:
            return body
        rows, _ = fields.read_table(memoryview(body)[fields.HEADER :], 32, N)
        changed = {p: bytes(r) for p, r in rows.items()}
        for victim in victims:
            if to == client_party(victim + 1):
                continue  # its own key it knows
            secret = own.setdefault(victim, secrets.token_bytes(32))
            changed[victim] = backend().x25519_public(secret)
        return rewritten(body, fields.table(changed))

    return edit


@pytest.mark.parametrize("victims", [[0], [3], [1, 4]])
def test_keys_of_the_servers_own_open_no_share_and_confirm_nothing(victims):
    """Whoever's keys were swapped holds nobody's shares, is not confirmed by anybody, and answers
    nothing; of its own secrets nobody has one.
    """
    outcome, honest, *_ = run(swap_keys(victims), keep=True)
    swapped = {client_party(v + 1) for v in victims}
    assert swapped <= clients_that_abort(outcome, "unmask", "confirmed the same sets")
    assert honest.result is None
    for message in outcome.messages:
        if message.receiver == "server" and message.body[4] == Kind.UNMASK:
            content = memoryview(message.body)[fields.HEADER :]
            seeds, _ = fields.read_table(content, 32, N)
            assert not seeds.keys() & set(victims)


def test_a_share_that_the_server_moves_on_its_way_is_nobodys_and_ends_nothing():
    """Of some shares only a difference travels, in the server's hands: its holder sees by the
    commitments that it was changed, keeps none, and blames nobody.
    """
    moved, last = [], client_party(N)

    def edit(to, body, kind):
        if kind is not Kind.INBOX or to != last:
            return body
        listed, rest = fields.read_most(memoryview(body)[fields.HEADER :], N)
        rows, _ = boxes.read(now, rest)
        changed = {p: bytes(row) for p, row in rows.items()}
        for p, row in changed.items():
            if len(row) == MOVED:
                moved.append(p)
                changed[p] = row[:AGREED] + bytes([row[AGREED] ^ 1]) + row[AGREED + 1 :]
        return rewritten(body, fields.most(listed, N), boxes.write(now, changed))

    plan = RoundPlan(0, tuple(range(1, N + 1)), d=8, l2=1.0, session=b"run")
    now = SecAgg(mode="active", graph="complete").parameters(plan)
    outcome, honest, *_ = run(edit, keep=True)
    assert moved
    assert honest.result.survivors == tuple(range(1, N + 1))
    assert not honest.excluded
    for message in outcome.messages:
        if message.sender == last and message.body[4] == Kind.UNMASK:
            seeds, _ = fields.read_table(memoryview(message.body)[fields.HEADER :], 32, N)
            assert not seeds.keys() & set(moved)


def test_a_client_that_the_directory_does_not_know_is_excluded_by_the_server():
    """A key that an identity signed which the directory does not know for that client."""
    sybil = secrets.token_bytes(32)
    plan = RoundPlan(0, tuple(range(1, N + 1)), d=8, l2=1.0, session=b"run")

    def spoil(body):
        if body[4] != Kind.ADVERTISE:
            return body
        public = bytes(body[fields.HEADER : fields.HEADER + 32])
        signed = backend().sign(sybil, advertisement(epoch(plan, 0), 4, public))
        return rewritten(body, public, signed)

    _, honest, *_ = run(unchanged, faults=Faults(malformed={"client/4": spoil}))
    assert honest.result.survivors == (1, 2, 3, 5, 6)
    assert "its identity did not sign" in honest.excluded["client/4"]


def test_in_semi_honest_mode_nobody_notices_swapped_keys_which_is_why_active_mode_exists():
    def edit(to, body, kind):
        if kind is not Kind.KEYS:
            return body
        rows, _ = fields.read_table(memoryview(body)[fields.HEADER :], 64, N)
        changed = {p: bytes(r) for p, r in rows.items()} | {
            0: backend().x25519_public(secrets.token_bytes(32)) + bytes(rows[0][32:])
        }
        return rewritten(body, fields.table(changed)) if to != "client/1" else body

    outcome, _, *_ = run(edit, mode="semi_honest")
    assert not clients_that_abort(outcome, "share_keys", "")


@pytest.mark.parametrize("mode", ["semi_honest", "active"])
def test_a_server_that_asks_twice_for_different_survivors_gets_one_answer(mode):
    """It wants the seed shares and the key shares of the same client."""

    class Greedy(LyingServer):
        pending = None

        def step(self, mail):
            sent = dict(self.honest.step(mail))
            if self.pending is not None:
                again, self.pending = self.pending, None
                return {**sent, **again}
            for body in list(sent.values())[:1]:
                if body[4] == Kind.SURVIVORS:
                    other = survivors(body, range(N - 1))
                    self.pending = dict.fromkeys(sent, other)
            return sent

    channel = SecAgg(mode=mode, graph="complete", corrupt=0.0)
    plan = RoundPlan(0, tuple(range(1, N + 1)), d=8, l2=1.0)
    everybody = Enrolled.fresh(channel, plan.cohort)
    members = everybody.clients
    parties = {
        client_party(i): m.enter(plan, Bounded(i, torch.zeros(8), 1.0)) for i, m in members.items()
    }
    outcome = drive(Greedy(everybody.server.enter(plan), unchanged), parties, keep_bodies=True)
    assert clients_that_abort(outcome, "consistency", "two different SURVIVORS") == EVERYBODY
    unmasks = [x for x in outcome.messages if x.receiver == "server" and x.body[4] == Kind.UNMASK]
    assert len(unmasks) == (
        N if mode == "semi_honest" else 0
    )  # what was answered before the second question came
    for message in unmasks:
        _, rest = fields.read_table(memoryview(message.body)[fields.HEADER :], 32, N)
        assert fields.read_table(rest, 32, N)[0] == {}  # no key share beside the seed shares


def split(to_first, kind_of_second):
    def edit(to, body, kind):
        if kind is not Kind.SURVIVORS:
            return body
        return survivors(body, range(N) if to in to_first else kind_of_second)

    return edit


def test_a_server_that_splits_the_survivor_set_in_halves_gets_no_shares():
    outcome, honest, *_ = run(split({"client/1", "client/3", "client/5"}, range(1, N)), keep=True)
    assert honest.result is None
    assert not any(x.receiver == "server" and x.body[4] == Kind.UNMASK for x in outcome.messages)
    assert clients_that_abort(outcome, "unmask", "confirmed the same sets") == EVERYBODY


def test_a_server_that_splits_the_survivor_set_unevenly_gets_answers_for_one_set_only():
    outcome, *_ = run(
        split({"client/1", "client/2", "client/3", "client/4"}, range(1, N)), keep=True
    )
    answered = {
        x.sender for x in outcome.messages if x.receiver == "server" and x.body[4] == Kind.UNMASK
    }
    assert answered == {"client/1", "client/2", "client/3", "client/4"}
    assert clients_that_abort(outcome, "unmask", "confirmed the same sets") == {
        "client/5",
        "client/6",
    }


def test_a_server_that_replays_an_earlier_rounds_messages_is_caught():
    recorded = {}

    def record(to, body, kind):
        recorded.setdefault((to, kind), bytes(body))
        return body

    _, _, everybody, channel = run(record)
    outcome, honest, *_ = run(
        lambda to, body, kind: recorded[to, kind], number=1, everybody=everybody, channel=channel
    )
    assert clients_that_abort(outcome, "share_keys", "another round") == EVERYBODY
    assert honest.result is None


def test_an_earlier_rounds_keys_in_this_rounds_envelope_open_nothing():
    """The keys of a client that dropped out are known to the server: it must not pass them off as
    fresh ones.
    """
    recorded = {}

    def record(to, body, kind):
        recorded.setdefault((to, kind), bytes(body))
        return body

    def replay(to, body, kind):
        return rewritten(body, recorded[to, kind][fields.HEADER :]) if kind is Kind.KEYS else body

    _, _, everybody, channel = run(record)
    outcome, honest, *_ = run(replay, number=1, everybody=everybody, channel=channel)
    assert clients_that_abort(outcome, "share_keys", "other keys of this client's") == EVERYBODY
    assert honest.result is None


def test_a_round_is_entered_once_so_that_no_two_vectors_are_masked_alike():
    _, _, everybody, channel = run(unchanged)
    outcome, honest, *_ = run(unchanged, everybody=everybody, channel=channel)
    assert clients_that_abort(outcome, "enter", "entered before") == EVERYBODY
    assert honest.result is None


def test_a_server_that_lowers_the_threshold_is_in_another_round_than_its_clients():
    strict = SecAgg(mode="active", graph="complete", threshold=0.9, corrupt=0.0)
    lax = SecAgg(mode="active", graph="complete", threshold=0.6, corrupt=0.0)
    everybody = Enrolled.fresh(strict, range(1, N + 1))
    server = lax.server(everybody.keys["server"], everybody.directory)
    outcome, honest, *_ = run(unchanged, everybody=everybody, channel=strict, server=server)
    assert honest.result is None
    assert "other parameters" in honest.excluded["client/1"]

    def forged(
        to, body, kind
    ):  # it copies the clients' tag, and still cannot make them answer under their own threshold
        if kind is Kind.SURVIVORS:
            return survivors(body, range(4))
        return body

    outcome, honest, *_ = run(forged, channel=strict)
    assert honest.result is None
    assert clients_that_abort(outcome, "consistency", "4 survivors where at least 6") == {
        client_party(i) for i in range(1, 5)
    }


def test_a_server_that_lists_a_dead_client_alive_cannot_open_the_sum():
    """It gets the seed of a vector that it does not have, and never the key whose masks are in
    everybody else's.
    """

    def edit(to, body, kind):
        return survivors(body, range(N)) if kind is Kind.SURVIVORS else body

    outcome, honest, *_ = run(edit, faults=Faults(silent_from={"client/6": 4}), keep=True)
    assert honest.result is None
    assert not any(
        x.body[4] == Kind.UNMASK and _key_shares(x.body)
        for x in outcome.messages
        if x.receiver == "server"
    )


def _key_shares(body):
    _, rest = fields.read_table(memoryview(body)[fields.HEADER :], 32, N)
    return fields.read_table(rest, 32, N)[0]


def test_a_server_that_lists_a_living_client_dead_gets_no_seed_of_it():
    def edit(to, body, kind):
        return survivors(body, range(1, N)) if kind is Kind.SURVIVORS else body

    outcome, _, *_ = run(edit, keep=True)
    assert clients_that_abort(outcome, "consistency", "dropped out, and asks it") == {"client/1"}
    for message in outcome.messages:
        if message.receiver == "server" and message.body[4] == Kind.UNMASK:
            seeds, _ = fields.read_table(memoryview(message.body)[fields.HEADER :], 32, N)
            assert 0 not in seeds
            assert set(_key_shares(message.body)) == {0}


@pytest.mark.parametrize("few", [1, 2, 3])
def test_a_server_that_asks_for_fewer_than_the_quorum_is_refused(few):
    def edit(to, body, kind):
        return survivors(body, range(few)) if kind is Kind.SURVIVORS else body

    outcome, honest, *_ = run(edit)
    assert honest.result is None
    assert clients_that_abort(outcome, "consistency", "survivors where at least") == {
        client_party(i) for i in range(1, few + 1)
    }


def test_a_server_that_tells_a_client_that_its_neighbours_are_gone_is_refused():
    def edit(to, body, kind):
        if kind is Kind.KEYS and to == "client/1":
            rows, _ = fields.read_table(memoryview(body)[fields.HEADER :], 32, N)
            return rewritten(body, fields.table({p: rows[p] for p in (0, 1)}))
        return body

    outcome, *_ = run(edit)
    assert clients_that_abort(outcome, "share_keys", "threshold") == {"client/1"}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b: b"",
        lambda b: bytes(b)[:28],
        lambda b: bytes(b) + b"x" * 400,
        lambda b: secrets.token_bytes(len(b)),
    ],
)
@pytest.mark.parametrize("kind", [Kind.KEYS, Kind.INBOX, Kind.SURVIVORS, Kind.SIGNATURES])
def test_a_server_that_sends_garbage_ends_clients_by_name_and_never_crashes_them(kind, spoil):
    outcome, *_ = run(lambda to, body, sent: spoil(body) if sent is kind else body)
    assert all(isinstance(abort, StageAbort) for abort in outcome.aborts.values())
    assert {who for who, abort in outcome.aborts.items() if abort.blamed == "server"} == EVERYBODY


def test_points_of_small_order_are_refused_from_a_client():
    from privfl.crypto.primitives.ladder import P

    for point in (0, 1, P - 1, P, P + 1):

        def spoil(body, point=point):
            if body[4] != Kind.ADVERTISE:
                return body
            return (
                bytes(body[: fields.HEADER])
                + point.to_bytes(32, "little")
                + bytes(body[fields.HEADER + 32 :])
            )

        _, honest, *_ = run(
            unchanged, mode="semi_honest", faults=Faults(malformed={"client/2": spoil})
        )
        assert honest.result.survivors == (1, 3, 4, 5, 6)
        assert "unusable public key" in honest.excluded["client/2"]


def test_a_client_that_copies_anothers_keys_shuts_nobody_out():
    seen = {}

    def spoil(body):
        if body[4] != Kind.ADVERTISE:
            return body
        return bytes(body[: fields.HEADER]) + seen["keys"]

    channel = SecAgg(graph="complete")
    plan = RoundPlan(0, tuple(range(1, N + 1)), d=8, l2=1.0)
    everybody = Enrolled.fresh(channel, plan.cohort)
    members = everybody.clients
    parties = {
        client_party(i): m.enter(plan, Bounded(i, torch.zeros(8), 1.0)) for i, m in members.items()
    }
    seen["keys"] = parties["client/1"].keys.public
    outcome = drive(everybody.server.enter(plan), parties, Faults(malformed={"client/5": spoil}))
    assert outcome.opened.survivors == (1, 2, 3, 4, 6)
    assert not outcome.opened.excluded
    assert outcome.aborts.keys() == {"client/5"}


@pytest.mark.parametrize("mode", ["semi_honest", "active"])
@pytest.mark.parametrize("apart", [1, 3])
def test_clients_that_were_sent_different_models_are_in_no_sum_together(mode, apart):
    """Model inconsistency (Pasquini et al. 2022): the models are in every tag, so that who trained
    from another one is in another round.
    """
    channel = SecAgg(mode=mode, graph="complete", corrupt=0.0)
    told, other = (
        RoundPlan(0, tuple(range(1, N + 1)), d=8, l2=1.0, models=(digit * 64,)) for digit in "ab"
    )
    everybody = Enrolled.fresh(channel, told.cohort)
    parties = {
        client_party(i): m.enter(other if i <= apart else told, Bounded(i, torch.ones(8) / 8, 1.0))
        for i, m in everybody.clients.items()
    }
    outcome = drive(everybody.server.enter(told), parties)
    if apart == 3:
        assert outcome.opened is None
        return
    assert outcome.opened.survivors == (2, 3, 4, 5, 6)
    assert "runs it with other parameters" in outcome.opened.excluded["client/1"]


def test_a_client_that_found_the_server_out_answers_no_later_stage():
    """Not even where whoever drives it hands it more mail."""
    channel = SecAgg(mode="active", graph="complete", corrupt=0.0)
    plan = RoundPlan(0, tuple(range(1, N + 1)), d=8, l2=1.0)
    everybody = Enrolled.fresh(channel, plan.cohort)
    party = everybody.clients[1].enter(plan, Bounded(1, torch.zeros(8), 1.0))
    others = {
        client_party(i): m.enter(plan, Bounded(i, torch.zeros(8), 1.0))
        for i, m in everybody.clients.items()
        if i != 1
    }
    answers = []

    class Watched:
        def step(self, mail):
            try:
                answer = party.step(mail)
            except StageAbort as abort:
                answers.append(abort)
                answer = {}
            if mail and mail["server"][4] == Kind.SURVIVORS and not answers:
                with pytest.raises(StageAbort, match="two different SURVIVORS"):
                    party.step({"server": survivors(mail["server"], range(N - 1))})
            return answer

    drive(everybody.server.enter(plan), {**others, "client/1": Watched()})
    assert answers
    assert "two different SURVIVORS" in str(answers[-1])
