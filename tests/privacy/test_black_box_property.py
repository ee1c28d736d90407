"""Property inference from the answers of released models alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from privfl import Federation
from privfl.attacks import BlackBoxProperty, Knowledge, NotFound, PropertyInference
from privfl.attacks.property.black_box import _fitted
from privfl.audit import audit
from privfl.audit.rehearsal import rehearse
from privfl.testing.inference_world import worlds

BASE = {
    "data": {"name": "digits", "clients": 6, "partition": {"name": "iid"}},
    "model": {"name": "mlp", "hidden": [24]},
    "training": {"name": "sgd", "lr": 0.3, "epochs": 2, "batch_size": 16},
    "rounds": 1,
    "bound": {"name": "clip", "l2": 2.0},
    "channel": {"name": "secagg", "fidelity": "ideal"},
    "executor": "stacked",
}
SMALL = BlackBoxProperty(share=0.15, shadows=16, queries=200)


def test_a_client_that_sees_releases_only_tells_in_which_images_are_mirrored():
    """That nothing is found where nobody mirrors is played with the other attacks on properties
    (tests/privacy/test_honest_games.py).
    """
    report = audit(
        Federation.from_config(BASE),
        adversaries=["client(0)"],
        stream=(),
        probe=(),
        properties=(SMALL,),
        lies=None,
    )
    (finding,) = report.findings
    assert finding.verdict == "leaks", finding.value
    assert finding.baseline.value == 0.5


def test_it_reads_the_released_models_and_nothing_else_of_a_view():
    images = next(iter(worlds()))
    knows = images.knowledge()
    few = BlackBoxProperty(shadows=4, queries=50)
    told = [few.run(images.views(sees), knows).scores for sees in ("rows", "sum", "nothing")]
    torch.testing.assert_close(told[0], told[1])
    torch.testing.assert_close(told[0], told[2])
    view = images.views("nothing")[0]
    other = replace(view, after=view.after + 0.1)
    assert not torch.equal(few.run(other, knows).scores, few.run(view, knows).scores)


def test_the_regression_is_the_one_of_a_library():
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(24) < 12
    X = torch.randn(24, 60, generator=rng) + 0.5 * y[:, None]
    ours = _fitted(X, y, 0.05)
    power = float((X - X.mean(dim=0)).square().sum(dim=1).mean())
    theirs = LogisticRegression(C=1 / (0.05 * power), max_iter=10_000, tol=1e-10).fit(X, y)
    Z = torch.randn(5, 60, generator=rng)
    np.testing.assert_allclose(
        [ours.log_odds(z) for z in Z], theirs.decision_function(Z.numpy()), atol=2e-3
    )


def test_without_samples_that_have_the_property_it_says_what_it_lacks():
    images = next(iter(worlds()))
    told = SMALL.run(images.views("rows"), Knowledge(auxiliary=images.data))
    assert isinstance(told, NotFound)


NOISY = {
    "at the server": {"channel": "plain", "mechanism": {"name": "gaussian"}},
    "in shares": {"mechanism": {"name": "distributed_skellam"}},
}


def noisy(where):
    mechanism = {**NOISY[where]["mechanism"], "noise_multiplier": 20.0}
    training = {**BASE["training"], "weighting": "uniform"}
    return Federation.from_config(
        {**BASE, **NOISY[where], "mechanism": mechanism, "training": training, "noise_seed": 0}
    )


def test_noise_that_a_seed_repeats_falls_out_of_no_comparison_of_runs():
    """The sum of a run with mirrored images is held against that of a run without: with the same
    noise in both, whatever its deviation, all would be found.
    """
    report = audit(
        noisy("at the server"),
        adversaries=["client(0)"],
        stream=(),
        probe=(),
        properties=(PropertyInference(target="sum", shadows=12),),
        lies=None,
    )
    (finding,) = report.findings
    assert finding.verdict == "not found", finding.value


@pytest.mark.parametrize("where", NOISY)
def test_a_run_with_a_seed_of_its_own_has_noise_of_its_own_and_repeats_it(where):
    made = noisy(where)
    few = {client: index[:2] for client, index in made.scenario.clients.items()}
    start, moved = made.scenario.workload.model.read(), []
    for seed in (1, 1, 2):
        made.scenario.workload.model.write(start)
        view = rehearse(made, few, 1, seed=seed).view("client(0)", 0)
        moved.append(view.after - view.before)
    assert torch.equal(moved[0], moved[1])
    assert torch.nn.functional.cosine_similarity(moved[0], moved[2], dim=0).abs() < 0.2
