"""FedMIA: a client's updates against those of all others, over rounds."""

from dataclasses import replace

import pytest
import torch

from privfl import Federation
from privfl.attacks import FedMIA, Knowledge, NotApplicable, NotFound, Scores
from privfl.attacks.membership.fedmia import above_others
from privfl.audit import audit
from privfl.core import Rows
from privfl.testing.inference_world import worlds

BASE = {
    "data": {"name": "digits", "clients": 8, "partition": {"name": "iid"}},
    "model": {"name": "mlp", "hidden": [32]},
    "training": {"name": "sgd", "lr": 0.1, "batch_size": 16, "epochs": 4},
    "rounds": 3,
    "bound": {"name": "clip", "l2": 1.0},
    "executor": "stacked",
}


def test_each_client_is_held_against_mean_and_deviation_of_the_others():
    signals = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    for k in range(6):
        others = torch.cat([signals[:k], signals[k + 1 :]])
        z = (signals[k] - others.mean(dim=0)) / others.std(dim=0)
        torch.testing.assert_close(above_others(signals)[k], torch.special.ndtr(z))


@pytest.mark.parametrize("signal", ["cosine", "loss"])
def test_whose_client_overfits_is_found_against_its_own_held_out_samples(signal):
    report = audit(
        Federation.from_config(BASE),
        adversaries=["server"],
        stream=(FedMIA(signal),),
        probe=(),
        properties=(),
        lies=None,
    )
    (finding,) = report.findings
    assert finding.verdict == "leaks", finding.value


def test_a_mean_over_rounds_of_whoever_took_part():
    images = next(iter(worlds()))
    views = images.views("rows")
    knows = Knowledge(forward=images.forward(), candidates=images.data.take(range(20)))
    each = [FedMIA().run(view, knows).scores for view in views]
    without = replace(views[2], opened={"delta": views[2].rows.take([0, 1, 3])})
    alone = FedMIA().run(without, knows)
    assert alone.clients == (0, 2, 7)
    told = FedMIA().run([*views[:2], without], knows)
    assert told.clients == (0, 2, 5, 7)
    torch.testing.assert_close(told.scores[0], (each[0][0] + each[1][0] + alone.scores[0]) / 3)
    torch.testing.assert_close(told.scores[2], (each[0][2] + each[1][2]) / 2)


def test_it_needs_others_to_compare_with_and_rows_to_read():
    images = next(iter(worlds()))
    knows = images.knowledge()
    (view, *_) = images.views("rows")
    two = replace(view, opened={"delta": view.rows.take([0, 1])})
    told = FedMIA().run(two, knows)
    assert isinstance(told, NotFound)
    assert "round 0 shows 2" in told.reason
    told = FedMIA().run(images.views("sum"), knows)
    assert type(told) is NotApplicable
    assert "function of one sum" in told.theorem


def test_rows_that_nobody_can_name_score_samples_and_no_clients():
    images = next(iter(worlds()))
    (view, *_) = images.views("rows")
    nameless = replace(
        view, opened={"delta": Rows(view.rows.values, view.rows.weights)}, disclosed={}
    )
    told = FedMIA().run(nameless, images.knowledge())
    assert isinstance(told, Scores)
    named = FedMIA().run(view, images.knowledge())
    torch.testing.assert_close(told.scores, named.scores.max(dim=0).values)
