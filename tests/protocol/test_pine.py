"""Sharing with proved norms: what plain sharing lets in is kept out, through the real parties; a
server that lies reads nothing, and a proof that fails convicts nobody.
"""

import os
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from privfl import Federation
from privfl.core import (
    Bounded,
    ConfigError,
    Faults,
    Moves,
    Neighbours,
    RoundPlan,
    Rows,
    SecretsStay,
    Total,
    client_party,
    drive,
)
from privfl.crypto import AdditiveSharing
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.primitives import fields
from privfl.crypto.sharing.pine.circuit import Circuit, _bits
from privfl.crypto.sharing.pine.field64 import P, centred, words
from privfl.crypto.sharing.pine.parameters import (
    HELD,
    SEEDS,
    SUM,
    SURVIVORS,
    largest,
    parameters_of,
)
from privfl.crypto.sharing.pine.vdaf import HELPER, LEADER, Pine, Usage
from privfl.dp import DistributedSkellam
from tests.protocol.opened import opened, told

PINE = AdditiveSharing(proof="pine", bits=12)


def updates_for(plan, seed=0):
    g = torch.Generator().manual_seed(plan.number + seed)
    made = {}
    for who in plan.cohort:
        x = torch.randn(plan.d, generator=g)
        made[who] = Bounded(who, 0.99 * x / x.norm(), 1.0, weight=1.0 + who % 3)
    return made


@dataclass
class Scene:
    channel: AdditiveSharing = PINE
    n: int = 5
    d: int = 33
    number: int = 0
    all: Enrolled = field(init=False)

    def __post_init__(self):
        self.plan = RoundPlan(
            self.number,
            tuple(range(1, self.n + 1)),
            d=self.d,
            l2=1.0,
            max_weight=4.0,
            session=b"test",
        )
        self.all = Enrolled.fresh(self.channel, self.plan.cohort)

    def run(self, faults=Faults(), updates=None, keep_bodies=False, wrap=lambda who, party: party):
        updates = updates or updates_for(self.plan)
        parties = {
            client_party(i): wrap(client_party(i), c.enter(self.plan, updates[i]))
            for i, c in self.all.clients.items()
        }
        parties |= {
            who: wrap(who, helper.enter(self.plan)) for who, helper in self.all.helpers.items()
        }
        server = wrap("server", self.all.server.enter(self.plan))
        return drive(server, parties, faults, keep_bodies=keep_bodies)

    def exactly(self, survivors, updates=None):
        """What `opened` has to be: the sum of what these clients encode."""
        made, code = updates or updates_for(self.plan), self.channel.code
        total = sum(code.encode(made[i], self.plan) for i in survivors)
        return told(survivors, code.decode(total, self.plan, len(survivors)))


# ---- honest rounds


@pytest.mark.parametrize(
    "settings", [{}, {"bits": 24}, {"rounding": "stochastic"}, {"rotation": True}], ids=str
)
def test_the_sum_is_that_of_the_quantised_updates(settings):
    scene = Scene(replace(PINE, **settings))
    outcome = scene.run()
    if "rounding" in settings:
        made = updates_for(scene.plan)
        exact = sum(u.weight * u.delta for u in made.values())
        assert torch.allclose(outcome.opened.what.value, exact, atol=0.05)
    else:
        assert opened(outcome) == scene.exactly(scene.plan.cohort)
    assert not outcome.opened.excluded


def test_the_longest_update_that_a_bound_allows_is_proved():
    scene = Scene(d=3)
    longest = torch.tensor([1.0, 0.0, 0.0])
    updates = {i: Bounded(i, longest, 1.0, weight=4.0) for i in scene.plan.cohort}
    assert opened(scene.run(updates=updates)) == scene.exactly(scene.plan.cohort, updates)


def test_the_upload_is_hardly_longer_than_the_vector():
    scene = Scene(d=100_000, n=2, channel=AdditiveSharing(proof="pine"))
    outcome = scene.run()
    assert opened(outcome) == scene.exactly((1, 2))
    assert outcome.bytes_sent("client/1") <= 1.05 * 8 * 100_000


def test_who_drops_or_sends_garbage_is_left_out_by_name():
    scene = Scene()
    faults = Faults(silent_from={"client/2": 0}, malformed={"client/4": lambda b: bytes(b[:50])})
    outcome = scene.run(faults)
    assert opened(outcome) == scene.exactly([1, 3, 5])
    assert "stage share" in outcome.opened.excluded["client/4"]


def test_parties_that_sleep_between_exchanges_open_the_same(restless):
    scene = Scene()
    outcome = scene.run(
        Faults(silent_from={"client/2": 0}), wrap=lambda who, party: restless(party)
    )
    assert opened(outcome) == scene.exactly([1, 3, 4, 5])


def test_messages_that_come_twice_change_nothing():
    scene = Scene()
    outcome = scene.run(Faults(duplicated={"server/1", "server", "client/2"}))
    assert opened(outcome) == scene.exactly(range(1, 6))
    assert not outcome.aborts


# ---- clients that lie


class Alters:
    """A party whose messages of one kind to one receiver are changed."""

    def __init__(self, party, to, change):
        self.party, self.to, self.change = party, to, change

    @property
    def result(self):
        return self.party.result

    def step(self, mail):
        out = dict(self.party.step(mail))
        if self.to in out:
            out[self.to] = self.change(bytes(out[self.to]))
        return out


@dataclass(frozen=True)
class Bold(Circuit):
    """A circuit of a prover that claims whatever passes: bits of v and u that add up to the bound,
    and success everywhere.
    """

    def with_norm(self, vector):
        claimed = min(int(sum(int(v) ** 2 for v in vector.tolist()) % P), self.bound**2)
        u = self.bound**2 - claimed
        return np.concatenate([vector, _bits(claimed, self.norm_bits), _bits(u, self.norm_bits)])

    def with_products(self, committed, products, weight):
        moved = [(p + self.reach - 1) % P % (2 * self.reach) for p in products.tolist()]
        rows = [np.append(_bits(m, self.product_bits), np.uint64(1)) for m in moved]
        return np.concatenate([committed, *rows, _bits(weight, self.weight_bits)])


def bold(now):
    circuit = now.pine.circuit
    return replace(
        now,
        pine=replace(
            now.pine,
            circuit=Bold(circuit.dimension, circuit.bound, weight_bits=circuit.weight_bits),
        ),
    )


class Lies:
    """A client whose vector of integers is another one, with the best proof that it can make."""

    def __init__(self, party, vector=None, circuit=bold):
        self.party = party
        party.round = circuit(party.round)
        if vector is not None:
            values, weight = party.contribution
            party.contribution = (vector(party.round, values.copy()), weight)

    def step(self, mail):
        return self.party.step(mail)


def a_little_over(now, values):
    """The largest norm that is proved, and one step more."""
    values[:] = 0
    values[0] = largest(now.code, now.plan) + 1
    return values


def around_the_field(now, values):
    """Two coordinates whose squares add up to less than the bound modulo p."""
    values[:] = 0
    values[0] = values[1] = P // 2
    return values


def wrapped_to_a_small_norm(now, values):
    """|x|^2 = p + small, as four squares (Lagrange) of p found by descent on a fixed split."""
    values[:] = 0
    rest = P + 4
    for place in range(12):
        root = int(rest**0.5)
        while root * root > rest:
            root -= 1
        values[place] = root
        rest -= root * root
    assert rest == 0
    return values


def over_by_times(times):
    def change(now, values):
        return words(np.round(centred(values) * times).astype(np.int64))

    return change


def test_plain_sharing_lets_an_over_long_update_into_the_sum():
    scene = Scene(AdditiveSharing(bits=12))
    updates = updates_for(scene.plan)
    longer = torch.full((33,), 1.0)
    updates[3] = Bounded.claimed(3, longer, 1.0, weight=4.0)
    outcome = scene.run(updates=updates)
    assert 3 in outcome.opened.survivors
    others = sum(u.weight * u.delta for i, u in updates.items() if i != 3)
    assert float((outcome.opened.what.value - others).norm()) > 5 * 4.0


OVER = {
    "one step over": a_little_over,
    "two coordinates p/2": around_the_field,
    "a sum of squares of p + 4": wrapped_to_a_small_norm,
    "five times": over_by_times(5),
    "a hundred times": over_by_times(100),
}


@pytest.mark.parametrize("vector", OVER.values(), ids=OVER)
def test_an_update_over_the_bound_is_left_out_however_it_is_made(vector):
    scene = Scene()
    outcome = scene.run(wrap=lambda who, party: Lies(party, vector) if who == "client/3" else party)
    assert opened(outcome) == scene.exactly([1, 2, 4, 5])
    assert "its proof does not hold" in outcome.opened.excluded["client/3"]
    assert "or one of the two servers lied" in outcome.opened.excluded["client/3"]


def test_the_bold_prover_is_believed_where_it_tells_the_truth():
    """So it is the lie that the tests above see, and not the liar's code."""
    scene = Scene()
    outcome = scene.run(wrap=lambda who, party: Lies(party) if who == "client/3" else party)
    assert opened(outcome) == scene.exactly(range(1, 6))


@dataclass(frozen=True)
class OneBitIsTwo(Circuit):
    """A weight over the largest, of bits of which one is 2."""

    place: int = -1

    def with_products(self, committed, products, weight):
        honest = Circuit.with_products(self, committed, products, weight)
        honest[self.place] = 2
        return honest


def with_a_two(place):
    def change(now):
        circuit = now.pine.circuit
        lying = OneBitIsTwo(
            circuit.dimension, circuit.bound, weight_bits=circuit.weight_bits, place=place
        )
        return replace(now, pine=replace(now.pine, circuit=lying))

    return change


@pytest.mark.parametrize("place", [-1, -11, -12, -40, 33])
def test_a_bit_of_two_in_weight_success_product_or_norm_is_left_out(place):
    scene = Scene()
    outcome = scene.run(
        wrap=lambda who, party: (
            Lies(party, circuit=with_a_two(place)) if who == "client/2" else party
        )
    )
    assert opened(outcome) == scene.exactly([1, 3, 4, 5])
    assert "proof does not hold" in outcome.opened.excluded["client/2"]


def offsets():
    """Where in a report to the first server its pieces lie: kinds of one byte to change."""
    scene = Scene()
    now = parameters_of(scene.channel, scene.plan)
    start = fields.HEADER + len(fields.facts(scene.plan))
    public, share = start + 16, start + 16 + now.pine.public_size
    circuit = now.pine.circuit
    return {
        "nonce": start,
        "public share, the other's first part": public + 32,
        "public share, the other's second part": public + 96,
        "vector": share,
        "norm bits": share + 8 * circuit.dimension,
        "weight": share + 8 * (circuit.length - 1),
        "norm proof": share + 8 * circuit.length,
        "last proof": share + now.pine.leader_size - 64 - 8,
        "first blind": share + now.pine.leader_size - 64,
        "second blind": share + now.pine.leader_size - 1,
    }


@pytest.mark.parametrize("at", offsets().values(), ids=offsets())
def test_one_changed_byte_of_a_report_leaves_its_client_out(at):
    def change(body):
        return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]

    scene = Scene()
    outcome = scene.run(
        wrap=lambda who, party: Alters(party, "server", change) if who == "client/4" else party
    )
    assert opened(outcome) == scene.exactly([1, 2, 3, 5])
    assert "proof does not hold" in outcome.opened.excluded["client/4"]
    assert not outcome.aborts


class SwapsPublicShares:
    """Two clients that send each other's public share to the first server."""

    def __init__(self, party, parts, start, size):
        self.party, self.parts, self.start, self.size = party, parts, start, size

    def step(self, mail):
        out = dict(self.party.step(mail))
        if "server" in out:
            body = bytes(out["server"])
            self.parts.append(body[self.start : self.start + self.size])
            swapped = self.parts[-2] if len(self.parts) > 1 else os.urandom(self.size)
            out["server"] = body[: self.start] + swapped + body[self.start + self.size :]
        return out


def test_swapped_public_shares_leave_both_out():
    scene, parts = Scene(), []
    now = parameters_of(scene.channel, scene.plan)
    start = fields.HEADER + len(fields.facts(scene.plan)) + 16
    outcome = scene.run(
        wrap=lambda who, party: (
            SwapsPublicShares(party, parts, start, now.pine.public_size)
            if who in ("client/1", "client/2")
            else party
        )
    )
    assert opened(outcome) == scene.exactly([3, 4, 5])


def test_a_public_share_that_only_server_1_sees_changed_frames_nobody():
    scene = Scene()
    boxes = scene.all.directory.boxes("server/1")

    class TellsAnotherStory:
        def __init__(self, party):
            self.party = party

        def step(self, mail):
            shard = type(self.party.round.pine).shard
            made = dict(self.party.step(mail)) if mail else None
            return made if made is not None else self.reseal(shard)

        def reseal(self, shard):
            from privfl.crypto.primitives import backend, seal_to

            now, party = self.party.round, self.party
            vector, weight = party.contribution
            drawn = os.urandom(16)
            report = shard(
                now.pine,
                vector,
                now.nonce(party.position, drawn),
                os.urandom(now.pine.rand),
                weight,
            )
            party.contribution = None
            changed = bytes([report.public[0] ^ 1]) + report.public[1:]
            context = now.report_context(party.position)
            sealed = seal_to(boxes, drawn + changed + report.helper, context, backend())
            facts = fields.facts(now.plan)
            return {
                "server": now.write(0, party.position, facts, drawn, report.public, report.leader),
                "server/1": now.write(SEEDS, party.position, sealed),
            }

    outcome = scene.run(
        wrap=lambda who, party: TellsAnotherStory(party) if who == "client/5" else party
    )
    assert opened(outcome) == scene.exactly([1, 2, 3, 4])
    assert not outcome.aborts
    assert "or one of the two servers lied" in outcome.opened.excluded["client/5"]


def test_a_report_of_another_place_or_round_is_refused():
    scene, recorded = Scene(), {}

    def keep(who, party):
        return Alters(party, "server", lambda b: recorded.setdefault(who, b))

    place = Faults(malformed={"client/2": lambda b: recorded["client/1"]})
    outcome = scene.run(
        place, wrap=lambda who, party: keep(who, party) if who == "client/1" else party
    )
    assert opened(outcome) == scene.exactly([1, 3, 4, 5])
    assert "another client's place" in outcome.opened.excluded["client/2"]
    later = Scene(number=1)
    later.all = scene.all
    replay = Faults(malformed={"client/1": lambda b: recorded["client/1"]})
    outcome = later.run(replay)
    assert opened(outcome) == later.exactly([2, 3, 4, 5])
    assert "another round" in outcome.opened.excluded["client/1"]


def test_a_client_that_reports_twice_before_the_key_is_there_frames_nobody():
    scene = Scene()
    now = parameters_of(scene.channel, scene.plan)
    server, helper = (
        scene.all.server.enter(scene.plan),
        scene.all.helpers["server/1"].enter(scene.plan),
    )
    half, _ = server.step({})["server/1"], helper.step({})
    letters = {
        client_party(i): client.enter(scene.plan, updates_for(scene.plan)[i]).step({})["server/1"]
        for i, client in scene.all.clients.items()
    }
    again = scene.all.clients[2].enter(scene.plan, updates_for(scene.plan)[2]).step({})
    assert helper.step(letters) == {}
    assert helper.step({"client/2": again["server/1"]}) == {}
    _, content = now.read(helper.step({"server": half})["server"], HELD)
    held, rest = fields.read_bit_set(content, 5)
    said, reasons = fields.read_table(rest, now.said, 5)
    assert held == said.keys() == {0, 1, 2, 3, 4}
    assert bytes(reasons) == b""


@pytest.mark.parametrize("mail", ["bare", "signed"])
def test_a_run_over_signed_mail_opens_the_same_sums(tmp_path, mail):
    run = a_run({"proof": "pine"}, tmp_path, mail=mail)
    assert [record.survivors for record in run.history] == [6, 6]
    assert not any(record.incidents for record in run.history)


class Records(Alters):
    def __init__(self, party, kept):
        super().__init__(party, "", None)
        self.kept = kept

    def step(self, mail):
        out = dict(self.party.step(mail))
        self.kept.update({to: bytes(body) for to, body in out.items()})
        return out


def test_under_two_keys_one_report_would_give_away_a_combination_of_its_values():
    """Why nonces serve once: the wires' polynomials at two points, less the random first input."""
    pine = Pine(Circuit(dimension=3, bound=100, norm_chunk=3))
    x, nonce = words([7, -20, 40]), bytes(16)
    report = pine.shard(x, nonce, os.urandom(pine.rand))
    gadget = pine.circuit.norm_gadget
    wires, factors = [], []
    for key in (bytes(32), b"\1" * 32):
        both = [
            np.frombuffer(
                pine.prepare(server, key, nonce, report.public, share).said, "<u8", gadget.arity, 8
            ).astype(np.uint64)
            for server, share in ((LEADER, report.leader), (HELPER, report.helper))
        ]
        wires.append([(int(a) + int(b)) % P for a, b in zip(*both, strict=True)])
        point = int(pine._elements(key, Usage.QUERY, pine._proofs + nonce, 1)[0])
        factors.append(gadget._lagrange(point).tolist())
    (a0, a1), (b0, b1) = factors
    leaked = [(w * b0 - v * a0) % P for w, v in zip(*wires, strict=True)]
    unscaled = pow(a1 * b0 - b1 * a0, P - 2, P)
    assert [value * unscaled % P for value in leaked] == x.tolist()


# ---- servers that lie


def test_a_server_that_answers_wrongly_only_leaves_that_client_out():
    scene = Scene()

    def change(body):
        if body[4] != HELD:
            return body
        row = fields.HEADER + 1 + 4 + 4 * 5
        return body[:row] + bytes([body[row] ^ 1]) + body[row + 1 :]

    outcome = scene.run(
        wrap=lambda who, party: Alters(party, "server", change) if who == "server/1" else party
    )
    assert opened(outcome) == scene.exactly([2, 3, 4, 5])
    assert "or one of the two servers lied" in outcome.opened.excluded["client/1"]


def survivors_are(chosen, n=5):
    def change(body):
        if body[4] != SURVIVORS:
            return body
        return body[: fields.HEADER] + fields.bit_set(chosen, n) + body[fields.HEADER + 1 :]

    return change


@pytest.mark.parametrize(("chosen", "says"), [([0], "threshold"), ([], "threshold")])
def test_a_first_server_that_asks_for_fewer_than_the_quorum_is_refused(chosen, says):
    scene = Scene()
    outcome = scene.run(
        wrap=lambda who, party: (
            Alters(party, "server/1", survivors_are(chosen)) if who == "server" else party
        )
    )
    assert outcome.opened is None
    assert says in str(outcome.aborts["server/1"])


def test_a_first_server_that_lists_whose_proof_fails_by_its_own_word_is_blamed():
    scene = Scene()

    def wrap(who, party):
        if who == "client/3":
            return Lies(party, over_by_times(5))
        if who == "server":
            return Alters(party, "server/1", survivors_are([0, 1, 2, 3, 4]))
        return party

    outcome = scene.run(wrap=wrap)
    assert outcome.opened is None
    assert outcome.aborts["server/1"].blamed == "server"


def test_a_second_server_that_sums_other_clients_is_blamed():
    scene = Scene()

    def change(body):
        if body[4] != SUM:
            return body
        return body[: fields.HEADER] + fields.bit_set([0, 1, 2], 5) + body[fields.HEADER + 1 :]

    outcome = scene.run(
        wrap=lambda who, party: Alters(party, "server", change) if who == "server/1" else party
    )
    assert outcome.opened is None
    assert outcome.aborts["server"].blamed == "server/1"


@pytest.mark.parametrize("liar", ["server", "server/1"])
@pytest.mark.parametrize("seed", range(12))
def test_hostile_bytes_from_a_server_open_no_row_and_blame_no_client(liar, seed):
    scene, rng = Scene(), np.random.default_rng(seed)

    def garble(body):
        body = bytearray(body)
        how = seed % 4
        if how == 0:
            return bytes(body[: int(rng.integers(len(body)))])
        if how == 1:
            return bytes(rng.bytes(len(body)))
        for _ in range(1 + how):
            body[int(rng.integers(fields.HEADER, len(body)))] ^= 1 << int(rng.integers(8))
        return bytes(body) + (b"\0" if how == 3 else b"")

    to = "server/1" if liar == "server" else "server"
    outcome = scene.run(wrap=lambda who, party: Alters(party, to, garble) if who == liar else party)
    assert set(outcome.aborts) <= {"server", "server/1"}
    for abort in outcome.aborts.values():
        assert abort.blamed in (None, "server", "server/1")
    if outcome.opened is not None:
        assert len(outcome.opened.survivors) >= 3


@pytest.mark.parametrize("seed", range(24))
def test_hostile_bytes_from_a_client_leave_out_nobody_else(seed):
    scene, rng = Scene(), np.random.default_rng(seed)

    def garble(body):
        body = bytearray(body)
        how = seed % 4
        if how == 0:
            return bytes(body[: int(rng.integers(len(body)))])
        if how == 1:
            start = int(rng.integers(len(body)))
            return bytes(body[:start]) + b"\xff" * (len(body) - start)
        body[int(rng.integers(len(body)))] ^= 1 << int(rng.integers(8))
        return bytes(body) + (b"\0" if how == 3 else b"")

    to = "server" if seed % 3 else "server/1"
    outcome = scene.run(
        wrap=lambda who, party: Alters(party, to, garble) if who == "client/2" else party
    )
    assert opened(outcome) == scene.exactly([1, 3, 4, 5])
    assert not outcome.aborts


def test_the_key_of_the_proofs_is_no_letters_content_and_new_in_every_round():
    kept, keys = {}, []

    class Peeks(Alters):
        def __init__(self, party):
            super().__init__(party, "", None)

        def step(self, mail):
            out = self.party.step(mail)
            keys.append(self.party.verification.key)
            return out

    for number in range(2):
        outcome = Scene(number=number).run(
            keep_bodies=True,
            wrap=lambda who, party: Peeks(party) if who == "server/1" else Records(party, kept),
        )
        found = {key for key in keys if key is not None}
        assert all(key not in bytes(m.body) for key in found for m in outcome.messages)
    assert len(found) == 2


# ---- what a coalition reads


def test_what_each_coalition_reads_is_computed():
    scene = Scene()
    outcome = scene.run(Faults(silent_from={"client/5": 0}), keep_bodies=True)

    def reads(*who):
        return scene.channel.decode(
            outcome.received(who),
            {name: scene.all.helpers[name] for name in who if name in scene.all.helpers},
        )

    assert torch.equal(reads("server").value, outcome.opened.what.value)
    assert reads("server/1") is None
    assert isinstance(reads("server", "client/1"), Total)
    everything = reads("server", "server/1")
    assert isinstance(everything, Rows)
    assert everything.ids == (1, 2, 3, 4)
    for who, row in zip(everything.ids, everything.values, strict=True):
        assert torch.allclose(row, updates_for(scene.plan)[who].delta, atol=1e-2)


def test_members_and_parties_do_not_pickle_or_print():
    import pickle

    scene = Scene()
    for secret in (
        scene.all.server,
        scene.all.helpers["server/1"],
        scene.all.server.enter(scene.plan),
        scene.all.helpers["server/1"].enter(scene.plan),
        scene.all.clients[1].enter(scene.plan, updates_for(scene.plan)[1]),
    ):
        assert "holds secrets" in repr(secret)
        with pytest.raises(SecretsStay):
            pickle.dumps(secret)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"servers": 3}, "servers is"),
        ({"ring": 32}, "ring 32"),
        ({"proof": "prio3"}, "proof is 'pine' or None"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        AdditiveSharing(**{"proof": "pine", **settings})


def test_a_norm_that_the_field_cannot_hold_is_refused_when_a_round_begins():
    with pytest.raises(ConfigError, match="lower bits"):
        Scene(AdditiveSharing(proof="pine", bits=31, rotation=True), d=100_000).run()
    with pytest.raises(ConfigError, match="hides nothing"):
        Scene(n=1).run()


def a_run(channel, tmp_path, **more):
    return Federation.from_config(
        {
            "data": {"name": "digits", "clients": 6},
            "model": "softmax",
            "bound": {"name": "clip", "l2": 0.5},
            "channel": {"name": "additive_sharing", **channel},
            "rounds": 2,
            **more,
        }
    ).run(tmp_path / "run")


def test_in_a_run_a_client_that_skips_its_clip_moves_a_sum_without_proofs_and_not_one_with_them(
    tmp_path,
):
    attacks = [{"name": "skip_clip", "clients": [0], "scale": 20.0}]
    plain = a_run({}, tmp_path / "plain", attacks=attacks)
    assert [record.survivors for record in plain.history] == [6, 6]
    proved = a_run({"proof": "pine"}, tmp_path / "proved", attacks=attacks)
    for record in proved.history:
        assert record.survivors == 5
        assert any("client/0 gave up" in line for line in record.incidents)


# ---- noise of the servers


NOISY = replace(PINE, noise=DistributedSkellam(noise_multiplier=0.5))


@pytest.mark.parametrize("channel", [NOISY, replace(NOISY, proof=None)], ids=["proved", "plain"])
def test_each_server_adds_the_whole_noise_and_one_of_them_is_charged(channel):
    plan = RoundPlan(0, tuple(range(3)), d=4000, l2=1.0, session=b"noise")
    zero = {i: Bounded(i, torch.zeros(4000), 1.0) for i in range(3)}
    everybody = Enrolled.fresh(channel, plan.cohort)
    parties = {client_party(i): c.enter(plan, zero[i]) for i, c in everybody.clients.items()}
    parties |= {who: helper.enter(plan) for who, helper in everybody.helpers.items()}
    outcome = drive(everybody.server.enter(plan), parties, keep_bodies=True)
    event = channel.noise_event(plan)
    one = event.parameters["variance"] ** 0.5 / channel.code.scale(plan)
    opened = outcome.opened.what
    assert float(opened.value.std()) == pytest.approx(2**0.5 * one, rel=0.1)
    assert opened.weight == pytest.approx(3.0)
    seen = channel.decode(outcome.received(["server"]), {})
    assert float(seen.value.std()) == pytest.approx(one, rel=0.1)
    assert float((opened.value - seen.value).std()) == pytest.approx(one, rel=0.1)
    for colluders in (0, 2):
        assert channel.noise_event(plan, 3, colluders) == event


def test_the_sensitivity_that_is_charged_is_the_norm_that_is_proved():
    plan = RoundPlan(0, tuple(range(3)), d=50, l2=1.0)
    event = NOISY.noise_event(plan)
    now = parameters_of(NOISY, plan)
    assert event.parameters["l2"] == now.pine.circuit.bound == largest(NOISY.code, plan)
    moves = NOISY.able.encodes.stage(50).stability(
        Moves(2.0, longest=1.0, changed=1, rows=3), Neighbours("client", "zero_out")
    )
    assert moves.longest == pytest.approx(now.pine.circuit.bound / NOISY.code.scale(plan))


def test_a_private_run_says_on_what_its_sensitivity_rests(tmp_path):
    noise = {"name": "distributed_skellam", "noise_multiplier": 1.0}
    proved = a_run({"proof": "pine"}, tmp_path / "proved", mechanism=noise)
    said = (tmp_path / "proved" / "run" / "public" / "statement.json").read_text()
    assert "rests on norms that the servers verify" in said
    assert "bound that clients keep" not in said
    a_run({}, tmp_path / "plain", mechanism=noise)
    said = (tmp_path / "plain" / "run" / "public" / "statement.json").read_text()
    assert "rests on a bound that clients keep" in said
    assert [charge.against for charge in proved.ledger.charges] == ["server"] * 2


def test_noise_that_could_leave_the_field_is_refused_before_a_round():
    channel = replace(PINE, noise=DistributedSkellam(noise_multiplier=1e18))
    with pytest.raises(ConfigError, match="could leave Field64"):
        Scene(channel).run()


def test_products_and_shares_hide_the_vector():
    """The helper's share is a seed, and the leader's is the vector less what the seed stands for:
    uniform in every value.
    """
    pine = Pine(Circuit(dimension=2, bound=1000, weight_bits=3))
    zero = words([0, 0])
    shares = [
        np.frombuffer(pine.shard(zero, bytes(16), os.urandom(pine.rand)).leader, "<u8", 2)
        for _ in range(200)
    ]
    top = np.stack(shares) >> np.uint64(63)
    assert 50 < int(top[:, 0].sum()) < 150
    assert len({tuple(share.tolist()) for share in shares}) == 200
