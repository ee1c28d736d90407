"""Apps as Flower's quickstarts make them, made private by the page's lines: `flwr run` over a real
SuperLink and Flower's own SuperNodes.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from privfl.crypto import SecAgg
from privfl.flower import local, setup, superlink
from privfl.flower.layer import make_keys
from privfl.hybrid import TwoServer
from tests.flower.template_apps import NUMPY, TORCH, write

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
BIN = Path(sys.executable).parent
HELPERS = ("server/1", "dealer")
NAMES = ("client-0", "client-1", "client-2", "server-1", "dealer")


@pytest.fixture(scope="module")
def fed(tmp_path_factory):
    """A SuperLink and five SuperNodes of Flower's, each started beside its keys."""
    home = tmp_path_factory.mktemp("apps")
    at = setup.set_up(home / "fed", 3, HELPERS, local.HOST, local._free_port())
    server = at[0]
    running = []

    def start(command, cwd, name):
        with (home / f"{name}.log").open("ab") as log:
            env = superlink.environment(home)
            running.append(
                subprocess.Popen(
                    command, stdout=log, stderr=log, env=env, cwd=cwd, start_new_session=True
                )
            )

    start(superlink.superlink_command(server, *local.address_of(server)), home, "superlink")
    local.wait_for(server)
    host, port = local.address_of(server)
    for number, name in enumerate(NAMES):
        command = [
            *(str(BIN / "flower-supernode"), "--superlink", f"{host}:{port}"),
            *("--root-certificates", str(server / "ca.crt")),
            *("--auth-supernode-private-key", str(home / "fed" / name / "node.key")),
            *("--node-config", f'partition-id={number} party="{name}"'),
            *("--port", str(local._free_port())),
        ]
        start(command, home, name)
    (home / "flwr").mkdir(exist_ok=True)
    (home / "flwr" / "config.toml").write_text(
        f'[superlink.fed]\naddress = "{host}:{port}"\n'
        f"root-certificates = {json.dumps(str(server / 'ca.crt'))}\n"
    )
    yield home
    for process in running:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run(home, app, channel, seconds=800):
    """`flwr run`, until the model is there; it, and the receipt of its round."""
    keys = home / "keys"
    if keys.exists():
        keys.rename(home / f"keys-before-{time.monotonic_ns()}")
    make_keys(keys, channel, 3)
    made, receipt = home / "final_model.npz", home / "receipt.txt"
    for path in (made, receipt):
        path.unlink(missing_ok=True)
    env = superlink.environment(home)
    command = [str(BIN / "flwr"), "run", str(app), "fed", "--stream"]  # until the run has ended
    subprocess.run(command, check=True, env=env, cwd=home, timeout=seconds)
    return list(np.load(made).values()), receipt.read_text()


def test_a_numpy_app_over_secagg(fed, tmp_path):
    layer = 'PrivateLayer(SecAgg(mode="active"), Clip(4.0), max_weight=1000)'  # clips nobody
    app = write(tmp_path / "app", NUMPY, ("", layer))
    (model,), receipt = run(fed, app, SecAgg(mode="active"))
    assert np.abs(model - 0.5).max() < 1e-2  # the mean of 0.25, 0.5 and 0.75
    assert "only the sum of 3 updates" in receipt


def test_a_numpy_app_with_differential_privacy_over_secagg(fed, tmp_path):
    imports = "from privfl.dp import DistributedSkellam"
    made = 'SecAgg(mode="active", noise=DistributedSkellam(1.0))'
    app = write(tmp_path / "app", NUMPY, (imports, f"PrivateLayer({made}, Clip(0.5))"))
    (model,), receipt = run(fed, app, SecAgg(mode="active"))
    assert model.std() > 0.02  # all its numbers would be the same without noise
    assert np.abs(model).max() < 3
    assert "epsilon=" in receipt
    assert "epsilon=inf" not in receipt


def test_a_pytorch_app_with_a_rule_of_two_servers(fed, tmp_path):
    imports = "from privfl.aggregators import Krum\nfrom privfl.hybrid import TwoServer"
    made = "PrivateLayer(TwoServer(rule=Krum(f=0, m=2)), Clip(5.0))"
    app = write(tmp_path / "app", TORCH, (imports, made))
    (weight, bias), receipt = run(fed, app, TwoServer())
    assert np.isfinite(weight).all()
    assert 0.05 * 0.9 < np.abs(bias).max() < 0.05 * 3.1
    assert "Receipt" in receipt
