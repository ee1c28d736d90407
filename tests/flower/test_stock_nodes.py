"""Flower's own nodes, which start a process for each message, play the same rounds."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from safetensors.torch import load_file

from privfl.config import load
from privfl.core import ConfigError
from privfl.crypto.primitives import Directory, Identity
from privfl.federation import Federation
from privfl.flower import local, setup, superlink
from privfl.flower.client_app import client_app
from privfl.flower.records import content_of, envelope_in
from privfl.flower.server import federation_over
from privfl.flower.wire import Patience
from tests.flower.in_process import over_the_wire
from tests.flower.test_federation import BASE

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
CASES = {
    "secagg active": {"channel": {"name": "secagg", "mode": "active"}},
    "additive sharing": {"channel": "additive_sharing"},
}
POLICY = {
    "channels": ["secagg", "additive_sharing"],
    "training": ["sgd"],
    "quorum": 1,
    "repeatable": True,
}


def folders(at):
    made = setup.set_up(at / "fed", 3, ["server/1"], local.HOST, local._free_port(), POLICY)
    return {path.name: path for path in made}


class StockNodes:
    """A wire to a new ClientApp for each message, as SuperNodes start one."""

    def __init__(self, homes):
        self.homes, self.answers = homes, []
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1

    def send(self, envelopes, seconds):
        for who, raw in envelopes.items():
            context = Context(1, 7, {"home": str(self.homes[who])}, RecordDict(), {})
            message = Message(content_of(raw), dst_node_id=7, message_type="query")
            message.metadata.__dict__["_message_id"] = "m"
            over_the_wire(message, 1)
            reply = client_app()(message, context)
            assert not context.state  # what is there the SuperLink may come to see
            over_the_wire(reply, 7)
            self.answers.append((who, envelope_in(reply.content)))

    def collect(self, seconds):
        answers, self.answers = self.answers, []
        return answers


@pytest.mark.parametrize("name", CASES)
def test_an_app_that_is_made_anew_for_each_message_comes_to_the_simulations_bits(name, tmp_path):
    homes = folders(tmp_path)
    parties = {w: homes[w.replace("/", "-")] for w in ("client/0", "client/1", "client/2")}
    parties["server/1"] = homes["server-1"]
    config, server = {**BASE, **CASES[name]}, homes["server"]
    keys = Identity.read(server / "identity"), Directory.read(server / "directory.json")
    patience = Patience(1, 1, 1)
    run = federation_over(load(config), StockNodes(parties), *keys, patience=patience).run()
    assert [record.incidents for record in run.history] == [()] * config["rounds"]
    assert torch.equal(run.parameters, Federation.from_config(config).run().parameters)


def test_a_node_that_is_not_told_its_folder_says_so():
    context = Context(1, 7, {}, RecordDict(), {})
    message = Message(RecordDict(), dst_node_id=7, message_type="query")
    with pytest.raises(ConfigError, match="home="):
        client_app()(message, context)


def test_the_policy_of_a_stock_nodes_folder_is_asked(tmp_path):
    homes = folders(tmp_path)
    told = homes["client-1"] / "node.yaml"
    settings = yaml.safe_load(told.read_text())
    settings["policy"]["l2"] = 0.5
    told.write_text(yaml.safe_dump(settings))
    parties = {f"client/{i}": homes[f"client-{i}"] for i in range(3)}
    server = homes["server"]
    keys = Identity.read(server / "identity"), Directory.read(server / "directory.json")
    config = {**BASE, **CASES["secagg active"], "rounds": 1}
    wire = StockNodes(parties)
    run = federation_over(load(config), wire, *keys, patience=Patience(1, 1, 1)).run()
    assert any("policy.l2 is 0.5" in what for what in run.history[0].incidents)


@pytest.fixture(scope="module")
def fed(tmp_path_factory):
    """A SuperLink, and Flower's own nodes: nothing of ours runs before a message comes."""
    homes = folders(tmp_path_factory.mktemp("stock"))
    home = homes.pop("server")
    processes = local.LocalProcesses(home.parent)
    processes.start("server", "server")
    local.wait_for(home)
    nodes = []
    for path in homes.values():
        host, port = local.address_of(home)
        command = [
            *(str(Path(sys.executable).parent / "flower-supernode"), "--superlink"),
            *(f"{host}:{port}", "--root-certificates", str(path / "ca.crt")),
            *("--auth-supernode-private-key", str(path / "node.key")),
            *("--node-config", f"home={json.dumps(str(path))}"),
            *("--port", str(local._free_port())),
        ]
        with (path.parent / f"{path.name}.log").open("ab") as log:
            env = superlink.environment(path)
            nodes.append(
                subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
            )
    yield home
    for node in nodes:
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()
    processes.end()


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_flowers_own_nodes_come_to_the_simulations_bits(name, fed, tmp_path):
    config = {**BASE, **CASES[name]}
    local.play(fed, load(config), tmp_path / "run", patience=Patience(120, 90, 90))
    made = load_file(tmp_path / "run" / "model.safetensors")["parameters"]
    assert torch.equal(made, Federation.from_config(config).run().parameters)
