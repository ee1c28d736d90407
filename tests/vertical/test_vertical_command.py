"""`privfl vertical` from a config to a page; what acts on updates is refused in words."""

import html
import json
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from privfl.cli.app import made
from privfl.config import load
from privfl.core import ConfigError
from privfl.vertical import VerticalMLP, vertical_config

EXAMPLES = Path(__file__).parents[2] / "examples"
LEAST = {"data": "adult", "hosts": {"host/0": ["education"]}}


@pytest.fixture
def config(tmp_path):
    coins = torch.Generator().manual_seed(0)
    x = torch.randn(200, 4, generator=coins)
    y = (x.sum(dim=1) > 0).long()
    lines = ["a,b,c,d,label"]
    lines += [",".join(f"{v:.4f}" for v in row) + f",{t}" for row, t in zip(x, y, strict=True)]
    table = tmp_path / "own.csv"
    table.write_text("\n".join(lines) + "\n")
    path = tmp_path / "vertical.yaml"
    raw = {
        "data": {"name": "csv", "path": str(table), "target": "label"},
        "hosts": {"host/0": ["a", "b"]},
        "training": {"epochs": 2, "batch_size": 20},
        "known": 5,
    }
    path.write_text(yaml.safe_dump(raw))
    return path


def test_the_command_trains_attacks_and_writes_a_page(config, tmp_path):
    out = tmp_path / "out"
    words = ["vertical", str(config), "--out", str(out), "--json", "--set", "defence=max_norm"]
    done = CliRunner().invoke(made(words), words)
    assert done.exit_code == 0, done.output
    rows = {row["what"]: row for row in json.loads(done.stdout)}
    assert rows["test accuracy"]["figure"] > 0.8
    assert rows["test accuracy of the guest alone"]["figure"] < rows["test accuracy"]["figure"]
    page = (out / "report.html").read_text()
    assert "a heuristic, no guarantee" in page
    assert "this page is the owners'" in html.unescape(page)
    assert "What host/0 learns of labels" in page
    assert json.loads((out / "vertical.json").read_text())["columns"] == {"host/0": 2, "guest": 2}
    again = CliRunner().invoke(made(words), words)
    assert "is not empty" in str(again.exception)
    assert (out / "report.html").read_text() == page


def test_a_vertical_config_given_to_run_or_sweep_is_sent_to_its_own_command():
    with pytest.raises(ConfigError, match=r"'hosts'.* 'privfl vertical CONFIG\.yaml'"):
        load(EXAMPLES / "vertical_adult.yaml")


@pytest.mark.parametrize("key", ["channel", "aggregator", "mechanism", "bound", "attacks"])
def test_a_layer_that_acts_on_updates_is_refused_in_words(key):
    with pytest.raises(ConfigError, match="acts on updates, and vertical parties send none"):
        vertical_config({**LEAST, key: "anything"})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"modle": "mlp"}, "did you mean 'model'"),
        ({"model": {"name": "mlp", "cuts": 3}}, "did you mean 'cut'"),
        ({"defence": "max_nrm"}, "did you mean 'max_norm'"),
        ({"defence": {"name": "label_response"}}, "needs the key 'epsilon'"),
        ({"training": {"lr": -1}}, "lr must be above 0"),
        ({"hosts": {}}, "hosts name columns"),
        ({"hosts": {"server": ["a"]}}, "no host with a list"),
        ({"hosts": {"host/0": "a"}}, "no host with a list"),
        ({"known": 0}, "whole number from 1"),
        ({"known": True}, "whole number from 1"),
        ({"data": 3}, "no part of a config"),
    ],
)
def test_a_config_that_cannot_be_is_refused_with_the_nearest_that_can(change, why):
    with pytest.raises(ConfigError, match=why):
        vertical_config({**LEAST, **change})


def test_overrides_are_read_on_top():
    made = vertical_config(LEAST, ["model.cut=3", "known=7"])
    assert made.model == VerticalMLP(cut=3)
    assert made.known == 7
    for wrong in ("known", "known.x=3"):
        with pytest.raises(ConfigError, match="no override"):
            vertical_config({**LEAST, "known": 3}, [wrong])


def test_what_leaves_no_sample_to_score_is_refused_before_training(config, tmp_path):
    words = ["vertical", str(config), "--out", str(tmp_path / "out"), "--set", "known=40"]
    done = CliRunner().invoke(made(words), words)
    assert done.exit_code != 0
    assert "known is 40" in str(done.exception) + done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["vertical_adult.yaml", "vertical_nsl_kdd.yaml"])
def test_the_examples_can_be_read(name):
    assert vertical_config(EXAMPLES / name).hosts["host/0"]
