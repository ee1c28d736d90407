"""A federation whose SuperLink is `tests.flower.hostile`, and what tests ask of one."""

import json
import subprocess
import time
from pathlib import Path

from safetensors.torch import load_file

from privfl.config import load
from privfl.flower import local, setup, superlink
from privfl.flower.wire import Patience

HELPERS = ("server/1", "dealer", "decryptor/0", "decryptor/1", "decryptor/2")
CHANNELS = ["plain", "secagg", "additive_sharing", "two_server", "bfv", "one_time_rlwe"]
POLICY = {"channels": CHANNELS, "training": ["sgd"], "quorum": 1, "repeatable": True}
BASE = {
    "data": {"name": "digits", "clients": 3},
    "rounds": 1,
    "repeatable": True,
    "executor": "sequential",
    "training": {"name": "sgd", "weighting": "uniform", "steps": 2},
    "bound": {"name": "clip", "l2": 1.0},
}
CHANNEL = {
    "plain": "plain",
    "secagg": {"name": "secagg", "mode": "active"},
    "additive_sharing": "additive_sharing",
    "two_server": "two_server",
    "bfv": "bfv",
    "one_time_rlwe": "one_time_rlwe",
}
SHORT = Patience(30, 6, 6)


class Federation(local.LocalProcesses):
    """Everybody is running, and the relay does what it is told for each run."""

    def __init__(self, home):
        super().__init__(home)
        at = setup.set_up(home, 3, HELPERS, local.HOST, local._free_port(), POLICY)
        self.home, self.names = home / "server", [path.name for path in at[1:]]
        self.plan, self.number = home / "plan.json", 0
        self.plan.write_text("{}")
        self.start_superlink()
        for name in self.names:
            self.start(name, "node")

    def start_superlink(self):
        command = superlink.superlink_command(self.home, *local.address_of(self.home))
        command[command.index("privfl.flower.gate")] = "tests.flower.hostile"
        env = {**superlink.environment(self.home), "HOSTILE_PLAN": str(self.plan)}
        with (self.folder / "superlink.log").open("ab") as log:
            self.running["server"] = subprocess.Popen(
                command, stdout=log, stderr=log, env=env, start_new_session=True
            )
        local.wait_for(self.home)

    def restart(self, name):
        """A node that was killed, as a new process on the same folder, once it is there."""
        if self.running[name].poll() is None:
            return
        before = self.connected(name)
        self.start(name, "node")
        until = time.monotonic() + 90
        while self.connected(name) == before and time.monotonic() < until:
            time.sleep(0.1)

    def connected(self, name):
        """How often a node has reached the SuperLink."""
        log = self.folder / f"{name}.log"
        return log.read_text(errors="replace").count("connected to") if log.exists() else 0

    def play(self, config, out, patience=SHORT, **plan):
        """A run through a relay with this plan; its records and model, or RunLost."""
        self.number += 1
        self.plan.write_text(json.dumps({**plan, "run": self.number} if plan else {}))
        local.play(self.home, load(config), out, patience=patience)
        return records(out), load_file(out / "model.safetensors")["parameters"]


def records(out):
    path = Path(out) / "rounds.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
