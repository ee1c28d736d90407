"""Distributed DP in a small ring, with a plain sum of integers in place of a channel."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.core import BadUpdate, ConfigError, SeededNoise
from privfl.dp import (
    DistributedDiscreteGaussian,
    DistributedSkellam,
    ModularCode,
    RdpAccount,
    Release,
)
from privfl.dp.rotation import hadamard, padded, rotate, unrotate

N, D = 100, 1 << 14


def cohort(kind, d=D):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((N, d)) if kind == "spread" else np.zeros((N, d))
    if kind == "concentrated":
        rows[:, :4] = rng.standard_normal((N, 4))
    if kind == "alike":
        rows[:] = rng.standard_normal(d)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def ring_error(bits, rows, noise):
    """Root mean squared error of the decoded sum over that of central Gaussian noise with the same
    multiplier.
    """
    code = ModularCode(bits=bits, l2=1.0, d=rows.shape[1], among=len(rows), noise=noise)
    source = SeededNoise(1)
    total = sum(code.encode(row, b"round 1", source) for row in rows) & ((1 << bits) - 1)
    error = code.decode(total, b"round 1") - rows.sum(axis=0)
    return math.sqrt((error**2).mean()) / noise.noise_multiplier


@pytest.mark.parametrize("kind", ["spread", "concentrated", "alike"])
@pytest.mark.parametrize(("bits", "most"), [(12, 1.05), (14, 1.01)])
def test_the_ring_costs_little_beside_central_noise(bits, most, kind):
    slack = 4 / math.sqrt(2 * D)  # what the sample deviation of so many entries wavers by
    assert ring_error(bits, cohort(kind), DistributedSkellam(1.0)) < most + slack


def test_discrete_gaussian_shares_do_as_well():
    assert ring_error(
        12, cohort("spread"), DistributedDiscreteGaussian(1.0)
    ) < 1.05 + 4 / math.sqrt(2 * D)


def test_the_ring_spends_what_central_noise_spends():
    code = ModularCode(bits=12, l2=1.0, d=D, among=N, noise=DistributedSkellam(1.0))
    event = code.event(survivors=N)
    release = Release(
        event.mechanism, tuple(sorted((k, float(v)) for k, v in event.parameters.items())), "all"
    )
    spent = RdpAccount().plus(release).epsilon(1e-5)
    assert spent == pytest.approx(RdpAccount().plus(Release.gaussian(1.0)).epsilon(1e-5), rel=0.01)
    assert code.event(survivors=80).parameters["variance"] == pytest.approx(
        0.8 * event.parameters["variance"]
    )


def test_what_one_client_sends_fills_the_ring():
    code = ModularCode(bits=8, l2=1.0, d=64, among=2, noise=DistributedSkellam(1.0))
    sent = code.encode(np.zeros(64), b"r", SeededNoise(0))
    assert 0 <= sent.min() < sent.max() < 256
    assert sent.shape == (64,)


def test_rounding_is_unbiased_and_never_over_the_norm_that_is_charged():
    code = ModularCode(bits=10, l2=1.0, d=50, among=4, noise=DistributedSkellam(0.0))
    x = np.random.default_rng(3).standard_normal(50)
    x /= np.linalg.norm(x)
    source, total = SeededNoise(2), np.zeros(50)
    for _ in range(300):
        sent = code.encode(x, b"r", source)
        centred = ((sent + 512) & 1023) - 512
        assert np.linalg.norm(centred) <= code.unit_l2
        total += code.decode(sent, b"r")
    assert np.abs(total / 300 - x).max() < 6 * 0.5 / code.scale / math.sqrt(300)


@settings(max_examples=40, deadline=None)
@given(d=st.integers(1, 300), seed=st.binary(max_size=8))
def test_rotations_keep_length_and_turn_back(d, seed):
    x = np.random.default_rng(d).standard_normal(d)
    turned = rotate(x, seed)
    assert len(turned) == padded(d)
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(x))
    assert np.allclose(unrotate(turned, seed, d), x)


def test_a_spike_is_spread_and_the_matrix_is_hadamards():
    from scipy.linalg import hadamard as matrix

    spike = np.zeros(1024)
    spike[3] = 1.0
    assert np.allclose(np.abs(rotate(spike, b"s")), 1 / 32)
    x = np.random.default_rng(0).standard_normal(64)
    assert np.allclose(hadamard(x.copy()), matrix(64) @ x / 8)
    with pytest.raises(ConfigError, match="power of two"):
        hadamard(np.zeros(6))


def test_too_small_a_ring_and_too_long_a_vector_are_refused():
    with pytest.raises(ConfigError, match="more bits"):
        ModularCode(bits=4, l2=1.0, d=1 << 20, among=10_000)
    code = ModularCode(bits=12, l2=1.0, d=8, among=4)
    for wrong in (np.ones(8), np.zeros(7), np.full(8, np.nan)):
        with pytest.raises(BadUpdate, match="8 values of norm at most"):
            code.encode(wrong, b"r", SeededNoise(0))
