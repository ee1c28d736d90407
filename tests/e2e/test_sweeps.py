"""Sweeps go on where they were cut, choose on data that is not the test set, and runs stand beside
each other.
"""

import csv
import json
import re
from urllib.parse import unquote

import pytest

from privfl import Federation

DIGITS = "data: {name: digits, clients: 4}\nrounds: 2\nexecutor: sequential\n"


@pytest.fixture
def swept(privfl, config, tmp_path):
    """A sweep over two seeds; its folder and what it printed."""

    def sweep(*more, text=DIGITS):
        folder = tmp_path / "s"
        done = privfl("sweep", config(text), "--over", "seed=0,1", "--out", folder, *more)
        assert done.returncode == 0, done.stderr
        return folder, done

    return sweep


def test_a_sweep_leaves_its_rows_for_other_programs(swept):
    folder, done = swept("--json")
    rows = list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))
    told = json.loads(done.stdout)
    assert [row["seed"] for row in rows] == ["0", "1"]
    assert [float(row["accuracy"]) for row in rows] == [row["accuracy"] for row in told]
    assert "no run is named the best" in done.stderr


def test_a_sweep_that_was_cut_goes_on_and_plays_nothing_twice(swept, privfl):
    folder, whole = swept("--json")
    first = (folder / "000" / "rounds.jsonl").stat().st_mtime_ns
    for name in ("summary.json", "ledger.json"):
        (folder / "001" / name).unlink()
    last = max((folder / "001" / "checkpoint").iterdir())
    (last / "state.json").write_bytes(b"")
    done = privfl("sweep", "--resume", folder, "--json")
    assert done.returncode == 0, done.stderr
    kept = ("seed", "accuracy", "loss", "rounds")
    one, other = (
        [{key: row[key] for key in kept} for row in json.loads(each.stdout)]
        for each in (whole, done)
    )
    assert one == other
    assert (folder / "000" / "rounds.jsonl").stat().st_mtime_ns == first
    assert privfl("sweep", "--resume", folder / "000").returncode == 2
    assert "is not empty" in privfl("sweep", folder.parent / "exp.yaml", "--over", "seed=0",
                                    "--out", folder).stderr  # fmt: skip


def test_a_sweep_chooses_on_the_validation_part_and_reads_the_test_set_once(swept):
    folder, done = swept("--set", "data.validation=0.2", "--json")
    rows = json.loads(done.stdout)
    best = max(rows, key=lambda row: row["validation accuracy"])
    assert f"the best by validation accuracy ({100 * best['validation accuracy']:.2f} %)" in (
        done.stderr
    )
    assert best["folder"] in done.stderr
    log = (folder / "000" / "rounds.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["accuracy"] == rows[0]["validation accuracy"]
    assert rows[0]["validation accuracy"] != rows[0]["accuracy"]


def test_validation_samples_are_nobodys_and_drawn_by_the_seed():
    base = {"data": {"name": "digits", "clients": 4, "validation": 0.25}, "rounds": 1}
    scenario = Federation.from_config(base).scenario
    plain = Federation.from_config({**base, "data": {"name": "digits", "clients": 4}}).scenario
    held = sum(len(index) for index in scenario.clients.values())
    assert held + scenario.validation.n == plain.workload.data.n
    assert scenario.validation.n == round(0.25 * plain.workload.data.n)
    kept = {tuple(row) for row in scenario.workload.data.x.flatten(1).tolist()}
    aside = {tuple(row) for row in scenario.validation.x.flatten(1).tolist()}
    assert len(kept & aside) <= len(plain.workload.data.x) - len(
        {tuple(row) for row in plain.workload.data.x.flatten(1).tolist()}
    )


def test_runs_are_compared_in_a_table_and_in_what_they_are_made_of(swept, privfl, tmp_path):
    folder, _ = swept()
    done = privfl("compare", folder / "000", folder / "001", "--out", tmp_path / "c")
    assert done.returncode == 0, done.stderr
    assert "In what they differ" in done.stdout
    made = list(csv.DictReader((tmp_path / "c" / "differences.csv").read_text().splitlines()))
    differ = {row["part"]: row for row in made}
    assert differ["seed"][str(folder / "000")] == "0"
    assert differ["seed"][str(folder / "001")] == "1"
    assert "rounds" not in differ
    assert differ["clients' samples"][str(folder / "001")] == "content B"  # by chance dealt anew
    assert "sha256" not in (tmp_path / "c" / "differences.csv").read_text(), "small data is guessed"
    assert len(list(csv.DictReader((tmp_path / "c" / "compare.csv").read_text().splitlines()))) == 2
    assert (tmp_path / "c" / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert privfl("compare", folder / "000").returncode == 2
    assert privfl("compare", folder / "000", tmp_path).returncode == 2


def test_a_sweeps_page_shows_utility_privacy_and_robustness_of_every_run(privfl, config, tmp_path):
    text = DIGITS + (
        "bound: {name: clip, l2: 1.0}\nstart: public\n"
        "mechanism: {name: gaussian, noise_multiplier: 1.0}\n"
        "attacks: [{name: label_flip, fraction: 0.25}]\n"
    )
    words = ("--over", "mechanism.noise_multiplier=0.1,4", "--over", "seed=0,1")
    done = privfl("sweep", config(text), *words, "--out", tmp_path / "s")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "s" / "sweep.html").read_text()
    captions = re.findall(r"<figcaption>(.*?) <a", page)
    assert [caption.split(":")[0] for caption in captions] == [
        "Test accuracy by mechanism.noise_multiplier",
        "Privacy and utility",
        "Robustness and utility",
    ]
    assert "what is shown here is not covered" in page
    assert "runs together" in page
    rows = list(csv.DictReader((tmp_path / "s" / "sweep.csv").read_text().splitlines()))
    (drawn,) = re.findall(
        r'download="sweep-1.csv" href="data:text/csv;charset=utf-8,([^"]*)"', page
    )
    shown = list(csv.DictReader(unquote(drawn).splitlines()))
    assert [float(row["epsilon (client level)"]) for row in shown] == [
        float(row["epsilon (client level)"]) for row in rows
    ]
