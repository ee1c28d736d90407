"""Strategies of matrix mechanisms: published values, sensitivities by enumeration, streams against
the dense inverse, errors against what was published and fitted elsewhere.
"""

import itertools
import math

import numpy as np
import pytest
import torch

from privfl.core import ConfigError, Participation, SeededNoise
from privfl.dp.noise import normals
from privfl.dp.strategies import Banded, Bisr, Blt, SquareRoot, Tree, rmse
from privfl.dp.strategies.blt import blt_matrix
from privfl.dp.strategies.sensitivity import banded, sens_of, toeplitz
from privfl.dp.strategies.square_root import inverse_square_root, square_root
from privfl.dp.strategies.toeplitz import ToeplitzMatrix

EVERY = [Tree(), SquareRoot(), Bisr(1), Bisr(3), Banded(3), Blt(1), Blt(3)]
RUN = Participation(rounds=9, most=3, apart=3)


def worst(c, most, apart):
    """By trying every set of rounds in which one client can take part."""
    gram, far = np.abs(c.T @ c), 0.0
    for count in range(1, most + 1):
        for rounds in itertools.combinations(range(len(c)), count):
            if all(b - a >= apart for a, b in itertools.pairwise(rounds)):
                far = max(far, float(gram[np.ix_(rounds, rounds)].sum()))
    return math.sqrt(far)


# ---- published values (the tests of jax_privacy)


PUBLISHED = np.array([[1.0, 0, 0, 0], [2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, -6]])


def test_published_sensitivities_of_small_matrices():
    assert banded(PUBLISHED, 1, 4) == pytest.approx(6, abs=1e-9)
    assert sens_of(PUBLISHED, 1, 1) == pytest.approx(6, abs=1e-9)
    assert banded(PUBLISHED, 2, 2) == pytest.approx(math.sqrt(41), abs=1e-9)
    assert banded(np.diag([0.0, 3, 0, 1, 2]), 5, 2) == pytest.approx(math.sqrt(13), abs=1e-9)


def test_a_matrix_whose_contributions_meet_has_no_banded_sensitivity():
    with pytest.raises(ConfigError, match="1 rounds apart meet"):
        banded(PUBLISHED, 4, 1)


def test_the_published_blt_of_100_000_rounds_has_the_published_loss():
    omega = np.array([0.0122853238, 0.1878393665])
    theta = np.array([0.9999528892, 0.9857068667])
    made = blt_matrix(omega, theta, 100_000)
    loss = made.sens(1, 1) * math.sqrt(made.errors().max())
    assert loss == pytest.approx(5.297, abs=5e-4)
    assert loss == pytest.approx(1.135 * (1 + math.log(100_000) / math.pi), rel=1e-3)


def test_coefficients_of_the_square_root_and_of_its_inverse():
    assert square_root(5).tolist() == [1, 1 / 2, 3 / 8, 5 / 16, 35 / 128]
    assert inverse_square_root(5).tolist() == [1, -1 / 2, -1 / 8, -1 / 16, -5 / 128]
    c = SquareRoot().matrix(Participation(12, 1)).dense()
    assert np.allclose(c @ c, np.tri(12), atol=1e-12)


def test_the_square_roots_largest_error_is_one_and_the_logarithm_over_pi():
    for rounds in (100, 10_000):
        made = SquareRoot().matrix(Participation(rounds, 1))
        loss = made.sens(1, 1) * math.sqrt(made.errors().max())
        assert loss == pytest.approx(1.0 + math.log(rounds) / math.pi, rel=0.04)


ERRORS = {  # independent noise's RMSE of the mean prefix over that of the strategy
    (1024, 1, 1): {Tree(): 3.05, Bisr(4): 2.49, Bisr(16): 4.44, Bisr(64): 6.57, Blt(2): 7.34},
    (1024, 8, 128): {Tree(): 2.16, Bisr(16): 4.44, Bisr(64): 6.03, Banded(64): 5.57, Blt(3): 6.12},
    (2000, 10, 200): {Bisr(16): 4.59, Banded(64): 6.17, Blt(2): 7.76, SquareRoot(): 6.06},
    (100, 10, 10): {Bisr(4): 2.16, Banded(10): 2.41, Blt(3): 2.27, SquareRoot(): 1.73},
}


@pytest.mark.parametrize(("run", "said"), ERRORS.items(), ids=str)
def test_errors_are_those_of_other_implementations(run, said):
    rounds = Participation(*run)
    independent = rmse(Bisr(1).matrix(rounds), rounds)
    for strategy, ratio in said.items():
        assert independent / rmse(strategy.matrix(rounds), rounds) == pytest.approx(ratio, abs=6e-3)


def test_three_buffers_make_seven_times_less_prefix_error_than_independent_noise():
    once = Participation(rounds=1024, most=1)
    made = Blt(3).matrix(once)
    assert rmse(Bisr(1).matrix(once), once) >= 7.39 * rmse(made, once)
    assert 9.5 * made.sens(1, 1) * math.sqrt(made.errors()[-1]) <= 32.0


# ---- sensitivities


@pytest.mark.parametrize("strategy", EVERY, ids=repr)
@pytest.mark.parametrize(("most", "apart"), [(1, 1), (9, 1), (2, 2), (3, 3), (2, 4), (5, 2)])
def test_no_set_of_rounds_moves_more_than_the_sensitivity(strategy, most, apart):
    made = strategy.matrix(Participation(9, most, apart))
    for rounds in (1, 5, 9):
        met = worst(made.dense()[:rounds, :rounds], most, apart)
        said = made.sens(most, apart, rounds)
        assert met <= said * (1 + 1e-12)
        if isinstance(made, ToeplitzMatrix):
            assert said == pytest.approx(met, rel=1e-12)
        assert met <= sens_of(made.dense()[:rounds, :rounds], most, apart) * (1 + 1e-12)


def test_the_toeplitz_formula_is_what_enumeration_finds_for_random_columns():
    chance = np.random.default_rng(0)
    for _ in range(20):
        column = np.sort(chance.uniform(size=8))[::-1]
        c = np.array([[column[i - j] if i >= j else 0.0 for j in range(8)] for i in range(8)])
        most, apart = int(chance.integers(1, 5)), int(chance.integers(1, 5))
        assert toeplitz(column, most, apart) == pytest.approx(worst(c, most, apart), rel=1e-12)


def test_banded_matrices_of_any_sign_are_what_enumeration_finds():
    chance = np.random.default_rng(1)
    for _ in range(20):
        c = np.tril(np.triu(chance.normal(size=(8, 8)), 0).T)
        c[np.subtract.outer(range(8), range(8)) >= 2] = 0.0
        most = int(chance.integers(1, 5))
        assert banded(c, most, 2) == pytest.approx(worst(c, most, 2), rel=1e-12)


def test_a_first_column_that_rises_is_refused():
    with pytest.raises(ConfigError, match="not be negative nor increase"):
        ToeplitzMatrix(np.array([1.0, 0.2, 0.3]), np.ones(3), 3, lambda: None)


@pytest.mark.parametrize("omega", [[-0.1, 0.2], [0.6, 0.6]])
def test_a_blt_whose_inverse_would_not_fall_is_refused(omega):
    with pytest.raises(ConfigError, match="omega above 0"):
        blt_matrix(np.array(omega), np.array([0.9, 0.5]), 10)


# ---- the noise


@pytest.mark.parametrize("strategy", EVERY, ids=repr)
def test_a_stream_is_the_dense_inverse_row_by_row(strategy):
    made = strategy.matrix(RUN)
    z = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stream = made.stream()
    streamed = torch.stack([stream.next(row.clone()) for row in z])
    solved = np.linalg.solve(made.dense(), z.numpy())
    assert np.allclose(streamed.numpy(), solved, atol=1e-10)
    prefixes = np.tri(9) @ np.linalg.inv(made.dense())
    assert np.allclose(made.errors(), (prefixes**2).sum(axis=1), rtol=1e-9)
    assert np.allclose(made.column_norms(), np.linalg.norm(made.dense(), axis=0))
    meet = np.abs(made.dense().T @ made.dense()) > 1e-12
    assert not np.triu(meet, made.bands).any()


@pytest.mark.parametrize("strategy", EVERY, ids=repr)
def test_streamed_noise_has_the_covariance_of_the_inverse(strategy):
    """2,000 independent runs of noise, one in each coordinate; a covariance's standard error is
    sqrt((s_ii s_jj + s_ij^2) / n).
    """
    draws, made, noise = 2_000, strategy.matrix(RUN), SeededNoise(11)
    stream = made.stream()
    rows = torch.stack([stream.next(normals(draws, noise)) for _ in range(9)]).numpy()
    inverse = np.linalg.inv(made.dense())
    said = inverse @ inverse.T
    error = np.sqrt((np.outer(np.diag(said), np.diag(said)) + said**2) / draws)
    assert (np.abs(rows @ rows.T / draws - said) <= 4 * error).all()


def test_blt_streams_keep_to_float32_over_many_rounds():
    run = Participation(rounds=2_000, most=1)
    made = Blt(3).matrix(run)
    z = torch.randn(2_000, 3, generator=torch.Generator().manual_seed(1))
    narrow, wide = made.stream(), made.stream()
    for row in z:
        short, exact = narrow.next(row.clone()), wide.next(row.double())
        assert torch.allclose(short.double(), exact, atol=1e-4)


@pytest.mark.parametrize("strategy", [Banded(4), Blt(3)], ids=repr)
def test_a_fit_cannot_be_bettered_nearby(strategy):
    """The error of the fitted matrix is least among those with slightly other diagonals."""
    run = Participation(rounds=60, most=3, apart=20)
    made = strategy.matrix(run)
    fitted = rmse(made, run)
    chance = np.random.default_rng(2)
    for _ in range(10):
        c = made.coefficients.copy()
        c[1 : made.bands] *= 1 + 1e-2 * chance.normal() * np.exp(-np.arange(1, made.bands) / 5)
        c = np.minimum.accumulate(c)
        inverted = np.linalg.solve(
            ToeplitzMatrix(c, c, made.bands, made.streams).dense(), np.eye(60)[0]
        )
        near = ToeplitzMatrix(c, inverted, made.bands, made.streams)
        assert rmse(near, run) >= fitted * (1 - 1e-3)


def test_a_strategy_is_the_same_every_time():
    for strategy in EVERY:
        one, two = (strategy.matrix(RUN).dense() for _ in range(2))
        assert np.array_equal(one, two)


@pytest.mark.parametrize("maker", [Bisr, Banded, Blt])
def test_nothing_to_remember_is_refused(maker):
    with pytest.raises(ConfigError, match="must"):
        maker(0)


@pytest.mark.parametrize("rounds", [2, 3, 12])
def test_a_blt_of_a_short_run_has_as_many_buffers_as_float64_tells_apart(rounds):
    run = Participation(rounds, most=max(1, rounds // 4), apart=3)
    matrix = Blt(3).matrix(run)
    least = Blt(1).matrix(run)
    assert rmse(matrix, run) <= rmse(least, run) * (1 + 1e-3)
