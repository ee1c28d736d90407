"""Detectors against slow references from their papers' formulas in plain numpy: the same rows kept,
and scores to 1e-6, on sets with equal, zero and far rows, of three and of fifteen clients.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.fft import dct
from sklearn.cluster import HDBSCAN
from torch import nn

from privfl import Federation
from privfl.aggregators import FLANDERS, FLARE, LASA, RFLBAT, FLDetector, FreqFed, MultiMetrics
from privfl.aggregators.gap import clusters_by_gap, k_means
from privfl.core import (
    ConfigError,
    Context,
    FlatModel,
    Oracle,
    Released,
    RoundPlan,
    Rows,
    TooManyByzantine,
    UnsupportedModel,
    cross_entropy,
)
from privfl.data import load
from privfl.engine.server_oracles import ServerOracles
from privfl.training import LocalSGD, Workload

Array = Any
D = 8
PARAMETERS = np.linspace(-1, 1, D)
LAYERS = (5, 3)
SETS = 20


def crowd(seed: int) -> Array:
    """Sets of rows: honest ones with outliers, some with equal rows, some with a zero row, every
    fifth of three clients.
    """
    rng = np.random.default_rng(seed)
    n = 3 if seed % 5 == 4 else 15
    values = 0.5 + rng.normal(size=(n, D))
    if n > 3:
        values[3] *= 30
        values[8] = -4 * values[8]
        values[10:13] += 6
    if seed % 4 == 1:
        values[1] = values[0]
    if seed % 4 == 2:
        values[2] = 0.0
    return values


def context(number: int = 0, parameters: Array = PARAMETERS, last: Array = None) -> Context:
    released = {} if last is None else {"delta": Released(torch.from_numpy(last))}
    plan = RoundPlan(number, tuple(range(15)), D, math.inf)
    rng = torch.Generator().manual_seed(100 + number)
    return Context(plan, torch.from_numpy(np.asarray(parameters)), rng, released)


def verdict_of(rule: Any, values: Array) -> Any:
    return rule.judge_step(Rows.of(torch.from_numpy(values)), rule.init(), context())[0]


def norms(X: Array) -> Array:
    return np.linalg.norm(X, axis=1)


def cut_mean(X: Array, kept: Array) -> Array:
    most = np.median(norms(X))
    rows = [x * min(1, most / max(np.linalg.norm(x), 1e-300)) for x in X[kept]]
    return np.mean(rows, axis=0)


def cosine(a: Array, b: Array) -> float:
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / lengths) if lengths else 0.0


# ---- FreqFed


def freq_fed(X: Array) -> Array:
    spectra = np.array([dct(PARAMETERS + x, type=2, norm="ortho")[: D // 2] for x in X])
    apart = np.array([[1 - cosine(a, b) for b in spectra] for a in spectra])
    apart = np.maximum(apart, 0)
    np.fill_diagonal(apart, 0)
    labels = HDBSCAN(
        min_cluster_size=max(len(X) // 2 + 1, 2),
        min_samples=1,
        metric="precomputed",
        allow_single_cluster=True,
        copy=True,
    ).fit(apart)
    return labels.labels_ == 0


@pytest.mark.parametrize("seed", [s for s in range(SETS) if s % 4 != 1])
def test_freq_fed_keeps_hdbscans_cluster_of_low_frequencies(seed: int) -> None:
    X = crowd(seed)
    found = verdict_of(FreqFed(), X)
    kept = freq_fed(X)
    assert found.kept.tolist() == kept.tolist()
    np.testing.assert_allclose(found.out.numpy(), cut_mean(X, kept), atol=1e-6)


# ---- Multi-metrics


def multi_metrics(X: Array, p: float) -> tuple[Array, Array]:
    models = PARAMETERS + X
    n = len(models)
    features = np.zeros((n, 3))
    for i in range(n):
        for j in range(n):
            if i != j:
                features[i, 0] += (1 - cosine(models[i], models[j])) ** 2
                features[i, 1] += np.abs(models[i] - models[j]).sum()
                features[i, 2] += abs(np.linalg.norm(models[i]) - np.linalg.norm(models[j]))
    inverse = np.linalg.pinv(np.cov(features.T))
    scores = np.array([math.sqrt(max(x @ inverse @ x, 0)) for x in features])
    kept = np.zeros(n, dtype=bool)
    kept[np.argsort(scores, kind="stable")[: max(int(p * n), 1)]] = True
    return scores, kept


@pytest.mark.parametrize("seed", [s for s in range(SETS) if s % 5 != 4])
@pytest.mark.parametrize("p", [0.3, 0.6])
def test_multi_metrics_is_the_mahalanobis_length_of_three_summed_distances(
    seed: int, p: float
) -> None:
    X = crowd(seed)
    scores, kept = multi_metrics(X, p)
    found = verdict_of(MultiMetrics(p=p), X)
    np.testing.assert_allclose(found.suspicion.numpy(), scores, rtol=1e-6)
    assert found.kept.tolist() == kept.tolist()
    np.testing.assert_allclose(found.out.numpy(), cut_mean(X, kept), atol=1e-6)


@pytest.mark.parametrize("X", [np.ones((6, D)), np.zeros((5, D)), crowd(4)], ids=str)
def test_multi_metrics_of_rows_that_agree_or_are_three_takes_one_and_is_finite(X: Array) -> None:
    found = verdict_of(MultiMetrics(), X)
    assert int(found.kept.sum()) == 1
    assert torch.isfinite(found.suspicion).all()


# ---- FLARE

SEEN = np.random.default_rng(9).normal(size=(6, D, 3))


def features(parameters: Any, context: Any) -> Any:
    """What a model of one hidden layer makes of six samples."""
    return torch.from_numpy(np.tanh(SEEN.transpose(0, 2, 1) @ np.asarray(parameters)))


def flare(X: Array, tau: float) -> tuple[Array, Array]:
    n, s = len(X), len(SEEN)
    here = np.asarray(features(PARAMETERS, None))
    pairs = itertools.combinations(range(s), 2)
    apart = sorted(((here[a] - here[b]) ** 2).sum() for a, b in pairs)
    width = apart[(len(apart) - 1) // 2]
    seen = [np.asarray(features(PARAMETERS + x, None)) for x in X]

    def kernel(x: Array, y: Array) -> float:
        return math.exp(-((x - y) ** 2).sum() / width)

    def discrepancy(F: Array, G: Array) -> float:
        within = sum(
            kernel(H[a], H[b]) for H in (F, G) for a in range(s) for b in range(s) if a != b
        ) / (s * (s - 1))
        return max(0.0, within - 2 * sum(kernel(f, g) for f in F for g in G) / s**2)

    votes, most = np.zeros(n), n // 2 - 1
    for i in range(n):
        others = {j: discrepancy(seen[i], seen[j]) for j in range(n) if j != i}
        last = sorted(others.values())[most - 1] if most > 0 else -1.0
        for j, far in others.items():
            votes[j] += far <= last + 1e-12
    trust = np.exp(votes / (tau * votes.mean())) if most > 0 else np.ones(n)
    return n - votes, trust / trust.sum()


@pytest.mark.parametrize("seed", [0, 1, 3, 4, 6])
@pytest.mark.parametrize("tau", [1.0, 0.2])
def test_flare_trusts_whom_half_of_the_others_see_as_their_nearest(seed: int, tau: float) -> None:
    X = crowd(seed)
    found = verdict_of(FLARE(features, tau=tau), X)
    suspicion, trust = flare(X, tau)
    most = np.median(norms(X))
    cut = [x * min(1, most / max(np.linalg.norm(x), 1e-300)) for x in X]
    np.testing.assert_allclose(found.suspicion.numpy(), suspicion)
    np.testing.assert_allclose(found.out.numpy(), trust @ np.array(cut), atol=1e-9)
    assert bool(found.kept.all())


def test_flare_reads_what_the_last_layer_reads_of_the_servers_own_samples() -> None:
    split = load("digits")
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Dropout(), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10)
    )
    model, root = FlatModel(net), split.train.take(range(7))
    made = ServerOracles(Workload(model, cross_entropy, LocalSGD(), split.train), {}, root)
    ask: Any = made.of(Oracle.FEATURES)
    here, there = model.read(), torch.linspace(-1, 1, model.d)
    seen = ask(there, context())
    assert net.training
    model.write(there)
    with torch.no_grad():
        assert torch.equal(seen, net[2:4](net[0](root.x)))
    assert not torch.equal(ask(here, context()), seen)
    one_layer = FlatModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    flat = Workload(one_layer, cross_entropy, LocalSGD(), split.train)
    with pytest.raises(UnsupportedModel, match="compares models before their last layer"):
        ServerOracles(flat, {}, root).of(Oracle.FEATURES)


def test_flare_drops_a_model_whose_features_are_not_finite_and_refuses_a_single_sample() -> None:
    def broken(parameters: Any, context: Any) -> Any:
        seen = features(parameters, context)
        return seen * torch.inf if float(parameters.norm()) > 30 else seen

    X = crowd(0)
    assert [np.linalg.norm(PARAMETERS + x) > 30 for x in X] == [i == 3 for i in range(15)]
    found = verdict_of(FLARE(broken), X)
    assert found.kept.tolist() == [i != 3 for i in range(15)]
    assert found.suspicion[3] == torch.inf
    assert torch.isfinite(found.out).all()
    with pytest.raises(ConfigError, match=r"it holds 1: raise data\.root"):
        verdict_of(FLARE(lambda parameters, context: features(parameters, context)[:1]), X)


def test_flare_trusts_no_few_that_are_left_where_most_models_see_nothing() -> None:
    """Else whoever sends what keeps features finite, where honest rows do not, decides alone."""
    X = crowd(0)

    def dark(most: int) -> Any:
        cut = sorted(np.linalg.norm(PARAMETERS + x) for x in X)[most]

        def broken(parameters: Any, context: Any) -> Any:
            seen = features(parameters, context)
            return seen * torch.inf if float(parameters.norm()) < cut - 1e-9 else seen

        return broken

    assert int(verdict_of(FLARE(dark(7)), X).kept.sum()) == 8
    with pytest.raises(TooManyByzantine, match="tolerates 7 bad rows of 15, and 8 are"):
        verdict_of(FLARE(dark(8)), X)


def test_flare_is_a_number_however_sharp_its_trust_is() -> None:
    found = verdict_of(FLARE(features, tau=1e-310), crowd(0))
    assert torch.isfinite(found.out).all()
    assert float(found.scores["trust"].sum()) == pytest.approx(1)


# ---- RFLBAT


def farthest_first(points: Array, k: int) -> Array:
    away = [np.linalg.norm(p - points.mean(axis=0)) for p in points]
    chosen = [int(np.argmax(away))]
    while len(chosen) < k:
        least = [min(np.linalg.norm(p - points[c]) for c in chosen) for p in points]
        chosen.append(int(np.argmax(least)))
    centres = points[chosen]
    labels = None
    while True:
        now = np.array([int(np.argmin([((p - c) ** 2).sum() for c in centres])) for p in points])
        if labels is not None and (now == labels).all():
            return labels
        labels = now
        centres = np.array(
            [points[labels == c].mean(axis=0) if c in labels else centres[c] for c in range(k)]
        )


def within(points: Array, k: int) -> float:
    labels = farthest_first(points, k)
    total = 0.0
    for c in range(k):
        inside = points[labels == c]
        total += sum(((p - inside.mean(axis=0)) ** 2).sum() for p in inside)
    return max(total, 1e-12)


def gap_clusters(points: Array, most: int, drawn: Array) -> int:
    low, width = points.min(axis=0), np.ptp(points, axis=0)
    told = width > 1e-6 * width.max()
    points = np.where(told, (points - low) / np.where(told, width, 1), 0)
    most = min(most, len(points) - 1)
    gaps, errors = [], []
    for k in range(1, most + 2):
        logs = [math.log(within(one, min(k, len(points)))) for one in drawn]
        gaps.append(np.mean(logs) - math.log(within(points, min(k, len(points)))))
        errors.append(np.std(logs) * math.sqrt(1 + 1 / len(drawn)))
    for k in range(1, most + 1):
        if gaps[k - 1] >= gaps[k] - errors[k]:
            return k
    return most


def reach(points: Array, among: list[int], factor: float) -> list[int]:
    sums = [sum(np.linalg.norm(points[i] - points[j]) for j in among) for i in among]
    return [i for i, s in zip(among, sums, strict=True) if s <= factor * np.median(sums)]


def rflbat(X: Array, far: float = 10, near: float = 4, most: int = 10, draws: int = 5) -> Array:
    centred = X - X.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    points = centred @ axes[:2].T
    points = points * np.where((points**3).sum(axis=0) < 0, -1, 1)
    among = reach(points, list(range(len(X))), far)
    if len(among) > 2:
        rng = torch.Generator().manual_seed(100)
        drawn = torch.rand(draws, len(among), 2, generator=rng, dtype=torch.float64).numpy()
        k = gap_clusters(points[among], most, drawn)
        labels = farthest_first(points[among], k)
        alike = []
        for c in range(k):
            members = [among[i] for i in np.flatnonzero(labels == c)]
            each = [np.mean([cosine(X[i], X[j]) for j in members]) for i in members]
            alike.append(np.median(each) if len(members) > 1 else 1.0)
        among = [i for i, c in zip(among, labels, strict=True) if c == int(np.argmin(alike))]
    kept = np.zeros(len(X), dtype=bool)
    kept[reach(points, among, near)] = True
    return kept


@pytest.mark.parametrize("seed", range(SETS))
def test_rflbat_keeps_the_cluster_of_least_cosine(seed: int) -> None:
    X = crowd(seed)
    found = verdict_of(RFLBAT(), X)
    kept = rflbat(X)
    assert found.kept.tolist() == kept.tolist()
    np.testing.assert_allclose(found.out.numpy(), cut_mean(X, kept), atol=1e-6)


def test_the_gap_statistic_sees_one_cloud_as_one_and_three_as_three() -> None:
    rng = torch.Generator().manual_seed(3)
    cloud = torch.rand(40, 2, generator=rng, dtype=torch.float64)
    assert clusters_by_gap(cloud, 6, 20, rng) == 1
    three = torch.cat([cloud[:12] * 0.1, cloud[12:24] * 0.1 + 2, cloud[24:36] * 0.1 + 5])
    assert clusters_by_gap(three, 6, 20, rng) == 3
    assert sorted(k_means(three, 3).bincount().tolist()) == [12, 12, 12]


# ---- LASA


def ordinary(s: Array, within_: float) -> Array:
    spread = np.std(s)
    if spread <= 1e-12 * np.abs(s).max():
        return np.ones(len(s), dtype=bool)
    return np.abs(s - np.median(s)) / spread < within_


def lasa(X: Array, sparsity: float) -> tuple[Array, Array]:
    most = np.median(norms(X))
    clipped = np.array([x * min(1, most / max(np.linalg.norm(x), 1e-300)) for x in X])
    out, dropped, start = np.zeros(D), np.zeros(len(X)), 0
    for size in LAYERS:
        where = slice(start, start + size)
        sparse = clipped[:, where].copy()
        for row in sparse:
            row[np.argsort(np.abs(row))[: math.floor(sparsity * size)]] = 0
        lengths = norms(sparse)
        signs = np.array(
            [0.5 * (1 + np.sign(row).sum() / max(np.abs(np.sign(row)).sum(), 1)) for row in sparse]
        )
        taken = ordinary(lengths, 1.0) & ordinary(signs, 1.0)
        taken = taken if taken.any() else np.ones(len(X), dtype=bool)
        out[where] = clipped[taken][:, where].mean(axis=0)
        dropped += ~taken * size / D
        start += size
    return out, dropped


@pytest.mark.parametrize("seed", range(SETS))
@pytest.mark.parametrize("sparsity", [0.0, 0.3])
def test_lasa_averages_each_layers_ordinary_rows(seed: int, sparsity: float) -> None:
    X = crowd(seed)
    out, dropped = lasa(X, sparsity)
    found = verdict_of(LASA(LAYERS, sparsity=sparsity), X)
    np.testing.assert_allclose(found.out.numpy(), out, atol=1e-6)
    np.testing.assert_allclose(found.suspicion.numpy(), dropped, atol=1e-12)


# ---- detectors that look back

ROUNDS = 9


def story(seed: int, liars: int, n: int = 12) -> tuple[list[Array], list[Array], list[Array]]:
    """Rows, models and aggregates of rounds in which honest clients descend a quadratic each, and
    the first ones send noise of that length from the third round on.
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n, D))
    bend = np.diag(np.linspace(0.5, 1.5, D))
    w, rows, models, sums = np.zeros(D), [], [], []
    for t in range(ROUNDS):
        X = -0.2 * (w - centres) @ bend + 0.005 * rng.normal(size=(n, D))
        if t >= 2:
            X[:liars] = rng.normal(size=(liars, D)) * np.linalg.norm(X[liars:], axis=1).mean()
        rows.append(X)
        models.append(w)
        sums.append(X.mean(axis=0))
        w = w + sums[-1]
    return rows, models, sums


def lbfgs(S: Array, Y: Array, v: Array) -> Array:
    """The dense BFGS matrix of these pairs times v, updated one pair after the other."""
    B = np.eye(len(v)) * (Y[-1] @ S[-1]) / (S[-1] @ S[-1])
    for s, y in zip(S, Y, strict=True):
        B = B - np.outer(B @ s, B @ s) / (s @ B @ s) + np.outer(y, y) / (y @ s)
    return B @ v


def fl_detector(rows: Any, models: Any, sums: Any, window: int) -> list[tuple[Array, set[int]]]:
    """Each round's scores, and who is banned after it."""
    n, told = len(rows[0]), []
    history: list[list[float]] = [[] for _ in range(n)]
    banned: set[int] = set()
    pairs: list[tuple[Array, Array]] = []
    last: dict[int, Array] = {}
    for t, X in enumerate(rows):
        if t >= 2:
            pairs.append((models[t - 1] - models[t - 2], sums[t - 2] - sums[t - 1]))
        pairs = pairs[-window:]
        if t >= 1:
            good = [(s, y) for s, y in pairs if s @ y > 0]
            v = models[t] - models[t - 1]
            bend = lbfgs([s for s, _ in good], [y for _, y in good], v) if good else 0 * v
            errors = {i: np.linalg.norm(last[i] - bend - X[i]) for i in last}
            for i, error in errors.items():
                history[i] = [*history[i], error / sum(errors.values())][-window:]
        scores = np.array([np.mean(h) if h else 0.0 for h in history])
        judged = [i for i in range(n) if i not in banned and len(history[i]) == window]
        if len(judged) >= 3:
            s = scores[judged]
            s = (s - s.min()) / (s.max() - s.min())
            rng = torch.Generator().manual_seed(100 + t)
            drawn = torch.rand(20, len(s), generator=rng, dtype=torch.float64).numpy()
            upper = two_of(s, drawn)
            if upper is not None:
                banned |= {judged[i] for i in upper}
                history = [[] for _ in range(n)]
        told.append((scores, set(banned)))
        last = {i: X[i] for i in range(n) if i not in banned}
    return told


def best_split(s: Array) -> tuple[float, float]:
    ordered = np.sort(s)
    spread = lambda x: ((x - x.mean()) ** 2).sum()
    return min(
        (spread(ordered[:k]) + spread(ordered[k:]), ordered[k - 1]) for k in range(1, len(s))
    )


def two_of(s: Array, drawn: Array) -> list[int] | None:
    one = lambda x: max(((x - x.mean()) ** 2).sum(), 1e-12)
    two = lambda x: max(best_split(x)[0], 1e-12)
    ones, twos = np.array([one(x) for x in drawn]), np.array([two(x) for x in drawn])
    gap1 = math.log(ones.mean()) - math.log(one(s))
    gap2 = math.log(twos.mean()) - math.log(two(s))
    if gap1 - gap2 + np.log(twos).std() * math.sqrt(1 + 1 / len(drawn)) >= 0:
        return None
    top = best_split(s)[1]
    return [i for i, x in enumerate(s) if x > top]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("liars", [0, 3])
def test_fl_detector_scores_and_bans_as_dense_bfgs_and_a_slow_gap_statistic(
    seed: int, liars: int
) -> None:
    rows, models, sums = story(seed, liars)
    expected = fl_detector(rows, models, sums, window=4)
    seat = FLDetector(window=4)
    state = seat.init()
    for t in range(ROUNDS):
        last = sums[t - 1] if t else None
        opened = Rows.of(torch.from_numpy(rows[t]))
        verdict, state = seat.judge_before(opened, state, context(t, models[t], last))
        scores, banned = expected[t]
        seen = [i for i in range(len(scores)) if i not in banned or scores[i] > 0]
        np.testing.assert_allclose(
            verdict.scores["distance"].numpy()[seen], scores[seen], atol=1e-6
        )
        assert set(verdict.dropped) == banned
    assert set(range(liars)) <= state.banned


def test_fl_detector_follows_clients_by_name_and_predicts_nobody_who_was_away() -> None:
    rows, models, sums = story(0, 0)
    seat = FLDetector(window=3)
    state = seat.init()
    for t, ids in enumerate([(0, 1, 2, 3), (3, 2, 1, 0), (0, 1, 5, 6), (2, 0, 1, 6)]):
        values = torch.from_numpy(rows[t][list(ids)])
        opened = Rows(values, torch.ones(len(ids)), ids)
        last = sums[t - 1] if t else None
        _, state = seat.judge_before(opened, state, context(t, models[t], last))
        assert set(state.rows) == set(ids)
    assert {c: len(d) for c, d in state.distances.items()} == {0: 3, 1: 3, 2: 1, 3: 1, 6: 1}


def forecast(series: list[Array], iterations: int, ridge: float) -> Array:
    k, n = series[0].shape
    A, B = np.eye(k), np.eye(n)
    for _ in range(iterations):
        normal, target = np.zeros((k, k)), np.zeros((k, k))
        for before, after in itertools.pairwise(series):
            Z = before @ B
            normal += Z @ Z.T
            target += after @ Z.T
        weight = ridge * np.trace(normal) / k
        A = (target + weight * np.eye(k)) @ np.linalg.inv(normal + weight * np.eye(k))
        normal, target = np.zeros((n, n)), np.zeros((n, n))
        for before, after in itertools.pairwise(series):
            Y = A @ before
            normal += Y.T @ Y
            target += Y.T @ after
        weight = ridge * np.trace(normal) / n
        B = np.linalg.inv(normal + weight * np.eye(n)) @ (target + weight * np.eye(n))
    return A @ series[-1] @ B


@pytest.mark.parametrize("how", ["matrix", "last", "global"])
@pytest.mark.parametrize("seed", range(5))
def test_flanders_keeps_the_rows_nearest_their_forecasts(how: Any, seed: int) -> None:
    rows, models, _ = story(seed, 3)
    seat = FLANDERS(f=3, forecast=how, window=5, iterations=4)
    state, past = seat.init(), [[] for _ in rows[0]]
    for t, X in enumerate(rows):
        seen = models[t] + X
        n = len(X)
        if how == "matrix" and t >= 3:
            series = [np.array([p[s] for p in past]).T for s in range(len(past[0]))]
            expected = forecast(series, 4, 1e-3).T
        elif how == "last" and t:
            expected = np.array([p[-1] for p in past])
        else:
            expected = np.array([models[t]] * n)
        scores = ((seen - expected) ** 2).sum(axis=1)
        kept = np.zeros(n, dtype=bool)
        kept[np.argsort(scores, kind="stable")[: n - 3]] = True
        opened = Rows.of(torch.from_numpy(X))
        verdict, state = seat.judge_before(opened, state, context(t, models[t]))
        np.testing.assert_allclose(verdict.suspicion.numpy(), scores, rtol=1e-6, atol=1e-9)
        assert verdict.kept.tolist() == kept.tolist()
        for i in range(n):
            past[i] = [*past[i], seen[i] if kept[i] else expected[i]][-5:]
    if how == "last":
        assert set(verdict.dropped) == {0, 1, 2}


def test_flanders_remembers_by_name_under_sampling_and_drops_what_is_not_finite() -> None:
    rows, models, _ = story(1, 0)
    seat = FLANDERS(f=1, forecast="last")
    state = seat.init()
    for t, ids in enumerate([(0, 1, 2), (4, 2, 1), (0, 4, 5)]):
        opened = Rows(torch.from_numpy(rows[t][list(ids)]), torch.ones(3), ids)
        _, state = seat.judge_before(opened, state, context(t, models[t]))
    assert {c: len(m) for c, m in state.models.items()} == {0: 2, 1: 2, 2: 2, 4: 2, 5: 1}
    values = torch.from_numpy(rows[3][[0, 1, 2]])
    values[1, 0] = torch.nan
    verdict, after = seat.judge_before(Rows.of(values), state, context(3, models[3]))
    assert verdict.dropped == (1,)
    assert torch.isfinite(after.models[1][-1]).all()


# ---- all of them

RULES = {
    "FreqFed": FreqFed(),
    "FLARE": FLARE(features),
    "MultiMetrics": MultiMetrics(),
    "RFLBAT": RFLBAT(),
    "LASA": LASA(LAYERS),
}


@pytest.mark.parametrize("name", RULES)
def test_a_row_that_is_not_finite_is_dropped_and_the_others_are_judged_without_it(
    name: str,
) -> None:
    X = crowd(0)
    values = torch.from_numpy(X).clone()
    values[5, 2] = torch.nan
    rule: Any = RULES[name]
    found = rule.judge_step(Rows.of(values), None, context())[0]
    alone = verdict_of(rule, np.delete(X, 5, axis=0))
    assert not found.kept[5]
    assert found.suspicion[5] == torch.inf
    assert np.delete(found.kept.numpy(), 5).tolist() == alone.kept.tolist()
    assert torch.equal(found.out, alone.out)


@pytest.mark.parametrize("name", RULES)
def test_the_order_of_rows_changes_nothing_but_the_order_of_the_verdict(name: str) -> None:
    rule: Any = RULES[name]
    for seed in range(4):
        X = crowd(4 * seed)
        order = np.random.default_rng(seed).permutation(len(X))
        plain, moved = verdict_of(rule, X), verdict_of(rule, X[order])
        assert moved.kept.tolist() == plain.kept[order].tolist()
        np.testing.assert_allclose(moved.suspicion, plain.suspicion[order], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["fl_detector", "flanders"])
def test_a_seat_that_follows_clients_is_refused_where_rows_have_no_names(name: str) -> None:
    data = {"data": {"name": "digits", "clients": 12}, "model": "softmax", "rounds": 1}
    clip = {"name": "clip", "l2": 1.0}
    for changes in (
        {"defences": [{"name": "bucketing", "size": 2}, name]},
        {"channel": {"name": "bucketed_secagg", "size": 3}, "defences": [name], "bound": clip},
    ):
        with pytest.raises(ConfigError, match="needs to know whose row is whose"):
            Federation.from_config({**data, **changes})
