"""``privfl inspect`` reads a run folder, and its exit code says what it found."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from privfl import Federation

PATIENTS = Path(__file__).parents[2] / "examples" / "patients.csv"
PLANTED = """
data: {name: digits, clients: 8, partition: iid}
model: {name: mlp, hidden: [32]}
training: {name: sgd, lr: 0.3, epochs: 2, weighting: uniform}
rounds: 6
executor: stacked
audit: {evaluate_every: 6}
attacks: [{name: pixel_pattern, target: 2, boxes: [[0, 0, 2, 2]], clients: [0, 1]}]
"""
ROW = {"class", "mask", "index", "share", "flagged", "success", "held_out"}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    (folder / "c.yaml").write_text(PLANTED)
    Federation.from_config(folder / "c.yaml").run(folder / "run")
    return folder / "run"


def test_a_backdoored_run_ends_with_1_and_leaves_a_record_and_a_page(privfl, planted):
    done = privfl("inspect", planted)
    assert done.returncode == 1, done.stderr
    assert "flagged: the mask of class 2 is an outlier" in done.stderr
    assert "index" in done.stdout
    record = json.loads((planted / "inspect.json").read_text())
    assert record["schema"] == "privfl.inspect/1"
    assert record["verdict"] == "flagged"
    rows = record["neural_cleanse"]["classes"]
    assert len(rows) == 10
    assert set(rows[0]) == ROW
    assert (rows[0]["class"], rows[0]["flagged"]) == (2, True)
    assert record["data"]["of"] == "the test set"
    page = (planted / "inspect.html").read_text()
    assert page.count("data:image/png;base64,") == 30
    assert "prefers-color-scheme:dark" in page
    assert "http" not in page


def test_json_is_the_record(privfl, planted, tmp_path):
    done = privfl("inspect", planted, "--json", "--steps", 10, "--out", tmp_path / "o")
    assert json.loads(done.stdout) == json.loads((tmp_path / "o" / "inspect.json").read_text())


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--fail-over", 1000), 0, "is not shown to be free of backdoors"),
        (("--budget", "0s"), 3, "inconclusive: the time was up"),
        (("--budget", "soon"), 2, "--budget takes seconds or minutes"),
        (("--fail-over", -1), 2, "limit must be above 0"),
    ],
)
def test_the_exit_code_says_what_was_found(privfl, planted, tmp_path, words, code, said):
    done = privfl("inspect", planted, "--out", tmp_path / "out", *words)
    assert done.returncode == code, done.stderr
    assert said in done.stderr


def test_a_run_that_was_killed_is_inspected_at_its_checkpoint(privfl, planted, tmp_path):
    killed = tmp_path / "killed"
    shutil.copytree(planted, killed)
    (killed / "model.safetensors").unlink()
    few = ("--json", "--steps", 10, "--out")
    rows = [
        json.loads(privfl("inspect", run, *few, tmp_path / run.name).stdout)["neural_cleanse"]
        for run in (planted, killed)
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("damage", ["cut", "not a number"])
def test_a_damaged_model_is_no_flagged_one(privfl, planted, tmp_path, damage):
    broken = tmp_path / "broken"
    shutil.copytree(planted, broken)
    file = broken / "model.safetensors"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    else:
        flat = safetensors.torch.load_file(file)["parameters"]
        safetensors.torch.save_file({"parameters": flat * torch.nan}, file)
    done = privfl("inspect", broken)
    assert done.returncode == 2
    assert ("cannot be read as a model" if damage == "cut" else "not finite") in done.stderr


def test_nothing_is_added_to_what_may_be_published(privfl, planted, config, tmp_path):
    text = PLANTED.split("attacks", maxsplit=1)[0].replace("rounds: 6", "rounds: 1")
    text += "bound: {name: clip, l2: 1}\naggregator: {name: mean, weighted: false}\n"
    text += "mechanism: {name: gaussian, noise_multiplier: 1}\n"
    assert privfl("run", config(text), "--out", tmp_path / "run").returncode == 0
    public = tmp_path / "run" / "public"
    before = sorted(public.iterdir())
    few = ("--steps", 5)
    for words in ((public, *few), (tmp_path / "run", "--out", public, *few)):
        done = privfl("inspect", *words)
        assert done.returncode == 2
        assert "may be published" in done.stderr
    assert sorted(public.iterdir()) == before
    done = privfl("inspect", public, "--out", tmp_path / "beside", *few)
    assert done.returncode in (0, 1, 3)
    assert (tmp_path / "beside" / "inspect.html").exists()


def test_its_validation_samples_are_used_where_a_run_has_some(privfl, config, tmp_path):
    text = PLANTED.replace("digits,", "digits, validation: 0.2,").replace("rounds: 6", "rounds: 1")
    privfl("run", config(text), "--out", tmp_path / "run")
    done = privfl("inspect", tmp_path / "run", "--json", "--steps", 5)
    assert json.loads(done.stdout)["data"]["of"] == "the run's validation samples"


def test_what_is_no_model_of_images_or_no_run_is_refused_with_2(privfl, config, tmp_path):
    privfl(
        "run",
        config(
            f"data: {{name: csv, path: {PATIENTS}, target: sick, clients: 2}}\n"
            "model: softmax\nrounds: 1\nexecutor: sequential\n"
        ),
        "--out",
        tmp_path / "table",
    )
    refused = privfl("inspect", tmp_path / "table")
    assert refused.returncode == 2
    assert "models of images only" in refused.stderr
    nowhere = privfl("inspect", tmp_path)
    assert nowhere.returncode == 2
    assert "holds no run" in nowhere.stderr


def test_a_model_of_another_size_is_refused(privfl, planted, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(planted, other)
    text = (other / "config.yaml").read_text()
    assert "- 32" in text
    (other / "config.yaml").write_text(text.replace("- 32", "- 31"))
    refused = privfl("inspect", other)
    assert refused.returncode == 2
    assert "one of them was changed" in refused.stderr
