"""Rows that came in one buffer are opened where they lie; all others are copied, to the same
bits.
"""

import pytest
import torch

from privfl.aggregators import GeometricMedian, Krum, Mean, TrimmedMean
from privfl.core import FRAME_ROOM, Bounded, Faults, RoundPlan, client_party
from privfl.crypto import Plain
from privfl.engine import Session

N, D = 9, 1_001
ROOM = FRAME_ROOM // 4


def updates_in(rows, order=range(N)):
    """Updates that lie in one matrix [n, room + d], as an engine's do."""
    frames, stride = rows.numpy().data.cast("B"), 4 * rows.shape[1]
    return {
        c: Bounded(c, rows[c, ROOM:], l2=9.0, frame=frames[c * stride : (c + 1) * stride])
        for c in order
    }


def opened(updates, faults=None):
    session = Session(Plain())
    session.enrol(range(N))
    plan = RoundPlan(0, tuple(range(N)), D, l2=9.0)
    return session.play(plan, updates, faults or Faults()).opened


@pytest.fixture
def rows():
    return 0.1 * torch.randn(N, ROOM + D, generator=torch.Generator().manual_seed(0))


def inside(matrix, whole):
    began, end = whole.data_ptr(), whole.data_ptr() + 4 * whole.numel()
    return began <= matrix.data_ptr() < end


def test_rows_of_one_buffer_are_not_copied(rows):
    found = opened(updates_in(rows))
    assert inside(found.what.values, rows)
    assert torch.equal(found.what.values, rows[:, ROOM:])
    assert found.survivors == tuple(range(N))


@pytest.mark.parametrize("rule", [Mean(), TrimmedMean(2), Krum(2), GeometricMedian()])
def test_what_a_rule_makes_of_rows_in_place_is_what_it_makes_of_copies(rule, rows):
    alone = {c: Bounded(c, rows[c, ROOM:].clone(), l2=9.0) for c in range(N)}
    copied, lying = opened(alone).what, opened(updates_in(rows)).what
    assert not inside(copied.values, rows)
    assert inside(lying.values, rows)
    assert torch.equal(rule(copied), rule(lying))


@pytest.mark.parametrize("order", [(0, 1, 3, 4), (3, 1, 2), (4, 4), (8, 7)])
def test_rows_with_a_gap_or_in_another_order_are_opened_as_they_came(order, rows):
    found = opened(updates_in(rows, dict.fromkeys(order)))
    assert found.survivors == tuple(dict.fromkeys(order))
    assert torch.equal(found.what.values, rows[list(found.survivors), ROOM:])


def test_rows_evenly_apart_are_opened_in_place_and_are_theirs(rows):
    found = opened(updates_in(rows, (1, 4, 7)))
    assert inside(found.what.values, rows)
    assert torch.equal(found.what.values, rows[[1, 4, 7], ROOM:])


def test_a_message_that_was_changed_on_the_way_ends_the_row_alone(rows):
    garbled = Faults(malformed={client_party(4): lambda body: bytes(body)[:-1]})
    found = opened(updates_in(rows), garbled)
    assert 4 not in found.survivors
    assert torch.equal(found.what.values, rows[list(found.survivors), ROOM:])


def test_a_message_in_memory_of_its_own_among_others_is_read_from_there(rows):
    other = {client_party(4): lambda body: bytearray(body)}
    found = opened(updates_in(rows), Faults(malformed=other))
    assert not inside(found.what.values, rows)
    assert torch.equal(found.what.values, rows[:, ROOM:])
