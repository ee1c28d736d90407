"""Whole batches out of a linear layer and its ReLU: exact where they are claimed, and nothing is
claimed that does not explain the update.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from privfl import Federation
from privfl.attacks import SPEAR, Knowledge, LinearLeakage, NotApplicable, NotFound
from privfl.attacks.inference import observe
from privfl.attacks.inversion.sparse_factors import batch_of, factor
from privfl.attacks.inversion.spear import explained
from privfl.config import AuditConfig
from privfl.core import ConfigError, Dataset, LocalPlan, Rows
from privfl.crypto import SecAgg
from privfl.dp import Clip
from privfl.engine import forward_of
from privfl.training import FedSGD, LocalSGD

SHAPE, CLASSES = (1, 6, 6), 5


def images(n, seed=0):
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(0, CLASSES, (n,), generator=rng)
    return Dataset(torch.rand((n, *SHAPE), generator=rng) - 0.5, y, CLASSES)


def deep(width=72):
    """Two ReLU layers, so that no sign of the first one's slopes is known beforehand."""
    torch.manual_seed(0)
    layers = (nn.Flatten(), nn.Linear(36, width), nn.ReLU(), nn.Linear(width, 24), nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(24, CLASSES))


def played(clients, training=None, width=72, **parts):
    """The server's view, and the public recipe."""
    made = Federation(
        deep(width),
        clients,
        images(20, seed=9),
        rounds=1,
        training=training or FedSGD(lr=0.1),
        executor="sequential",
        audit=AuditConfig(keep="all"),
        **parts,
    )
    work = made.scenario.workload
    forward = forward_of(work.model, work.loss, work.method, work.data, made.scenario.bound, None)
    return made.run().view("server", 0), Knowledge(forward=forward)


def altered(view, change):
    rows = view.rows
    return replace(view, opened={"delta": Rows(change(rows.values), rows.weights, rows.ids)})


def noisy(view, relative):
    """The view with noise of so many times the deviation of the update's entries."""
    rng = torch.Generator().manual_seed(3)

    def blurred(values):
        deviation = relative * values.norm() / values.numel() ** 0.5
        return values + deviation * torch.randn(values.shape, generator=rng)

    return altered(view, blurred)


def decibels(found, true):
    """The PSNR of the worst sample."""
    near = torch.cdist(true.flatten(1).double(), found.flatten(1).double()).min(dim=1).values
    return float(-20 * torch.log10(near.max() / true[0].numel() ** 0.5))


@pytest.mark.parametrize(("b", "width"), [(1, 72), (4, 72), (8, 128)])
def test_a_batch_is_found_exactly_with_its_labels(b, width):
    held = images(b, seed=b)
    view, knows = played([held], width=width)
    told = SPEAR().run(view, knows)
    assert decibels(told.samples, held.x) > 80
    assert sorted(told.labels.tolist()) == sorted(held.y.tolist())
    assert told.mismatch < told.notes["limit"]


def test_a_batch_is_found_in_the_sum_of_several_clients():
    clients = [images(2, seed) for seed in range(3)]
    view, knows = played(
        clients, bound=Clip(l2=1.0), channel=SecAgg(fidelity="ideal", bits=26), width=96
    )
    told = SPEAR(target="sum").run(view, knows)
    assert decibels(told.samples, torch.cat([client.x for client in clients])) > 40
    assert isinstance(SPEAR().run(view, knows), NotApplicable)


def test_two_local_steps_on_the_whole_batch_are_no_defence():
    held = images(4)
    view, knows = played([held], LocalSGD(lr=0.1, plan=LocalPlan(batch_size=64, steps=2)))
    told = SPEAR().run(view, knows)
    assert decibels(told.samples, held.x) > 60


def test_a_little_noise_is_stood():
    held = images(4)
    view, knows = played([held])
    told = SPEAR().run(noisy(view, 1e-4), knows)
    assert decibels(told.samples, held.x) > 40


def test_a_batch_with_one_sample_twice_or_of_another_size_than_said_is_not_found_and_not_claimed():
    held = images(4, seed=1)
    twice = Dataset(held.x[[0, 0, 1, 2]], held.y[[0, 0, 1, 2]], CLASSES)
    view, knows = played([twice])
    assert isinstance(SPEAR(tries=4).run(view, knows), NotFound)
    view, knows = played([held])
    for b in (3, 5):
        assert isinstance(SPEAR(tries=4).run(view, replace(knows, samples=b)), NotFound)


def nonsense(values, kind):
    rng = torch.Generator().manual_seed(1)
    return {
        "random": torch.randn(values.shape, generator=rng),
        "nothing": values * 0,
        "nan": values * torch.nan,
        "infinite": values * torch.inf,
        "one value": torch.full_like(values, 1e38),
        "turned": -values,
    }[kind]


@pytest.mark.parametrize("kind", ["random", "nothing", "nan", "infinite", "one value", "turned"])
def test_updates_that_no_batch_caused_are_answered_in_words(kind):
    view, knows = played([images(4)])
    told = SPEAR(tries=4).run(altered(view, lambda values: nonsense(values, kind)), knows)
    assert isinstance(told, NotFound)
    assert told.reason


@pytest.mark.parametrize("work", [float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(work):
    with pytest.raises(ConfigError, match="work must be a finite number"):
        SPEAR(work=work)


@pytest.mark.parametrize("relative", [0.1, 1.0])
def test_noise_that_hides_zeros_leaves_nothing_to_claim(relative):
    view, knows = played([images(4)])
    told = SPEAR(tries=2).run(noisy(view, relative), replace(knows, samples=4))
    assert isinstance(told, NotFound)


def test_past_its_effort_it_says_so_with_the_sizes_and_not_that_nothing_is_there():
    view, knows = played([images(16)], width=48)
    told = SPEAR(starts=32, tries=2).run(view, knows)
    assert isinstance(told, NotFound)
    assert not told.theorem
    assert "batch of 16" in told.reason
    assert "48 neurons" in told.reason
    assert "64 draws" in told.reason
    claimed = LinearLeakage(starts=32, tries=2).run(view, knows)
    assert claimed.notes["surely sparse"] != "16 of 16"


def test_steps_on_smaller_batches_are_claimed_only_if_exact():
    held = images(4)
    view, knows = played([held], LocalSGD(lr=1.0, plan=LocalPlan(batch_size=2, steps=4)))
    told = SPEAR(tries=2).run(view, knows)
    assert isinstance(told, NotFound) or decibels(told.samples, held.x) > 40


def test_samples_of_the_wrong_length_do_not_explain_an_update():
    """A client that sends other biases: the directions are there, and their lengths are lies."""
    held = images(4)
    view, knows = played([held])
    start = 72 * 36

    def lies(values):
        changed = values.clone()
        changed[:, start : start + 72] *= 1.7
        return changed

    told = SPEAR(tries=4).run(altered(view, lies), knows)
    assert isinstance(told, NotFound)
    assert "another update" in told.reason
    assert "sure before all" not in told.reason


def test_one_wrong_direction_makes_every_sample_fail_the_check():
    """That all other directions are right is no reason to claim the other samples."""
    held = images(4)
    view, knows = played([held])
    observed = observe(view, knows, "client")
    weight, bias, b = batch_of(observed, knows.forward)
    rng = torch.Generator().manual_seed(0)
    found = factor(weight.double(), bias.double(), b, None, rng, 64, 8)
    _, right = explained(found.X.float().view(4, *SHAPE), found, observed, knows.forward)
    assert right < 1e-3
    mix = torch.eye(4, dtype=torch.float64)
    mix[:, 3] = torch.tensor([0.5, 0.5, 0.5, 1.0])  # D' M and M^-1 X have the same product
    wrong = replace(found, X=torch.linalg.solve(mix, found.X), D=mix.T @ found.D)
    assert torch.allclose(wrong.D.T @ wrong.X, found.D.T @ found.X)
    _, off = explained(wrong.X.float().view(4, *SHAPE), wrong, observed, knows.forward)
    assert off > 0.1


def test_an_update_of_large_rank_is_given_up_after_bounded_work_in_words():
    """A batch that nearly fills its layer: one draw costs as much as thousands for a small one."""
    view, knows = played([images(30)])
    told = SPEAR(work=3e7).run(view, knows)
    assert isinstance(told, NotFound)
    assert "30 directions" in told.reason
    assert "all that 3e+07 multiplications allow" in told.reason
    wide = SPEAR(work=1e5).run(view, knows)
    assert "raise work" in wide.reason


@pytest.mark.parametrize("public", [True, False], ids=["number is public", "rank"])
def test_an_update_with_one_entry_that_is_no_number_is_not_found_in_words(public):
    view, knows = played([images(4)])
    knows = replace(knows, forward=replace(knows.forward, weighted=public))

    def lies(values):
        changed = values.clone()
        changed[:, 7] = float("nan")
        return changed

    for attack in (SPEAR(), LinearLeakage()):
        told = attack.run(altered(view, lies), knows)
        assert isinstance(told, NotFound)
        assert "is not finite" in told.reason


def test_no_more_is_drawn_than_work_allows_whatever_the_rank():
    rng = torch.Generator().manual_seed(0)
    b, m = 40, 90
    W = torch.randn(m, b, generator=rng) @ torch.randn(b, 2 * m, generator=rng)
    found = factor(
        W.double(), torch.randn(m, generator=rng).double(), b, None, rng, 256, 64, work=1e9
    )
    each = 50 * (m + b) * b * b  # as `factor` counts a draw
    assert found.cut
    assert found.drawn == int(1e9 // each)
    signed = torch.randn(5, m, generator=rng).double()
    through = factor(
        W.double(), torch.randn(m, generator=rng).double(), b, signed, rng, 256, 64, work=1e9
    )
    assert through.drawn * each <= 1e9
