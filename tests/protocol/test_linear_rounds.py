"""What a round costs grows as its clients do: operations are counted, not timed."""

import sys

import torch

from privfl.core import Bounded, RoundPlan, client_of
from privfl.crypto import Plain
from privfl.engine import Session

COMPARED = 0


class Counted(int):
    """A client's number that counts how often it is compared with another."""

    def __eq__(self, other):
        global COMPARED
        COMPARED += 1
        return int(self) == other

    __hash__ = int.__hash__


def calls_and_comparisons(n):
    """Python calls, and comparisons of clients, of a plain round of n clients."""
    global COMPARED
    ids = tuple(Counted(i) for i in range(n))
    session = Session(Plain())
    session.enrol(ids)
    rows = 1e-3 * torch.randn(n, 3)
    updates = {client: Bounded(client, rows[client], l2=1.0) for client in ids}
    plan = RoundPlan(0, ids, 3, l2=1.0)
    calls = 0

    def count(frame, event, arg):
        nonlocal calls
        calls += event in ("call", "c_call")

    COMPARED = 0
    sys.setprofile(count)
    try:
        outcome = session.play(plan, updates)
    finally:
        sys.setprofile(None)
    assert len(outcome.opened.survivors) == n
    return calls, COMPARED


def test_a_plain_round_of_ten_times_the_clients_takes_ten_times_the_operations(monkeypatch):
    monkeypatch.setattr("privfl.crypto.plain.client_of", lambda who: Counted(client_of(who)))
    few, some = calls_and_comparisons(500)
    many, more = calls_and_comparisons(5_000)
    assert many <= 10.5 * few
    assert more <= 10.5 * some
    assert more <= 20 * 5_000  # a search through all for each would be 12 million
