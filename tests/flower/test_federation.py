"""A real federation: a SuperLink with TLS and node authentication, and nodes as processes."""

import base64
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from privfl.config import load
from privfl.core import ConfigError
from privfl.engine import RunFolder
from privfl.federation import Federation
from privfl.flower import local, setup
from privfl.flower.wire import Patience

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
BASE = {
    "data": {"name": "digits", "clients": 3},
    "rounds": 3,
    "repeatable": True,
    "executor": "sequential",
    "training": {"name": "sgd", "weighting": "uniform", "steps": 2},
    "bound": {"name": "clip", "l2": 1.0},
}
HELPERS = ("server/1", "dealer", "decryptor/0", "decryptor/1", "decryptor/2")
LARGE = {"model": {"name": "mlp", "hidden": [4000]}}  # 300,000 parameters, 1.2 MB
SECAGG = {**BASE, **LARGE, "channel": {"name": "secagg", "mode": "active"}, "rounds": 1}
CASES = {
    "one-time keys": {"channel": "one_time_rlwe"},
    "plain": {"channel": "plain"},
    "secagg active": {"channel": {"name": "secagg", "mode": "active"}},
    "in pieces of Flower's": {"channel": "plain", "model": {"name": "mlp", "hidden": [20_000]}},
    "additive sharing": {"channel": "additive_sharing"},
    "two servers": {"channel": "two_server"},
    "bfv": {"channel": "bfv"},
    "SCAFFOLD": {
        "training": {"name": "scaffold", "steps": 2},
        "channel": "secagg",
        "bound": {"name": "clip", "l2": 1.0, "parts": {"control": 1.0}},
    },
    "adaptive clip": {"channel": "bfv", "bound": {"name": "adaptive_clip"}},
}
KILLED = ("one-time keys", "plain", "secagg active", "two servers", "bfv")
PATIENCE = Patience(60, 30, 30)


@pytest.fixture(scope="module")
def fed(tmp_path_factory):
    """Everybody is running, and has played a run of SecAgg, with envelopes above 1 MB, that began
    before one of them was started: it is in ``first``. A new run needs nothing but a config.
    """
    home = tmp_path_factory.mktemp("net") / "fed"
    channels = ["plain", "secagg", "additive_sharing", "two_server", "bfv", "one_time_rlwe"]
    policy = {"channels": channels, "training": ["sgd", "scaffold"], "quorum": 1}
    policy["repeatable"] = True
    at = setup.set_up(home, 3, HELPERS, local.HOST, local._free_port(), policy)
    processes = local.LocalProcesses(home)
    processes.start("server", "server")
    try:
        for path in at[2:]:
            processes.start(path.name, "node")
        local.wait_for(home / "server")
        with ThreadPoolExecutor() as pool:
            server, first = home / "server", home / "first"
            run = pool.submit(local.play, server, load(SECAGG), first, patience=PATIENCE)
            set_up = home / "client-1" / "state" / "played.jsonl"
            until(lambda: run.done() or set_up.exists())
            processes.start("client-0", "node")
            run.result()
        yield processes
    finally:
        processes.end()


def said(home, name):
    return (home / f"{name}.log").read_text(encoding="utf-8", errors="replace")


def model(out):
    return load_file(out / "model.safetensors")["parameters"]


def test_a_run_that_begins_before_its_nodes_waits_for_them(fed):
    told = [record["survivors"] for record in records(fed.folder / "first")]
    assert told == [3] * SECAGG["rounds"]
    alone = Federation.from_config(SECAGG).run()
    assert torch.equal(model(fed.folder / "first"), alone.parameters)


def test_a_node_killed_in_a_round_gets_the_envelope_that_waited_for_it(fed, tmp_path):
    """The SuperLink takes it for running for a minute more, takes no node twice, and gives up what
    waits for the one before.
    """
    out, before = tmp_path / "run", said(fed.folder, "client-1").count("connected to")
    with ThreadPoolExecutor() as pool:
        config = {**LONG, "rounds": 2}
        run = pool.submit(local.play, fed.folder / "server", load(config), out, patience=PATIENCE)
        until(lambda: records(out))
        fed.kill("client-0", signal.SIGSTOP)  # an exchange waits for it
        asleep(fed.folder / "client-1")  # it has answered, and is between two envelopes
        fed.kill("client-1")
        fed.kill("client-0", signal.SIGCONT)
        time.sleep(1.0)  # the next exchange waits for the other
        fed.start("client-1", "node")
        run.result()
    told = records(out)
    assert [(one["survivors"], one["incidents"]) for one in told] == [(3, [])] * 2
    assert torch.equal(model(out), Federation.from_config(config).run().parameters)
    assert said(fed.folder, "client-1").count("connected to") == before + 1


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_a_real_federation_ends_with_the_bits_of_the_simulation(name, fed, tmp_path):
    config = {**BASE, **CASES[name]}
    local.play(fed.folder / "server", load(config), tmp_path / "run", patience=PATIENCE)
    alone = Federation.from_config(config).run()
    assert torch.equal(model(tmp_path / "run"), alone.parameters)
    assert (tmp_path / "run" / "report.html").exists()


def records(out):
    path = out / "rounds.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def free(out):
    """Whether nobody writes to a run's folder any more."""
    folder = RunFolder(out)
    try:
        folder.lock()
    except ConfigError:
        return False
    folder.close()
    return True


def until(done, seconds=300.0):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def asleep(home, seconds=1.5):
    """Wait until nothing in a node's folder has changed for so long."""

    def changed():
        found = []
        for path in home.rglob("*"):
            with suppress(FileNotFoundError):
                found.append(path.stat().st_mtime_ns)
        return max(found)

    until(lambda: time.time() - changed() / 1e9 > seconds)


LONG = {**BASE, "channel": {"name": "secagg", "mode": "active"}, "rounds": 4}
SHORT = Patience(60, 5, 5)


@pytest.mark.long
def test_a_stopped_node_is_left_out_and_comes_back(fed, tmp_path):
    out = tmp_path / "run"
    with ThreadPoolExecutor() as pool:
        run = pool.submit(
            local.play, fed.folder / "server", load({**LONG, "rounds": 6}), out, patience=SHORT
        )
        until(lambda: records(out))
        fed.kill("client-1", signal.SIGSTOP)
        until(lambda: any("client/1 did not answer" in str(r["incidents"]) for r in records(out)))
        fed.kill("client-1", signal.SIGCONT)
        run.result()
    survivors = [record["survivors"] for record in records(out)]
    assert survivors[0] == survivors[-1] == 3
    assert 2 in survivors


@pytest.mark.long
@pytest.mark.parametrize("name", KILLED)
def test_a_run_goes_on_after_the_superlink_was_killed(name, fed, tmp_path):
    out, home = tmp_path / "run", fed.folder / "server"
    config = {**BASE, **CASES[name]}
    with ThreadPoolExecutor() as pool:
        run = pool.submit(local.play, home, load(config), out, patience=PATIENCE)
        until(lambda: records(out))
        fed.kill("server")
        fed.start("server", "server")  # at once, as systemd does
        with pytest.raises(local.RunLost):
            run.result()
    assert len(records(out)) < config["rounds"]
    local.wait_for(home)
    until(lambda: free(out))  # the app of before notices by itself
    local.play(home, None, out, resume=True, patience=PATIENCE)
    assert [record["round"] for record in records(out)] == list(range(config["rounds"]))
    assert torch.equal(model(out), Federation.from_config(config).run().parameters)
    assert (out / "report.html").exists()


@pytest.mark.long
@pytest.mark.parametrize("name", ["secagg active", "two servers"])
def test_net_local_ends_with_the_bits_of_privfl_run(name, tmp_path):
    """Both by their commands, of one file."""
    told = tmp_path / "exp.yaml"
    told.write_text(yaml.safe_dump({**BASE, **CASES[name]}))
    for words, out in ((["net", "local"], "net"), (["run"], "alone")):
        command = [sys.executable, "-m", "privfl.cli", *words, str(told), "--out"]
        subprocess.run([*command, str(tmp_path / out)], check=True, capture_output=True)
    assert torch.equal(model(tmp_path / "net"), model(tmp_path / "alone"))


def marked(value):
    """The processes that were started with this in their environment, and their children."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get("PRIVFL_TREE") == value:
                found.append(process)
    return found


BEGUN = {
    "as nodes start": lambda home: (home / "fed" / "client-2.log").exists(),
    "in a round": lambda home: records(home / "run"),
}


@pytest.mark.parametrize(
    ("when", "number"),
    [
        ("as nodes start", signal.SIGTERM),
        pytest.param("as nodes start", signal.SIGHUP, marks=pytest.mark.long),
        pytest.param("in a round", signal.SIGTERM, marks=pytest.mark.long),
    ],
)
def test_net_local_that_is_told_to_end_leaves_no_process_behind(when, number, tmp_path):
    config = tmp_path / "exp.yaml"
    config.write_text(yaml.safe_dump({**LONG, "rounds": 1000}))
    command = [sys.executable, "-m", "privfl.cli", "net", "local", str(config)]
    command += ["--at", str(tmp_path / "fed"), "--out", str(tmp_path / "run")]
    mine = {**os.environ, "PRIVFL_TREE": str(tmp_path)}
    process = subprocess.Popen(command, env=mine, start_new_session=True)
    try:
        until(lambda: BEGUN[when](tmp_path) or process.poll() is not None, 120.0)
        begun = len(marked(str(tmp_path)))
        process.send_signal(number)
        code = process.wait(60.0)
        until(lambda: not marked(str(tmp_path)))  # Flower's own see that it is over
    finally:
        for left in marked(str(tmp_path)):
            left.kill()
    assert begun >= 2 + 3  # the command, the SuperLink and nodes
    assert code == 128 + number
    assert len(records(tmp_path / "run")) < 1000


def test_a_superlink_that_is_not_there_is_one_sentence(tmp_path):
    setup.set_up(tmp_path / "fed", 1, (), local.HOST, local._free_port())
    with pytest.raises(local.RunLost, match=r"does not answer .* start it \(privfl net server\)"):
        local.play(tmp_path / "fed" / "server", load(BASE), tmp_path / "run")


def test_another_machine_starts_no_code_beside_the_servers_keys(fed):
    """The SuperLink believes this machine who it speaks for, so a request can be another's."""
    host, port = local.address_of(fed.folder / "server")
    known = ssl.create_default_context(cafile=str(fed.folder / "server" / "ca.crt"))
    other = {"X-Forwarded-For": "10.0.0.9"}
    with httpx.Client(verify=known, headers=other, base_url=f"https://{host}:{port}") as client:
        for path in ("control/start-run", "control/register-node", "runtime/acquire-task"):
            assert client.post(f"/v1/{path}").status_code == 403
        assert client.post("/v1/fleet/pull-messages").status_code != 403


def test_nodes_keep_ledgers_of_their_own_and_fetch_no_app(fed):
    for name in ("client-0", "client-1", "client-2", "dealer"):
        home = fed.folder / name
        assert not (home / "flwr").exists() or not list((home / "flwr").rglob("*.fab"))
        assert not list(home.rglob("privfl_net"))
    assert list((fed.folder / "server" / "flwr").rglob("privfl_net"))


def test_no_secret_is_in_a_log_in_a_process_list_or_in_what_a_run_writes(fed):
    secrets = {}
    for path in fed.folder.rglob("*"):
        if path.name in ("identity", "rest.key"):
            secrets[path] = path.read_bytes()[-32:], path.read_bytes()[-64:-32]
        elif path.suffix == ".key":  # the lines of a PEM
            secrets[path] = path.read_bytes().splitlines()[1:-1]
    assert len(secrets) >= 9 * 2
    forms = [form for many in secrets.values() for one in many if one for form in forms_of(one)]
    shown = {path.name: path.read_bytes() for path in fed.folder.glob("*.log")}
    assert len(shown) == 9
    written = (path for path in (fed.folder / "first").rglob("*") if path.is_file())
    shown |= {str(path): path.read_bytes() for path in written}
    for process in map(psutil.Process, [one.pid for one in fed.running.values()]):
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # one of Flower's that has just ended
                shown[f"arguments of {one.pid}"] = " ".join(one.cmdline()).encode()
    found = [where for where, what in shown.items() for form in forms if form in what]
    assert not found


def forms_of(secret):
    """What bytes look like where somebody prints them."""
    yield secret
    yield repr(secret)[2:-1].encode()
    yield secret.hex().encode()
    for start in range(3):  # base64 of something longer that holds it, but for its ends
        yield base64.b64encode(bytes(start) + secret)[4:-4]
        yield base64.urlsafe_b64encode(bytes(start) + secret)[4:-4]


@pytest.mark.long
def test_a_killed_node_leaves_the_sum_of_the_others(fed, tmp_path):
    out = tmp_path / "run"
    with ThreadPoolExecutor() as pool:
        run = pool.submit(
            local.play, fed.folder / "server", load({**LONG, "rounds": 4}), out, patience=SHORT
        )
        until(lambda: records(out))
        fed.kill("client-2")
        run.result()
    told = records(out)
    first = next(i for i, record in enumerate(told) if record["survivors"] == 2)
    said = [what for what in told[first]["incidents"] if "client/2" in what]
    assert said == ["client/2 did not answer within 5 s and is out of the round"]
    assert [record["survivors"] for record in told] == [3] * first + [2] * (4 - first)
