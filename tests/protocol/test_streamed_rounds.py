"""Rounds that keep no rows: what comes of them is what comes of stored rounds, bit for bit, and so
few rows live at any time, whatever the number of clients.
"""

import gc
import tracemalloc
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.aggregators import Bucketing, ClientMomentum, Mean, Median
from privfl.attacks import SignFlip
from privfl.config import AuditConfig
from privfl.core import (
    Bounded,
    ConfigError,
    Dataset,
    DpEvent,
    Faults,
    FlatModel,
    NoisySteps,
    RoundFailed,
    RoundPlan,
    Sampling,
    SeededNoise,
    cross_entropy,
    drive_all,
)
from privfl.crypto import AdditiveSharing, Plain, SecAgg
from privfl.dp import Clip, LocalGaussian
from privfl.engine import Attacker, Engine, Scenario, Session
from privfl.engine.adversaries import Adversaries
from privfl.engine.carrier import Simulated
from privfl.engine.notes import Notes
from privfl.hybrid import TwoServer
from privfl.training import LocalSGD, Sequential, Stacked, Trained, Workload
from privfl.training.task import failed

LONG, SHORT = 1 << 18, 64
NOTES = Notes()
NEVER = 1 << 62


class Draws:
    """An executor whose updates are drawn for each client and round; it notes which rows it was
    given, and how many vectors of a row's length live when it trains its ``last`` client.
    """

    together = 1

    def __init__(self, workload, *, fails=(), nan=()):
        self.workload, self.fails, self.nan = workload, fails, nan
        self.places, self.most, self.vectors = set(), 0, 0
        self.last = None

    def train(self, broadcast, tasks, out, seeds):
        self.places |= {row.data_ptr() for row in out}
        self.most = max(self.most, len(out))
        if tasks[-1].client == self.last:
            self.vectors = max(self.vectors, vectors_of(out.shape[1]))
        return [self.one(broadcast, task, row) for task, row in zip(tasks, out, strict=True)]

    def one(self, broadcast, task, row):
        rng = torch.Generator().manual_seed(1000 * broadcast.version + task.client)
        row.normal_(generator=rng)
        if task.client in self.fails:
            return failed(task, self.workload, "it was told to")
        if task.client in self.nan:
            row[0] = float("nan")
        return Trained(task.client, 1.0 + task.client % 3, loss=float(task.client))

    def close(self):
        pass


def vectors_of(d):
    """How many buffers that hold d numbers or more the tensors of this process lie in."""
    kinds = (torch.Tensor, nn.Parameter)
    found = [one for one in gc.get_objects() if type(one) in kinds]
    storages = {one.untyped_storage().data_ptr() for one in found if one.numel() >= d}
    return len(storages)


def engine_of(channel, *, n=6, d=SHORT, streams_from=0, faults=None, executor=None, **changed):
    data = Dataset(torch.zeros(n, 1), torch.zeros(n, dtype=torch.int64), classes=d // 2)
    model = FlatModel(nn.Sequential(nn.Linear(1, d // 2)))
    model.write(torch.zeros(d))
    method = LocalSGD(weighting=changed.pop("weighting", "samples"))
    work = Workload(model, cross_entropy, method, data)
    clients = {client: torch.tensor([client]) for client in range(n)}
    settings = {"max_weight": 3.0, **changed}
    scenario = Scenario(
        work, clients, data, Clip(1.0), channel, settings.pop("rule", Mean()), rounds=3, **settings
    )
    executor = Draws(work) if executor is None else executor(work)
    session = Session(channel, scenario.mail)
    adversaries = Adversaries(scenario, scenario.seeds)
    carrier = Simulated(
        session, executor, adversaries, scenario.seeds, faults or Faults(), streams_from
    )
    return Engine(scenario, executor, carrier=carrier)


def played(engine, rounds=2, **how):
    state, out = engine.begin("given"), []
    for _ in range(rounds):
        result = engine.play(state, **how)
        state = result.state
        out.append(result)
    return out


def told(result):
    """What a round tells, without what is drawn anew in each: keys, and the time that it took."""
    one = result.transcript
    opened = one.carried.opened["delta"]
    return {
        "incidents": one.incidents,
        "survivors": None if opened is None else opened.survivors,
        "excluded": None if opened is None else opened.excluded,
        "losses": result.train_losses,
        "letters": [(m.exchange, m.sender, m.receiver, m.size) for m in one.carried.messages],
        "updates": sorted(one.updates),
        "clients": sorted(result.state.clients),
    }


CHANNELS = {
    "plain": (Plain(), LONG),
    "secagg": (SecAgg(), SHORT),
    "active secagg": (SecAgg(mode="active"), SHORT),
    "secagg with carried keys": (SecAgg(carry=True), SHORT),
    "sharing": (AdditiveSharing(servers=3), SHORT),
    "sharing with proofs": (AdditiveSharing(proof="pine"), SHORT),
    "ideal secagg": (SecAgg(fidelity="ideal"), SHORT),
    "two servers": (TwoServer(bits=8, security="semi_honest"), SHORT),
    "two servers, one may lie": (TwoServer(bits=8), SHORT),
}
FAULTS = {
    "nothing goes wrong": None,
    "one falls silent at once": Faults(silent_from={"client/2": 0}),
    "one falls silent before its vector": Faults(silent_from={"client/4": 2}),
}


@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize("faults", FAULTS)
def test_a_streamed_round_is_the_stored_one_bit_for_bit(name, faults):
    channel, d = CHANNELS[name]
    how = {"d": d, "faults": FAULTS[faults]}
    streamed, stored = engine_of(channel, **how), engine_of(channel, **how, streams_from=NEVER)
    one, other = played(streamed), played(stored)
    assert streamed.executor.most == 1
    assert stored.executor.most == 6
    for ours, theirs in zip(one, other, strict=True):
        assert torch.equal(ours.state.parameters, theirs.state.parameters)
        assert told(ours) == told(theirs)
    assert one[-1].state.parameters.abs().max() > 0


def test_letters_that_are_folded_are_noted_whole_with_their_digests():
    (one,) = played(engine_of(Plain(), d=LONG), 1, digests=True)
    (other,) = played(engine_of(Plain(), d=LONG, streams_from=NEVER), 1, digests=True)
    ours, theirs = one.transcript.carried.messages, other.transcript.carried.messages
    assert ours == theirs
    assert all(len(message.digest) == 64 for message in ours)


@pytest.mark.parametrize("rule", [Mean(weighted=False), Mean(weighted=False, denominator=7.0)])
def test_rows_that_count_alike_are_added_up_alike(rule):
    channel, how = Plain(), {"d": LONG, "rule": rule}
    (one,) = played(engine_of(channel, **how), 1)
    (other,) = played(engine_of(channel, **how, streams_from=NEVER), 1)
    assert torch.equal(one.state.parameters, other.state.parameters)
    assert one.state.parameters.abs().max() > 0


@pytest.mark.parametrize("name", ["plain", "secagg", "sharing", "two servers"])
def test_clients_whose_training_fails_or_diverges_are_told_of_as_in_a_stored_round(name):
    channel, d = CHANNELS[name]
    how = {"d": d, "executor": lambda work: Draws(work, fails={1}, nan={3})}
    (one,) = played(engine_of(channel, **how), 1)
    (other,) = played(engine_of(channel, **how, streams_from=NEVER), 1)
    assert torch.equal(one.state.parameters, other.state.parameters)
    ours, theirs = told(one), told(other)
    del ours["letters"], theirs["letters"]  # under secagg they have shared keys by then
    assert ours == theirs
    assert [i.stage for i in one.transcript.incidents][:2] == ["train", "bound"]


@pytest.mark.parametrize("mode", ["semi_honest", "active"])
def test_where_keys_are_carried_a_client_whose_training_fails_is_left_out(mode):
    how = {"executor": lambda work: Draws(work, fails={1})}
    one = played(engine_of(SecAgg(mode=mode, carry=True), **how), 3)
    other = played(engine_of(SecAgg(mode=mode, carry=True), **how, streams_from=NEVER), 3)
    for ours, theirs in zip(one, other, strict=True):
        assert torch.equal(ours.state.parameters, theirs.state.parameters)
        assert told(theirs)["survivors"] == told(ours)["survivors"] == (0, 2, 3, 4, 5)
        said = [[i.what for i in each.transcript.incidents] for each in (ours, theirs)]
        assert said == [["client 1 failed: it was told to"]] * 2


def test_what_went_wrong_is_told_in_the_order_of_the_cohort():
    how = {
        "executor": lambda work: Draws(work, fails={1, 5}),
        "faults": Faults(silent_from={"client/1": 1}),
    }
    (one,) = played(engine_of(SecAgg(), **how), 1)
    (other,) = played(engine_of(SecAgg(), **how, streams_from=NEVER), 1)
    assert one.transcript.incidents == other.transcript.incidents
    assert [i.client for i in one.transcript.incidents][:2] == [1, 5]
    how["executor"] = lambda work: Draws(work, fails=set(range(6)))
    how["faults"] = Faults(silent_from={"client/0": 0})
    engine = engine_of(SecAgg(), **how)
    with pytest.raises(RoundFailed, match="client 0: it was told to"):
        engine.play(engine.begin("given"))


def test_noise_of_clients_that_a_seed_repeats_is_the_stored_one_where_training_fails():
    def run(streams_from):
        settings = {"rule": Mean(weighted=False), "mechanism": LocalGaussian(1.0)}
        settings |= {"noise": SeededNoise(7), "executor": lambda work: Draws(work, fails={1})}
        settings |= {"relation": "replace_one", "weighting": "uniform"}
        faults = Faults(silent_from={"client/2": 0})
        how = {"d": LONG, "faults": faults, "streams_from": streams_from}
        return played(engine_of(Plain(), **how, **settings), 1)[0]

    streamed, stored = run(0), run(NEVER)
    assert torch.equal(streamed.state.parameters, stored.state.parameters)
    assert told(streamed) == told(stored)
    assert streamed.transcript.charges == stored.transcript.charges != ()


@pytest.mark.parametrize("mode", ["semi_honest", "active"])
def test_where_keys_are_carried_and_nobody_has_a_vector_the_server_gives_up(mode):
    how = {"executor": lambda work: Draws(work, nan=set(range(6)))}
    for streams_from in (0, NEVER):
        (one,) = played(
            engine_of(SecAgg(mode=mode, carry=True), streams_from=streams_from, **how), 1
        )
        (gave_up,) = (i.what for i in one.transcript.incidents if "gave up" in i.what)
        assert gave_up.startswith("server gave up: stage ")
        assert "0 of 6 clients are left" in gave_up
        assert one.transcript.carried.opened["delta"] is None


@pytest.mark.parametrize("fails", [{1}, set(range(6))])
def test_who_masks_nothing_has_not_entered_a_round_against_an_active_server(fails):
    entered = []
    for streams_from in (0, NEVER):
        engine = engine_of(
            SecAgg(mode="active"),
            streams_from=streams_from,
            executor=lambda work: Draws(work, fails=fails),
        )
        with suppress(RoundFailed):
            engine.play(engine.begin("given"))
        members = (engine.carrier.session.member(client) for client in range(6))
        entered.append([len(member.entered) for member in members])
    assert entered[0] == entered[1] == [client not in fails for client in range(6)]


class Unannounced(Draws):
    """An executor of training that adds noise and does not say so beforehand."""

    def one(self, broadcast, task, row):
        steps = NoisySteps(DpEvent("gaussian", {"noise_multiplier": 1.0}), Sampling("all", 1.0, 9))
        return replace(super().one(broadcast, task, row), noisy=(steps,))


def test_noise_in_training_that_nobody_announced_is_charged_or_nothing_is_sent():
    (stored,) = played(engine_of(SecAgg(), executor=Unannounced, streams_from=NEVER), 1)
    assert len(stored.transcript.charges) == 6
    engine = engine_of(SecAgg(), executor=Unannounced)
    with pytest.raises(ConfigError, match="training of client 0 added noise"):
        engine.play(engine.begin("given"))


def test_a_round_in_which_everybody_fails_ends_as_a_stored_one():
    def executor(work):
        return Draws(work, fails=set(range(6)))

    engine = engine_of(SecAgg(), executor=executor)
    with pytest.raises(RoundFailed, match="client 0: it was told to"):
        engine.play(engine.begin("given"))
    assert engine.executor.most == 1


@pytest.mark.parametrize("name", ["plain", "secagg", "active secagg", "sharing"])
def test_as_few_vectors_live_among_many_clients_as_among_few(name):
    peaks, vectors = [], []
    for n in (6, 18):
        engine = engine_of(CHANNELS[name][0], n=n, d=LONG if name == "plain" else LONG >> 2)
        state = engine.begin("given")
        engine.carrier.ready(range(n), NOTES)
        engine.executor.last = n - 1
        tracemalloc.start()
        engine.play(state)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        vectors.append(engine.executor.vectors)
        assert len(engine.executor.places) == 1
    assert vectors[0] == vectors[1]  # torch's own memory
    assert peaks[1] <= 1.1 * peaks[0] + 18 * 20_000  # numpy's, and letters of some kilobytes each


@pytest.mark.parametrize("security", ["semi_honest", "malicious"])
def test_what_two_servers_hold_of_long_rows_lies_in_memory_once(security):
    engine = engine_of(TwoServer(Mean(weighted=False), security=security), n=4, d=1 << 19)
    state = engine.begin("given")
    engine.carrier.ready(range(4), NOTES)
    tracemalloc.start()
    state = engine.play(state).state
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert state.parameters.abs().max() > 0
    # letters of rows 20 bytes a value, then tags of rows 32, or the sum on its way five times 8
    assert peak <= 66 << 19


KEPT = {
    "an audit": ({}, {"keep": True}),
    "a rule that reads rows": ({"rule": Median()}, {}),
    "a defence before the rule": ({"defences": (Bucketing(),)}, {}),
    "an attacker": ({"attackers": (Attacker("flip", SignFlip(), frozenset({1})),)}, {}),
    "signed mail": ({"mail": "signed"}, {}),
    "late letters": ({"faults": Faults(late={"client/1": 1})}, {}),
    "letters that come twice": ({"faults": Faults(duplicated={"client/1"})}, {}),
    "letters changed on the way": ({"faults": Faults(malformed={"client/1": bytes})}, {}),
    "liars": ({"faults": Faults(byzantine={"client/1": lambda party: party})}, {}),
}


WORDS = {
    "an audit": "an audit keeps the round",
    "a rule that reads rows": "Median reads rows",
    "a defence before the rule": "a defence before the rule",
    "an attacker": "attackers may be handed all of them",
    "signed mail": "signed letters are opened in the exchange after",
    "late letters": "letters are late, doubled or changed",
    "letters that come twice": "letters are late, doubled or changed",
    "letters changed on the way": "letters are late, doubled or changed",
    "liars": "or parties lie",
}


@pytest.mark.parametrize("why", KEPT)
def test_what_may_want_all_rows_has_them_kept(why):
    settings, how = KEPT[why]
    engine = engine_of(Plain(), d=LONG, **settings)
    (result,) = played(engine, 1, **how)
    assert engine.executor.most == 6
    assert len(engine.executor.places) == 6
    ((name, said),) = engine.rows_said.items()
    assert said.startswith("all 6 of a round at once (6 MiB)")
    assert WORDS[why] in name + ": " + said
    if how:
        assert len(result.transcript.carried.opened["delta"].what.values) == 6


def test_the_report_says_why_many_rows_are_kept():
    wide = nn.Sequential(nn.Linear(1, 1 << 20, bias=False))
    data = Dataset(torch.zeros(9, 1), torch.zeros(9, dtype=torch.int64), classes=1 << 20)
    parts = [data.take(torch.tensor([client])) for client in range(8)]
    how = {"rounds": 2, "training": LocalSGD(lr=0.1), "executor": "sequential"}
    how["audit"] = AuditConfig(keep=[1])
    all_rows, said = "all 8 of a round at once (32 MiB)", []
    for rule in (Median(), Mean()):
        run = Federation(wide, parts, data.take(torch.tensor([8])), aggregator=rule, **how).run()
        said.append(run.summary["facts"]["rows in memory"])
        kept = run.summary["facts"]["rows in memory where an audit keeps the round"]
        assert kept == all_rows
    why = "Median reads rows of this length"
    assert said == [f"{all_rows}: {why}", "1 of the 8 of a round at once"]


def test_short_rows_of_the_mean_are_kept_and_it_is_said_why():
    engine = engine_of(Plain(), d=SHORT)
    engine.carrier.ready(range(6), NOTES)
    order = engine.planner.order(engine.begin("given"), {})
    assert engine.carrier.why_rows_are_kept(order) == "Mean reads rows of this length"
    assert played(engine, 1)
    assert engine.executor.most == 6


def test_an_executor_that_trains_clients_together_keeps_rows():
    engine = engine_of(SecAgg(), executor=Stacked)
    engine.carrier.ready(range(6), NOTES)
    order = engine.planner.order(engine.begin("stacked"), {})
    assert engine.carrier.why_rows_are_kept(order) == "Stacked trains all clients together"


def test_an_executor_of_two_workers_is_handed_as_many_clients_as_it_trains():
    def executor(work):
        made = Draws(work)
        made.together = 4
        return made

    streamed = engine_of(SecAgg(), executor=executor)
    stored = engine_of(SecAgg(), streams_from=NEVER)
    one, other = played(streamed), played(stored)
    assert streamed.executor.most == 4
    assert torch.equal(one[-1].state.parameters, other[-1].state.parameters)
    assert told(one[-1]) == told(other[-1])


@pytest.mark.parametrize("defences", [(), (ClientMomentum(),)])
def test_clients_that_train_and_remember_do_so_once_a_round_and_in_order(defences):
    def run(streams_from):
        rng = torch.Generator().manual_seed(0)
        data = Dataset(torch.randn(24, 3, generator=rng), torch.arange(24) % 2, classes=2)
        work = Workload(FlatModel(nn.Sequential(nn.Linear(3, 2))), cross_entropy, LocalSGD(), data)
        work.model.write(torch.zeros(8))
        clients = {client: torch.arange(4 * client, 4 * client + 4) for client in range(6)}
        scenario = Scenario(
            work, clients, data, Clip(1.0), SecAgg(), Mean(), rounds=3, defences=defences
        )
        executor, seeds = Sequential(work), scenario.seeds
        session, adversaries = Session(scenario.channel), Adversaries(scenario, seeds)
        faults = Faults(silent_from={"client/3": 2})
        carrier = Simulated(session, executor, adversaries, seeds, faults, streams_from)
        return played(Engine(scenario, executor, carrier=carrier), 3)

    streamed, stored = run(0), run(NEVER)
    for one, other in zip(streamed, stored, strict=True):
        assert torch.equal(one.state.parameters, other.state.parameters)
        assert told(one) == told(other)
        assert one.transcript.fired == other.transcript.fired
        for seat, kept in other.state.client_seats.items():
            for client, value in kept.items():
                assert torch.equal(one.state.client_seats[seat][client].vector, value.vector)
    assert len(streamed[-1].state.client_seats.get(0, {})) == 6 * len(defences)
    assert streamed[-1].state.parameters.norm() > 0


def session_of(channel):
    session = Session(channel)
    session.enrol(range(4))
    return session


class Snooping:
    """A server party that notes what it is handed before its exchange, and what it hands back."""

    def __init__(self, inner):
        self.inner, self.asked = inner, []

    def step(self, mail):
        return self.inner.step(mail)

    def fold(self, sender, body):
        left = self.inner.fold(sender, body)
        self.asked.append((sender, bytes(body), left))
        return left


@pytest.mark.parametrize(
    "channel", [Plain(), SecAgg(), SecAgg(mode="active"), AdditiveSharing(), TwoServer()]
)
def test_a_letter_is_folded_once_from_its_sender_and_as_it_was_meant(channel):
    plan, session = RoundPlan(0, (0, 1, 2, 3), 64, l2=1.0), session_of(channel)
    server = session.members["server"]
    if isinstance(channel, Plain):
        party = Snooping(server.enter_summing(plan, weighted=True))
    else:
        party = Snooping(server.enter(plan))
    updates = {c: Bounded(c, torch.full((64,), 0.1), 1.0) for c in range(4)}
    cast = {f"client/{c}": session.member(c).enter(plan, one) for c, one in updates.items()}
    cast |= {who: session.members[who].enter(plan) for who in channel.helpers}
    drive_all({**cast, "server": party})
    took = [(sender, body) for sender, body, left in party.asked if left is not None]
    assert [sender for sender, _ in took] == [f"client/{c}" for c in range(4)]
    for sender, body in took:
        assert party.inner.fold(sender, body) is None  # a second time
        assert party.inner.fold("client/9", body) is None
        assert party.inner.fold(sender, body[:-1]) is None
    opened = party.inner.result
    assert opened.what.count == 4
    assert opened.what.value == pytest.approx(torch.full((64,), 0.4), abs=1e-3)


@pytest.mark.parametrize("channel", [Plain(), AdditiveSharing()])
def test_what_cannot_be_folded_is_delivered_whole_and_its_sender_excluded(channel):
    plan, session = RoundPlan(0, (0, 1, 2, 3), 64, l2=1.0), session_of(channel)
    server, others = session.members["server"], RoundPlan(1, (0, 1, 2, 3), 64, l2=1.0)
    opener = server.enter_summing(plan, weighted=True) if channel == Plain() else server.enter(plan)
    cast = {}
    for client in range(4):
        told_of = others if client == 2 else plan
        update = Bounded(client, torch.full((64,), 0.1), 1.0)
        cast[f"client/{client}"] = session.member(client).enter(told_of, update)
    cast |= {who: session.members[who].enter(plan) for who in channel.helpers}
    drive_all({**cast, "server": opener})
    assert opener.result.survivors == (0, 1, 3)
    assert list(opener.result.excluded) == ["client/2"]
    assert opener.result.what.value == pytest.approx(torch.full((64,), 0.3), abs=1e-3)
