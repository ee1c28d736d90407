"""Text out of the updates of a small transformer: what is typed is found whole where the model is
wide enough, nothing is claimed of text that was not there, and limits are told in words.
"""

from dataclasses import replace

import pytest
import torch

from privfl import Federation
from privfl.attacks import (
    DAGER,
    LAMP,
    EmbeddingLeakage,
    Inference,
    Knowledge,
    NotFound,
    Sequences,
)
from privfl.audit import audit
from privfl.audit.card import card
from privfl.audit.effort import Attacks
from privfl.config import AuditConfig
from privfl.core import Dataset, LocalPlan, Rows
from privfl.crypto import SecAgg
from privfl.dp import Clip
from privfl.engine import forward_of
from privfl.models import initialised, transformer
from privfl.training import FedSGD, LocalSGD

LENGTH, VOCABULARY, WIDTH = 6, 20, 32
SUMMED = {"bound": Clip(l2=5.0), "channel": SecAgg(fidelity="ideal", bits=26)}


def text(n, seed=0):
    rng = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, VOCABULARY, (n, LENGTH + 1), generator=rng)
    tokens = torch.minimum(tokens, torch.randint(0, VOCABULARY, tokens.shape, generator=rng))
    return Dataset(tokens[:, :-1].clone(), tokens[:, 1:].clone(), VOCABULARY)


def federation(clients, training=None, width=WIDTH, model=None, **parts):
    net = model or initialised(transformer, (LENGTH,), VOCABULARY, seed=1, width=width, heads=2)
    return Federation(
        net,
        clients,
        text(60, seed=9),
        rounds=1,
        training=training or FedSGD(lr=0.1),
        executor="sequential",
        audit=AuditConfig(keep="all"),
        **parts,
    )


def attacked(made, attack):
    work = made.scenario.workload
    scenario = made.scenario
    view = made.run().view("server", 0)
    forward = forward_of(
        work.model, work.loss, work.method, work.data, scenario.bound, scenario.mechanism
    )
    return attack.run(view, Knowledge(forward=forward, auxiliary=text(40, seed=8)))


def as_set(sequences):
    return {tuple(one) for one in sequences.tolist()}


def test_a_batch_of_text_is_found_whole_in_its_order():
    held = text(3)
    told = attacked(federation([held]), DAGER())
    assert as_set(told.sequences) == as_set(held.x)


QUICK = LAMP(iterations=40, turns=2, swaps=15, starts=8)


def shared(told, true):
    """The share of positions with the right token, in the better of the two orders of two rows."""
    rows = told.sequences
    return max(float((one == true).double().mean()) for one in (rows, rows.flip(0)))


@pytest.mark.parametrize("objective", ["cosine", "l2"])
def test_gradients_are_matched_to_text_past_what_is_blind_and_say_nothing_of_other_text(objective):
    held = text(2, seed=3)
    told = attacked(federation([held]), replace(QUICK, objective=objective))
    commonest = torch.bincount(text(40, seed=8).x.flatten()).argmax()
    blind = float((held.x == commonest).double().mean())
    others = [shared(told, text(2, seed=seed).x) for seed in range(20, 60)]
    assert shared(told, held.x) > max(blind + 0.2, *others)
    assert sum(others) / len(others) < 0.25
    assert set(told.sequences.flatten().tolist()) <= set(held.x.flatten().tolist())


def test_matching_needs_text_of_ones_own_and_a_contribution_that_is_there():
    run = federation([text(1), text(1, seed=2), text(1, seed=4)], **SUMMED).run()
    view = run.view("server", 0)
    hidden = QUICK.run(view, Knowledge(auxiliary=text(40, seed=8)))
    assert "cannot read single updates" in hidden.reason
    assert "auxiliary" in replace(QUICK, target="sum").run(view).reason


def test_nothing_is_claimed_of_text_that_was_not_there():
    told = attacked(federation([text(3)]), DAGER())
    assert not as_set(told.sequences) & as_set(text(200, seed=5).x)


@pytest.mark.parametrize(
    "training",
    [
        LocalSGD(lr=0.1, plan=LocalPlan(batch_size=64, steps=2)),
        LocalSGD(lr=0.1, plan=LocalPlan(batch_size=64, steps=1), weight_decay=0.1),
    ],
    ids=["two local steps", "weight decay"],
)
def test_a_sequence_survives_what_local_training_adds(training):
    held = text(2)
    told = attacked(federation([held], training), DAGER())
    assert as_set(told.sequences) == as_set(held.x)


def test_a_sum_gives_text_away_while_all_clients_together_hold_little():
    clients = [text(1, seed) for seed in range(3)]
    made = federation(clients, channel=SecAgg(fidelity="ideal", bits=26), bound=Clip(l2=0.1))
    assert not isinstance(attacked(made, DAGER()), Sequences)
    told = attacked(made, DAGER(target="sum"))
    assert as_set(told.sequences) == {tuple(client.x[0].tolist()) for client in clients}


def test_past_its_limit_nothing_is_found_and_the_sizes_are_told():
    told = attacked(federation([text(12)]), DAGER())
    assert isinstance(told, NotFound)
    assert not told.theorem
    assert "b T = 72" in told.reason
    assert "d = 32" in told.reason


def test_a_model_of_twice_the_width_gives_the_same_text_away():
    held = text(9)
    assert isinstance(attacked(federation([held]), DAGER()), NotFound)
    told = attacked(federation([held], width=64), DAGER())
    assert as_set(told.sequences) == as_set(held.x)


def test_much_noise_leaves_nothing_to_find():
    made = federation([text(3)])
    work, view = made.scenario.workload, made.run().view("server", 0)
    rows = view.rows
    scale = float(rows.values.norm()) / rows.values.numel() ** 0.5
    noise = scale * torch.randn(rows.values.shape, generator=torch.Generator().manual_seed(1))
    noisy = replace(view, opened={"delta": Rows(rows.values + noise, rows.weights, rows.ids)})
    forward = replace(
        forward_of(work.model, work.loss, work.method, work.data, made.scenario.bound, None),
        local_noise=scale,
    )
    told = DAGER().run(noisy, Knowledge(forward=forward, auxiliary=text(40, seed=8)))
    assert isinstance(told, NotFound)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"lora": 2}, "adapters"),
        ({"causal": False}, "right of them"),
        ({"layers": 1}, "two attention layers"),
    ],
)
def test_models_that_hide_the_order_are_told_of(options, why):
    net = initialised(transformer, (LENGTH,), VOCABULARY, seed=1, width=WIDTH, heads=2, **options)
    told = attacked(federation([text(2)], model=net), DAGER())
    assert isinstance(told, NotFound)
    assert why in told.reason


def test_an_audit_of_text_shows_whole_sequences_on_its_card():
    made = federation([text(8, seed) for seed in range(4)])
    attacks = Attacks(text=(EmbeddingLeakage(), DAGER(), DAGER(target="sum")))
    report = audit(made, adversaries=["server"], attacks=attacks, lies=None)
    by_name = {one.attack: one for one in report.findings}
    found = by_name["DAGER (client)"]
    assert found.verdict == "leaks"
    assert found.rates["whole"].value == 1.0
    assert found.rates["whole, decoys"].value == 0.0
    assert found.baseline.value < 0.3
    (line,) = [one for one in card(report) if one.asset == "text"]
    assert line.verdict == "leaks"
    assert line.figures["right"].value == 1.0


def test_an_audit_under_masks_says_what_did_not_suffice():
    made = federation(
        [text(8, seed) for seed in range(8)],
        channel=SecAgg(fidelity="ideal", bits=24),
        bound=Clip(l2=1.0),
    )
    attacks = Attacks(text=(DAGER(), DAGER(target="sum")))
    report = audit(made, adversaries=["server"], attacks=attacks, lies=None)
    rows, summed = report.findings
    assert rows.verdict == "not applicable"
    assert summed.verdict == "not found"
    assert "b T = 48" in summed.reason
    assert "d = 32" in summed.reason


class OwnText(Inference):
    """Claims what it has itself, and looks at no view."""

    family = "inversion"

    def infer(self, views, knowledge):
        return Sequences("OwnText", views[0].adversary, knowledge.auxiliary.x[:16])


def verses(n, seed):
    """Text that repeats itself: each token follows from the one before."""
    rng = torch.Generator().manual_seed(seed)
    first = torch.randint(0, VOCABULARY, (n, 1), generator=rng)
    tokens = (first + torch.arange(LENGTH + 1)) % VOCABULARY
    return Dataset(tokens[:, :-1].clone(), tokens[:, 1:].clone(), VOCABULARY)


@pytest.mark.parametrize(("clients", "made"), [(1, verses), (2, verses), (6, verses), (6, text)])
def test_typical_text_is_no_find_however_much_more_it_has_right_than_the_commonest_token(
    clients, made
):
    fed = federation([made(8, seed) for seed in range(clients)])
    report = audit(
        fed, adversaries=["server"], attacks=Attacks(text=(OwnText(),)), lies=None, seed=1
    )
    (finding,) = report.findings
    blind = finding.value.value - finding.rates["gap to blind"].value
    assert finding.value.value > blind
    assert finding.baseline.value >= finding.control.value > blind
    assert finding.verdict == "not found", finding.value


def test_text_that_was_typed_is_found_though_a_client_types_alike():
    """Decoys are verses as well, and others."""
    fed = federation([verses(10, 5 * seed) for seed in range(4)], width=64)
    report = audit(fed, adversaries=["server"], attacks=Attacks(text=(DAGER(),)), lies=None, seed=1)
    (finding,) = report.findings
    assert finding.verdict == "leaks", finding.value
    assert finding.rates["whole"].value == 1.0
