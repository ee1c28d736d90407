"""What a round costs grows as its clients do: operations are counted, not timed."""

import gc
import sys
import threading

import pytest
import torch
from torch import nn

from privfl.aggregators import Mean
from privfl.core import Bounded, Dataset, FlatModel, RoundPlan, client_of
from privfl.crypto import Plain
from privfl.dp import NoBound
from privfl.engine import Engine, Scenario, Session
from privfl.engine.resting import Resting
from privfl.training import LocalSGD, Trained, Workload, cross_entropy

COMPARED = 0


class Counted(int):
    """A client's number that counts how often it is compared with another."""

    def __eq__(self, other):
        global COMPARED
        COMPARED += 1
        return int(self) == other

    __hash__ = int.__hash__


def counted(run):
    """Python calls, and comparisons of clients, while ``run`` runs; and what it returns."""
    global COMPARED
    calls = 0

    def count(frame, event, arg):
        nonlocal calls
        calls += event in ("call", "c_call")

    COMPARED = 0
    sys.setprofile(count)
    try:
        returned = run()
    finally:
        sys.setprofile(None)
    return calls, COMPARED, returned


def plain_round(n):
    """Calls and comparisons of a plain channel's protocol run for n clients."""
    ids = tuple(Counted(i) for i in range(n))
    session = Session(Plain())
    session.enrol(ids)
    rows = 1e-3 * torch.randn(n, 3)
    updates = {client: Bounded(client, rows[client], l2=1.0) for client in ids}
    plan = RoundPlan(0, ids, 3, l2=1.0)
    calls, compared, outcome = counted(lambda: session.play(plan, updates))
    assert len(outcome.opened.survivors) == n
    return calls, compared


class Ready:
    """An executor that trains nobody: what is left of a round is the engine."""

    def train(self, broadcast, tasks, out, seeds):
        self.collects = gc.isenabled()
        out.fill_(1e-3)
        return [Trained(task.client, 1.0, loss=0.0) for task in tasks]

    def close(self):
        pass


def engine_of(n):
    """An engine for n clients of one sample, and the state before its first round."""
    ids = [Counted(i) for i in range(n)]
    data = Dataset(torch.zeros(n, 1), torch.zeros(n, dtype=torch.int64), classes=3)
    work = Workload(FlatModel(nn.Linear(1, 3, bias=False)), cross_entropy, LocalSGD(), data)
    clients = {client: torch.tensor([int(client)]) for client in ids}
    scenario = Scenario(work, clients, data, NoBound(), Plain(), Mean(), rounds=9)
    engine = Engine(scenario, Ready())
    return engine, engine.begin("ready")


def engine_round(n):
    """Calls and comparisons of the second round of an engine with n clients."""
    engine, state = engine_of(n)
    state = engine.play(state).state
    calls, compared, played = counted(lambda: engine.play(state))
    assert len(played.transcript.carried.opened["delta"].survivors) == n
    return calls, compared


@pytest.mark.parametrize("played", [plain_round, engine_round])
def test_a_round_of_ten_times_the_clients_takes_ten_times_the_operations(played, monkeypatch):
    monkeypatch.setattr(
        "privfl.crypto.plain_letters.client_of", lambda who: Counted(client_of(who))
    )
    few, some = played(500)
    many, more = played(5_000)
    assert many <= 10.5 * few
    assert more <= 10.5 * some
    assert more <= 20 * 5_000  # a search through all for each would be 12 million


def passes_of_the_collector(run):
    """How often the garbage collector went over its objects while ``run`` ran."""
    began = []
    gc.callbacks.append(lambda phase, info: began.append(info) if phase == "start" else None)
    try:
        run()
    finally:
        gc.callbacks.pop()
    return len(began)


def test_the_collector_works_while_clients_train_and_rests_while_a_round_keeps_its_books():
    engine, state = engine_of(2_000)
    state = engine.play(state).state
    made = passes_of_the_collector(lambda: [Trained(i, 1.0) for i in range(12 * 2_000)])
    assert made >= 20  # so often it would go over what a round makes
    assert passes_of_the_collector(lambda: engine.play(state)) < made / 2
    assert engine.executor.collects
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off_in_a_round():
    engine, state = engine_of(3)
    gc.disable()
    try:
        engine.play(state)
        assert not gc.isenabled()
        assert not engine.executor.collects
    finally:
        gc.enable()


def test_a_round_leaves_nothing_to_the_collector_that_rests_in_it():
    engine, state = engine_of(50)
    state = engine.play(state).state
    gc.collect()
    gc.disable()
    try:
        state = engine.play(state).state
        assert gc.collect() < 50  # cycles: fewer than one a client
    finally:
        gc.enable()


def test_the_collector_is_as_it_was_found_whatever_happens_inside():
    resting = Resting()
    with resting, resting:
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyboardInterrupt), resting, resting.interrupted():
        raise KeyboardInterrupt
    assert gc.isenabled()
    try:
        with resting, resting.interrupted():
            gc.disable()  # as training of somebody's own may
        assert not gc.isenabled()
    finally:
        gc.enable()
    seen = []

    def beside():
        with resting:
            seen.append(gc.isenabled())

    thread = threading.Thread(target=beside)
    thread.start()
    thread.join()
    assert seen == [True]
