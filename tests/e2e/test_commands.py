"""The commands do what they say, and refuse what cannot be in one clear sentence."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml

DIGITS = "data: {name: digits, clients: 8}\nrounds: 3\nexecutor: sequential\n"


def test_an_empty_config_is_a_run_and_leaves_a_folder_that_a_person_can_read(config, tmp_path):
    command = [
        sys.executable,
        "-m",
        "privfl.cli",
        "run",
        config(""),
        "--out",
        tmp_path / "out",
        "--set",
        "rounds=2",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["rounds"] == 2
    assert row["clients"] == 20
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {
        "config.yaml",
        "rounds.jsonl",
        "ledger.json",
        "summary.json",
        "model.safetensors",
        "checkpoint",
        "report.html",
    } <= files
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["rounds"] == 2
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg ") >= 4
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)


def test_training_learns(privfl, config, tmp_path):
    done = privfl(
        "run",
        config("rounds: 10\ntraining: {name: sgd, lr: 0.3, epochs: 2}\n"),
        "--out",
        tmp_path / "out",
        "--json",
    )
    assert json.loads(done.stdout)[0]["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("roundz: 3", ["roundz", "rounds"]),
        ("rounds: 0", ["rounds", "greater than or equal to 1"]),
        ("rounds: many", ["rounds", "many"]),
        ("aggregator: meen", ["meen", "mean"]),
        ("channel: {name: plain, colour: red}", ["plain", "colour"]),
        ("training: {name: sgd, learning_rate: 0.1}", ["learning_rate", "lr"]),
        ("training: {name: sgd, lr: -1}", ["lr", "above 0"]),
        ("data: {name: digitz}", ["digitz", "digits"]),
        ("data: {name: digits, clients: 0}", ["data.clients", "1"]),
        ("data: {name: digits, clients: 100000}", ["clients"]),
        ("sampler: {name: fixed_size, size: 50}", ["sampler.size", "50", "20 clients"]),
        ("model: {name: mlp, hiden: [3]}", ["hiden", "hidden"]),
        ("bound: {name: clip, l2: 0}", ["l2", "above 0"]),
        ("bound: {name: clip}", ["clip", "l2"]),
        ("audit: {keep: sometimes}", ["audit.keep"]),
        ("executor: magic", ["magic", "sequential"]),
        ("device: toaster", ["device", "toaster", "cpu"]),
        ("bound: {name: clip, l2: abc}", ["'l2' must be a number (it is 'abc')"]),
        ("aggregator: {name: krum, f: 2.5}", ["'f' must be a whole number (it is 2.5)"]),
        ("model: {name: mlp, hidden: 32}", ["'hidden' must be a list of whole numbers"]),
        ("data: {clients: few}", ["'data.clients' must be a whole number or none (it is 'few')"]),
        ("audit: {keep: some}", ["'audit.keep' must be 'auto', 'all', 'none' or a list of whole"]),
        ("defences: 3", ["'defences' must be a name, a mapping with a name, or a list"]),
        ("data: 3", ["'data' must be a mapping of keys (it is 3)"]),
        ("[1, 2]", ["mapping"]),
        ("a: b: c", ["YAML"]),
        ("rounds: 3\nseed: 1\nrounds: 4\n", ["'rounds' stands there twice", "line 3"]),
        ("model: {name: mlp, hidden: [3], hidden: [4]}", ["'hidden' stands there twice"]),
        ("3: 4", ["keys of a config are words", "'3'"]),
        ("threads: 1000000000", ["threads", "1024"]),
        ("model: {name: mlp, hidden: [1000000000000]}", ["model 'mlp' cannot be made"]),
        ("data: {name: digits, validation: 0.00001}", ["data.validation", "0 of 1442"]),
        ("data: {name: digits, validation: 2}", ["data.validation"]),
        ("data: {name: digits, validation: 0.9, root: 500}", ["data.root", "144"]),
        ("data: {name: digits, clients: 5000, partition: iid}", ["5000 clients", "1442"]),
        ("data: {name: digits, clients: 5000, partition: shards}", ["5000 clients", "1442"]),
        ("start: /nowhere", ["'/nowhere' holds no model"]),
        ("seed: x", ["seed", "whole number"]),
        ("aggregator: os:system", ["os:system"]),
        ("aggregator: nowhere.at.all:X", ["nowhere.at.all"]),
        ("attacks: [{name: sign_flip, clients: [99]}]", ["no client 99"]),
        ("attacks: [{name: sign_flip, fraction: 7}]", ["fraction"]),
        ("training: {name: sgd, lr: .nan}", ["lr"]),
        ("training: {name: sgd, batch_size: 0}", ["batch_size"]),
        ("bound: {name: clip, l2: .nan}", ["l2"]),
        ("rounds: .inf", ["rounds"]),
        ("audit: {delta: 2}", ["audit.delta"]),
    ],
)
def test_a_config_that_cannot_be_is_refused_in_one_sentence_with_exit_code_2(
    privfl, config, tmp_path, text, words
):
    done = privfl("run", config(text), "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("privfl: ")]) >= 1
    for word in words:
        assert word in done.stderr
    assert not (tmp_path / "out" / "summary.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "model=tanh_cnn"), "model 'tanh_cnn' needs images of at least 14 x 14"),
        (("--set", "model={name: resnet20, norm: batch}"), "say what becomes of them by"),
    ],
)
def test_a_model_that_cannot_be_ends_like_any_config_that_cannot(
    privfl, config, tmp_path, words, said
):
    done = privfl("run", config(DIGITS), "--out", tmp_path / "out", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_absent_data_says_where_it_looked_and_how_to_get_it(privfl, config, tmp_path):
    done = privfl(
        "run",
        config("data: mnist"),
        "--out",
        tmp_path / "out",
        env={"PRIVFL_DATA": str(tmp_path / "nowhere")},
    )
    assert done.returncode == 1
    assert "mnist" in done.stderr
    assert "privfl data fetch mnist" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_config_and_a_full_folder_are_refused(privfl, config, tmp_path):
    assert "cannot read" in privfl("run", tmp_path / "no.yaml").stderr
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("keep me")
    done = privfl("run", config(DIGITS), "--out", full)
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert [path.name for path in full.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("verb", [("run", "--resume"), ("report",), ("audit",)])
def test_a_folder_that_is_no_run_is_refused_as_such(privfl, tmp_path, verb):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "nowhere"):
        done = privfl(*verb, folder)
        assert done.returncode == 2
        if folder.exists() or verb != ("audit",):  # a path that is not there may be a config's
            assert f"'{folder}' holds no run" in done.stderr
    assert not (tmp_path / "nowhere").exists()
    assert not any((tmp_path / "empty").iterdir())


def test_clients_and_how_they_are_split_are_told_in_a_sentence(privfl, config, tmp_path):
    done = privfl("run", config(DIGITS), "--out", tmp_path / "out")
    assert "; 8 clients, split by dirichlet; the server reads" in done.stderr


def test_an_audit_refuses_what_it_cannot_read_before_it_trains(privfl, config, tmp_path):
    assert privfl("audit", tmp_path / "no.yaml").returncode == 2
    assert (
        "adversary"
        in privfl(
            "audit", config(DIGITS + "audit: {adversaries: [somebody]}"), "--out", tmp_path / "a"
        ).stderr
    )


def test_list_shows_every_seam_and_compat_as_json(privfl):
    names = {row["name"] for row in json.loads(privfl("list", "aggregators", "--json").stdout)}
    assert "mean" in names
    rows = json.loads(privfl("list", "--compat", "--json").stdout)
    assert {"rule", "channel", "verdict", "through", "because"} <= rows[0].keys()
    (row,) = (r for r in rows if (r["rule"], r["channel"]) == ("mean", "plain"))
    assert (row["verdict"], row["through"], row["because"]) == ("works", "", "")
    assert row["single updates are read by"] == "server"
    channels = {row["name"]: row for row in json.loads(privfl("list", "channels", "--json").stdout)}
    assert channels["secagg"]["a lying server can"] == "read"
    said = json.loads(privfl("list", "guarantees", "--json").stdout)
    assert {row["a lying server"] for row in said if "active" in row["channel"]} == {"shift"}
    assert privfl("list", "aggregatorz").returncode == 2


def test_compat_is_read_at_80_columns_and_says_what_its_json_says(privfl):
    shown = privfl("list", "--compat", env={"COLUMNS": "80"}).stdout
    assert max(len(line) for line in shown.splitlines()) <= 100
    letters = dict(line.split("  ") for line in shown.split("\n\n")[1].splitlines())
    head, *grid = shown.split("\n\n")[2].splitlines()
    assert max(len(line) for line in (head, *grid)) <= 80
    marks = {
        (rule, letters[letter]): mark
        for rule, *row in (line.split() for line in grid)
        for letter, mark in zip(head.split(), row, strict=True)
    }
    rows = json.loads(privfl("list", "--compat", "--json").stdout)
    assert marks == {(row["rule"], row["channel"]): row["mark"] for row in rows}
    assert all((row["mark"] in "+gs") == (row["verdict"] == "works") for row in rows)
    meanings = shown.split("\n\n")[3]
    assert all(f"{mark}  " in meanings for mark in {row["mark"] for row in rows})


@pytest.mark.parametrize("what", ["channels", "aggregators", "attacks", "guarantees"])
def test_lists_break_no_word_at_80_columns(privfl, what):
    shown = privfl("list", what, env={"COLUMNS": "80"}).stdout
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert all(line.endswith("│") for line in shown.splitlines() if line.startswith("│"))
    rows = json.loads(privfl("list", what, "--json").stdout)
    key = "name" if "name" in rows[0] else "channel"
    for row in rows:
        assert any(row[key].split()[0] in line for line in shown.splitlines()), row[key]


def test_data_list_names_every_set_with_its_licence(privfl):
    rows = json.loads(privfl("data", "list", "--json").stdout)
    assert {"digits", "mnist", "heart_disease"} <= {row["name"] for row in rows}
    assert all(row["licence"] for row in rows)


def test_a_sweep_has_one_row_for_each_combination(privfl, config, tmp_path):
    done = privfl(
        "sweep",
        config(DIGITS),
        "--over",
        "seed=0,1",
        "--over",
        "model=softmax,{name: mlp, hidden: [8]}",
        "--out",
        tmp_path / "s",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == 4
    assert len({row["accuracy"] for row in rows}) > 1
    runs = sorted(path.name for path in (tmp_path / "s").iterdir() if path.is_dir())
    assert runs == ["000", "001", "002", "003"]


def test_a_killed_run_resumes_to_the_same_numbers(privfl, config, tmp_path, same_model, rounds_of):
    path = config(
        "data: {name: digits, clients: 8}\nrounds: 60\nexecutor: sequential\nserver_optimizer:"
        " fedadam\ntraining: {name: scaffold, steps: 2}\n"
    )
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert privfl("run", path, "--out", whole).returncode == 0
    begins, resumes = ("run", path, "--out", cut), ("run", "--resume", cut)
    for words, after in ((begins, 1), (resumes, 20)):  # the second is killed a second time
        killed(privfl, words, cut / "rounds.jsonl", after)
        assert not (cut / "summary.json").exists(), "it ended before the kill: give it more rounds"
    done = privfl("run", "--resume", cut)
    assert done.returncode == 0, done.stderr
    assert same_model(whole, cut)
    assert rounds_of(whole) == rounds_of(cut)


def killed(privfl, words, log, after):
    """Play a command in a fork of this process, which has loaded all that it needs, and kill it
    when the log has so many rounds.
    """
    victim = os.fork()
    if victim == 0:
        try:
            privfl(*words)
        finally:
            os._exit(0)
    while not (log.exists() and log.read_text().count("\n") >= after):
        ended, _ = os.waitpid(victim, os.WNOHANG)
        assert not ended, "it ended before the kill: give it more rounds"
        time.sleep(0.001)
    os.kill(victim, signal.SIGKILL)
    _, status = os.waitpid(victim, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


AUDITED = (
    "data: {name: digits, clients: 4, partition: iid}\n"
    "model: {name: mlp, hidden: [8]}\n"
    "rounds: 1\n"
    "training: {name: sgd, batch_size: 16, steps: 2}\n"
    "audit: {adversaries: [server], attacks: [linear_leakage, loss_threshold]}\n"
)


def test_an_audit_gates_with_its_exit_code_and_against_an_older_one(privfl, config, tmp_path):
    source = config(AUDITED)
    red = privfl("audit", source, "--out", tmp_path / "a", "--fail-over", "samples.recognised=.01")
    assert red.returncode == 1, red.stderr
    assert "red" in red.stdout
    assert "leaks" in red.stdout
    old = tmp_path / "a" / "audit.json"
    same = privfl("audit", source, "--out", tmp_path / "b", "--against", old, "--json")
    assert same.returncode == 0, same.stderr
    told = json.loads(same.stdout)
    assert (told["schema"], told["light"]) == ("privfl.audit/1", "green")
    words = ("--budget", ".000001s", "--against", old)
    late = privfl("audit", source, "--out", tmp_path / "c", *words)
    assert late.returncode == 3, late.stderr
    assert "inconclusive" in late.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--effort", "heroic"), "'audit.effort' must be 'low', 'default' or 'high'"),
        (("--budget", "soon"), "--budget takes seconds or minutes"),
        (("--fail-over", "samples=.1"), "takes ASSET.FIGURE=LIMIT"),
        (("--against", "no.json"), "cannot read the audit 'no.json'"),
        (("--set", "audit.attacks=[dlgg]"), "did you mean 'dlg'"),
    ],
)
def test_an_audit_refuses_before_it_trains(privfl, config, tmp_path, words, said):
    done = privfl("audit", config(AUDITED), "--out", tmp_path / "a", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "a").exists()


def test_a_folder_that_holds_something_is_refused_before_anything_else_is_said(
    privfl, config, tmp_path
):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    own = config(DIGITS)
    for words in (
        ("run", own, "--out", full),
        ("sweep", own, "--over", "seed=0,1", "--out", full),
        ("audit", own, "--out", full),
        ("audit", own, "--out", full / "mine.txt"),
        ("demo", "--out", full),
    ):
        done = privfl(*words)
        assert (done.returncode, done.stdout) == (2, ""), words
        why = "cannot be" if words[-1].is_file() else "is not empty"
        assert done.stderr.startswith(f"privfl: '{words[-1]}' {why}: ")
        assert "give --out a " in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_run_that_cannot_go_on_is_refused_before_its_heading(privfl, config, tmp_path):
    run = tmp_path / "run"
    first = privfl("run", config(DIGITS), "--out", run, "--set", "rounds=1")
    assert first.stderr.startswith("privfl: softmax")
    assert privfl("compare", run, run, "--out", run).stdout == ""
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("\nseed: 0", "\nseed: 7"))
    done = privfl("run", "--resume", run)
    assert done.returncode == 2
    assert done.stderr.startswith("privfl: the run in")
    assert done.stderr.count("\n") == 1
