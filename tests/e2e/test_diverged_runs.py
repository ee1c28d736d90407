"""A training that ends in NaN is no success: the command fails and says so, as the page does."""

import json

import pytest
import torch
from torch import nn

from privfl import Federation

DATA = {"data": {"name": "digits", "clients": 4}, "executor": "sequential", "rounds": 3}
NET = {"model": {"name": "mlp", "hidden": [8]}}
STEEP = {**DATA, **NET, "training": {"name": "sgd", "lr": 1e20}}
FAR = {**DATA, **NET, "server_optimizer": {"name": "fedavg", "lr": 1e38}}
BEYOND = {**FAR, "training": {"name": "sgd", "lr": 1e4}}
SAID = {
    "no update is finite": (STEEP, "in round 3, the last, no client's training left an update"),
    "the loss is not": (FAR, "the last model's loss is nan"),
    "the model is not": (BEYOND, "after round 1 of 3 the model holds NaN or infinite values"),
}


@pytest.mark.parametrize("kind", SAID)
def test_a_diverged_run_ends_in_one_sentence_and_exit_code_1(kind, privfl, config, tmp_path):
    parts, words = SAID[kind]
    out = tmp_path / "out"
    done = privfl("run", config(json.dumps(parts)), "--out", out)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "Training diverged" in line]
    assert words in line
    assert "lower training.lr or server_optimizer.lr" in line
    assert words in (out / "report.html").read_text().replace("&#x27;", "'")
    again = privfl("run", "--resume", out)
    assert again.returncode == 1
    assert words in again.stderr


def test_a_model_that_is_not_finite_ends_its_run_at_once():
    run = Federation.from_config(BEYOND).run()
    assert len(run.history) == 1
    assert "diverged" in run.summary["diverged"]


def test_a_sweep_names_the_runs_that_diverged_and_goes_on(privfl, config, tmp_path):
    exp = config(json.dumps(STEEP))
    done = privfl("sweep", exp, "--over", "training.lr=1.0e+20,0.1", "--out", tmp_path / "s")
    assert done.returncode == 0
    (line,) = [line for line in done.stderr.splitlines() if "diverged" in line]
    assert "/s/000: Training diverged" in line


def test_one_client_that_diverges_beside_others_is_an_incident_and_no_failure():
    clients = [(torch.ones(100, 3), torch.arange(100) % 2) for _ in range(3)]
    clients[1] = (clients[1][0] * 1e38, clients[1][1])
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    run = Federation(model, clients, clients[0], rounds=1, executor="sequential").run()
    assert run.history[0].survivors == 2
    assert run.summary["diverged"] == ""
