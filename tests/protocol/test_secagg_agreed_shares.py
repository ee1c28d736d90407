"""Shares that an owner and a holder derive alike: what they hang on, what a liar makes of them, and
what is left of them when a key is taken later.
"""

import itertools

import pytest
import torch

from privfl.core import Bounded, Faults, RoundPlan, client_party, drive
from privfl.crypto import SecAgg
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.primitives import fields
from privfl.crypto.secagg import boxes, wire
from privfl.crypto.secagg.keys import AGREED, RoundKeys, commitment
from privfl.crypto.secagg.pairs import LastingPairs, Pairs
from privfl.crypto.secagg.stage import Kind
from privfl.crypto.sharing import shamir

N, D, LIAR = 9, 3, 4


def plan_of(number=0, session=b"agreed", part="", n=N):
    return RoundPlan(number, tuple(range(n)), D, 1.0, part=part, session=session)


def entered(everybody, plan):
    return {
        client_party(c): everybody.clients[c].enter(plan, Bounded(c, torch.full((D,), 0.1), 1.0))
        for c in plan.cohort
    }


def played(channel, byzantine=None, silent=None, plan=None):
    plan = plan or plan_of()
    everybody = Enrolled.fresh(channel, plan.cohort)
    parties, server = entered(everybody, plan), everybody.server.enter(plan)
    faults = Faults(byzantine=byzantine or {}, silent_from=silent or {})
    return drive(server, parties, faults, keep_bodies=True), server, parties, everybody


@pytest.mark.parametrize("carry", [False, True])
def test_no_two_rounds_parts_sessions_directions_or_secrets_agree_on_one_share(carry):
    """The same five identities, whose lasting keys agree on the same in all of them."""
    channel = SecAgg(mode="active", graph="complete", corrupt=0.0, carry=carry)
    everybody = Enrolled.fresh(channel, range(5))
    plans = [
        plan_of(number, session, part, 5)
        for session, part, number in itertools.product([b"one", b"two"], ["", "b"], [0, 1])
    ]
    seen, both = set(), 0
    for plan in plans:
        parties = entered(everybody, plan)
        assert drive(everybody.server.enter(plan), parties).opened is not None
        for owner in parties.values():
            for holder in set(range(5)) - {owner.position}:
                agreed = owner.pairs.common(holder)
                other = parties[client_party(holder)].pairs
                assert owner.pairs.roots[holder] == other.roots[owner.position]
                assert other.common(owner.position) != agreed
                seen |= set(agreed)
                both += 2
    assert len(seen) == both == 2 * 5 * 4 * len(plans)


class Edits:
    """A client that changes some rows of what it deals."""

    def __init__(self, honest, edit):
        self.honest, self.edit = honest, edit

    def step(self, mail):
        out = dict(self.honest.step(mail))
        body = out.get("server")
        if body is None or wire.read(body)[0] is not Kind.SHARES:
            return out
        now, (_, _, _, content) = self.honest.parameters, wire.read(body)
        rows = {p: bytes(row) for p, row in boxes.read(now, content[32:])[0].items()}
        self.edit(self.honest.pairs, rows)
        written = (content[:32], boxes.write(now, rows))
        return {"server": wire.write(Kind.SHARES, now.ring, LIAR, now.tag, *written)}


def moves_one(pairs, rows):
    """The last holder gets another share, and a commitment to it."""
    rows[max(rows)] = pairs.seal({max(rows): bytes([7]) * 63 + b"\0"})[max(rows)]


def agrees_with_one_more(pairs, rows):
    """The last holder is told that its shares are the agreed ones, which are not on the
    polynomials.
    """
    plain = b"".join(map(shamir.to_bytes, pairs.common(max(rows))))
    rows[max(rows)] = pairs.seal({max(rows): plain}, rows)[max(rows)]


def moves_an_agreed_one(pairs, rows):
    """The first holder's shares are moved, where they should be the agreed ones."""
    rows[min(rows)] = pairs.seal({min(rows): bytes([7]) * 63 + b"\0"})[min(rows)]


def commits_to_nothing(pairs, rows):
    """Commitments that no share fits, in a row of either length."""
    for p in (min(rows), max(rows)):
        rows[p] = bytes(AGREED) + rows[p][AGREED:]


def gives_one_row_twice(pairs, rows):
    """One holder's row in another's place."""
    rows[max(rows)] = rows[min(rows)]


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize(
    ("edit", "convicts"),
    [
        (moves_one, False),
        (agrees_with_one_more, False),
        (moves_an_agreed_one, True),
        (commits_to_nothing, False),
        (gives_one_row_twice, False),
    ],
)
def test_a_dealer_that_mixes_agreed_and_moved_shares_ends_nothing_and_blames_nobody(
    edit, convicts, gone
):
    """Its seed or, where it drops out, its key: the sum is opened, and where a share that is
    needed is as it committed to it and off the polynomial, it is named.
    """
    me = client_party(LIAR)
    channel = SecAgg(mode="active", graph="complete", corrupt=0.0)
    outcome, *_ = played(channel, {me: lambda party: Edits(party, edit)}, {me: 4} if gone else None)
    assert set(outcome.aborts) <= {me}
    assert outcome.opened.survivors == tuple(c for c in range(N) if not gone or c != LIAR)
    assert torch.allclose(outcome.opened.what.mean(), torch.full((D,), 0.1), atol=1e-3)
    assert outcome.opened.excluded.keys() == ({me} if convicts else set())


def test_what_a_client_that_dropped_out_dealt_is_opened_by_its_identity_key_and_by_no_others():
    """The server learns its key of the round, and its lasting one is what protects it from then
    on, as the settings say.
    """
    channel = SecAgg(mode="active", graph="complete", corrupt=0.0)
    gone = client_party(LIAR)
    outcome, server, parties, everybody = played(channel, silent={gone: 4})
    assert LIAR not in outcome.opened.survivors
    s = shamir.to_bytes(shamir.combine(server.secrets[LIAR]))
    assert s == parties[gone].keys.s
    now, bound = server.parameters, server.commitments[LIAR]
    for who, opens in ((gone, True), (client_party(0), False)):
        publics = {i: public for i, public in server.adverts.items() if i != LIAR}
        mine = RoundKeys(s, s, bytes(32), server.adverts[LIAR])
        taken = LastingPairs(everybody.keys[who])
        known = everybody.directory
        pairs = Pairs(now, tuple(range(N)), LIAR, mine, taken, known, channel.backend)
        pairs.meet(publics)
        reached = pairs.reach(sorted(publics))[: now.degree.t]
        shares = {}
        for i in reached:
            row = server.sealed[LIAR][i]
            moved = int.from_bytes(row[AGREED : AGREED + shamir.SIZE], "little")
            shares[i + 1] = (pairs.common(i)[0] + moved) % shamir.P
        seed = shamir.to_bytes(shamir.combine(shares))
        assert (commitment(now.tag, LIAR, seed) == bound) is opens


ALL_BUT_TWO = frozenset(range(20)) - {3, 17}
AS_BITS = b"\0" + fields.bit_set(ALL_BUT_TWO, 20)
AS_NUMBERS = b"\1" + fields.table({3: b"", 17: b""})


@pytest.mark.parametrize("written", [AS_BITS, AS_NUMBERS, fields.most(ALL_BUT_TWO, 20)])
def test_a_set_is_the_same_however_it_is_written(written):
    found, rest = fields.read_most(memoryview(written + b"rest"), 20)
    assert (found, bytes(rest)) == (ALL_BUT_TWO, b"rest")


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(b"\2" + AS_BITS[1:], id="no way"),
        pytest.param(b"", id="nothing"),
        pytest.param(AS_BITS[:-1], id="cut bits"),
        pytest.param(AS_NUMBERS[:-1], id="cut numbers"),
        pytest.param(b"\0" + b"\xff" * 3, id="bits past the end"),
        pytest.param(b"\1" + bytes.fromhex("02000000" + "03000000" * 2), id="twice"),
        pytest.param(b"\1" + bytes.fromhex("020000001100000003000000"), id="out of order"),
        pytest.param(b"\1" + bytes.fromhex("0100000014000000"), id="outside"),
        pytest.param(b"\1" + bytes.fromhex("15000000") + bytes(84), id="too many"),
        pytest.param(b"\1" + b"\xff" * 4, id="four billion"),
    ],
)
def test_what_is_no_set_is_refused(written):
    with pytest.raises(fields.Malformed):
        fields.read_most(memoryview(written), 20)
