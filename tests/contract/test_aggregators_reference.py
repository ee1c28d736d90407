"""Every rule against a slow reference from its paper's formula in plain numpy, or against
scikit-learn and scipy.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import betainc
from sklearn.cluster import HDBSCAN, AgglomerativeClustering, KMeans, MeanShift, estimate_bandwidth

from privfl.aggregators import (
    AFA,
    CAF,
    CGE,
    FAIR,
    FLAME,
    MDA,
    RFA,
    SLSGD,
    SMEA,
    Auror,
    Bulyan,
    CenteredClipping,
    CleanGradientFilter,
    ClippedClustering,
    CosineFilter,
    CrossValidation,
    DnC,
    FLTrust,
    FoolsGold,
    GeometricMedian,
    GreedyMDA,
    Krum,
    MeaMed,
    Mean,
    Median,
    MedianOfMeans,
    MemoryRule,
    MoNNA,
    ResidualReweighting,
    RobustLearningRate,
    SignGuard,
    SignMajority,
    TrimmedMean,
    Zeno,
    ZenoPlusPlus,
)
from privfl.aggregators.mean_shift import largest_cluster
from privfl.core import Context, Released, RoundPlan, Rows

Array = Any
N, D, F = 15, 7, 3
WEIGHTS = np.linspace(1, 2, N)
PARAMETERS = np.linspace(-1, 1, D)
ROOT = np.linspace(0.5, 1.5, D)


def crowd(seed: int) -> Array:
    """Honest rows around a direction, two far ones, one that points the other way."""
    rng = np.random.default_rng(seed)
    values = 0.7 + rng.normal(size=(N, D))
    values[3] *= 40
    values[8] = -values[8] * 5
    values[11] += 20
    return values


def updates_around_a_far_model(seed: int) -> Array:
    """Rows of spread 0.1 around a vector of norm 100, as models are."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=D)
    noise = rng.normal(size=(N, D))
    return 100 * centre / np.linalg.norm(centre) + 0.1 * noise / np.linalg.norm(
        noise, axis=1, keepdims=True
    ) * rng.uniform(0.5, 2, (N, 1))


def fresh(d: int = D) -> Context:
    return Context(
        RoundPlan(0, tuple(range(N)), d, math.inf),
        torch.from_numpy(PARAMETERS),
        torch.Generator().manual_seed(3),
    )


def ours(rule: Any, values: Array, dtype: torch.dtype) -> Array:
    rows = Rows(
        torch.from_numpy(values).to(dtype), torch.from_numpy(WEIGHTS), tuple(range(len(values)))
    )
    out = rule.step(rows, rule.init(), fresh())[0] if isinstance(rule, MemoryRule) else rule(rows)
    assert out.dtype == dtype
    return out.double().numpy()


# --- the formulas


def median(X: Array) -> Array:
    return np.median(X, axis=0)


def trimmed_mean(X: Array, f: int = F) -> Array:
    return np.array([sum(sorted(column)[f : len(X) - f]) / (len(X) - 2 * f) for column in X.T])


def nearest_the_median(X: Array, keep: int) -> Array:
    out = []
    for column in X.T:
        centre = np.median(column)
        out.append(np.mean(sorted(column, key=lambda x: (abs(x - centre), x))[:keep]))
    return np.array(out)


def geometric_median(X: Array, w: Array) -> Array:
    z = np.median(X, axis=0)
    for _ in range(20_000):
        beta = w / np.maximum(np.linalg.norm(X - z, axis=1), 1e-300)
        z = beta @ X / beta.sum()
    return z


def smallest_majority_ball(X: Array, w: Array) -> Array:
    best = (np.inf, None)
    for i in range(len(X)):
        away = np.linalg.norm(X - X[i], axis=1)
        radius = min(r for r in away if w[away <= r].sum() > w.sum() / 2)
        best = min(best, (radius, i))
    inside = np.linalg.norm(X - X[best[1]], axis=1) <= best[0]
    return w[inside] @ X[inside] / w[inside].sum()


def rfa(X: Array, w: Array, steps: int = 3, nu: float = 1e-6) -> Array:
    z = smallest_majority_ball(X, w)
    for _ in range(steps):
        beta = w / np.maximum(nu, np.linalg.norm(X - z, axis=1))
        z = beta @ X / beta.sum()
    return z


def krum_order(X: Array, f: int) -> list[int]:
    n = len(X)
    scores = [
        sum(sorted(((X[i] - X[j]) ** 2).sum() for j in range(n) if j != i)[: max(n - f - 2, 0)])
        for i in range(n)
    ]
    return sorted(range(n), key=lambda i: scores[i])


def bulyan(X: Array, f: int = F) -> Array:
    rest, taken = list(range(len(X))), []
    for _ in range(len(X) - 2 * f):
        best = rest[krum_order(X[rest], f)[0]]
        taken.append(best)
        rest.remove(best)
    return nearest_the_median(X[taken], len(taken) - 2 * f)


def distances(X: Array) -> Array:
    return np.linalg.norm(X[:, None] - X, axis=2)


def mda(X: Array, f: int = F) -> Array:
    apart = distances(X)
    sets = itertools.combinations(range(len(X)), len(X) - f)
    best = min(sets, key=lambda s: (apart[np.ix_(s, s)].max(), (apart[np.ix_(s, s)] ** 2).sum()))
    return X[list(best)].mean(axis=0)


def greedy_mda(X: Array, f: int = F) -> Array:
    apart = distances(X)
    balls = [np.argsort(row)[: len(X) - f] for row in apart]
    best = min(balls, key=lambda s: (apart[np.ix_(s, s)].max(), (apart[np.ix_(s, s)] ** 2).sum()))
    return X[best].mean(axis=0)


def caf(X: Array, f: int = F) -> Array:
    c, best, least = np.ones(len(X)), None, np.inf
    while c.sum() > len(X) - 2 * f:
        mean = c @ X / c.sum()
        values, vectors = np.linalg.eigh(((X - mean).T * c) @ (X - mean) / c.sum())
        if values[-1] < least:
            least, best = values[-1], mean
        tau = ((X - mean) @ vectors[:, -1]) ** 2
        c = c * (1 - tau / tau[c > 0].max())
        c[c < 1e-12] = 0
    return best


def smea(X: Array, f: int = F) -> Array:
    sets = itertools.combinations(range(len(X)), len(X) - f)
    best = min(sets, key=lambda s: np.linalg.eigvalsh(np.cov(X[list(s)].T, bias=True))[-1])
    return X[list(best)].mean(axis=0)


def dnc(X: Array, f: int = F) -> Array:
    centred = X - X.mean(axis=0)
    v = np.linalg.svd(centred)[2][0]
    return X[np.argsort((centred @ v) ** 2)[: len(X) - f]].mean(axis=0)


def dnc_drawn_in(X: Array, f: int = F) -> Array:
    centred = X - X.mean(axis=0)
    v = np.linalg.svd(centred)[2][0]
    kept = np.argsort((centred @ v) ** 2)[: len(X) - f]
    z = geometric_median(X, np.ones(len(X)))
    away = np.linalg.norm(X - z, axis=1)
    M = np.sort(away)[len(X) - f - 1]
    return np.mean(
        [z + (x - z) * min(1, M / r) for x, r in zip(X[kept], away[kept], strict=True)], axis=0
    )


def cut(X: Array) -> Array:
    norms = np.linalg.norm(X, axis=1)
    return X * np.minimum(1, np.median(norms) / norms)[:, None]


def sign_guard(X: Array) -> Array:
    norms = np.linalg.norm(X, axis=1)
    M = np.median(norms)
    S1 = (norms >= 0.1 * M) & (norms <= 3 * M)
    features = np.stack([(X > 0).mean(axis=1), (X == 0).mean(axis=1), (X < 0).mean(axis=1)], axis=1)
    width = estimate_bandwidth(features, quantile=0.5) * (
        1 + 1e-9
    )  # shares of few coordinates tie with it
    labels = np.zeros(len(X))  # all signs alike: one cluster
    if width > 0:
        labels = (
            MeanShift(bandwidth=width, bin_seeding=True, cluster_all=False).fit(features).labels_
        )
    S2 = labels == max(set(labels) - {-1}, key=lambda k: (labels == k).sum())
    return np.mean([x * min(1, M / np.linalg.norm(x)) for x in X[S1 & S2]], axis=0)


def clipped_clustering(X: Array) -> Array:
    norms = np.linalg.norm(X, axis=1)
    clipped = X * np.minimum(1, np.median(norms) / norms)[:, None]
    unit = X / norms[:, None]
    labels = (
        AgglomerativeClustering(2, metric="precomputed", linkage="average")
        .fit(1 - unit @ unit.T)
        .labels_
    )
    return clipped[labels == (labels.sum() > len(X) / 2)].mean(axis=0)


def auror(X: Array, alpha: float = 3.0) -> Array:
    minor, indicative = np.zeros(len(X)), 0
    for column in X.T:
        ordered = np.sort(column)
        splits = [
            (np.var(ordered[:k]) * k + np.var(ordered[k:]) * (len(X) - k), k)
            for k in range(1, len(X))
        ]
        k = min(splits)[1]
        if ordered[k:].mean() - ordered[:k].mean() >= alpha:
            indicative += 1
            low = column <= ordered[k - 1]
            minor += low if low.sum() < len(X) / 2 else ~low
    return X[minor <= 0.5 * indicative].mean(axis=0)


def cosine(a: Array, b: Array) -> float:
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def cosine_filter(X: Array) -> Array:
    return cut(X)[[cosine(x, np.median(X, axis=0)) > 0.2 for x in X]].mean(axis=0)


def afa(X: Array) -> Array:
    good, xi = list(range(len(X))), 2.0
    while True:
        w = WEIGHTS[good] * 0.5
        mean = w @ X[good] / w.sum()
        s = np.array([cosine(X[k], mean) for k in good])
        low = s.mean() < np.median(s)
        bad = s < np.median(s) - xi * s.std() if low else s > np.median(s) + xi * s.std()
        if not bad.any():
            return mean
        good, xi = [k for k, b in zip(good, bad, strict=True) if not b], xi + 0.5


def centered_clipping(X: Array, tau: float | None = 4.0, steps: int = 3) -> Array:
    v = np.zeros(X.shape[1])
    for _ in range(steps):
        most = np.median(np.linalg.norm(X - v, axis=1)) / 2 if tau is None else tau
        v = v + np.mean([(x - v) * min(1, most / np.linalg.norm(x - v)) for x in X], axis=0)
    return v


def foolsgold_weights(X: Array) -> Array:
    n = len(X)
    cs = np.array([[cosine(X[i], X[j]) if i != j else 0.0 for j in range(n)] for i in range(n)])
    v = np.maximum(cs.max(axis=1), 0)
    for i in range(n):
        for j in range(n):
            if v[j] > v[i]:
                cs[i, j] *= v[i] / v[j]
    alpha = np.clip(1 - np.maximum(cs.max(axis=1), 0), 0, 1)
    alpha = alpha / alpha.max()
    alpha[alpha == 1] = 0.99
    with np.errstate(divide="ignore"):
        return np.clip(np.log(alpha / (1 - alpha)) + 0.5, 0, 1)


def foolsgold(X: Array) -> Array:
    return foolsgold_weights(X) @ X


def residual_reweighting(X: Array, lam: float = 2.0, delta: float = 0.1) -> Array:
    n, d = X.shape
    x = np.arange(n)
    h = 1 / n + (x - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum()
    earned, restricted = np.zeros(n), X.copy()
    for j in range(d):
        order = np.argsort(X[:, j])
        y = X[order, j]
        slope = np.median(
            [np.median([(y[i] - y[k]) / (i - k) for k in range(n) if k != i]) for i in range(n)]
        )
        line = np.median(y) - slope * (n - 1) / 2 + slope * x
        r = y - line
        tau = 1.4826 * (1 + 5 / (n - 1)) * np.median(np.sort(np.abs(r))[1:]) + 1e-7
        e = r / tau
        p = np.sqrt(1 - h)
        K = lam * np.sqrt(2 / n)
        w = np.array([p[i] / e[i] * np.clip(e[i] / p[i], -K, K) if e[i] else 1.0 for i in range(n)])
        restricted[order, j] = np.where(w < delta, line, y)
        earned[order] += w * w.std(ddof=1)
    share = (earned / earned.max()) ** 2
    return share @ restricted / share.sum()


def loss(w: Array) -> float:
    return float(((w - 1) ** 2 * np.arange(1, D + 1)).sum())


def zeno(X: Array, f: int = F, rho: float = 0.01) -> Array:
    scores = [loss(PARAMETERS) - loss(PARAMETERS + x) - rho * (x**2).sum() for x in X]
    return X[np.argsort(scores)[::-1][: len(X) - f]].mean(axis=0)


def fltrust(X: Array) -> Array:
    ts = np.array([max(0, cosine(x, ROOT)) for x in X])
    return (
        sum(t * x * np.linalg.norm(ROOT) / np.linalg.norm(x) for t, x in zip(ts, X, strict=True))
        / ts.sum()
    )


def zeno_plus_plus(X: Array, gamma: float = 0.5, rho: float = 0.4, epsilon: float = 0.2) -> Array:
    """In the paper's gradients: v and g are the changes over -gamma."""
    v, accepted = -ROOT / gamma, []
    for g in -X / gamma:
        scaled = g * np.linalg.norm(v) / np.linalg.norm(g)
        if gamma * v @ scaled - rho * (scaled @ scaled) >= -gamma * epsilon:
            accepted.append(-gamma * scaled)
    return np.mean(accepted, axis=0) if accepted else np.zeros(D)


def clean_gradient(X: Array) -> Array:
    kept = [x for x in X if np.linalg.norm(x - ROOT) <= 4 * np.linalg.norm(ROOT)]
    return (ROOT + sum(kept)) / (1 + len(kept)) if kept else ROOT


QUALITY = np.linspace(-1, 2, N)
VOTES = np.random.default_rng(0).random((N, N)) < 0.6


def fair(X: Array) -> Array:
    w = np.where(QUALITY > 0, QUALITY * WEIGHTS, 0)
    return w @ X / w.sum()


def cross_validation(X: Array) -> Array:
    share = np.array([np.mean([VOTES[i, j] for i in range(N) if i != j]) for j in range(N)])
    share[share < 0.5] = 0
    return share @ X / share.sum()


def robust_learning_rate(X: Array, theta: int = 5) -> Array:
    mean = WEIGHTS @ cut(X) / WEIGHTS.sum()
    return np.where(np.abs(np.sign(X).sum(axis=0)) >= theta, mean, -mean)


def slsgd(X: Array, b: int = F, alpha: float = 0.4) -> Array:
    models = PARAMETERS + X
    return (1 - alpha) * PARAMETERS + alpha * trimmed_mean(models, b) - PARAMETERS


def flame(X: Array) -> Array:
    W = PARAMETERS + X
    unit = W / np.linalg.norm(W, axis=1, keepdims=True)
    apart = np.maximum(1 - unit @ unit.T, 0)
    labels = (
        HDBSCAN(
            min_cluster_size=N // 2 + 1,
            min_samples=1,
            metric="precomputed",
            allow_single_cluster=True,
            copy=True,
        )
        .fit(apart)
        .labels_
    )
    S = np.median(np.linalg.norm(X, axis=1))
    return np.mean([x * min(1, S / np.linalg.norm(x)) for x in X[labels == 0]], axis=0)


def median_of_means(X: Array, k: int = 7) -> Array:
    groups = torch.randperm(N, generator=torch.Generator().manual_seed(3)).tensor_split(k)
    return geometric_median(
        np.array([X[group.numpy()].mean(axis=0) for group in groups]), np.ones(k)
    )


PAIRS: dict[str, tuple[Any, Callable[[Array], Array]]] = {
    "Mean": (Mean(), lambda X: WEIGHTS @ X / WEIGHTS.sum()),
    "Median": (Median(), median),
    "TrimmedMean": (TrimmedMean(F), trimmed_mean),
    "MeaMed": (MeaMed(F), lambda X: nearest_the_median(X, N - F)),
    "MedianOfMeans": (MedianOfMeans(7), median_of_means),
    "GeometricMedian": (GeometricMedian(), lambda X: geometric_median(X, WEIGHTS)),
    "RFA": (RFA(), lambda X: rfa(X, WEIGHTS)),
    "Krum": (Krum(F), lambda X: X[krum_order(X, F)[0]]),
    "Krum-multi": (Krum(F, m=6), lambda X: X[krum_order(X, F)[:6]].mean(axis=0)),
    "Krum-most": (Krum(F, m=N - F), lambda X: X[krum_order(X, F)[: N - F]].mean(axis=0)),
    "Bulyan": (Bulyan(F), bulyan),
    "MDA": (MDA(F), mda),
    "GreedyMDA": (GreedyMDA(F), greedy_mda),
    "CAF": (CAF(F), caf),
    "CGE": (CGE(F), lambda X: X[np.argsort(np.linalg.norm(X, axis=1))[: N - F]].mean(axis=0)),
    "MoNNA": (
        MoNNA(F, pivot=2),
        lambda X: X[np.argsort(np.linalg.norm(X - X[2], axis=1))[: N - F]].mean(axis=0),
    ),
    "SMEA": (SMEA(F), smea),
    "DnC": (DnC(F), dnc_drawn_in),
    "DnC-paper": (DnC(F, draw_in=False), dnc),
    "SignGuard": (SignGuard(share=1.0), sign_guard),
    "ClippedClustering": (ClippedClustering(), clipped_clustering),
    "Auror": (Auror(alpha=3.0, bound=math.inf), auror),
    "Auror-cut": (Auror(alpha=1.0), lambda X: auror(cut(X), alpha=1.0)),
    "CosineFilter": (CosineFilter(threshold=0.2), cosine_filter),
    "AFA": (AFA(bound=math.inf), afa),
    "AFA-cut": (AFA(), lambda X: afa(cut(X))),
    "CenteredClipping": (CenteredClipping(tau=4.0, iterations=3), centered_clipping),
    "CenteredClipping-adaptive": (
        CenteredClipping(iterations=3),
        lambda X: centered_clipping(X, tau=None),
    ),
    "FoolsGold": (FoolsGold(), lambda X: foolsgold(cut(X)) / foolsgold_weights(X).sum()),
    "FoolsGold-sum": (FoolsGold(average=False, bound=math.inf), foolsgold),
    "ResidualReweighting": (ResidualReweighting(), residual_reweighting),
    "Zeno": (Zeno(lambda w, context: loss(w.numpy()), F, rho=0.01), zeno),
    "FLTrust": (FLTrust(lambda context: torch.from_numpy(ROOT)), fltrust),
    "ZenoPlusPlus": (
        ZenoPlusPlus(lambda context: torch.from_numpy(ROOT), rho=0.4 / 0.5, epsilon=0.2 * 0.5**2),
        zeno_plus_plus,
    ),
    "CleanGradientFilter": (
        CleanGradientFilter(lambda context: torch.from_numpy(ROOT), xi=4.0),
        clean_gradient,
    ),
    "FAIR": (FAIR(lambda rows, context: torch.from_numpy(QUALITY)), fair),
    "CrossValidation": (
        CrossValidation(lambda rows, context: torch.from_numpy(VOTES)),
        cross_validation,
    ),
    "RobustLearningRate": (RobustLearningRate(theta=5), robust_learning_rate),
    "SignMajority": (SignMajority(step=1.0), lambda X: np.sign(np.sign(X).sum(axis=0))),
    "SLSGD": (SLSGD(b=F, alpha=0.4), slsgd),
    "FLAME": (FLAME(noise=0.0), flame),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("seed", range(5))
def test_a_rule_is_its_papers_formula(name: str, seed: int) -> None:
    rule, reference = PAIRS[name]
    values = crowd(seed)
    expected = reference(values)
    np.testing.assert_allclose(
        ours(rule, values, torch.float64), expected, atol=1e-6 * np.linalg.norm(expected), rtol=0
    )
    single = values.astype(np.float32).astype(np.float64)
    expected = reference(single)
    np.testing.assert_allclose(
        ours(rule, single, torch.float32), expected, atol=2e-6 * np.linalg.norm(expected), rtol=0
    )


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("seed", range(3))
def test_the_formula_holds_for_small_updates_around_a_far_model(name: str, seed: int) -> None:
    rule, reference = PAIRS[name]
    values = updates_around_a_far_model(seed).astype(np.float32).astype(np.float64)
    expected = reference(values)
    np.testing.assert_allclose(
        ours(rule, values, torch.float32), expected, atol=1e-6 * np.linalg.norm(expected), rtol=0
    )
    if "T" in rule.symmetries:  # in float64 to 1e-6 of the updates themselves, not of the model
        np.testing.assert_allclose(
            ours(rule, values, torch.float64), expected, atol=1e-6 * 0.1, rtol=0
        )


# --- other libraries, further rounds, and what was seen to go wrong elsewhere


def test_the_geometric_median_is_where_bfgs_ends() -> None:
    values = crowd(0)
    goal = lambda z: np.linalg.norm(values - z, axis=1).sum()
    found = minimize(goal, values.mean(axis=0), method="BFGS", options={"gtol": 1e-10}).x
    out = GeometricMedian(weighted=False)(Rows.of(torch.from_numpy(values))).numpy()
    np.testing.assert_allclose(out, found, atol=1e-5)
    assert goal(out) <= goal(found) + 1e-9


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_geometric_median_is_exact_where_it_is_a_row_and_for_tiny_updates(scale: float) -> None:
    rows = (
        torch.tensor(
            [[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.5], [0.3, 0.2]],
            dtype=torch.float64,
        )
        * scale
    )
    rows = torch.cat([rows, torch.zeros(4, 2, dtype=torch.float64)])
    torch.testing.assert_close(
        GeometricMedian()(Rows.of(rows)),
        torch.zeros(2, dtype=torch.float64),
        atol=1e-9 * scale,
        rtol=0,
    )
    tilted = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.4, 5.0]]) * scale
    assert (GeometricMedian()(Rows.of(tilted)) - tilted.mean(dim=0)).norm() > 0.5 * scale, (
        "it is no mean"
    )


@pytest.mark.parametrize("far", [1e3, 1e8, 1e18, 1e30])
def test_far_liars_do_not_blur_distances_among_the_honest(far: float) -> None:
    honest = torch.randn(9, 50, generator=torch.Generator().manual_seed(1))
    rows = Rows.of(torch.cat([honest, far * torch.ones(2, 50)]))
    alone = Rows.of(honest)
    torch.testing.assert_close(
        Krum(2)(rows), honest[krum_order(rows.values.double().numpy(), 2)[0]]
    )
    torch.testing.assert_close(MDA(2)(rows), honest.mean(dim=0), atol=1e-5, rtol=1e-5)
    assert (GeometricMedian()(rows) - GeometricMedian()(alone)).norm() < 3.0
    assert TrimmedMean(2)(rows).abs().max() < 5
    assert CAF(2)(rows).abs().max() < 5


@pytest.mark.parametrize("far", [1e5, 1e15, 1e30])
def test_rfas_three_steps_hold_because_they_start_in_the_crowd_and_would_not_from_the_mean(
    far: float,
) -> None:
    values = [[float(i)] for i in range(8)] + [[far]] * 3
    X, at = np.array(values), np.array(values).mean()
    for _ in range(3):
        beta = 1 / np.maximum(1e-6, np.abs(X - at))
        at = float((beta * X).sum() / beta.sum())
    assert at > 1e3
    for iterations in (1, 3, 50):
        assert RFA(iterations=iterations)(Rows.of(values)) < 8
    assert GeometricMedian()(Rows.of(values)) < 8


@pytest.mark.parametrize("far", [1.0, 1e4, 1e8, 1e14])
def test_the_geometric_median_is_as_exact_with_far_rows_as_without(far: float) -> None:
    for seed in range(3):
        values = np.random.default_rng(seed).normal(size=(11, 6))
        values[8:] *= far
        rows = Rows.of(torch.from_numpy(values))
        exact = geometric_median(values, np.ones(11))
        assert np.linalg.norm(GeometricMedian()(rows).numpy() - exact) < 1e-7
        loose = GeometricMedian(tolerance=1e-3)(rows).numpy()
        assert np.linalg.norm(loose - exact) < 1e-2


@pytest.mark.parametrize("far", [1e6, 1e12, 1e20])
def test_cafs_search_does_not_end_early_for_rows_that_are_out_already(far: float) -> None:
    values = np.random.default_rng(0).normal(size=(15, 5))
    values[12:] = [[far**share] * 5 for share in (0.2, 0.6, 1.0)]
    np.testing.assert_allclose(ours(CAF(3), values, torch.float64), caf(values), atol=1e-6)
    assert np.linalg.norm(ours(CAF(3), values, torch.float64)) < 2.0


def test_a_far_liar_that_dnc_loses_sight_of_does_no_more_harm_than_the_farthest_honest_row() -> (
    None
):
    values = torch.randn(15, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    honest = values[:12].mean(dim=0)
    for i, far in enumerate((1e2, 1e5, 1e8)):
        values[12 + i, 0] = far
    rows = Rows.of(values)
    for draw_in in (True, False):
        verdict = DnC(3, draw_in=draw_in).judge_step(rows, None, fresh(8))[0]
        assert not {12, 13, 14} <= set(verdict.dropped)
        assert ((verdict.out - honest).norm() < 2) == draw_in
    near = Rows.of(values[:13])
    torch.testing.assert_close(  # nothing changes where the row that is out is the farthest
        DnC(1).step(near, None, fresh(8))[0], DnC(1, draw_in=False).step(near, None, fresh(8))[0]
    )


def test_even_medians_are_midpoints_and_trimming_ignores_sample_counts() -> None:
    assert Median()(Rows.of([[0.0], [1.0], [2.0], [9.0]])).item() == 1.5
    values = [[0.0], [1.0], [2.0], [1e30]]
    assert TrimmedMean(1)(Rows.of(values, weights=[9.0, 1.0, 1.0, 1.0])).item() == 1.5
    assert TrimmedMean(1)(Rows.of(values, weights=[1.0, 1.0, 1.0, 9.0])).item() == 1.5


def test_krum_looks_at_n_minus_f_minus_2_squared_distances() -> None:
    rng = np.random.default_rng(4)
    differs = {"one neighbour more": 0, "not squared": 0}
    for _ in range(200):
        X = rng.normal(size=(9, 2))
        chosen = int(Krum(2).select(torch.from_numpy(X))[0])
        squared = np.sort(distances(X) ** 2, axis=1)
        assert chosen == squared[:, 1:6].sum(axis=1).argmin()
        differs["one neighbour more"] += chosen != squared[:, 1:7].sum(axis=1).argmin()
        differs["not squared"] += chosen != np.sqrt(squared)[:, 1:6].sum(axis=1).argmin()
    assert min(differs.values()) > 0


def test_bulyan_is_not_the_one_shot_selection() -> None:
    rng = np.random.default_rng(0)
    differing = 0
    for _ in range(20):
        X = rng.normal(size=(19, 3))
        once = sorted(krum_order(X, 3)[:13])
        differing += once != sorted(Bulyan(3).select(torch.from_numpy(X), 3).tolist())
    assert differing > 10


@pytest.mark.parametrize("f", [1, 2])
def test_bulyan_and_mda_do_not_depend_on_order_even_where_scores_tie(f: int) -> None:
    for seed in range(10):
        values = torch.randn(
            11, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        ).round(decimals=1)
        order = torch.randperm(11, generator=torch.Generator().manual_seed(seed + 50))
        for rule in (Bulyan(f), MDA(f)):
            spread = [float(rule(Rows.of(values[o])).sum()) for o in (torch.arange(11), order)]
            if len(values.unique(dim=0)) == 11:
                assert spread[0] == pytest.approx(spread[1], abs=1e-9)


def test_the_exact_searches_find_what_enumeration_finds_on_harder_draws() -> None:
    rng = np.random.default_rng(2)
    for _ in range(6):
        X = rng.normal(size=(11, 3)) * rng.choice([1, 3], size=(11, 1))
        np.testing.assert_allclose(
            MDA(4)(Rows.of(torch.from_numpy(X))).numpy(), mda(X, 4), atol=1e-9
        )
        np.testing.assert_allclose(
            SMEA(3)(Rows.of(torch.from_numpy(X))).numpy(), smea(X, 3), atol=1e-9
        )


def test_the_greedy_diameter_is_at_most_twice_the_least() -> None:
    rng = np.random.default_rng(5)
    for _ in range(10):
        X = rng.normal(size=(12, 2))
        apart = distances(X)
        diameter = {}
        for rule in (MDA(4), GreedyMDA(4)):
            kept = rule.judge(Rows.of(torch.from_numpy(X))).kept
            assert kept is not None
            diameter[type(rule)] = apart[np.ix_(kept.numpy(), kept.numpy())].max()
        assert diameter[MDA] <= diameter[GreedyMDA] <= 2 * diameter[MDA] + 1e-12


def test_caf_ends_for_far_rows_and_is_the_mean_without_liars() -> None:
    values = crowd(1)
    np.testing.assert_allclose(ours(CAF(0), values, torch.float64), values.mean(axis=0), atol=1e-12)
    values[0] = 1e4
    np.testing.assert_allclose(ours(CAF(F), values, torch.float64), caf(values), atol=1e-6)


def test_dnc_always_keeps_somebody() -> None:
    rows = Rows.of(torch.from_numpy(crowd(0)))
    verdict = DnC(2, coordinates=3, iterations=5).judge_step(rows, None, fresh())[0]
    assert verdict.kept is not None
    assert verdict.kept.any()
    assert 2 <= len(verdict.dropped) <= 10


def test_sign_guard_tests_the_norm_before_it_clips() -> None:
    values = crowd(0)
    values[0] = np.abs(values[1]) * 1000
    rows = Rows.of(torch.from_numpy(values))
    verdict = SignGuard(share=1.0).judge_step(rows, SignGuard().init(), fresh())[0]
    assert 0 in verdict.dropped
    assert not verdict.scores["ordinary_norm"][0]


def test_sign_guards_features_are_the_shares_themselves_so_that_a_few_zeros_do_not_decide() -> None:
    """The authors' code divides every share by its largest: where nearly no entry is zero, that
    stretches a difference of one zero in a thousand to the whole scale.
    """
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(size=(12, 1000))) + 0.1
    for i, negative in enumerate([300, 305, 310, 295, 302, 307, 299, 304, 500, 505, 495, 500]):
        values[i, :negative] *= -1
    for i in range(8):
        values[i, 400 : 400 + i % 4] = 0.0  # 0 to 3 zeros at the honest, none at the liars
    rows = Rows.of(torch.from_numpy(values / np.linalg.norm(values, axis=1, keepdims=True)))
    rule = SignGuard(share=1.0)
    assert rule.judge_step(rows, rule.init(), fresh(1000))[0].dropped == (8, 9, 10, 11)
    shares = np.stack([(values > 0).mean(1), (values == 0).mean(1), (values < 0).mean(1)], axis=1)
    scaled = torch.from_numpy(shares / (shares.max(axis=0) + 1e-8))
    assert (~largest_cluster(scaled)).nonzero().flatten().tolist() != [8, 9, 10, 11]


def test_sign_guard_sim_also_looks_at_the_last_aggregate() -> None:
    rule = SignGuard(share=1.0, similarity="cosine")
    values = torch.tensor(
        [[1.0, 2.0], [1.1, 2.0], [1.0, 2.1], [2.0, 1.0], [2.1, 1.0]], dtype=torch.float64
    )
    last = {"delta": Released(torch.tensor([1.0, 2.0], dtype=torch.float64))}
    assert rule.judge_step(Rows.of(values), None, fresh())[0].dropped == ()
    later = dataclasses.replace(fresh(), released=last)
    assert rule.judge_step(Rows.of(values), None, later)[0].dropped == (3, 4)


def test_clipped_clustering_clips_to_the_median_of_all_rounds() -> None:
    rule = ClippedClustering()
    small, large = torch.eye(3) * 0.01 + 0.5, torch.eye(3) * 0.01 + 5.0
    _, state = rule.step(Rows.of(small), rule.init(), fresh())
    verdict, state = rule.judge_step(Rows.of(large), state, fresh())
    assert len(state.norms) == 6
    both = np.linalg.norm(torch.cat([small, large]).double().numpy(), axis=1)
    assert verdict.scores["bound"].item() == pytest.approx(np.median(both), rel=1e-6)
    assert verdict.scale is not None
    assert (verdict.scale < 1).all()


def test_the_exact_split_of_auror_is_k_means() -> None:
    from privfl.aggregators.auror import split_in_two

    rng = np.random.default_rng(0)
    for _ in range(10):
        column = np.sort(rng.normal(size=12) + 4 * (rng.random(12) < 0.3))
        _, gap, below = split_in_two(torch.from_numpy(column)[None])
        fitted = KMeans(2, n_init=20, random_state=0).fit(column[:, None])
        centres = np.sort(fitted.cluster_centers_.ravel())
        assert gap.item() == pytest.approx(centres[1] - centres[0])
        assert below.item() in ((fitted.labels_ == 0).sum(), (fitted.labels_ == 1).sum())


def test_afa_remembers_by_client_and_blocks_who_is_bad_too_often() -> None:
    rule, state = AFA(), AFA().init()
    good = torch.tensor([[1.0, 0.1 * i] for i in range(-3, 4)])
    for _ in range(12):
        rows = Rows(
            torch.cat([good, torch.tensor([[-5.0, 0.0]])]),
            torch.ones(8),
            (10, 11, 12, 13, 14, 15, 16, 99),
        )
        _, state = rule.step(rows, state, fresh(2))
    alpha, beta = 3 + state.good.get(99, 0), 3 + state.bad.get(99, 0)
    assert beta > alpha
    assert betainc(alpha, beta, 0.5) > 0.95
    assert rule.quality(state, 99)[1]
    moved = Rows(
        torch.cat([torch.tensor([[1.0, 0.0]]), good]),
        torch.ones(8),
        (99, 10, 11, 12, 13, 14, 15, 16),
    )  # now it behaves, and is first
    assert 0 in rule.judge_step(moved, state, fresh(2))[0].dropped


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_centred_clipping_by_default_follows_the_crowd_and_not_a_far_row_whatever_the_unit(
    unit: float,
) -> None:
    rng = torch.Generator().manual_seed(0)
    rule, liar = CenteredClipping(), torch.full((1, 5), -1e6)
    now = fresh(5)
    for _ in range(6):
        honest = 1 + 0.3 * torch.randn(9, 5, generator=rng)
        out, _ = rule.step(Rows.of(unit * torch.cat([honest, liar])), None, now)
        now = dataclasses.replace(now, released={"delta": Released(out)})
    assert (out / unit - 1).norm() < 0.5
    by_hand, _ = CenteredClipping(tau=1e8).step(
        Rows.of(unit * torch.cat([honest, liar])), None, fresh(5)
    )
    assert (by_hand / unit - 1).norm() > 1e3  # a tau over all distances makes it the mean


def test_centred_clipping_starts_at_zero_and_goes_on_from_what_was_released_last() -> None:
    rule, values = CenteredClipping(tau=0.5), torch.full((4, 2), 3.0)
    first, _ = rule.step(Rows.of(values), None, fresh(2))
    assert first.norm().item() == pytest.approx(0.5)
    later = dataclasses.replace(fresh(2), released={"delta": Released(first)})
    assert rule.step(Rows.of(values), None, later)[0].norm().item() == pytest.approx(1.0)
    other = dataclasses.replace(fresh(2), released={"control": Released(first)})
    assert rule.step(Rows.of(values), None, other)[0].norm().item() == pytest.approx(0.5)


def test_foolsgold_remembers_by_client_id_whatever_the_order() -> None:
    rule = FoolsGold()
    sybil, honest = torch.tensor([1.0, 0.0, 0.0]), torch.eye(3)[1:]
    rows = Rows(torch.stack([sybil, sybil, *honest]), torch.ones(4), (1, 2, 3, 4))
    _, state = rule.step(rows, rule.init(), fresh(3))
    later = Rows(
        torch.stack([*honest, torch.eye(3)[1], torch.eye(3)[2]]), torch.ones(4), (3, 4, 2, 1)
    )
    trust = rule.judge_step(later, state, fresh(3))[0].scores["trust"]
    both = (
        torch.stack(
            [
                torch.eye(3)[1] * 2,
                torch.eye(3)[2] * 2,
                sybil + torch.eye(3)[1],
                sybil + torch.eye(3)[2],
            ]
        )
        .double()
        .numpy()
    )
    expected = foolsgold(both)
    np.testing.assert_allclose(trust.numpy() @ both, expected, atol=1e-6)
    assert torch.isfinite(rule.step(Rows.of(torch.ones(4, 3)), rule.init(), fresh(3))[0]).all(), (
        "equal rows"
    )


@pytest.mark.parametrize("seed", range(20))
def test_foolsgold_trusts_nobody_among_equal_clients_whatever_rounding_makes_of_their_cosines(
    seed: int,
) -> None:
    rng = torch.Generator().manual_seed(seed)
    n, d = int(torch.randint(2, 30, (1,), generator=rng)), 100 * (seed + 1)
    row = torch.randn(d, generator=rng)
    lengths = torch.rand(n, 1, generator=rng) + 0.5
    rule = FoolsGold()
    state = rule.init()
    for _ in range(3):  # copies, then copies of several lengths
        for rows in (row.expand(n, d), lengths * row):
            verdict, state = rule.judge_step(Rows.of(rows.clone()), state, fresh(d))
            assert torch.equal(verdict.scores["trust"], torch.zeros(n, dtype=torch.float64))
            assert torch.equal(verdict.out, torch.zeros(d))
    unlike = torch.cat([row.expand(n, d), torch.randn(3, d, generator=rng)])
    trust = rule.judge_step(Rows.of(unlike), rule.init(), fresh(d))[0].scores["trust"]
    assert torch.equal(trust[:n], torch.zeros(n, dtype=torch.float64))
    assert (trust[n:] > 0.9).all()


def test_rules_with_a_memory_per_client_refuse_anonymous_rows() -> None:
    rows = Rows(torch.ones(3, 2), torch.ones(3))
    for rule in (AFA(), FoolsGold()):
        with pytest.raises(ValueError, match="anonymous"):
            rule.step(rows, rule.init(), fresh(2))
    with pytest.raises(ValueError, match="anonymous"):
        MoNNA(1)(rows)


def test_zeno_charges_the_whole_squared_norm() -> None:
    flat = Zeno(lambda w, context: 0.0, f=1, rho=1.0)
    rows = Rows.of([[0.1] * 100, [0.2, *[0.0] * 99], [0.3, *[0.0] * 99]])
    scores = flat.judge_step(
        rows, None, Context(RoundPlan(0, (0,), 100, 1.0), torch.zeros(100), torch.Generator())
    )[0].scores["score"]
    np.testing.assert_allclose(scores.numpy(), [-1.0, -0.04, -0.09], atol=1e-6)


def test_zeno_plus_plus_trains_its_own_update_anew_every_so_many_rounds() -> None:
    asked: list[float] = []

    def root(context: Context) -> torch.Tensor:
        asked.append(float(context.parameters[0]))
        return torch.tensor([1.0, 0.0])

    rule = ZenoPlusPlus(root, every=3)
    state = rule.init()
    for number in range(7):
        now = dataclasses.replace(fresh(2), parameters=torch.full((2,), float(number)))
        out, state = rule.step(Rows.of([[-1.0, 0.0]]), state, now)
        assert torch.equal(out, torch.zeros(2))  # nobody is accepted, and the model stays
    assert asked == [0.0, 3.0, 6.0]


def test_fltrust_keeps_the_model_where_nobody_is_trusted_and_ignores_length() -> None:
    rule = FLTrust(lambda context: torch.tensor([1.0, 0.0]))
    assert torch.equal(
        rule.step(Rows.of([[-1.0, 0.0], [0.0, 0.0]]), None, fresh(2))[0], torch.zeros(2)
    )
    near = rule.step(Rows.of([[1.0, 1.0], [1.0, 0.0]]), None, fresh(2))[0]
    far = rule.step(Rows.of([[1e6, 1e6], [1e-6, 0.0]]), None, fresh(2))[0]
    torch.testing.assert_close(near, far)


def test_flame_accepts_the_same_rows_as_hdbscan_and_somebody_when_all_are_honest() -> None:
    from privfl.aggregators.flame import majority_component

    rng = np.random.default_rng(0)
    for trial in range(60):
        n = int(rng.integers(4, 14))
        points = rng.normal(size=(n, 3)) + 3 * (rng.random((n, 1)) < 0.3 * (trial % 2))
        apart = distances(points)
        fitted = HDBSCAN(
            min_cluster_size=n // 2 + 1,
            min_samples=1,
            metric="precomputed",
            allow_single_cluster=True,
            copy=True,
        ).fit(apart)
        kept = majority_component(torch.from_numpy(apart)).numpy()
        assert kept.sum() > n // 2
        if (fitted.labels_ == 0).any():
            np.testing.assert_array_equal(kept, fitted.labels_ == 0)


def test_flames_noise_has_its_standard_deviation() -> None:
    values = torch.ones(5, 20_000) / 20_000**0.5
    context = Context(
        RoundPlan(0, tuple(range(5)), 20_000, 2.0),
        torch.zeros(20_000),
        torch.Generator().manual_seed(0),
    )
    out = FLAME(noise=0.5).step(Rows.of(values), None, context)[0]
    assert (out - values[0]).std().item() == pytest.approx(0.5, rel=0.03)
