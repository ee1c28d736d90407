"""Lower bounds on epsilon from what an attacker's scores show: each holds with the confidence that
it is asked for.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import bdtrc, betaincinv, gammaln, ndtr, ndtri

from privfl.core import ConfigError
from privfl.dp.accounting import gaussian_epsilon

Scores = npt.NDArray[np.float64]


Counts = npt.NDArray[np.int64]


def at_least(successes: Counts, trials: int, doubt: float) -> Scores:
    """Clopper–Pearson: lower bounds on probabilities, each wrong with chance at most ``doubt``.

    >>> at_least(np.array([0, 10]), 10, 0.05).round(3)
    array([0.   , 0.741])
    """
    return np.where(
        successes == 0, 0.0, betaincinv(np.maximum(successes, 1), trials - successes + 1, doubt)
    )


def at_most(successes: Counts, trials: int, doubt: float) -> Scores:
    """Clopper–Pearson: upper bounds on probabilities, each wrong with chance at most ``doubt``."""
    return np.asarray(1 - at_least(trials - successes, trials, doubt), dtype=np.float64)


def _halves(inside: Scores, outside: Scores) -> tuple[Scores, Scores, Scores, Scores]:
    """One half of the scores chooses a threshold, the other is judged by it: a bound on chosen data
    would be no bound.
    """
    if min(len(inside), len(outside)) < 4:
        raise ConfigError(
            f"an audit needs at least 4 scores with and without the canary, and got {len(inside)}"
            f" and {len(outside)}."
        )
    return inside[::2], outside[::2], inside[1::2], outside[1::2]


def _thresholds(inside: Scores, outside: Scores) -> Scores:
    return np.unique(np.quantile(np.concatenate([inside, outside]), np.linspace(0, 1, 65)))


def _over(scores: Scores, thresholds: Scores) -> Counts:
    """How many scores are above each threshold."""
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, side="right")


def clopper_pearson(inside: Scores, outside: Scores, delta: float, doubt: float) -> float:
    """Epsilon >= log((TPR - delta) / FPR), and the same for the complement, with Clopper–Pearson
    bounds on both rates.

    Assumes that scores are independent: canaries in runs of their own, or orthogonal ones in
    isotropic noise.

    >>> rng = np.random.default_rng(0)
    >>> 0.5 < clopper_pearson(rng.normal(1, 1, 5000), rng.normal(0, 1, 5000), 1e-5, 0.05) < 4.38
    True
    """
    choose_in, choose_out, inside, outside = _halves(inside, outside)

    def bounds(seen_in: Scores, seen_out: Scores, thresholds: Scores) -> Scores:
        """For each threshold: guessing "inside" above it, then guessing "outside" under it."""
        over_in, over_out = _over(seen_in, thresholds), _over(seen_out, thresholds)
        n, m = len(seen_in), len(seen_out)
        hits = np.stack([at_least(over_in, n, doubt / 2), at_least(m - over_out, m, doubt / 2)])
        falses = np.stack([at_most(over_out, m, doubt / 2), at_most(n - over_in, n, doubt / 2)])
        return np.log(np.maximum(hits - delta, 1e-300) / falses)

    candidates = _thresholds(choose_in, choose_out)
    side, best = np.unravel_index(
        np.argmax(bounds(choose_in, choose_out, candidates)), (2, len(candidates))
    )
    return max(0.0, float(bounds(inside, outside, candidates[[best]])[side, 0]))


def gaussian_trade_off(inside: Scores, outside: Scores, delta: float, doubt: float) -> float:
    """Epsilon at ``delta`` of the least mu with which a Gaussian trade-off curve allows the error
    rates that were seen (Nasr et al. 2023).

    Far tighter than `clopper_pearson`, and a bound only for mechanisms whose trade-off curve is
    Gaussian: unsampled Gaussian noise.

    >>> rng = np.random.default_rng(0)
    >>> 3.5 < gaussian_trade_off(
    ...     rng.normal(1, 1, 20000), rng.normal(0, 1, 20000), 1e-5, 0.05
    ... ) < 4.38
    True
    """
    choose_in, choose_out, inside, outside = _halves(inside, outside)

    def mu(seen_in: Scores, seen_out: Scores, thresholds: Scores) -> Scores:
        missed = at_most(len(seen_in) - _over(seen_in, thresholds), len(seen_in), doubt / 2)
        false = at_most(_over(seen_out, thresholds), len(seen_out), doubt / 2)
        return np.asarray(-ndtri(false) - ndtri(missed), dtype=np.float64)

    candidates = _thresholds(choose_in, choose_out)
    best = int(np.argmax(mu(choose_in, choose_out, candidates)))
    return _gaussian(float(mu(inside, outside, candidates[[best]])[0]), delta)


def _gaussian(mu: float, delta: float) -> float:
    return gaussian_epsilon(1 / mu, delta) if mu > 0 else 0.0


def _guesses(inside: Scores, outside: Scores, guessed: float) -> tuple[int, int]:
    """How many canaries are guessed, the most telling scores on both sides, and how many of the
    guesses are right.
    """
    m = len(inside) + len(outside)
    side = max(1, round(guessed * m / 2))
    truth = np.repeat([True, False], [len(inside), len(outside)])
    order = np.argsort(np.concatenate([inside, outside]), kind="stable")
    return 2 * side, int((~truth[order[:side]]).sum() + truth[order[-side:]].sum())


def one_run_f_dp(
    inside: Scores, outside: Scores, delta: float, doubt: float, guessed: float = 0.1
) -> float:
    """From one run as `one_run`, against the whole Gaussian trade-off curve (Mahloujifar, Melis,
    Chaudhuri 2024, algorithm 3).

    epsilon at ``delta`` of the least mu that so many correct guesses do not refute; a bound for
    unsampled Gaussian noise only.

    >>> rng = np.random.default_rng(0)
    >>> 1.0 < one_run_f_dp(rng.normal(1, 1, 2000), rng.normal(0, 1, 2000), 1e-5, 0.05) < 4.38
    True
    """
    m, (guesses, correct) = len(inside) + len(outside), _guesses(inside, outside, guessed)

    def refuted(mu: float) -> bool:
        right, wrong = doubt * correct / m, doubt * (guesses - correct) / m
        for i in range(correct - 1, -1, -1):
            more = max(wrong, float(ndtr(ndtri(min(right, 1.0)) - mu)))
            right, wrong = right + i / (guesses - i) * (more - wrong), more
            if right + wrong > guesses / m:
                return True
        return False

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 16.0
    for _ in range(18):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return _gaussian(low, delta)


def one_run(
    inside: Scores, outside: Scores, delta: float, doubt: float, guessed: float = 0.1
) -> float:
    """From ONE run with many canaries, each in it by a fair coin (Steinke, Nasr, Jagielski 2023,
    Theorem 5.2).

    Needs no independence at all. The fraction ``guessed`` of the canaries with the most telling
    scores is guessed, half of it on each side.

    >>> rng = np.random.default_rng(0)
    >>> 1.0 < one_run(rng.normal(4, 1, 500), rng.normal(0, 1, 500), 1e-5, 0.05) < 22
    True
    """
    from scipy.optimize import brentq

    m, (r, correct) = len(inside) + len(outside), _guesses(inside, outside, guessed)

    k = np.arange(correct - 1, -1, -1)
    log_choose = gammaln(r + 1) - gammaln(k + 1) - gammaln(r - k + 1)

    def p_value(epsilon: float) -> float:
        """How likely so many correct guesses are at most, were the run (epsilon, delta)-DP."""
        q = 1 / (1 + math.exp(-epsilon))
        reached = np.cumsum(np.exp(log_choose + k * math.log(q) + (r - k) * math.log1p(-q)))
        steepest = float((reached / np.arange(1, correct + 1)).max()) if correct else 0.0
        tail = float(bdtrc(correct - 1, r, q)) if correct else 1.0
        return tail + 2 * m * delta * steepest

    if p_value(0.0) >= doubt:
        return 0.0
    high = 1.0
    while p_value(high) < doubt:
        high *= 2
        if high > 64:
            return high
    return float(brentq(lambda epsilon: p_value(epsilon) - doubt, 0.0, high, xtol=1e-6))
