"""The notebooks run, cell by cell, as they stand."""

import json
import math
import re
from pathlib import Path

import matplotlib as mpl
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"


@pytest.fixture
def played(monkeypatch, capsys):
    """What a notebook's cells leave behind, and what they print."""
    mpl.use("Agg")
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)

    def play(name):
        left = {}
        for cell in json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), left)  # noqa: S102
        mpl.pyplot.close("all")
        return left, capsys.readouterr().out

    return play


def stored(name):
    """What the cells of a notebook printed when it was last executed."""
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    return "".join("".join(one["text"]) for one in outputs if one.get("name") == "stdout")


def words_of(text):
    """A text with each number as one sign: noise of the operating system moves them."""
    return re.sub(r"[\d.]*\d", "#", " ".join(text.split()))


def test_a_smaller_epsilon_costs_accuracy(played):
    left, said = played("trade-off")
    runs = left["runs"]
    assert runs[0.5].accuracy < left["without"].accuracy - 0.03
    assert math.isclose(runs[2].summary["privacy"][0]["epsilon"], 2, rel_tol=0.02)
    assert "Against the server: none." in " ".join(said.split())
    assert words_of(said) == words_of(stored("trade-off"))


def test_the_server_reads_images_in_clear_and_out_of_a_small_sum(played):
    left, said = played("audit")
    victim = left["data"].x[left["clients"][left["victim"]]]
    everybody = left["everybody"]
    for found, truth in ((left["found"].samples, victim), (left["of_the_sum"].samples, everybody)):
        distances = torch.cdist(found.flatten(1), truth.flatten(1))
        assert len(found) == len(truth)
        assert distances.amin(dim=1).max() < 0.1
    assert "not applicable: server cannot read single updates" in said
    assert said == stored("audit")


def test_krum_between_two_servers_stands_liars_that_a_mean_does_not(played):
    left, said = played("robust-and-private")
    accuracy = {name: run.accuracy for name, run in left["runs"].items()}
    assert accuracy["mean over secagg"] < accuracy["Krum between two servers"] - 0.05
    assert abs(accuracy["Krum"] - accuracy["Krum between two servers"]) < 0.03
    assert "single updates are read by server with server/1" in said
    assert said == stored("robust-and-private")


def test_what_the_notebooks_hold_was_run_in_their_order():
    for path in FOLDER.glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        counts = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
        assert counts == list(range(1, len(counts) + 1)), path.name
