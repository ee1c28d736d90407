"""The audit: attacks through views under layers, controls that hold, reasons where nothing applies,
and a page to read.
"""

import math
from dataclasses import replace

import pytest
import torch

from privfl import Federation
from privfl.attacks import GradientInversion
from privfl.audit import attacks_of, audit, write_page
from privfl.audit.score import decibels, membership, null_membership, pictures, proportion

BASE = {
    "data": {"name": "digits", "clients": 6, "partition": {"name": "iid"}},
    "model": {"name": "mlp", "hidden": [32]},
    "training": {"name": "sgd", "lr": 0.1, "batch_size": 16},
    "rounds": 2,
    "executor": "stacked",
}


@pytest.fixture(scope="module")
def report():
    summed = {
        "bound": {"name": "clip", "l2": 1.0},
        "channel": {"name": "secagg", "fidelity": "ideal"},
    }
    layers = {
        "none": Federation.from_config(BASE),
        "secagg": Federation.from_config({**BASE, **summed}),
    }
    usual = attacks_of("default")
    probe = tuple(
        replace(one, iterations=20) if isinstance(one, GradientInversion) else one
        for one in usual.probe
    )  # how far it comes is not asked here
    who = ["server", "client(0)", "key_holder"]
    return audit(layers, adversaries=who, attacks=replace(usual, probe=probe), held_out=0.8)


def found(report, **wanted):
    return [row for row in report.rows if all(row[key] == value for key, value in wanted.items())]


def test_a_plain_server_gets_samples_back_and_a_secagg_server_is_not_asked(report):
    (plain,) = found(report, layer="none", adversary="server", attack="LinearLeakage (client)")
    assert plain["value"] > 60
    assert plain["baseline"] < 30
    (hidden,) = found(report, layer="secagg", adversary="server", attack="LinearLeakage (client)")
    assert hidden["value"] is None
    assert "only their sum" in hidden["not applicable"]


def test_nobody_is_a_key_holder_without_keys_and_the_reason_is_in_the_table(report):
    rows = found(report, layer="none", adversary="key_holder")
    assert rows
    assert all(row["value"] is None and "key" in row["not applicable"] for row in rows)


def test_membership_from_updates_beats_its_control_which_is_chance(report):
    (row,) = found(
        report, layer="none", adversary="server", attack="UpdateMembership (whitened, client)"
    )
    assert row["low"] > 0.55
    for finding in report.findings:
        if finding.control is not None and finding.family == "membership":
            few = finding.metric == "AUC of clients"  # a handful of clients
            assert abs(finding.control.value - 0.5) < (0.3 if few else 0.1)


def test_whose_images_are_mirrored_shows_in_plain_updates(report):
    (row,) = found(report, layer="none", adversary="server", attack="PropertyInference (client)")
    assert row["value"] > 0.8
    (hidden,) = found(
        report, layer="secagg", adversary="server", attack="PropertyInference (client)"
    )
    assert "only their sum" in hidden["not applicable"]


def test_the_page_shows_layers_tables_curves_and_pictures_and_stands_alone(report, tmp_path):
    page = write_page(report, tmp_path / "new").read_text()
    assert page.count("data:image/png;base64,") >= 4
    for words in (
        "not applicable",
        "Reconstructions beside the originals",
        "logarithmic",
        "secagg",
        "no claim",
        "What the adversaries know",
    ):
        assert words in page
    assert "http" not in page.replace("http-equiv", "")


def test_an_interval_of_a_proportion_is_clopper_and_pearsons():
    assert (proportion(0, 100).low, round(proportion(0, 100).high, 4)) == (0.0, 0.0362)
    assert (round(proportion(5, 10).low, 3), round(proportion(5, 10).high, 3)) == (0.187, 0.813)


def test_perfect_scores_score_one_and_random_truth_scores_chance():
    members = torch.arange(400) < 200
    scores = members.float() + 0.1 * torch.rand(400, generator=torch.Generator().manual_seed(0))
    told = membership(scores, members)
    assert told.auc.value == told.at_hundredth.value == told.balanced == 1
    assert null_membership(scores, members).auc.holds(0.5)


def test_reconstructions_are_matched_before_they_are_scored():
    true = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    told = pictures(true[[2, 0, 1]], true)
    assert (told.psnr > 100).all()
    assert (told.ssim > 0.999).all()


@pytest.mark.parametrize("found", [1, 2, 3, 5])
def test_decibels_alone_are_those_of_the_pictures(found):
    rng = torch.Generator().manual_seed(0)
    true, claimed = torch.rand(3, 1, 8, 8, generator=rng), torch.rand(found, 1, 8, 8, generator=rng)
    assert torch.equal(decibels(claimed, true), pictures(claimed, true).psnr)
    assert torch.equal(decibels(claimed, true[:1]), pictures(claimed, true[:1]).psnr)
    nearest = min(float((one - true[0]).square().mean()) for one in claimed)
    assert float(decibels(claimed, true[:1])) == pytest.approx(-10 * math.log10(nearest), abs=1e-4)
