"""LASA, Multi-metrics and the curvature behind FLDetector against slow references in float64, where
rows tie, are copies, parallel or far, and where a faster formula would lose its digits.
"""

import math

import numpy as np
import pytest
import torch

from privfl.aggregators import LASA, MultiMetrics
from privfl.core import Context, RoundPlan, Rows
from privfl.core.curvature import hessian_product

RNG = np.random.default_rng(0)


def verdict_of(rule, values, parameters=None):
    n, d = values.shape
    here = torch.zeros(d, dtype=values.dtype) if parameters is None else parameters
    plan = RoundPlan(0, tuple(range(n)), d, math.inf)
    context = Context(plan, here, torch.Generator())
    return rule.judge_step(Rows.of(values), rule.init(), context)[0]


# ---- LASA


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 300.0])
def test_lasa_of_half_precision_is_that_of_the_same_numbers(dtype, scale):
    rows = torch.from_numpy(scale * RNG.normal(size=(6, 2000))).to(dtype)
    rule = LASA([1500, 500])
    found, wide = rule._told(rows), rule._told(rows.double())
    torch.testing.assert_close(found[0], wide[0], rtol=1e-6, atol=0)
    assert torch.equal(found[1], wide[1])
    assert torch.equal(verdict_of(rule, rows).kept, verdict_of(rule, rows.double()).kept)


@pytest.mark.parametrize("seed", range(30))
def test_lasa_takes_neither_or_both_of_two_rows(seed):
    """Each of two scores is exactly one standard deviation from their median."""
    rows = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 7))).float()
    found = verdict_of(LASA([4, 3], sparsity=0.0), rows)
    assert found.kept.tolist() == [True, True]
    assert torch.equal(found.suspicion, torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(5))
def test_lasa_finds_rows_alike_that_were_clipped_to_one_length(seed):
    rows = torch.randn(9, 40, generator=torch.Generator().manual_seed(seed))
    rows = rows / rows.norm(dim=1, keepdim=True)
    found = verdict_of(LASA([40], sparsity=0.0, sign=100.0), rows)
    assert bool(found.kept.all())
    torch.testing.assert_close(found.out, rows.mean(dim=0))


# ---- Multi-metrics

W = RNG.normal(size=300).astype(np.float32).astype(float)
NORMAL = RNG.normal(size=(7, 300))
SETS = {
    "copies": np.concatenate([NORMAL, np.repeat(NORMAL[:1], 4, axis=0)]),
    "mirrored": np.concatenate([NORMAL[:4], -NORMAL[:4]]),
    "three, many times": np.repeat(NORMAL[:3], 3, axis=0),
    "parallel to the model": np.outer([0.25, 0.5, 1, 2, 4, 8], W),
    "one takes all of the model away": np.concatenate([NORMAL, -W[None]]),
    "two take it away": np.concatenate([NORMAL, -W[None], -W[None] * (1 - 2**-10)]),
    "far": np.concatenate([NORMAL, 1e6 * NORMAL[:2]]),
    "close together": 1e-5 * NORMAL,
    "of one parameter": NORMAL[:, :1],
}


def slow_metrics(X, w):
    models = w + X
    n = len(models)
    features = np.zeros((n, 3))
    for i, a in enumerate(models):
        for j, b in enumerate(models):
            if i == j:
                continue
            one, other = np.linalg.norm(a), np.linalg.norm(b)
            turned = 1.0
            if one and other:
                turned = ((a / one - b / other) ** 2).sum() / 2
            features[i] += [turned**2, np.abs(a - b).sum(), abs(one - other)]
    spread = features.std(axis=0, ddof=1)
    told = spread > 1e-9 * np.abs(features).max(axis=0) + 1e-25
    scaled = features[:, told] / spread[told]
    inverse = np.linalg.pinv(np.atleast_2d(np.cov(scaled.T)), rcond=1e-12)
    scores = np.sqrt(np.maximum(np.einsum("ni,ij,nj->n", scaled, inverse, scaled), 0))
    return features, scores


@pytest.mark.parametrize("X", SETS.values(), ids=SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_multi_metrics_is_that_of_models_themselves(X, dtype):
    w, rows = torch.from_numpy(W[: X.shape[1]]).to(dtype), torch.from_numpy(X).to(dtype)
    found = verdict_of(MultiMetrics(), rows, w)
    features, scores = slow_metrics(rows.double().numpy(), w.double().numpy())
    for name, expected in zip(("cosine", "manhattan", "length"), features.T, strict=True):
        np.testing.assert_allclose(
            found.scores[name].numpy(), expected, rtol=1e-5, atol=1e-28, err_msg=name
        )
    np.testing.assert_allclose(found.suspicion.numpy(), scores, rtol=1e-4)


# ---- FLDetector's curvature


def slow_product(pairs, v):
    """H v by updates of a dense H."""
    good = [(s, y) for s, y in pairs if s @ y > 0]
    s, y = good[-1]
    bent = (s @ y) / (s @ s) * np.eye(len(v))
    for s, y in good:
        turned = bent @ s
        bent = bent + np.outer(y, y) / (s @ y) - np.outer(turned, turned) / (s @ turned)
    return bent @ v


S = RNG.normal(size=(6, 12))
CURVED = np.diag(np.linspace(0.1, 3, 12))
PAIRS = {
    "of many directions": [(s, CURVED @ s) for s in S],
    "of one parameter": [
        (s[:1], c * s[:1]) for c, s in zip((1, 3, 0.5, 2, 7, 1.5), S, strict=True)
    ],
    "parallel": [(c * S[0], k * CURVED @ S[0]) for c, k in ((1, 2), (2, 1), (0.5, 3))],
    "copies": [(S[0], CURVED @ S[0])] * 5,
    "nearly parallel": [(S[0] + 1e-9 * s, CURVED @ (S[0] + 1e-9 * s)) for s in S[:2]],
    "ever shorter": [
        (10.0 ** (-2 * i) * s, 10.0 ** (-2 * i) * CURVED @ s) for i, s in enumerate(S)
    ],
    "ever longer": [(10.0 ** (2 * i) * s, 10.0 ** (2 * i) * CURVED @ s) for i, s in enumerate(S)],
    "some the wrong way": [(s, (-1) ** i * CURVED @ s) for i, s in enumerate(S)],
    "flat at last": [*((s, CURVED @ s) for s in S[:5]), (S[5], 1e-5 * CURVED @ S[5])],
}


@pytest.mark.parametrize("pairs", PAIRS.values(), ids=PAIRS)
def test_curvature_is_that_of_dense_updates_whatever_the_lengths_of_steps(pairs):
    v = RNG.normal(size=len(pairs[0][0]))
    found = hessian_product(
        [(torch.from_numpy(s), torch.from_numpy(y)) for s, y in pairs], torch.from_numpy(v)
    )
    expected = slow_product(pairs, v)
    np.testing.assert_allclose(
        found.numpy(), expected, rtol=0, atol=1e-7 * np.linalg.norm(expected)
    )


def test_curvature_of_steps_too_short_to_have_a_length_is_none():
    step, turn = torch.full((3,), 1e-170).double(), torch.ones(3).double()
    assert torch.equal(hessian_product([(step, turn)], turn), torch.zeros(3).double())
