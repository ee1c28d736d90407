"""The examples of loops that other people have, as they stand."""

import re
import runpy
import warnings
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


def said(name, capsys):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Opacus' own
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out


def test_an_own_table_under_secagg_and_noise_is_fifteen_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # it runs from anywhere
    receipt = said("own_csv.py", capsys)
    assert "survivors=('Charité', 'General, north', 'Uni'), dropped=('St. Mary',)" in receipt
    assert "only the sum of 3 updates" in receipt
    assert float(re.search(r"epsilon=([\d.]+)", receipt)[1]) < 3
    text = (EXAMPLES / "own_csv.py").read_text().split('"""')[2]
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) <= 15
    assert not re.search(r"\b_(?!_file__)\w", text), "no private name"


def test_scikit_learn_learns_in_a_layer(capsys):
    assert float(re.search(r"accuracy ([\d.]+)", said("sklearn_sgd.py", capsys))[1]) > 0.9


def test_opacus_and_the_layer_claim_beside_each_other(capsys):
    told = said("opacus_clients.py", capsys)
    accuracy, samples, clients = (float(x) for x in re.findall(r"[\d.]*\d\.\d+", told)[:3])
    assert accuracy > 0.15
    assert 1 < samples < 20
    assert 1 < clients < 20


def test_a_trainer_with_lora_learns_in_a_layer(capsys):
    for library in ("transformers", "peft", "accelerate"):
        pytest.importorskip(library)
    told = said("transformers_lora.py", capsys)
    assert float(re.search(r"accuracy ([\d.]+);", told)[1]) > 0.6
    assert told.rstrip().endswith("only the sum of 3 updates")
