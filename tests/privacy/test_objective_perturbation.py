"""Objective perturbation held against the real density of what it releases: every neighbour on a
grid, in one dimension.
"""

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from privfl.core import BadUpdate, ConfigError, Ledger, OsNoise, SeededNoise
from privfl.dp import spend
from privfl.dp.accounting import gaussian_epsilon
from privfl.dp.accounting.rdp import rdp_curve
from privfl.dp.accounting.release import Release
from privfl.dp.charges import stepped
from privfl.dp.objective import GaussianObjective, PureObjective, in_the_ball, perturbation
from privfl.dp.objective.logistic import gradient, minimiser, rounding

RECORDS = [(x, s) for x in (-1.0, -0.4, 0.0, 0.7, 1.0) for s in (-1.0, 1.0)]
W = np.linspace(-40, 40, 160_001)


def noise_and_slope(records, ridge):
    """In one dimension: the noise whose minimum is w, and its derivative by w, at every w."""
    b, slope = -ridge * W, np.full_like(W, ridge)
    for x, s in records:
        p = 1 / (1 + np.exp(s * x * W))
        b += s * x * p
        slope += x * x * p * (1 - p)
    return b, slope


def log_density(records, ridge, log_noise):
    b, slope = noise_and_slope(records, ridge)
    return log_noise(b) + np.log(slope)


@pytest.mark.parametrize("settings", [(0.5, 1.0), (1.0, 0.1), (4.0, 0.5), (0.1, 30.0)])
def test_no_replaced_record_moves_the_density_of_the_pure_form_beyond_epsilon(settings):
    epsilon, ridge = settings
    made = PureObjective(epsilon, ridge)
    used, left = made.settled()

    def log_noise(b):
        return -left / 2 * np.abs(b)

    rest, worst = [(0.9, 1.0), (-0.3, 1.0)], 0.0
    for one, other in product(RECORDS, RECORDS):
        a, b = (log_density([*rest, record], used, log_noise) for record in (one, other))
        worst = max(worst, float(np.abs(a - b).max()))
    assert worst <= epsilon
    assert worst > 0.3 * epsilon, "the search reaches far: it would see a claim that is too small"


@pytest.mark.parametrize("settings", [(1.0, 1.0), (3.0, 0.3), (0.5, 2.0), (10.0, 20.0)])
def test_no_added_record_moves_the_density_of_the_gaussian_form_beyond_its_delta(settings):
    z, ridge = settings
    made = GaussianObjective(z, ridge)
    event = made.events()[0]
    release = Release(event.mechanism, tuple(sorted(event.parameters.items())), "all")

    def log_noise(b):
        return norm.logpdf(b, scale=z)

    step, seen = W[1] - W[0], 0.0
    for count in (0, 3):
        rest = [(0.9, 1.0), (-0.3, 1.0), (1.0, -1.0)][:count]
        for record in RECORDS:
            pair = [log_density(own, ridge, log_noise) for own in (rest, [*rest, record])]
            for a, b in (pair, pair[::-1]):
                assert np.exp(a).sum() * step == pytest.approx(1, abs=1e-3)
                for epsilon in (0.1, 0.5, 1.0, 2.0):
                    excess = np.maximum(np.exp(a) - np.exp(epsilon + b), 0).sum() * step
                    assert excess <= made.delta(epsilon)
                    seen = max(seen, excess / made.delta(epsilon))
                for order in (1.5, 4.0, 16.0):
                    known = np.exp(order * a + (1 - order) * b).sum() * step
                    assert math.log(known) / (order - 1) <= rdp_curve(release, (order,))[0] + 1e-6
    assert seen > 0.1, "the bound is within reach of the truth"


def test_the_ledgers_figure_is_no_smaller_than_the_exact_delta():
    made = GaussianObjective.for_budget(epsilon=1.0, delta=1e-5, ridge=10.0)
    assert made.delta(1.0) == pytest.approx(1e-5, rel=1e-4)
    fitted = made.fit(torch.eye(3), torch.tensor([0, 1, 1]), OsNoise())
    [spent] = spend(Ledger().charged(stepped(0, fitted.steps, fitted.neighbours)), 1e-5)
    assert (spent.unit, spent.relation) == ("sample", "add_remove")
    assert 1.0 <= spent.claim() < 1.3


def test_a_pure_release_costs_its_epsilon_at_most():
    fitted = PureObjective(0.7, 2.0).fit(torch.eye(2), torch.tensor([0, 1]), OsNoise())
    [spent] = spend(Ledger().charged(stepped(0, fitted.steps, fitted.neighbours)), 1e-9)
    assert spent.relation == "replace_one"
    assert 0.65 < spent.claim() <= 0.7 + 1e-3


def test_noise_of_a_seed_voids_the_claim():
    for made in (PureObjective(1.0, 1.0), GaussianObjective(1.0, 1.0)):
        fitted = made.fit(torch.eye(2), torch.tensor([0, 1]), SeededNoise(0))
        [spent] = spend(Ledger().charged(stepped(0, fitted.steps, fitted.neighbours)), 1e-5)
        assert "seed" in (spent.refused or "")


def test_the_distance_to_the_minimum_costs_what_is_set_aside_for_it():
    more, lost = perturbation._APART
    assert gaussian_epsilon(perturbation._FINE, lost) <= more


@pytest.mark.parametrize("made", [PureObjective(2.0, 1.5), GaussianObjective(1.5, 1.5)])
def test_what_is_released_has_the_density_that_was_examined(made):
    records = [(0.9, 1.0), (-0.3, 1.0), (1.0, -1.0)]
    x = torch.tensor([[x] for x, _ in records])
    y = torch.tensor([int(s > 0) for _, s in records])
    drawn = np.array([float(made.fit(x, y, OsNoise()).weights[0]) for _ in range(400)])
    ridge, log_noise = 1.5, lambda b: norm.logpdf(b, scale=1.5)
    if isinstance(made, PureObjective):
        ridge, left = made.settled()
        log_noise = lambda b: -left / 2 * np.abs(b)
    density = np.exp(log_density([(float(a), s) for a, s in records], ridge, log_noise))
    cumulated = np.cumsum(density) / density.sum()
    assert kstest(drawn, lambda w: np.interp(w, W, cumulated)).pvalue > 1e-6


def test_the_minimum_is_reached_to_the_tolerance_and_agrees_with_another_solver():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = in_the_ball(rng.normal(size=(300, 6)))
    s = np.where(x @ rng.normal(size=6) + rng.normal(size=300) > 0, 1.0, -1.0)
    w = minimiser(x, s, 2.0, np.zeros(6), 1e-9)
    assert np.linalg.norm(gradient(w, x, s, 2.0, np.zeros(6))) <= 1e-9
    peer = LogisticRegression(C=0.5, fit_intercept=False, tol=1e-10, max_iter=1000).fit(x, s)
    assert np.allclose(w, peer.coef_[0], atol=1e-5)


def test_a_minimum_that_is_not_reached_does_not_leave():
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    y = torch.arange(40) % 2
    for kind in (PureObjective, GaussianObjective):
        with pytest.raises(ConfigError, match="nothing may leave"):
            kind(1.0, 1.0, tolerance=1e-40).fit(x, y, OsNoise())


def test_a_gradient_that_rounds_to_less_than_its_own_rounding_does_not_count_as_small():
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    for kind in (PureObjective, GaussianObjective):
        for _ in range(10):  # of which some, by chance, come out as zero
            with pytest.raises(ConfigError, match="nothing may leave"):
                kind(1.0, 1.0, tolerance=1e-16).fit(x, torch.arange(5) % 2, OsNoise())
    rng = np.random.default_rng(0)
    x, w = in_the_ball(rng.normal(size=(3000, 4))), 5 * rng.normal(size=4)
    s = np.where(rng.random(3000) < 0.5, 1.0, -1.0)
    pulls = -x * (s / (1 + np.exp(s * (x @ w))))[:, None]
    real = [math.fsum(pulls[:, i]) + w[i] for i in range(4)]
    off = np.linalg.norm(gradient(w, x, s, 1.0, np.zeros(4)) - real)
    assert off <= rounding(3000, w, 1.0, np.zeros(4)) < 1e-10


@pytest.mark.parametrize("made", [PureObjective(1.0, 1.0), GaussianObjective(1.0, 1.0)])
def test_labels_that_are_not_one_for_each_row_are_refused(made, unchecked):
    """One label for all rows would be one record's, and move them all."""
    nothing = torch.tensor([math.nan] * 5)
    one, column = torch.tensor([1]), torch.ones(5, 1, dtype=torch.int64)
    for y in (one, column, torch.ones(4).long(), nothing):
        with pytest.raises(BadUpdate):
            made.fit(torch.eye(5), y, OsNoise())


def test_no_rows_are_fitted_where_one_more_must_not_show():
    none = torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)
    assert GaussianObjective(1.0, 1.0).fit(*none, OsNoise()).weights.shape == (2,)
    with pytest.raises(BadUpdate, match="no rows"):
        PureObjective(1.0, 1.0).fit(*none, OsNoise())


def test_long_rows_are_cut_and_bad_ones_refused():
    cut = in_the_ball(np.array([[3.0, 4.0], [0.1, 0.0]]))
    assert (np.linalg.norm(cut, axis=1) <= 1).all()
    assert np.array_equal(cut[1], [0.1, 0.0])
    made = GaussianObjective(1.0, 1.0)
    for x, y in (
        (torch.tensor([[float("nan")]]), torch.tensor([0])),
        (torch.zeros(1, 1), torch.tensor([2])),
    ):
        with pytest.raises(BadUpdate):
            made.fit(x, y, OsNoise())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (PureObjective, {"epsilon": 0.0, "ridge": 1.0}),
        (PureObjective, {"epsilon": math.inf, "ridge": 1.0}),
        (PureObjective, {"epsilon": 1.0, "ridge": 0.0}),
        (GaussianObjective, {"noise_multiplier": 0.0, "ridge": 1.0}),
        (GaussianObjective, {"noise_multiplier": 1.0, "ridge": -1.0}),
    ],
)
def test_settings_under_which_nothing_is_proved_are_refused(kind, settings):
    with pytest.raises(ConfigError):
        kind(**settings)


def test_a_ridge_that_alone_costs_more_than_epsilon_is_refused():
    with pytest.raises(ConfigError, match="raise the ridge"):
        GaussianObjective.for_budget(epsilon=0.1, delta=1e-5, ridge=1.0)


def test_the_steps_of_a_fit_name_the_number_of_rows_only_where_it_is_public():
    told = {}
    for n in (1, 5, 30):
        x, y = torch.randn(n, 3), torch.arange(n) % 2
        for made in (GaussianObjective(5.0, 5.0), PureObjective(1.0, 5.0)):
            fitted = made.fit(x, y, OsNoise())
            told[type(made).__name__, n] = {step.sampling.population for step in fitted.steps}
    assert [told["GaussianObjective", n] for n in (1, 5, 30)] == [{1}] * 3
    assert [told["PureObjective", n] for n in (1, 5, 30)] == [{1}, {5}, {30}]
