"""The seats around the rule: pre-aggregators, filters, what happens to the aggregate, and what
happens at the client.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import math
import pkgutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm as normal
from sklearn.neighbors import LocalOutlierFactor

from privfl import aggregators
from privfl.aggregators import (
    AFA,
    CRFL,
    FLWBC,
    AdaptiveRobustClipping,
    AnomalyScore,
    BaFFLe,
    Bucketing,
    CenteredClipping,
    ClientMomentum,
    Clipping,
    FederatedPruning,
    Krum,
    Mean,
    NearestNeighbourMixing,
    NormClipping,
    Poisoner,
    Sparsify,
    TrimmedMean,
    Verdict,
    certified_radius,
    certify,
)
from privfl.aggregators.baffle import local_outlier_factor
from privfl.core import (
    BadUpdate,
    ConfigError,
    Context,
    Released,
    RoundPlan,
    Rows,
    TooManyByzantine,
    Update,
)

BEFORE: dict[str, Any] = {
    "NearestNeighbourMixing": NearestNeighbourMixing(2),
    "Bucketing": Bucketing(2),
    "Clipping": Clipping(1.5),
    "AdaptiveRobustClipping": AdaptiveRobustClipping(2),
    "AnomalyScore": AnomalyScore(k=1.5),
    "NormClipping": NormClipping(1.5, sigma=0.1),
}


def context(
    d: int, round: int = 0, parameters: torch.Tensor | None = None, seed: int = 0
) -> Context:
    at = torch.zeros(d) if parameters is None else parameters
    return Context(
        RoundPlan(round, tuple(range(11)), d, math.inf), at, torch.Generator().manual_seed(seed)
    )


def crowd(seed: int = 0, n: int = 11, d: int = 4) -> torch.Tensor:
    values = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values[1] *= 30
    return values


def seat(defence: Any, values: torch.Tensor) -> Rows:
    return defence.before(Rows.of(values), defence.init(), context(values.shape[1]))[0]


def test_every_file_of_the_package_is_in_its_face() -> None:
    shared = {"angles", "columns", "cut", "gap", "mean_shift", "model_distances", "spectral"}
    shared |= {"network"}
    faced = {
        getattr(aggregators, name).__module__.rsplit(".", 1)[1] for name in aggregators.__all__
    }
    assert {module.name for module in pkgutil.iter_modules(aggregators.__path__)} == faced | shared


def test_every_public_class_says_what_it_is_with_a_source_or_says_that_there_is_none() -> None:
    for name in aggregators.__all__:
        kind = getattr(aggregators, name)
        module = importlib.import_module(kind.__module__)
        if dataclasses.is_dataclass(kind) and name not in ("Verdict", "Poisoner"):
            text = " ".join(((kind.__doc__ or "") + (module.__doc__ or "")).split())
            assert (
                any(str(year) in text for year in range(1990, 2027))
                or "no paper is canonical" in text
                or name in NO_PAPER
            ), name


NO_PAPER = ("Clipping", "GreedyMDA", "AnomalyScore")


@pytest.mark.parametrize("name", sorted(set(BEFORE) - {"AnomalyScore"}))
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rows_that_are_not_finite_pass_a_seat_and_count_in_the_rules_f(
    name: str, bad: float
) -> None:
    values = crowd()
    values[4, 1] = bad
    out = seat(BEFORE[name], values)
    lost = ~torch.isfinite(out.values).all(dim=1)
    assert int(lost.sum()) == 1
    assert torch.isfinite(Krum(f=1)(out)).all()
    with pytest.raises(BadUpdate, match="NaN"):
        Mean()(out)


def test_nearest_neighbour_mixing_is_its_formula_for_updates_near_and_far() -> None:
    for offset in (0.0, 100.0):
        values = crowd() * 0.1 + offset
        X = values.numpy()
        expected = [X[np.argsort(((X - x) ** 2).sum(axis=1))[:9]].mean(axis=0) for x in X]
        np.testing.assert_allclose(
            seat(NearestNeighbourMixing(2), values).values.numpy(), expected, rtol=1e-9
        )
        np.testing.assert_allclose(
            seat(NearestNeighbourMixing(2), values.float()).values.numpy(),
            expected,
            rtol=1e-4,
            atol=1e-4,
        )


def test_mixing_refuses_half_of_the_rows_as_liars() -> None:
    for defence in (NearestNeighbourMixing(2), AdaptiveRobustClipping(2)):
        seat(defence, crowd(n=5))
        with pytest.raises(TooManyByzantine):
            seat(defence, crowd(n=4))


def test_buckets_are_drawn_anew_and_make_rows_anonymous() -> None:
    values = torch.arange(11.0, dtype=torch.float64)[:, None] ** 2
    rows = Rows.of(values)
    first, second = (Bucketing(3).before(rows, None, context(1, seed=s))[0] for s in (1, 2))
    assert first.n == 4
    assert first.ids is None
    assert not torch.equal(first.values, second.values)
    sizes = torch.tensor([3, 3, 3, 2], dtype=torch.float64)
    torch.testing.assert_close((first.values[:, 0] * sizes).sum(), values.sum())
    with pytest.raises(BadUpdate, match="anonymous"):
        AFA().step(first, AFA().init(), context(1))


def test_clipping_and_arc_are_their_formulas() -> None:
    values = crowd()
    norms = values.norm(dim=1)
    torch.testing.assert_close(
        seat(Clipping(1.5), values).values, values * (1.5 / norms).clamp(max=1)[:, None]
    )
    k = math.floor(2 * 2 * (11 - 2) / 11)
    bound = norms.sort(descending=True).values[k]
    torch.testing.assert_close(
        seat(AdaptiveRobustClipping(2), values).values,
        values * (bound / norms).clamp(max=1)[:, None],
    )
    zeros = torch.zeros(5, 3)
    assert torch.equal(seat(AdaptiveRobustClipping(1), zeros).values, zeros)
    assert torch.equal(seat(Clipping(1.0), zeros).values, zeros)


def test_a_liar_is_scaled_back_and_the_transcript_can_say_so() -> None:
    verdict = Clipping(5.0).judge_before(Rows.of(crowd()), None, context(4))[0]
    assert verdict.scaled == (1,)
    assert verdict.words((20, 21, *range(22, 31))) == "scaled 1 of 11: 21"
    assert not Clipping(1e6).judge_before(Rows.of(crowd()), None, context(4))[0].fired


def test_three_sigma_over_ten_rows_is_refused_because_it_could_never_fire() -> None:
    with pytest.raises(ConfigError, match="cannot drop any of 10"):
        seat(AnomalyScore(k=3.0), crowd(n=10))
    values = crowd(n=12)
    values[5] = 1e3
    assert seat(AnomalyScore(k=3.0), values).n == 11


def test_the_anomaly_score_uses_the_scores_of_earlier_rounds() -> None:
    rule, values = AnomalyScore(k=2.0), crowd(n=8)
    values[1] /= 30
    rows, state = rule.before(Rows.of(values), rule.init(), context(4))
    kept = copy.deepcopy(state)
    values[2:4] = (
        # two liars of seven lift their own round's mean and deviation: no z-score exceeds sqrt(5 /
        # 2)
        50.0
    )
    later = Rows.of(values).take([5, 6, 7, 2, 3, 1, 4])
    assert rule.before(later, rule.init(), context(4))[0].n == 7
    rows, after = rule.before(later, state, context(4))
    assert len(state.scores) >= 7
    assert rows.ids is not None
    assert not {2, 3} & set(rows.ids)
    assert len(after.scores) == len(state.scores) + rows.n
    assert torch.equal(kept.scores, state.scores)


def test_norm_clipping_adds_its_noise_once_whatever_the_number_of_clients() -> None:
    defence, d = NormClipping(bound=1.0, sigma=0.3), 40_000
    out, _ = defence.after(Released(torch.zeros(d)), None, context(d))
    assert out.std().item() == pytest.approx(0.3, rel=0.03)
    assert torch.equal(
        NormClipping(bound=1.0).after(Released(torch.ones(3)), None, context(3))[0], torch.ones(3)
    )


def test_crfl_clips_the_model_and_smooths_all_rounds_but_the_last() -> None:
    start, step = torch.full((50_000,), 0.01), torch.full((50_000,), 0.01)
    defence = CRFL(rounds=3, sigma=0.05, bound=lambda round: 1.0 + round)
    for round in range(3):
        change, _ = defence.after(Released(step), None, context(50_000, round, start))
        model = start + change
        expected = (1.0 + round) / (start + step).norm() * (start + step)
        assert (model - expected).std().item() == pytest.approx(
            0.05 if round < 2 else 0.0, rel=0.03, abs=1e-8
        )
    assert torch.equal(
        CRFL(rounds=1, bound=lambda round: 1e9).after(
            Released(step), None, context(50_000, 0, start)
        )[0],
        step,
    )


def test_the_certificate_is_its_formula_and_abstains_where_the_runner_up_could_win() -> None:
    attackers = [Poisoner(share=0.1, scale=10, steps=5, rate=0.1, poisoned=0.2)] * 2
    later = [(2.0, 0.5), (2.1, 0.5)]
    found = certified_radius(0.9, 0.1, sigma=0.01, lipschitz=2.0, attackers=attackers, later=later)
    harm = (
        2
        * 2
        * 2.0**2
        * 2
        * (0.1 * 10 * 5 * 0.1 * 0.2) ** 2
        * math.prod(2 * normal.cdf(r / s) - 1 for r, s in later)
    )
    gap = (math.sqrt(0.9) - math.sqrt(0.1)) ** 2
    assert found == pytest.approx(math.sqrt(-math.log(1 - gap) * 0.01**2 / harm))
    assert (
        certified_radius(0.2, 0.6, sigma=0.01, lipschitz=2.0, attackers=attackers, later=later)
        is None
    )
    top, lower, upper = certify(torch.tensor([10, 970, 20]), alpha=0.001)
    slack = math.sqrt(math.log(1000) / 2000)
    assert (top, lower, upper) == (1, pytest.approx(0.97 - slack), pytest.approx(0.02 + slack))
    with pytest.raises(ConfigError, match="votes"):
        certify(torch.tensor([0, 0]))


def test_the_outlier_factor_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        known, new = rng.normal(size=(12, 3)), rng.normal(size=3) * 2
        theirs = (
            -LocalOutlierFactor(n_neighbors=5, novelty=True).fit(known).score_samples(new[None])[0]
        )
        assert local_outlier_factor(
            torch.from_numpy(new), torch.from_numpy(known), 5
        ) == pytest.approx(theirs, rel=1e-6)


def test_baffle_refuses_an_odd_model_and_keeps_it_out_of_the_history() -> None:
    def errors(models: Sequence[torch.Tensor], context: Context) -> torch.Tensor:
        """Six clients: the error rates of three classes fall with a model's first number, jitter by
        client, and leap with its second.
        """
        jitter = torch.tensor(
            [
                [[math.sin(float(m[0]) * 37 * (e + 1) + k) for k in range(3)] for m in models]
                for e in range(6)
            ]
        )
        rates = torch.stack([torch.stack([-m[0] * 0.01, -m[0] * 0.01, m[1]]) for m in models])
        return rates + 0.01 * jitter

    rule = BaFFLe(errors, history=8, quorum=6)
    state, at, refused = rule.init(), torch.zeros(2), []
    for round in range(14):
        step = torch.tensor([0.3 + 0.05 * (round % 3), 0.0])
        if round == 12:
            step = torch.tensor([0.3, 0.6])  # the backdoor: one class's errors leap
        verdict, state = rule.judge_after(Released(step), state, context(2, round, at))
        refused += [round] if verdict.refused else []
        assert torch.equal(verdict.out, torch.zeros(2) if verdict.refused else step)
        at = at + verdict.out
    assert 12 in refused
    assert len(refused) < 4
    assert all(float(model[1]) == 0.0 for model in state.models), (
        "the rejected model is in no history"
    )
    assert len(state.models) == 9


def test_pruning_takes_dormant_units_while_accuracy_allows_and_keeps_them_pruned() -> None:
    parameters = torch.tensor([5.0, 1.0, 1.0, 2.0, 9.0, 0.1, -0.1, 0.0])
    units = [torch.tensor([0]), torch.tensor([1, 2]), torch.tensor([3])]
    seen = torch.tensor([[9.0, 0.1, 0.2], [8.0, 0.2, 0.1], [7.0, 0.1, 0.3]])
    rule = FederatedPruning(
        units,
        lambda w, c: seen,
        lambda w, c: 0.9 if w[0] != 0 and w[3] != 0 else 0.5,
        at=1,
        extreme=torch.tensor([4, 5, 6, 7]),
        delta_to=1.0,
    )
    early, state = rule.after(Released(torch.ones(8)), rule.init(), context(8, 0, parameters))
    assert torch.equal(early, torch.ones(8))
    verdict, state = rule.judge_after(Released(torch.zeros(8)), state, context(8, 1, parameters))
    model = parameters + verdict.out
    torch.testing.assert_close(model, torch.tensor([5.0, 0.0, 0.0, 2.0, 0.0, 0.1, -0.1, 0.0]))
    later, _ = rule.after(Released(torch.ones(8)), state, context(8, 2, model))
    torch.testing.assert_close(
        model + later, torch.tensor([6.0, 0.0, 0.0, 3.0, 0.0, 1.1, 0.9, 1.0])
    )


def test_votes_and_ranks_order_units_and_a_lying_minority_shifts_them_by_its_share_only() -> None:
    honest = torch.tensor([[9.0, 0.1, 5.0, 0.2]]).repeat(8, 1)
    liars = torch.tensor([[0.0, 9.0, 0.1, 8.0]]).repeat(2, 1)
    for method, most in (("rank", [1, 3]), ("vote", [1, 3])):
        units = [torch.tensor([i]) for i in range(4)]
        rule = FederatedPruning(
            units, lambda w, c: torch.cat([honest, liars]), lambda w, c: 1.0, method=method
        )  # type: ignore[arg-type]
        assert rule.order(torch.zeros(4), context(4))[:2] == most


def test_sparsification_sends_the_largest_and_loses_nothing_over_rounds() -> None:
    rule, state, sent = Sparsify(keep=0.2), Sparsify().init(), torch.zeros(10)
    rng = torch.Generator().manual_seed(0)
    total = torch.zeros(10)
    for _ in range(20):
        vector = torch.randn(10, generator=rng)
        out, state = rule.after(Released(vector), state, context(10))
        assert int((out != 0).sum()) == 2
        sent, total = sent + out, total + vector
    torch.testing.assert_close(sent + state.vector, total, atol=1e-4, rtol=1e-4)
    update, _ = rule.at_client(Update(3, torch.arange(10.0)), rule.init_client(), context(10))
    assert update.delta.nonzero().flatten().tolist() == [8, 9]


def test_fl_wbc_perturbs_where_the_gradient_hardly_changed_with_laplace_noise_of_that_scale() -> (
    None
):
    d = 40_000
    rule = FLWBC(scale=0.5)
    first = Update(0, torch.ones(d))
    out, state = rule.at_client(first, rule.init_client(), context(d))
    assert torch.equal(out.delta, first.delta)
    out, after = rule.at_client(first, state, context(d, seed=1))
    noise = out.delta - 1
    assert noise.std().item() == pytest.approx(math.sqrt(2) * 0.5, rel=0.05)
    assert noise.abs().median().item() == pytest.approx(0.5 * math.log(2), rel=0.05)
    assert torch.equal(after.vector, first.delta), (
        "what is remembered is the update before the noise"
    )
    far, _ = rule.at_client(Update(0, torch.full((d,), 1e6)), state, context(d, seed=2))
    assert torch.equal(far.delta, torch.full((d,), 1e6))


def test_client_momentum_converges_to_a_constant_update() -> None:
    rule, state = ClientMomentum(beta=0.5), ClientMomentum().init_client()
    for _ in range(40):
        update, state = rule.at_client(Update(1, torch.tensor([2.0])), state, context(1))
    assert update.delta.item() == pytest.approx(2.0, abs=1e-6)
    assert update.client == 1


def test_seats_compose_with_any_rule() -> None:
    rows = Rows.of(
        torch.cat([torch.ones(9, 3) + 0.01 * torch.arange(9.0)[:, None], torch.full((2, 3), 1e6)])
    )
    for defence in (NearestNeighbourMixing(2), AdaptiveRobustClipping(2)):
        mixed = defence.before(rows, None, context(3))[0]
        for rule in (TrimmedMean(2), Krum(2)):
            assert (rule(mixed) - 1).norm() < 0.5
    clipped = Clipping(2.0).before(rows, None, context(3))[0]
    out, _ = CenteredClipping(tau=1.0).step(clipped, CenteredClipping().init(), context(3))
    assert out.norm() <= 1.0


def test_a_verdict_says_nothing_where_nothing_was_done() -> None:
    silent = Verdict(torch.zeros(2), kept=torch.ones(3, dtype=torch.bool), scale=torch.ones(3))
    assert not silent.fired
    assert silent.words() == "nothing"
    loud = Verdict(torch.zeros(2), touched=2, refused="odd")
    assert loud.words() == "refused the aggregate: odd; changed 2 coordinates"
