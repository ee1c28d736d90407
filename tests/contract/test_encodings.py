"""How rounding and grouping behave beyond what `privfl.testing` asks of every channel."""

import math

import pytest
import torch

from privfl.core import Bounded, ConfigError, Moves, Neighbours, RoundPlan, Rows
from privfl.crypto import FixedPoint
from privfl.crypto.encoding import weight_words
from privfl.hybrid import BucketedSecAgg

N, D, L2 = 6, 40, 2.0
PLAN = RoundPlan(0, tuple(range(N)), D, L2, session=b"encodings")
REPLACE, ADD = (Neighbours("client", relation) for relation in ("replace_one", "add_remove"))


def rows(seed=0):
    made = torch.randn(N, D, generator=torch.Generator().manual_seed(seed))
    return made * (L2 * 0.9 / made.norm(dim=1, keepdim=True))


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


@pytest.mark.parametrize("bits", range(2, 32))
def test_weights_in_words_of_their_own_are_as_exact_as_said_at_any_width(bits):
    code = FixedPoint(bits, words=weight_words(bits))
    plan = RoundPlan(0, (1, 2, 3), d=1, l2=1.0, max_weight=659.0)
    held = (659.0, 1.0, 300.5)
    total = sum(
        code.encode(Bounded(client, torch.zeros(1), l2=1.0, weight=weight), plan)
        for client, weight in zip(plan.cohort, held, strict=True)
    )
    step = plan.max_weight * 2.0**-30
    assert code.decode(total, plan, count=3).weight == pytest.approx(sum(held), abs=3 * step)
