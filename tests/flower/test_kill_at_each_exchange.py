"""kill -9 of a node as it is handed its envelope number k, for every k of a round, and SIGSTOP."""

import os
import signal

import pytest
import torch

from privfl.core import Faults
from privfl.federation import Federation
from privfl.flower.local import RunLost
from tests.flower.hostile_federation import BASE, CHANNEL, records

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
ENVELOPES = {
    ("secagg", "client/1"): 6,
    ("two_server", "client/1"): 2,
    ("bfv", "client/1"): 3,
    ("two_server", "server/1"): 10,
    ("two_server", "dealer"): 4,
    ("bfv", "decryptor/0"): 4,
}
CLIENTS = [(c, w, k) for (c, w), n in ENVELOPES.items() if w == "client/1" for k in range(n)]
HELPERS = [(c, w, k) for (c, w), n in ENVELOPES.items() if w != "client/1" for k in range(n)]
SILENT = Faults(silent_from={"client/1": 0})


def simulated(config, survivors):
    return Federation.from_config(config).run(**({"faults": SILENT} if survivors == 2 else {}))


def about(told, who):
    return [what for what in told["incidents"] if who in what]


@pytest.mark.parametrize(("channel", "who", "at"), CLIENTS)
def test_a_client_that_is_killed_leaves_the_sum_of_the_others_and_one_sentence(
    channel, who, at, hostile, tmp_path
):
    name, config = who.replace("/", "-"), {**BASE, "channel": CHANNEL[channel]}
    for one in hostile.names:
        hostile.restart(one)
    plan = {"relay": "Signals", "pid": hostile.running[name].pid, "number": signal.SIGKILL}
    (told,), model = hostile.play(config, tmp_path / "run", who=who, at=at, **plan)
    hostile.running[name].wait(60)  # it was handed that envelope
    assert hostile.running[name].poll() is not None
    (said,) = [what for what in about(told, who) if "did not get through" not in what]
    assert said.startswith(f"{who} did not answer within ")
    assert told["survivors"] in (2, 3)
    assert torch.equal(model, simulated(config, told["survivors"]).parameters)


@pytest.mark.parametrize(("channel", "who", "at"), HELPERS)
def test_a_helper_that_is_killed_closes_the_round_and_is_named(channel, who, at, hostile, tmp_path):
    name, config = who.replace("/", "-"), {**BASE, "channel": CHANNEL[channel]}
    for one in hostile.names:
        hostile.restart(one)
    out = tmp_path / "run"
    plan = {"relay": "Signals", "pid": hostile.running[name].pid, "number": signal.SIGKILL}
    try:
        (told,), model = hostile.play(config, out, who=who, at=at, **plan)
    except RunLost as lost:
        why, told, model = str(lost), None, None
    hostile.running[name].wait(60)  # it was handed that envelope
    assert hostile.running[name].poll() is not None
    if told is None:
        assert who in why
        assert not records(out)
        return
    assert any(f"{who} did not answer within " in what for what in told["incidents"])
    assert told["survivors"] in (0, 3)
    if told["survivors"]:  # it had done its part
        assert torch.equal(model, simulated(config, 3).parameters)
    else:
        assert any("nothing was opened" in what for what in told["incidents"])


@pytest.mark.parametrize("channel", ["secagg", "two_server", "bfv"])
def test_a_client_that_is_stopped_past_the_deadline_is_left_out_and_comes_back(
    channel, hostile, tmp_path
):
    for name in hostile.names:
        hostile.restart(name)
    config, pid = {**BASE, "channel": CHANNEL[channel]}, hostile.running["client-1"].pid
    plan = {"relay": "Signals", "who": "client/1", "at": 1, "pid": pid, "number": signal.SIGSTOP}
    (told,), model = hostile.play(config, tmp_path / "run", **plan)
    os.killpg(pid, signal.SIGCONT)
    assert told["survivors"] == 2
    (said,) = [what for what in about(told, "client/1") if "did not get through" not in what]
    assert said.startswith("client/1 did not answer within ")
    assert torch.equal(model, simulated(config, 2).parameters)
    (back,), model = hostile.play(config, tmp_path / "again")
    assert back["survivors"] == 3
    assert torch.equal(model, simulated(config, 3).parameters)
