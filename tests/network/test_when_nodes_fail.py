"""Nodes that die, sleep or come late, and servers that go on with a run."""

import pytest
import torch

from privfl.core import Faults, RoundFailed
from privfl.federation import Federation
from privfl.flower.wire import Patience

SECAGG = {"channel": {"name": "secagg", "mode": "active"}}
SCAFFOLD = {
    "training": {"name": "scaffold", "steps": 2},
    "channel": "secagg",
    "bound": {"name": "clip", "l2": 1.0, "parts": {"control": 1.0}},
    "rounds": 3,
}


class Killed:
    """Nothing reaches a node, or leaves it, from its envelope number ``at`` on."""

    def __init__(self, who, at):
        self.who, self.at, self.count = who, at, -1

    def __call__(self, who, back, raw):
        if who != self.who:
            return raw
        self.count += not back
        return None if self.count >= self.at else raw


@pytest.mark.parametrize("exchange", [0, 1, 2, 3])
def test_a_node_that_is_killed_leaves_the_sum_of_the_others_and_one_sentence(exchange, make, base):
    config = {**base, **SECAGG, "rounds": 1, "data": {"name": "digits", "clients": 4}}
    dead = Faults(silent_from={"client/2": 2 * exchange})  # the server speaks in between
    alone = Federation.from_config(config).run(faults=dead)
    apart = make(4).federation(config, Killed("client/2", 1 + exchange)).run()
    assert torch.equal(alone.parameters, apart.parameters)
    (record,) = apart.history
    assert record.survivors == alone.history[0].survivors
    said = [what for what in record.incidents if "did not answer" in what]
    assert said == ["client/2 did not answer within 0.3 s and is out of the round"]


def test_a_node_that_was_late_is_back_in_the_next_round(make, base):
    held = []

    def stopped(who, back, raw):
        if who == "client/1" and back and len(held) == 1:  # its answer to the first order
            held.append(raw)
            return None
        if who == "client/1" and back:
            held.append(b"")
        return raw

    machines = make(3)
    nodes = machines.started({**base, "rounds": 3})
    federation = machines.federation({**base, "rounds": 3}, stopped, nodes)
    run = federation.run()
    assert [record.survivors for record in run.history] == [2, 2, 3]  # asked for a sign in between


def test_a_node_that_stays_away_is_waited_for_once(make, base):
    run = make(3).federation({**base, "rounds": 3}, Killed("client/0", 1)).run()
    said = [record.incidents for record in run.history]
    assert said[0] == ("client/0 did not answer within 0.3 s and is out of the round",)
    assert said[1] == said[2] == ("client/0 is not there",)
    assert [record.survivors for record in run.history] == [2, 2, 2]


def test_a_round_without_any_client_ends_the_run_and_says_why(make, base):
    gone = {who: Killed(who, 1) for who in ("client/0", "client/1", "client/2")}
    federation = make(3).federation(base, lambda who, back, raw: gone[who](who, back, raw))
    with pytest.raises(RoundFailed, match="client/0 did not answer"):
        federation.run()


def test_a_missing_helper_ends_the_run_and_is_named(make, base):
    federation = make(3).federation({**base, "channel": "additive_sharing"}, Killed("server/1", 0))
    with pytest.raises(RoundFailed, match="server/1 is missing from the key set-up"):
        federation.run()


@pytest.mark.parametrize("channel", ["bfv", "one_time_rlwe"])
def test_nodes_that_start_again_between_rounds_go_on(channel, make, base):
    config = {**base, "channel": channel}
    machines = make(3, asleep=False)
    nodes = machines.started(config)
    federation = machines.federation(config, nodes=nodes)
    again = {who: node.answer for who, node in machines.started(config).items()}
    run = federation.run(progress=lambda *_: federation._carrier.wire.nodes.update(again))
    assert torch.equal(run.parameters, Federation.from_config(config).run().parameters)


@pytest.mark.parametrize("ends_at", [1, 2])
def test_a_server_that_goes_on_ends_with_the_same_numbers(ends_at, make, base, tmp_path):
    config = {**base, **SCAFFOLD}
    machines = make(3)

    class Kill(BaseException):
        pass

    def killed(record, rounds):
        if record.round + 1 == ends_at:
            raise Kill

    with pytest.raises(Kill):
        machines.federation(config).run(tmp_path / "run", progress=killed)
    resumed = machines.federation(config).run(tmp_path / "run", resume=True)
    assert [record.incidents for record in resumed.history] == [()] * 3
    assert torch.equal(resumed.parameters, Federation.from_config(config).run().parameters)


def test_a_server_killed_inside_a_round_plays_it_again_with_what_nodes_remember(
    make, base, tmp_path
):
    config, seen = {**base, **SCAFFOLD}, []
    machines = make(3)

    class Kill(BaseException):
        pass

    def dies(who, back, raw):
        seen.append(who)
        if len(seen) == 36:  # in the second round, after clients trained
            raise Kill
        return raw

    with pytest.raises(Kill):
        machines.federation(config, dies).run(tmp_path / "run")
    assert len((tmp_path / "run" / "rounds.jsonl").read_text().splitlines()) == 1
    assert len(list((tmp_path / "nodes" / "client-0").rglob("memory-00000001.sealed"))) == 1
    resumed = machines.federation(config).run(tmp_path / "run", resume=True)
    assert torch.equal(resumed.parameters, Federation.from_config(config).run().parameters)


def test_a_client_without_its_memory_says_so(make, base):
    config = {**base, **SCAFFOLD, "rounds": 2}
    machines = make(3)

    def forgets(record, rounds):
        for path in machines.disks["client/1"].path.rglob("memory-*"):
            path.unlink()

    run = machines.federation(config, patience=Patience(1, 1, 1)).run(progress=forgets)
    assert run.history[1].incidents == (
        "client/1: it remembers nothing of round 0, and begins anew",
    )
