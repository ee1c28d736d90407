"""Records of tables out of updates: found where the update holds few, no better than a blind guess
at records that are not in it, and scored by fields and not by columns.
"""

import pytest
import torch
from torch.nn.functional import one_hot

from privfl import Federation
from privfl.attacks import Knowledge, NotFound, TabLeak
from privfl.attacks.inversion.columns import categories
from privfl.attacks.inversion.tableak import _aligned
from privfl.audit import audit
from privfl.audit.card import card
from privfl.audit.effort import Attacks
from privfl.audit.fields import fields_right, typical
from privfl.audit.games.tables import field_rates
from privfl.audit.gates import Limit, over
from privfl.audit.record import record
from privfl.config import AuditConfig
from privfl.core import Dataset
from privfl.engine import forward_of
from privfl.models import initialised, mlp
from privfl.training import FedSGD

GROUPS = (slice(2, 5), slice(5, 9))


def table(n, seed):
    rng = torch.Generator().manual_seed(seed)
    numbers = torch.randn(n, 2, generator=rng)
    kinds = [
        torch.minimum(
            torch.randint(0, size, (n,), generator=rng), torch.randint(0, size, (n,), generator=rng)
        )
        for size in (3, 4)
    ]
    columns = [one_hot(kind, size).float() for kind, size in zip(kinds, (3, 4), strict=True)]
    return Dataset(torch.cat([numbers, *columns], dim=1), kinds[0] % 2, 2)


def attacked(held, attack, seed=0, made_of=lambda data: data):
    net = initialised(mlp, (held.x.shape[1],), 2, seed=seed, hidden=(64,))
    made = Federation(
        net,
        [held],
        made_of(table(40, 9)),
        rounds=1,
        training=FedSGD(lr=0.1),
        executor="sequential",
        audit=AuditConfig(keep="all"),
    )
    work = made.scenario.workload
    forward = forward_of(work.model, work.loss, work.method, work.data, made.scenario.bound, None)
    view = made.run().view("server", 0)
    return attack.run(view, Knowledge(forward=forward, auxiliary=made_of(table(200, 8)), seed=seed))


ATTACK = TabLeak(iterations=150, restarts=3)


def share(found, true):
    own = table(200, 8).x
    right, _ = fields_right(found, true, GROUPS, own.std(dim=0))
    return float(right.double().mean())


@pytest.fixture(scope="module")
def played():
    """What was held, and what is claimed of it, update by update."""
    held = [table(4, seed) for seed in range(3)]
    return [(one.x, attacked(one, ATTACK, seed)) for seed, one in enumerate(held)]


def test_records_in_an_update_are_found(played):
    found = [share(told.samples, held) for held, told in played]
    assert sum(found) / len(found) > 0.8


def test_records_that_are_not_in_it_are_met_as_well_by_anybody_s_rows(played):
    """Claims and rows that were drawn at random, matched alike to records that nobody attacked."""
    others = [table(4, 20 + seed).x for seed in range(10)]
    drawn = [table(4, 50 + seed).x for seed in range(10)]
    claimed = [share(told.samples, one) for _, told in played for one in others]
    anybody = [share(rows, one) for rows in drawn for one in others]
    assert abs(sum(claimed) / len(claimed) - sum(anybody) / len(anybody)) < 0.1


def test_every_claimed_record_has_one_category_of_each_kind(played):
    for _, told in played:
        for group in GROUPS:
            assert torch.equal(told.samples[:, group].sum(dim=1), torch.ones(4))
            assert set(told.samples[:, group].unique().tolist()) <= {0.0, 1.0}


def test_fields_on_which_the_starts_agree_are_the_likelier_ones(played):
    deviation = table(200, 8).x.std(dim=0)
    right, sure = [], []
    for held, told in played:
        fields, claim = fields_right(told.samples, held, GROUPS, deviation)
        right.append(fields)
        sure.append(told.confidence[claim][:, [0, 1, 2, 5]])
    right, sure = torch.cat(right), torch.cat(sure)
    assert bool(((sure >= 0) & (sure <= 1)).all())
    split = sure.median()
    assert right[sure >= split].double().mean() > right[sure < split].double().mean()


def test_categories_are_read_off_rows():
    assert categories(table(200, 8).x) == GROUPS
    assert categories(torch.randn(50, 4)) == ()


def test_a_missing_category_does_not_join_two_kinds():
    x = table(200, 8).x
    x[7, GROUPS[0]] = 0
    assert categories(x) == GROUPS


def test_a_score_by_columns_would_praise_a_guess_that_has_no_field_right():
    """Of a category with forty values a wrong one still has 38 columns right."""
    true, wrong = one_hot(torch.tensor([3]), 40).float(), one_hot(torch.tensor([4]), 40).float()
    right, _ = fields_right(wrong, true, [slice(0, 40)], torch.ones(40))
    assert not right.any()
    by_column, _ = fields_right(wrong, true, [], torch.ones(40))
    assert by_column.double().mean() == pytest.approx(38 / 40)


def test_columns_that_never_vary_are_claimed_as_they_are_and_tell_no_records_apart():
    """An end whose constant column is a hair off is matched by the columns that vary."""
    like = torch.tensor([[0.0, 5.0, 0.0], [3.0, 5.0, 0.0]])
    end = torch.tensor([[3.1, 5.0, 0.0], [0.1, 5.01, 0.3]])
    deviation = torch.tensor([1.0, 1e-6, 1e-6])
    found = _aligned(like, end, torch.zeros(2, dtype=torch.int64), deviation)
    assert found[:, 0].tolist() == pytest.approx([0.1, 3.1])

    def still(data):
        ones = torch.ones(data.n, 1)
        return Dataset(torch.cat([data.x[:, :2], ones / 2, data.x[:, 2:], ones], dim=1), data.y, 2)

    right = []
    for seed in range(2):
        held = still(table(4, seed))
        told = attacked(held, ATTACK, seed, still)
        assert bool((told.samples[:, 2] == 0.5).all())
        assert bool((told.samples[:, 10] == 1).all())
        moving = told.samples[:, [0, 1, *range(3, 10)]], held.x[:, [0, 1, *range(3, 10)]]
        right.append(share(*moving))
    assert sum(right) / 2 > 0.6


@pytest.mark.parametrize("odd", [torch.nan, torch.inf])
def test_own_rows_with_fields_that_are_no_numbers_are_refused_in_words(odd):
    def broken(data):
        x = data.x.clone()
        x[5, 0] = odd
        return Dataset(x, data.y, 2) if data.n > 100 else data

    told = attacked(table(2, 0), ATTACK, 0, broken)
    assert isinstance(told, NotFound)
    assert "fill them in" in told.reason


def test_who_has_no_rows_of_its_own_is_told_what_it_lacks():
    held = table(2, 0)
    net = initialised(mlp, (9,), 2, seed=0, hidden=(64,))
    made = Federation(
        net, [held], held, rounds=1, training=FedSGD(lr=0.1), audit=AuditConfig(keep="all")
    )
    work = made.scenario.workload
    forward = forward_of(work.model, work.loss, work.method, work.data, made.scenario.bound, None)
    told = ATTACK.run(made.run().view("server", 0), Knowledge(forward=forward))
    assert isinstance(told, NotFound)
    assert "auxiliary" in told.reason


def audited(held, **parts):
    net = initialised(mlp, (9,), 2, seed=0, hidden=(64,))
    made = Federation(
        net, held, table(60, 9), rounds=1, training=FedSGD(lr=0.1), executor="sequential", **parts
    )
    attacks = Attacks(probe=(TabLeak(iterations=60, restarts=1),))
    return audit(made, adversaries=["server"], attacks=attacks, lies=None)


def test_records_that_updates_give_away_are_on_the_card_by_their_fields():
    report = audited([table(4, 30 + seed) for seed in range(5)])
    (finding,) = report.findings
    assert finding.verdict == "leaks"
    fields, blind = finding.rates["fields"], finding.rates["fields, blind"]
    assert fields.low > blind.value
    (line,) = [one for one in card(report) if one.asset == "samples"]
    assert line.verdict == "leaks"
    assert "fields right" in line.evidence
    assert line.blind["fields"] == blind.value
    assert over(record(report), Limit.parse("samples.fields=.3")).light == "red"


def test_claims_about_other_peoples_records_have_no_fields_beyond_the_blind():
    """Nulls: rows of one's own are claimed for records that were drawn alike."""
    own, n = Knowledge(auxiliary=table(200, 8)), 12
    above = 0
    for seed in range(20):
        claims, true = (table(n, 1000 + 100 * kind + seed).x[:, None] for kind in (0, 1))
        rows = list(zip(claims, true, strict=True))
        above += field_rates(rows, torch.arange(n), own)["gap to blind"].low > 0
    assert above <= 2


def test_the_blind_of_fields_is_the_better_of_the_typical_record_and_own_rows():
    own = Knowledge(auxiliary=table(200, 8))
    true = table(30, 3).x
    told = field_rates([(None, true)], torch.arange(30), own)
    guess = typical(own.auxiliary.x, GROUPS).expand(30, -1)
    right, _ = fields_right(guess, true, GROUPS, own.auxiliary.x.std(dim=0))
    assert told["fields"].value == pytest.approx(float(right.double().mean()))
    assert told["fields, blind"].value >= told["fields"].value
