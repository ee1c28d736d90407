"""What a ledger spends, and which claims it refuses."""

import math
from dataclasses import replace

import pytest

from privfl.core import Charge, ConfigError, DpEvent, Ledger, Sampling
from privfl.dp import epsilon, spend, spent_epsilon

HONEST = Charge(
    0,
    DpEvent("gaussian", {"noise_multiplier": 1.0}),
    Sampling("poisson", 0.1, 1000),
    unit="client",
    relation="add_remove",
)


def only(*charges, **how):
    [spent] = spend(Ledger(charges), 1e-5, **how)
    return spent


def test_a_run_spends_what_the_accountants_say():
    spent = only(*(replace(HONEST, round=r) for r in range(100)))
    assert spent.rdp == pytest.approx(7.8993, abs=1e-4)
    assert spent.pld == pytest.approx(7.0466, abs=1e-3)
    assert spent.claim() == spent.epsilon == spent.pld
    assert (spent.unit, spent.subject, spent.releases) == ("client", "client", 100)


def test_a_count_is_as_good_as_a_row_of_charges():
    assert only(replace(HONEST, count=100)).rdp == pytest.approx(only(*[HONEST] * 100).rdp)


def test_samples_and_clients_are_separate_subjects():
    samples = replace(HONEST, unit="sample", subject="sample of client 3", count=5)
    spent = spend(Ledger((HONEST, samples)), 1e-5, pld=False)
    assert [(s.unit, s.subject, s.releases) for s in spent] == [
        ("client", "client", 1),
        ("sample", "sample of client 3", 5),
    ]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"repeatable_noise": True}, "void"),
        ({"uniform": False}, "weights"),
        ({"public_denominator": False}, "denominator"),
        ({"event": DpEvent("homemade")}, "unknown mechanism"),
        ({"event": DpEvent("gaussian")}, "must state noise_multiplier"),
        ({"sampling": Sampling("fixed_size", 0.1, 1000)}, "fixed-size"),
    ],
)
def test_unsound_claims_are_refused_in_words(change, word):
    spent = only(HONEST, replace(HONEST, **change))
    assert spent.epsilon is None
    with pytest.raises(ConfigError, match=word):
        spent.claim()
    none, reason = spent_epsilon(Ledger((replace(HONEST, **change),)), 1e-5)
    assert none is None
    assert word in reason


def test_weights_inside_the_sensitivity_are_sound():
    assert only(replace(HONEST, uniform=False, weights_counted=True)).epsilon is not None


def test_replace_one_needs_no_public_denominator():
    assert (
        only(replace(HONEST, relation="replace_one", public_denominator=False)).epsilon is not None
    )


def test_relations_do_not_mix():
    with pytest.raises(ConfigError, match="cannot be added up"):
        only(HONEST, replace(HONEST, relation="replace_one")).claim()


def test_a_cohort_that_is_seen_gains_nothing_from_sampling():
    seen = only(replace(HONEST, cohort_hidden=False, count=100))
    assert seen.pld == pytest.approx(91.8, abs=0.3)
    assert any("sees who takes part" in note for note in seen.notes)


def test_where_the_cohort_is_public_a_client_pays_for_its_own_rounds():
    charges = [
        replace(HONEST, round=r, cohort_hidden=False, cohort=(r % 10, 99) if r < 10 else (r % 10,))
        for r in range(100)
    ]
    assert only(*charges).pld == pytest.approx(epsilon_of_joins(10), abs=1e-2)


def epsilon_of_joins(n):
    return epsilon(
        noise_multiplier=1.0, sample_rate=1.0, steps=n, delta=1e-5, sampler="all", accountant="pld"
    )


def test_no_noise_is_infinite_and_said_aloud():
    spent = only(HONEST, replace(HONEST, event=DpEvent("gaussian", {"noise_multiplier": 0.0})))
    assert spent.claim() == math.inf
    assert any("infinite" in note for note in spent.notes)


def test_a_delta_of_one_over_the_population_or_more_supports_no_claim():
    drawn = Sampling("poisson", 0.1, 99_000)
    assert only(replace(HONEST, sampling=drawn), pld=False).epsilon is not None
    for population in (100_000, 200_000):
        tiny = replace(HONEST, sampling=Sampling("poisson", 0.1, population))
        refused = only(tiny, pld=False)
        assert refused.epsilon is None
        assert f"not below 1 / {population}" in refused.refused


def test_replaced_records_are_priced_by_the_distance_that_the_event_states():
    event = DpEvent(
        "gaussian", {"noise_multiplier": 0.5}
    )  # sigma = C, over the 2C that a replacement moves
    spent = only(
        Charge(
            0, event, Sampling("poisson", 256 / 60_000, 60_000), "sample", "replace_one", count=3515
        )
    )
    assert spent.pld == pytest.approx(2.2063, abs=1e-3)


def test_a_zeroed_record_of_a_fixed_size_sample_is_replaced_by_another():
    zeroed = only(replace(HONEST, relation="zero_out", sampling=Sampling("fixed_size", 0.1, 1000)))
    replaced = only(
        replace(
            HONEST,
            relation="replace_one",
            sampling=Sampling("fixed_size", 0.1, 1000),
            event=DpEvent("gaussian", {"noise_multiplier": 0.5}),
        )
    )
    assert zeroed.rdp == replaced.rdp


def test_charges_survive_json():
    charge = replace(HONEST, cohort=(1, 2), cohort_hidden=False, count=3)
    assert Charge.from_json(charge.to_json()) == charge


def test_mechanisms_add_up_and_the_missing_loss_distribution_is_named():
    skellam = replace(HONEST, event=DpEvent("skellam", {"l1": 10.0, "l2": 5.0, "variance": 400.0}))
    spent = only(HONEST, skellam)
    assert spent.pld is None
    assert spent.claim() == spent.rdp
    assert any("no privacy loss distribution" in note for note in spent.notes)
