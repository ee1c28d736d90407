"""What a run says about its privacy: both accountants' figures, whose privacy it is, and what its
reader must be warned of.
"""

import html
import json
import math
import re

import pytest

from privfl import Federation
from privfl.core import Charge, DpEvent, Ledger, Sampling
from privfl.dp import epsilon, statement
from privfl.report import write_report

PRIVATE = """
data: {name: digits, clients: 8, partition: {name: iid}}
rounds: 3
executor: sequential
bound: {name: clip, l2: 0.5}
sampler: {name: poisson, rate: 0.5}
mechanism: {name: gaussian, noise_multiplier: 2.0}
"""


@pytest.fixture(scope="module")
def private(command, tmp_path_factory):
    """The folder of a private run, and what the command printed."""
    folder = tmp_path_factory.mktemp("private")
    (folder / "exp.yaml").write_text(PRIVATE)
    done = command(folder, "run", "exp.yaml", "--out", folder / "out", "--json")
    assert done.returncode == 0, done.stderr
    return folder / "out", done


def told(privfl, config, tmp_path, more="", *words):
    done = privfl("run", config(PRIVATE + more), "--out", tmp_path / "out", *words)
    assert done.returncode == 0, done.stderr
    return read(tmp_path / "out")


def read(folder):
    """The summary and the page of a run."""
    return (
        json.loads((folder / "summary.json").read_text()),
        (folder / "report.html").read_text(),
    )


def test_a_run_shows_both_accountants_for_each_unit_and_says_what_its_noise_is(private):
    folder, _ = private
    summary, page = read(folder)
    [line] = summary["privacy"]
    plan = {"noise_multiplier": 2.0, "sample_rate": 0.5, "steps": 3, "delta": 1e-5}
    assert line["rdp"] == pytest.approx(epsilon(**plan))
    assert line["pld"] == pytest.approx(epsilon(**plan, accountant="pld"))
    assert line["epsilon"] == line["pld"] < line["rdp"]
    assert (line["unit"], line["relation"], line["delta"]) == ("client", "add_remove", 1e-5)
    for figure in (line["rdp"], line["pld"]):
        assert f"{figure:.3f}" in page
    assert any(
        "floating point" in warning and "discrete_gaussian" in warning
        for warning in summary["warnings"]
    )
    assert any("same run with secret coins" in warning for warning in summary["warnings"])
    assert all(html.escape(warning) in page for warning in summary["warnings"])


def test_the_screen_shows_the_claim_itself_and_no_tile_rounds_it_down(private):
    folder, done = private
    [row] = json.loads(done.stdout)
    summary, page = read(folder)
    [line] = summary["privacy"]
    assert row["epsilon (client level, with secret coins)"] == line["epsilon"] < line["rdp"]
    assert row["epsilon (client level, seed known)"] == line["as_drawn"]
    tile = re.search(r"<b>([0-9.]+)</b><span>epsilon, client level, with secret coins", page)
    assert line["epsilon"] <= float(tile[1]) < line["epsilon"] * 1.01
    assert f"({tile[1]}, 1e-05)" in line["claim"]


def test_the_screen_of_a_private_run_says_what_is_not_covered(privfl, config, tmp_path):
    done = privfl("run", config(PRIVATE), "--out", tmp_path / "out")
    assert "accuracy and loss are of the test data, which no epsilon counts" in done.stderr
    assert str(tmp_path / "out" / "public") in done.stderr
    bare = privfl("run", config("rounds: 1\n"), "--out", tmp_path / "bare")
    assert "not covered" not in bare.stderr


def test_a_noise_seed_voids_the_claim_and_the_report_says_so(privfl, config, tmp_path):
    summary, page = told(privfl, config, tmp_path, "noise_seed: 3\n")
    assert summary["privacy"][0]["epsilon"] is None
    assert "void" in summary["privacy"][0]["refused"]
    assert any("NO privacy guarantee" in warning for warning in summary["warnings"])
    assert "NO privacy guarantee" in page
    assert "no claim" in page


def test_no_noise_is_an_infinite_epsilon_in_words(privfl, config, tmp_path):
    summary, page = told(privfl, config, tmp_path, "", "--set", "mechanism.noise_multiplier=0")
    assert summary["privacy"][0]["epsilon"] == "infinite"
    assert any("epsilon at client level is infinite" in warning for warning in summary["warnings"])
    assert "infinite" in page


def test_exact_discrete_noise_needs_no_warning_and_has_no_loss_distribution(
    privfl, config, tmp_path
):
    summary, _ = told(
        privfl, config, tmp_path, "", "--set", "mechanism={name: skellam, noise_multiplier: 2.0}"
    )
    assert not any("floating point" in warning for warning in summary["warnings"])
    [line] = summary["privacy"]
    assert line["pld"] is None
    assert line["epsilon"] == line["rdp"] > 0
    assert any("no privacy loss distribution" in note for note in line["notes"])


def test_samples_of_many_clients_are_one_line_with_the_dearest(tmp_path):
    config = {
        "data": {"name": "digits", "clients": 4, "partition": {"name": "dirichlet", "alpha": 0.3}},
        "training": {
            "name": "sgd",
            "steps": 2,
            "batch_size": 8,
            "gradient": {"name": "dp", "l2": 0.5, "noise_multiplier": 1.0},
        },
        "rounds": 2,
        "executor": "sequential",
    }
    run = Federation.from_config(config).run(tmp_path / "out")
    [line] = run.summary["privacy"]
    least = min(len(index) for index in Federation.from_config(config).scenario.clients.values())
    assert line["subjects"] == 4
    assert line["unit"] == "sample"
    assert line["rdp"] == pytest.approx(
        epsilon(noise_multiplier=1.0, sample_rate=8 / least, steps=4, delta=1e-5)
    )
    assert "the dearest of 4" in write_report(tmp_path / "out").read_text()


def test_a_composition_that_takes_minutes_by_pld_says_so():
    charges = tuple(
        Charge(
            i,
            DpEvent("gaussian", {"noise_multiplier": 1.0 + i / 100}),
            Sampling("poisson", 0.1, 1000),
            "client",
            "add_remove",
        )
        for i in range(40)
    )
    [line] = statement(Ledger(charges), 1e-5).lines
    assert line.pld is None
    assert line.rdp is not None
    assert any("40 different releases" in note for note in line.notes)


def test_a_run_without_noise_claims_and_warns_of_nothing():
    run = Federation.from_config(
        {"data": {"name": "digits", "clients": 4}, "rounds": 1, "executor": "sequential"}
    ).run()
    assert run.summary["privacy"] == []
    assert run.summary["warnings"] == []


def test_a_run_says_its_claim_in_a_sentence_and_what_it_does_not_count(
    private, privfl, config, tmp_path
):
    folder, done = private
    summary, page = read(folder)
    [line] = summary["privacy"]
    claim = line["claim"]
    assert claim.startswith("Against whoever reads the released models, who learns no cohort, coin")
    assert "the epsilon of the same run with secret coins; as it was drawn" in claim
    assert "Against the server: none. Excluded: " in claim
    assert "mean and spread of the pixels" in claim
    assert html.escape(claim) in page
    assert "what would change it" in page
    assert " ".join(claim.split()) in " ".join(done.stderr.split())
    assert line["as_drawn"] > line["epsilon"]
    secret = PRIVATE + "threat: {sampling: secret}\n"
    assert privfl("run", config(secret), "--out", tmp_path / "secret").returncode == 0
    [line] = json.loads((tmp_path / "secret" / "summary.json").read_text())["privacy"]
    assert line["as_drawn"] is None
    assert "same run with secret coins" not in line["claim"]


def test_a_sweep_says_what_all_its_runs_spent_together(privfl, config, tmp_path):
    done = privfl("sweep", config(PRIVATE), "--over", "seed=0,1", "--out", tmp_path / "sweep")
    assert done.returncode == 0, done.stderr
    [line] = json.loads((tmp_path / "sweep" / "000" / "summary.json").read_text())["privacy"]
    plan = {"noise_multiplier": 2.0, "sample_rate": 0.5, "steps": 6, "delta": 1e-5}
    assert line["rdp"] < epsilon(**plan)
    said = " ".join(done.stderr.split())
    assert "the sweep's 2 runs together: Against whoever reads" in said
    assert f"({math.ceil(epsilon(**plan) * 100) / 100:.3g}, 1e-05)" in said
