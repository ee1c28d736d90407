"""Numbers of rules that are published or a paper's, and settings that are refused: beside what
`privfl.testing` asks of every rule.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from privfl import aggregators, catalog
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
    RowRule,
    SignGuard,
    SignMajority,
    TrimmedMean,
    Zeno,
)
from privfl.core import (
    BadUpdate,
    ConfigError,
    Context,
    Moves,
    Neighbours,
    Rows,
    TooManyByzantine,
    Total,
)
from privfl.testing.rows import F, N, aggregate, crowd, far_rows, of


def test_every_rule_of_the_package_is_in_the_catalogue() -> None:
    exported = {getattr(aggregators, name) for name in aggregators.__all__}
    rules = {
        kind
        for kind in exported
        if isinstance(kind, type) and issubclass(kind, (RowRule, MemoryRule))
    } - {RowRule, MemoryRule}
    assert rules | {Mean} == set(catalog.AGGREGATORS.values())


def _root(context: Context) -> torch.Tensor:
    return torch.ones(len(context.parameters), dtype=torch.float64)


def _loss(parameters: torch.Tensor, context: Context) -> float:
    return float((parameters[0] - 2).square())


def _losses(rows: Rows, context: Context) -> torch.Tensor:
    return torch.tensor([1.0 + client % 3 for client in rows.ids or ()])


def _votes(rows: Rows, context: Context) -> torch.Tensor:
    """Honest clients are the first N - F: they accept one another; liars accept liars."""
    honest = torch.tensor([client < N - F for client in rows.ids or ()])
    return honest[:, None] == honest


def _first(rows: Rows, context: Context) -> torch.Tensor:
    return torch.arange(1.0, rows.d + 1, dtype=torch.float64)


@pytest.mark.parametrize(
    ("rule", "least"),
    [
        (TrimmedMean(3), 7),
        (MeaMed(3), 7),
        (Krum(3), 9),
        (Bulyan(3), 15),
        (MDA(3), 7),
        (GreedyMDA(3), 7),
        (CAF(3), 7),
        (CGE(3), 7),
        (MoNNA(3), 7),
        (SMEA(3), 7),
        (DnC(3), 7),
        (SLSGD(3), 7),
        (Zeno(_loss, 3), 4),
        (MedianOfMeans(7), 7),
        (RobustLearningRate(7), 7),
    ],
    ids=lambda x: type(x).__name__ if dataclasses.is_dataclass(x) else "",
)
def test_f_too_large_for_n_is_refused_in_words_before_any_round(rule: Any, least: int) -> None:
    rule.max_byzantine(least)
    aggregate(rule, of(crowd(n=least)))
    with pytest.raises(TooManyByzantine, match=r"needs|splits"):
        rule.max_byzantine(least - 1)
    with pytest.raises(TooManyByzantine):
        aggregate(rule, of(crowd(n=least - 1)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: TrimmedMean(-1),
        lambda: Krum(1, m=0),
        lambda: CenteredClipping(tau=0.0),
        lambda: GeometricMedian(tolerance=0.0),
        lambda: SignGuard(share=0.0),
        lambda: Auror(alpha=0.0),
        lambda: RobustLearningRate(theta=0),
        lambda: SLSGD(alpha=2.0),
        lambda: FLAME(noise=-1.0),
        lambda: FoolsGold(kappa=math.nan),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError, match="must"):
        make()


def test_the_proved_sensitivities_are_the_published_ones() -> None:
    def of_one(rule: Any, n: int | None, relation: Any = "replace_one") -> float:
        neighbours = Neighbours("client", relation)
        far = rule.sensitivity(Moves.of_one_row(n).bounded(1.0, neighbours), neighbours)
        return float(far)

    assert of_one(Mean(weighted=False), 10) == pytest.approx(0.2)
    assert of_one(Mean(weighted=False), 10, "add_remove") == math.inf
    assert of_one(Mean(weighted=False, denominator=5.0), None, "add_remove") == pytest.approx(0.2)
    assert of_one(Mean(), 10) == math.inf
    assert of_one(TrimmedMean(2), 10) == pytest.approx(2 / 6)
    assert of_one(TrimmedMean(2), 10, "zero_out") == pytest.approx(1 / 6)
    assert of_one(TrimmedMean(2), 10, "add_remove") == pytest.approx((1 + math.sqrt(9 / 7)) / 6)
    assert of_one(TrimmedMean(2), None, "add_remove") == math.inf
    assert of_one(Median(), 9) == pytest.approx(2.0)
    assert of_one(Median(), 10) == pytest.approx(1.0)
    assert of_one(CenteredClipping(tau=0.1, iterations=3), 10) == pytest.approx(2 * 0.1 * 3 / 10)
    assert of_one(FLTrust(_root, fixed=True, root_l2=0.5), 10) == pytest.approx(0.05)
    assert of_one(FLTrust(_root), 10) == math.inf
    assert of_one(Krum(1), 10) == 2.0
    unproved = (Bulyan(1), MeaMed(1), FoolsGold(), SignMajority(), ResidualReweighting())
    remembering = (AFA(), ClippedClustering())
    asking = (FAIR(_losses), CrossValidation(_votes))
    noisy = (FLAME(noise=0.1), CosineFilter(reference=_first))
    for rule in (*unproved, *remembering, *asking, *noisy):
        assert of_one(rule, 11) == math.inf


def _reached(rule: Any, honest: torch.Tensor, f: int, far: float) -> float:
    """How far such liars move a rule from the honest mean, in units of how far honest rows lie from
    it and from zero.
    """
    mean = honest.mean(dim=0)
    room = float((honest - mean).norm(dim=1).max() + mean.norm())
    outs = [
        aggregate(rule, of(torch.cat([honest, liars]))) for _, liars in far_rows(honest, f, far)
    ]
    return max(float((out - mean).norm()) for out in outs) / room


@pytest.mark.parametrize(
    "rule",
    [
        AFA(),
        Auror(alpha=0.5),
        CenteredClipping(),
        ClippedClustering(),
        CosineFilter(),
        FLAME(noise=0.0),
        GeometricMedian(),
        Median(),
        RFA(),
        ResidualReweighting(),
        SignGuard(share=1.0),
    ],
    ids=lambda rule: type(rule).__name__,
)
@pytest.mark.parametrize("n", [4, 5, 8, 13])
def test_a_rule_without_an_f_holds_against_as_many_far_rows_as_it_says(rule: Any, n: int) -> None:
    f = rule.max_byzantine(n)
    rng = torch.Generator().manual_seed(n)
    for far in (1e2, 1e9):
        honest = 0.5 + 0.3 * torch.randn(n - f, 8, generator=rng, dtype=torch.float64)
        assert _reached(rule, honest, f, far) < 3.0


def test_a_line_of_repeated_medians_breaks_at_half_of_the_other_rows() -> None:
    for n in (5, 9, 13):
        f = (n - 1) // 2
        assert ResidualReweighting().max_byzantine(n) == f - 1
        honest = torch.randn(n - f, 8, generator=torch.Generator(), dtype=torch.float64)
        assert _reached(ResidualReweighting(), honest, f, 1e9) > 1e6


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_mean_of_finite_entries_whose_sum_overflows_stands_and_one_that_is_not_finite_does_not(
    bad: float,
) -> None:
    large = torch.full((3, 4), 1e38)
    assert torch.allclose(Mean()(Rows.of(large)), large[0])
    total = Total(3 * large[0], weight=3.0, count=3)
    assert torch.allclose(Mean()(total), large[0])
    large[1, 2] = bad
    with pytest.raises(BadUpdate):
        Mean()(Rows.of(large))
    with pytest.raises(BadUpdate):
        Mean()(Total(large.sum(dim=0), weight=3.0, count=3))
