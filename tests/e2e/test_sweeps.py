"""Sweeps go on where they were cut, choose on data that is not the test set, and runs stand beside
each other.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest

from privfl import Federation
from privfl.cli.sweeping import play
from privfl.config import load
from privfl.core import ConfigError
from privfl.engine import RunFolder
from privfl.report import config_in

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


@pytest.fixture(scope="module")
def plain(command, tmp_path_factory):
    """A sweep over two seeds that is left as it is; its folder and what it printed."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "exp.yaml").write_text(DIGITS)
    words = ("--over", "seed=0,1", "--out", folder / "s", "--json")
    done = command(folder, "sweep", "exp.yaml", *words)
    assert done.returncode == 0, done.stderr
    return folder / "s", done


def test_a_sweep_leaves_its_rows_for_other_programs(plain):
    folder, done = plain
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


def test_a_sweep_takes_nothing_that_is_not_its_own_for_a_run_of_its_own(config, tmp_path):
    run, own = tmp_path / "s" / "001", load(config(DIGITS)).model_dump()
    Federation.from_config({**own, "seed": 7}).run(run)
    with pytest.raises(ConfigError, match="001' is not the sweep's own: move it away"):
        play(run, own)
    shutil.rmtree(run)
    run.mkdir()
    (run / "thesis.txt").write_text("three years")
    with pytest.raises(ConfigError, match=r"holds 'thesis.txt' and no run of the sweep"):
        play(run, own)
    assert (run / "thesis.txt").read_text() == "three years"
    (run / "thesis.txt").rename(run / ".config.yaml.17.draft")  # of a beginning that was killed
    play(run, own)
    assert (run / "summary.json").exists()


def test_two_sweeps_and_a_run_in_one_folder_get_one_sentence_and_damage_nothing(swept, privfl):
    folder, _ = swept()
    held = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with writes_to(folder):
        done = privfl("sweep", "--resume", folder)
        assert done.returncode == 2
        assert "another process is writing to" in done.stderr
    done = privfl("run", folder.parent / "exp.yaml", "--out", folder)
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    for name in ("fingerprint.json", "summary.json"):
        (folder / "001" / name).unlink()  # a run that has its config, and has not begun
    with writes_to(folder / "001"):
        done = privfl("sweep", "--resume", folder)
        assert done.returncode == 2
        assert "another process is writing to" in done.stderr
    left = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert left == {
        path: content
        for path, content in held.items()
        if path.name not in ("fingerprint.json", "summary.json") or path.parent.name != "001"
    }


def test_a_run_that_lost_its_config_is_not_gone_on_with(config, tmp_path):
    run, own = tmp_path / "s" / "000", load(config(DIGITS)).model_dump()
    Federation.from_config(own).run(run)
    (run / "config.yaml").unlink()
    (run / "summary.json").unlink()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for go_on in (
        lambda: play(run, own),
        lambda: Federation.from_config(own).run(run, resume=True),
        lambda: config_in(run),  # as the command does
    ):
        with pytest.raises(ConfigError, match=r"has lost the config\.yaml that its run began with"):
            go_on()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


ENDLESS = """
import os, time
from privfl.core.pool import pool_of, put

if __name__ == "__main__":
    with pool_of(1) as pool:
        print(put(pool, os.getpid).result(), flush=True)
        put(pool, time.sleep, 600).result()
"""


def test_processes_of_a_sweep_that_is_killed_outright_end_with_it(tmp_path):
    """They went on with its runs once, and then hung."""
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as sweep:
        at_work = int(sweep.stdout.readline())
        os.kill(at_work, 0)
        sweep.kill()
    for _ in range(600):
        if not Path(f"/proc/{at_work}").exists():
            break
        time.sleep(0.05)
    assert not Path(f"/proc/{at_work}").exists()


@contextmanager
def writes_to(folder):
    """Somebody else writes to a folder."""
    held = RunFolder(folder)
    held.lock()
    try:
        yield
    finally:
        held.close()


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


def test_runs_are_compared_in_a_table_and_in_what_they_are_made_of(plain, privfl, tmp_path):
    folder, _ = plain
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
    drawn = (tmp_path / "c" / "curves.svg").read_text()
    assert drawn.startswith("<?xml")
    assert "<text" in drawn
    assert str(folder / "001") in drawn
    shown = list(csv.DictReader((tmp_path / "c" / "curves.csv").read_text().splitlines()))
    assert [row["round"] for row in shown] == ["1", "2"] * 2
    rows = (folder / "000" / "rounds.jsonl").read_text().splitlines()
    assert [float(row["accuracy"]) for row in shown[:2]] == [
        json.loads(row)["accuracy"] for row in rows
    ]
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
