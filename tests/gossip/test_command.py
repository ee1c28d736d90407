"""``privfl gossip``: from a config to a folder and a page."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from typer.testing import CliRunner

from privfl.cli.app import made
from privfl.config import load
from privfl.core import ConfigError
from privfl.gossip.config import gossip_scenario, load_gossip
from privfl.gossip.folder import read_gossip, run_in
from privfl.report import write_report
from privfl.report.gossip import write_gossip_report

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {
    "data": {"name": "digits", "clients": 5},
    "training": {"name": "sgd", "lr": 0.5, "steps": 2},
    "rounds": 2,
    "executor": "sequential",
}
SIX = ("--set", "message_bound=8", "--set", "data.clients=6")


def command(*words):
    return CliRunner().invoke(made(["gossip"]), ["gossip", *map(str, words)])


def test_the_command_leaves_a_folder_and_a_page_that_says_who_reads_what(tmp_path):
    config = tmp_path / "six.yaml"
    graph = {"name": "regular", "degree": 4}
    config.write_text(yaml.safe_dump({**SMALL, "graph": graph, "channel": "secagg"}))
    out = tmp_path / "out"
    done = command(config, "--out", out, "--json", *SIX)
    assert done.exit_code == 0, done.output
    [row] = json.loads(done.stdout)
    assert row["nodes"] == 6
    assert 0.1 < row["accuracy"] < 1
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "ROUND LIMIT 1:" in page
    assert "least coalition that solves for another&#x27;s row in ONE round" in page
    assert "reads a row where the others are away" in page
    config, rounds, summary = read_gossip(out)
    assert [one["round"] for one in rounds] == [0, 1]
    assert config["message_bound"] == 8
    assert summary["bytes_sent"] == sum(one["bytes_sent"] for one in rounds) > 0
    models = safetensors.torch.load_file(out / "models.safetensors")
    assert models["models"].shape == (6, summary["parameters"])
    assert torch.allclose(models["models"].mean(dim=0), models["mean"], atol=1e-6)
    with pytest.raises(ConfigError, match="holds no run"):
        write_report(out)
    again = command(out / "gossip.yaml", "--out", out)
    assert "is not empty" in str(again.exception)


def test_a_gossip_config_given_to_run_or_sweep_is_sent_to_its_own_command():
    with pytest.raises(ConfigError, match=r"'graph'.* 'privfl gossip CONFIG\.yaml'"):
        load(EXAMPLES / "gossip.yaml")


def test_samples_for_a_server_are_refused_where_there_is_none():
    with pytest.raises(ConfigError, match=r"data\.root is 100.*leave it out"):
        gossip_scenario(load_gossip(SMALL, ["data.root=100"]))


def test_a_saved_config_is_the_run_again(tmp_path):
    first, _ = run_in(tmp_path / "a", load_gossip({**SMALL, "graph": "ring"}))
    again, _ = run_in(tmp_path / "b", load_gossip(tmp_path / "a" / "gossip.yaml"))
    assert torch.equal(first.state.models, again.state.models)


def test_noise_of_nodes_own_is_journalled_and_its_epsilon_is_on_the_page(tmp_path):
    noisy = {
        **SMALL,
        "graph": "ring",
        "bound": {"name": "clip", "l2": 1.0},
        "mechanism": {"name": "local_gaussian", "noise_multiplier": 2.0},
    }
    _, summary = run_in(tmp_path / "out", load_gossip(noisy))
    [claim] = summary["privacy"]
    assert claim["relation"] == "replace_one"
    assert 2 < claim["epsilon"] < 4
    assert (tmp_path / "out").stat().st_mode & 0o077 == 0
    assert len((tmp_path / "out" / "ledger.jsonl").read_text().splitlines()) >= 2
    assert "epsilon of a node&#x27;s data" in write_gossip_report(tmp_path / "out").read_text()
    _, summary = run_in(tmp_path / "seeded", load_gossip({**noisy, "noise_seed": 3}))
    assert "refused" in summary["privacy"][0]


def test_the_examples_are_scenarios(tmp_path):
    liars = gossip_scenario(load_gossip(EXAMPLES / "gossip.yaml"))
    assert liars.liars == {0, 1}
    assert liars.graph.degree(3) == 6
    sums = gossip_scenario(load_gossip(EXAMPLES / "secure_gossip.yaml"))
    assert sums.summed


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"sampler": "poisson"}, "unknown key 'sampler' of gossip"),
        ({"aggregator": "krum"}, "unknown key 'aggregator' of gossip"),
        ({"graph": "star"}, "star"),
        ({"graph": {"name": "regular", "degre": 4}}, "did you mean 'degree'"),
        ({"graph": {"degree": 4}}, "graph must be a name"),
        ({"rule": "nothing"}, "nothing"),
        ({"rule": "fltrust"}, "needs what a server has"),
        ({"rule": "centered_clipping"}, "remembers rounds"),
        ({"message_bound": -1}, "message_bound is a number above 0"),
        ({"message_bound": 10**400}, "message_bound is a number above 0"),
        ({"graph": {"name": "regular", "degree": 2, "seed": 10**30}}, "seed must lie in"),
        ({"audit": {"keep": "all"}}, "gossip's command keeps none"),
        ({"mechanism": {"name": "local_gaussian", "epsilon": 3}}, "not solved for"),
        ({"mechanism": {"name": "gaussian", "noise_multiplier": 1}}, "local_gaussian"),
        ({"training": {"name": "scaffold"}}, "sends more than its update"),
        ({"channel": "secagg"}, "set message_bound"),
        ({"channel": "paillier", "message_bound": 2}, "helpers"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(changed, says):
    with pytest.raises(ConfigError, match=says):
        gossip_scenario(load_gossip({**SMALL, "graph": "complete", **changed}))


def test_a_rule_of_federated_averaging_runs_at_nodes(tmp_path):
    run, _ = run_in(tmp_path / "out", load_gossip({**SMALL, "rule": "median"}))
    assert run.last.accuracy > 0.1


def test_a_folder_without_a_gossip_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no gossip run"):
        write_gossip_report(tmp_path)
