"""What a channel says of its encoding and its groups is what its protocol really does, and how far
it lets one client move a row is never less than what it moves.
"""

import math

import pytest
import torch

from privfl import catalog
from privfl.aggregators import FLTrust, Mean
from privfl.core import (
    BadUpdate,
    Bounded,
    ConfigError,
    Context,
    Moves,
    Neighbours,
    RoundPlan,
    Rows,
    Total,
)
from privfl.crypto import CKKS, FixedPoint, SecAgg
from privfl.engine import Session
from privfl.hybrid import BucketedSecAgg, EncryptedCosine, SignTwoServer, TwoServer

N, D, L2 = 6, 40, 2.0
PLAN = RoundPlan(0, tuple(range(N)), D, L2, session=b"encodings")
READERS = {
    "two_server": {"server", "server/1"},
    "sign_two_server": {"server", "server/1"},
    "encrypted_cosine": {"server", "key_holder"},
}
"""The least coalitions that read every row of a channel that sums."""
REPLACE, ZERO, ADD = (
    Neighbours("client", relation) for relation in ("replace_one", "zero_out", "add_remove")
)


def rows(seed=0):
    made = torch.randn(N, D, generator=torch.Generator().manual_seed(seed))
    return made * (L2 * 0.9 / made.norm(dim=1, keepdim=True))


def root(context):
    return rows(7)[0] * 0.3 + rows(0).mean(dim=0)


def channels():
    return {
        "plain": catalog.CHANNELS["plain"](),
        "secagg": SecAgg(bits=8),
        "secagg, rotated": SecAgg(bits=8, rotation=True),
        "additive_sharing": catalog.CHANNELS["additive_sharing"](bits=8),
        "paillier": catalog.CHANNELS["paillier"](bits=8, key_bits=512, insecure_for_tests=True),
        "bfv": catalog.CHANNELS["bfv"](bits=8),
        "ckks": CKKS(),
        "mp_rlwe": catalog.CHANNELS["mp_rlwe"](bits=8),
        "bucketed_secagg": BucketedSecAgg(size=3, bits=8),
        "two_server": TwoServer(Mean(), bits=8),
        "two_server, fltrust": TwoServer(FLTrust(root), bits=8),
        "sign_two_server": SignTwoServer(FLTrust(root)),
        "encrypted_cosine": EncryptedCosine(FLTrust(root), plain_bits=20),
    }


def played(channel, updates):
    session = Session(channel)
    session.enrol(range(N))
    session.inform(Context(PLAN, torch.zeros(D), torch.Generator()))
    bounded = {i: Bounded(i, row.clone(), L2) for i, row in enumerate(updates)}
    outcome = session.play(PLAN, bounded, keep_bodies=True)
    assert outcome.opened is not None, outcome.aborts
    return session, outcome


def test_every_channel_of_the_catalogue_is_looked_at_here():
    covered = {name.partition(",")[0] for name in channels()}
    assert covered == set(catalog.CHANNELS)


@pytest.mark.parametrize("name", channels())
def test_what_arrives_of_a_row_is_what_the_protocol_computes_with(name):
    channel, sent = channels()[name], rows()
    encodes = channel.able.encodes
    session, outcome = played(channel, sent)
    if encodes is None:
        assert torch.equal(outcome.opened.what.values, sent)
        return
    arrived = torch.stack([encodes.arrives(row, PLAN) for row in sent])
    assert arrived.dtype == torch.float32
    parties = READERS.get(name.partition(",")[0])
    if parties is not None:
        members = {who: session.members[who] for who in parties}
        seen = channel.decode(outcome.received(parties), members)
        assert isinstance(seen, Rows)
        order = sorted(range(N), key=lambda i: seen.ids[i])
        assert torch.allclose(seen.values[order], arrived, atol=1e-5)
    elif isinstance(outcome.opened.what, Total):
        tolerance = 6 * channel.error(PLAN) if name == "ckks" else 1e-5
        assert torch.allclose(outcome.opened.what.value, arrived.sum(dim=0), atol=tolerance)
    else:
        group = outcome.opened.disclosed["membership"]
        means = [arrived[group == number].mean(dim=0) for number in range(int(group.max()) + 1)]
        assert torch.allclose(outcome.opened.what.values, torch.stack(means), atol=1e-5)
    if "ckks" not in name:
        assert not torch.equal(arrived, sent), "8 bits, or directions, change every row"


@pytest.mark.parametrize("name", channels())
def test_a_stage_proves_no_less_than_rows_move(name):
    channel = channels()[name]
    able = channel.able
    hidden = able.hosts is not None and not isinstance(able.hosts, Mean)
    for neighbours in (REPLACE, ZERO):
        moves = Moves(neighbours.ends * L2, L2, changed=1, rows=N)
        if able.encodes is not None:
            moves = able.encodes.stage(D).stability(moves, neighbours)
        encoded = moves
        if able.groups is not None:
            moves = able.groups.stage().stability(moves, neighbours)
        if hidden:
            assert math.isinf(moves.total), "a rule on hidden rows moves them through one another"
            continue
        least = 1 if able.groups is None else channel.buckets.least
        assert moves.total == pytest.approx(neighbours.ends * moves.longest / least)
        if able.encodes is None:
            assert moves == Moves(neighbours.ends * L2, L2, changed=1, rows=N)
            continue
        for x, y in ((rows(1), rows(2)), (rows(3), -rows(3)), (rows(4), rows(4) * 1.001)):
            for before, after in zip(x, y, strict=True):
                after = after if neighbours is REPLACE else torch.zeros(D)
                apart = able.encodes.arrives(before, PLAN) - able.encodes.arrives(after, PLAN)
                assert apart.norm() <= encoded.total * (1 + 1e-6)
                assert able.encodes.arrives(before, PLAN).norm() <= encoded.longest * (1 + 1e-6)


def test_stochastic_rounding_arrives_as_its_expected_value():
    code, row = FixedPoint(bits=6, rounding="stochastic"), rows()[0]
    plan, words = (
        PLAN,
        [
            FixedPoint(bits=6, rounding="stochastic").encode(Bounded(0, rows()[0], L2), PLAN)
            for _ in range(4000)
        ],
    )
    mean = torch.stack([code.decode(w, plan, 1).value for w in words]).mean(dim=0)
    step = 1 / code.scale(plan)
    assert (mean - code.arrives(row, plan)).abs().max() < 6 * step / 2 / 4000**0.5
    assert torch.allclose(code.arrives(row, plan), row, atol=1e-6)


def test_a_row_that_cannot_be_encoded_does_not_arrive():
    for channel in channels().values():
        encodes = channel.able.encodes
        if encodes is None:
            continue
        with pytest.raises(BadUpdate):
            encodes.arrives(torch.full((D,), torch.nan), PLAN)
        with pytest.raises(BadUpdate):
            encodes.arrives(torch.ones(D + 1), PLAN)


def test_group_means_are_of_the_callers_coin_and_use_every_row_once():
    groups = BucketedSecAgg(size=4).able.groups
    values = torch.eye(11)
    made = groups.means(Rows.of(values.tolist()), torch.Generator().manual_seed(1))
    again = groups.means(Rows.of(values.tolist()), torch.Generator().manual_seed(1))
    other = groups.means(Rows.of(values.tolist()), torch.Generator().manual_seed(2))
    assert torch.equal(made.values, again.values)
    assert not torch.equal(made.values, other.values)
    assert made.n == groups.rows(11) == 2
    assert made.ids is None
    assert sorted(made.weights.tolist()) == [5.0, 6.0]
    assert torch.allclose(made.weights @ made.values, torch.ones(11))
    with pytest.raises(ConfigError, match="no two groups"):
        groups.means(Rows.of(values[:7].tolist()), torch.Generator())


def test_groups_divide_what_moves_by_the_least_group_and_count_rows_anew():
    channel = BucketedSecAgg(size=4)
    stage = channel.able.groups.stage()
    least = channel.buckets.least
    moved = stage.stability(Moves(2.0, 1.0, changed=1, rows=13), REPLACE)
    assert moved == Moves(2.0 / least, 1.0, changed=1, rows=3)
    assert stage.stability(Moves(2.0, 1.0, changed=9, rows=13), REPLACE).changed == 3
    regrouped = stage.stability(Moves(1.0, 1.0, changed=1, rows=13), ADD)
    assert math.isinf(regrouped.total)
    assert regrouped.rows is None


def test_one_clients_row_moves_group_means_by_no_more_than_the_stage_says():
    groups = BucketedSecAgg(size=3).able.groups
    before, after = rows(5), rows(5)
    after[2] = -before[2]
    moved = groups.stage().stability(Moves(2 * L2, L2, changed=1, rows=N), REPLACE)
    for seed in range(20):
        made = [
            groups.means(Rows.of(world.tolist()), torch.Generator().manual_seed(seed)).values
            for world in (before, after)
        ]
        assert (made[0] - made[1]).norm(dim=1).sum() <= moved.total
