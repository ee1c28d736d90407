"""What a run that claims privacy publishes is a function of its released models and public facts:
two worlds that release the same write the same ``public/``, bit for bit, whoever was drawn and
whatever the clients hold. Everything else in the folder tells them apart, and says that it does.
"""

import json
import stat
from dataclasses import replace

import pytest
import torch

from privfl import Federation, catalog
from privfl.core import ConfigError, Released
from privfl.dp.pipeline import Pipeline
from privfl.engine import PUBLIC, RunFolder
from privfl.report import write_public_report, write_report

ONE = 3
BASE = {
    "data": {"name": "digits", "clients": 8, "partition": {"name": "iid"}},
    "model": "softmax",
    "training": {"name": "sgd", "lr": 0.3, "steps": 2, "batch_size": 16},
    "rounds": 2,
    "executor": "sequential",
    "bound": {"name": "clip", "l2": 0.5},
    "audit": {"keep": "none"},
}
POISSON = {"sampler": {"name": "poisson", "rate": 0.6}}
SECRET = {**POISSON, "threat": {"sampling": "secret"}}
GAUSSIAN = {"mechanism": {"name": "gaussian", "noise_multiplier": 2.0}}
SETTINGS = {
    "gaussian": {"noise_multiplier": 2.0},
    "scheduled_gaussian": {"noise_multiplier": 2.0, "schedule": {"name": "decaying"}},
    "discrete_gaussian": {"noise_multiplier": 2.0},
    "skellam": {"noise_multiplier": 2.0},
    "laplace": {"epsilon": 1.0},
    "correlated": {"noise_multiplier": 2.0, "strategy": {"name": "banded", "bands": 2}},
    "local_gaussian": {"noise_multiplier": 2.0},
    "selective_laplace": {"epsilon": 1.0, "keep": 0.1},
    "distributed_skellam": {"noise_multiplier": 2.0},
    "distributed_discrete_gaussian": {"noise_multiplier": 2.0},
}
DP_SGD = {
    "training": {
        **BASE["training"],
        "gradient": {"name": "dp", "l2": 1.0, "noise_multiplier": 2.0},
    }
}


def noised(name):
    """A run with this mechanism, drawn from the run's seed where it can be amplified."""
    part = {"mechanism": {**SETTINGS[name], "name": name}}
    if name in catalog.RING_NOISE:
        return {**part, "channel": "secagg"}
    if name == "correlated":
        return {**part, "sampler": {"name": "separated", "apart": 2}}
    return part if name == "selective_laplace" else {**part, **POISSON}


RUNS = {
    **{name: noised(name) for name in SETTINGS},
    "secret coins": {**GAUSSIAN, **SECRET},
    "adaptive clip": {
        **GAUSSIAN,
        **SECRET,
        "bound": {"name": "adaptive_clip", "initial": 0.1, "count_noise": 2.0},
    },
    "DP-SGD": {**DP_SGD, "bound": {"name": "none"}},
    "DP-SGD and noise on the aggregate": {**DP_SGD, **GAUSSIAN, **POISSON},
}


@pytest.fixture
def tape(monkeypatch):
    """The mechanisms run and charge, and what they release is played from a tape."""
    honest = Pipeline.release

    def release(self, plans, made, noise, memory=None):
        released, charges = honest(self, plans, made, noise, memory)
        played = {
            part: Released(torch.linspace(-0.1, 0.1, len(one.vector)) * (1 + plans[part].number))
            for part, one in released.items()
        }
        return played, charges

    monkeypatch.setattr(Pipeline, "release", release)


def world(changes, neighbour=None):
    """A federation, or its neighbour: client ONE holds noise, holds what cannot be trained on, or
    is not there.
    """
    made = Federation.from_config({**BASE, **changes})
    scenario, positions = made.scenario, made.scenario.clients[ONE]
    if neighbour == "gone":
        left = {who: index for who, index in scenario.clients.items() if who != ONE}
        made.scenario = replace(scenario, clients=left)
    elif neighbour is not None:
        data = scenario.workload.data
        x, y = data.x.clone(), data.y.clone()
        x[positions] = torch.nan if neighbour == "diverges" else -5 * x[positions]
        y[positions] = (y[positions] + 1) % data.classes
        workload = replace(scenario.workload, data=replace(data, x=x, y=y))
        made.scenario = replace(scenario, workload=workload)
    return made


def published(made, folder, write=write_public_report, **how):
    """What a run publishes, by name. `write_report` draws the private side's plots, which are dear,
    and then calls `write_public_report`.
    """
    made.run(folder, **how)
    write(folder)
    return {path.name: path.read_bytes() for path in (folder / PUBLIC).iterdir()}


def logged(folder):
    """What the log says, without what a clock says."""
    rows = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_the_worlds_cover_every_mechanism_of_the_catalogue():
    assert {*catalog.MECHANISMS, *catalog.RING_NOISE} == set(SETTINGS)


@pytest.mark.parametrize("name", RUNS)
def test_neighbours_that_release_the_same_publish_the_same_bits(name, tape, tmp_path):
    write = write_report if name == "gaussian" else write_public_report
    here = published(world(RUNS[name]), tmp_path / "here", write)
    there = published(world(RUNS[name], "replaced"), tmp_path / "there", write)
    assert here.keys() == {
        "README.md",
        "config.yaml",
        "model.safetensors",
        "report.html",
        "statement.json",
    }
    assert here == there
    assert logged(tmp_path / "here") != logged(tmp_path / "there"), "the private side tells them"


def test_a_client_that_diverges_is_named_on_the_private_side_alone(tape, tmp_path):
    changes = RUNS["gaussian"]
    here = published(world(changes), tmp_path / "here")
    assert here == published(world(changes, "diverges"), tmp_path / "there", write_report)
    told = [row["incidents"] for row in logged(tmp_path / "there")]
    assert any(f"client {ONE}" in incident for incidents in told for incident in incidents)


@pytest.mark.parametrize("coins", [SECRET, POISSON])
def test_a_client_that_is_not_there_is_missed_on_the_private_side_alone(coins, tape, tmp_path):
    changes = {**GAUSSIAN, **coins}
    here = published(world(changes), tmp_path / "here")
    there = published(world(changes, "gone"), tmp_path / "there")
    [line] = json.loads(here["statement.json"])["privacy"]
    assert line["relation"] == "add_remove"
    assert here == there
    counts = [
        json.loads((tmp_path / name / "summary.json").read_text())["clients"]
        for name in ("here", "there")
    ]
    assert counts == [8, 7]


def test_cohorts_that_a_seed_has_drawn_are_in_no_public_figure(tape, tmp_path):
    changes = {**GAUSSIAN, **POISSON, "rounds": 4}
    worlds = [published(world({**changes, "seed": s}), tmp_path / str(s)) for s in (1, 2)]
    statements = [json.loads(files["statement.json"]) for files in worlds]
    assert statements[0] == statements[1]
    drawn = [
        [charge["cohort"] for charge in json.loads((tmp_path / s / "ledger.json").read_text())]
        for s in ("1", "2")
    ]
    assert drawn[0] != drawn[1], "the private ledger shows who was drawn"
    for files, own in zip(worlds, ("1", "2"), strict=True):
        [line] = json.loads((tmp_path / own / "summary.json").read_text())["privacy"]
        [shown] = json.loads(files["statement.json"])["privacy"]
        assert shown["epsilon"] == line["epsilon"]
        assert shown["as_drawn"] >= line["as_drawn"]
        assert b"\nseed" not in files["config.yaml"]


def test_samples_of_a_hidden_cohort_are_in_no_public_figure(tape, tmp_path):
    files = published(world(RUNS["DP-SGD and noise on the aggregate"]), tmp_path / "run")
    told = json.loads(files["statement.json"])
    assert [line["unit"] for line in told["privacy"]] == ["client"]
    assert any("not published" in warning for warning in told["warnings"])
    private = json.loads((tmp_path / "run" / "summary.json").read_text())["privacy"]
    assert "sample of client" in str(private)
    assert b"sample of client" not in b"".join(files.values())


def test_a_budget_that_ends_a_run_early_is_told_without_its_figures(tape, tmp_path):
    folders = []
    for name, neighbour in (("here", None), ("there", "replaced")):
        budget = {"epsilon": 2.9, "ledger": str(tmp_path / f"{name}.jsonl")}
        changes = {**GAUSSIAN, **SECRET, "rounds": 9, "budget": budget}
        folders.append(published(world(changes, neighbour), tmp_path / name))
    assert folders[0] == folders[1]
    told = json.loads(folders[0]["statement.json"])
    assert 1 <= told["rounds"] < 9
    assert "A budget ended the run" in told["warnings"][-1]
    assert not any("Ended before round" in warning for warning in told["warnings"])
    assert b"here.jsonl" not in b"".join(folders[0].values())


def test_when_a_budget_ends_a_run_tells_nobody_who_was_drawn_by_secret_coins(tape, tmp_path):
    """What samples pay is counted by who was drawn; a budget that they used up would tell it."""
    changes = {
        **DP_SGD,
        **SECRET,
        "mechanism": {"name": "gaussian", "noise_multiplier": 30.0},
        "rounds": 5,
    }
    budget = {"epsilon": 0.08, "delta": 1e-3, "ledger": str(tmp_path / "ledger.jsonl")}
    run = world({**changes, "budget": budget, "audit": {"delta": 1e-3}})
    files = published(run, tmp_path / "run")
    private = json.loads((tmp_path / "run" / "summary.json").read_text())["privacy"]
    assert any(line["unit"] == "sample" and line["epsilon"] > 0.08 for line in private)
    told = json.loads(files["statement.json"])
    assert told["rounds"] == 5
    assert not any("budget ended" in warning for warning in told["warnings"])
    units = {charge["unit"] for charge in _entries(tmp_path / "ledger.jsonl")}
    assert units == {"client"}


def _entries(path):
    rows = map(json.loads, path.read_text().splitlines())
    return [charge for row in rows for charge in row["charges"]]


def test_the_statement_names_what_lies_beside_it_and_what_samples_pay_by(tmp_path):
    made = world(RUNS["DP-SGD"])
    published(made, tmp_path / "run")
    [line] = json.loads((tmp_path / "run" / PUBLIC / "statement.json").read_text())["privacy"]
    excluded = line["claim"].partition("Excluded:")[2]
    assert "beside public/" in excluded
    assert "drop-outs" in excluded
    assert "how many samples each client holds" in excluded


# ---- the folder


def test_the_folder_of_a_private_run_is_its_owners_and_says_what_may_leave(tmp_path):
    published(world({**GAUSSIAN, **SECRET}), tmp_path / "run", write_report)
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
    said = (tmp_path / "run" / "README.md").read_text()
    assert all(
        f"`{path.name}`" in said
        or f"`{path.name}/`" in said
        or path.suffix in (".svg", ".csv", ".head")
        for path in (tmp_path / "run").iterdir()
        if path.name not in ("README.md", "model.safetensors", ".lock")
    )
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.index("no epsilon of it covers this page") < page.index("test accuracy")
    public = (tmp_path / "run" / PUBLIC / "report.html").read_text()
    assert "Against whoever reads the released models" in public
    assert "<span>test accuracy" in page
    assert "<span>" not in public


def test_a_run_without_a_claim_keeps_its_folder_as_it_was(tmp_path):
    world({}).run(tmp_path / "run")
    write_report(tmp_path / "run")
    assert not (tmp_path / "run" / PUBLIC).exists()
    assert not (tmp_path / "run" / "README.md").exists()
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) != 0o700
    assert "covers this page" not in (tmp_path / "run" / "report.html").read_text()


def test_a_run_that_was_killed_has_published_nothing_and_publishes_once_it_ends(tape, tmp_path):
    changes = {**GAUSSIAN, **POISSON}

    def killed(record, rounds):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world(changes).run(tmp_path / "cut", progress=killed)
    write_report(tmp_path / "cut")
    assert not (tmp_path / "cut" / PUBLIC).exists()
    assert "covers this page" in (tmp_path / "cut" / "report.html").read_text()
    (tmp_path / "cut" / "README.md").unlink()  # as it was once written
    (tmp_path / "cut").chmod(0o755)
    resumed = published(world(changes), tmp_path / "cut", write_report, resume=True)
    assert resumed == published(world(changes), tmp_path / "whole")
    assert stat.S_IMODE((tmp_path / "cut").stat().st_mode) == 0o700


def test_publishing_again_leaves_nothing_of_the_first_time(tmp_path):
    folder = RunFolder.create(tmp_path / "run", "")
    folder.close()
    folder.publish({"a": "1", "b": "2"})
    folder.publish({"b": "3"})
    assert [(path.name, path.read_text()) for path in (folder.path / PUBLIC).iterdir()] == [
        ("b", "3")
    ]
    assert {path.name for path in folder.path.iterdir()} == {
        ".lock",
        "config.yaml",
        "fingerprint.json",
        PUBLIC,
    }


def test_a_folder_that_is_not_ours_is_refused(tmp_path, monkeypatch):
    def refused(self, mode):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(type(tmp_path), "chmod", refused)
    with pytest.raises(ConfigError, match="claims privacy"):
        world(GAUSSIAN).run(tmp_path / "run")
