"""Data seats: clients learn on encodings, no encoding holds a plain image, and the attack that each
seat names opens it through the engine; and what is refused beside them.
"""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from privfl import Federation, catalog
from privfl.attacks import (
    ClientPresence,
    Knowledge,
    LinearLeakage,
    NotApplicable,
    NotFound,
    PropertyInference,
    Unmixing,
    Untransforming,
    UpdateMembership,
)
from privfl.audit import audit, record
from privfl.audit.gates import Limit, over
from privfl.config import AuditConfig
from privfl.core import ConfigError, Dataset, LocalPlan, cross_entropy
from privfl.crypto import SecAgg
from privfl.data import ATS, InstaHide, load
from privfl.data.seats.ats import LIBRARY
from privfl.data.seats.transforms import TRANSFORMS
from privfl.dp import Clip, DPGradient, Gaussian
from privfl.training import FedSGD, LocalSGD

LOW, WIDE = -0.2, 3.2
PLAYED = {"instahide": ("unmixing",), "ats": ("untransforming",)}
"""The seats and the attacks on them that tests of this file play through the engine."""


def digits():
    """Digits with a dark background a little under zero, as normalised pictures of ink have it."""
    data = load("digits").train
    low, high = data.span[0][0], data.span[1][0]
    x = (data.x - low) / (high - low) * WIDE + LOW
    return Dataset(x, data.y, 10, span=((LOW,), (LOW + WIDE,)))


def net(width=64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def federated(clients, seats, **parts):
    data = digits()
    given = {"rounds": 2, "training": FedSGD(lr=0.05), "executor": "sequential"} | parts
    audit = AuditConfig(keep="all")
    test = data.take(range(1100, 1442))
    return Federation(
        given.pop("model", net()), clients, test, data_seats=seats, audit=audit, **given
    )


def views(run):
    return [run.view("server", round=record.round) for record in run.history]


def psnr(images, true):
    """The best of the images for each true one, in dB of the range of features."""
    off = (images.flatten(1)[None] - true.flatten(1)[:, None]).square().mean(dim=2) / WIDE**2
    return (-10 * torch.log10(off + 1e-12)).max(dim=1).values


def knows(data):
    return Knowledge(auxiliary=data.take(range(600, 1100)))


def test_there_is_no_data_seat_without_an_attack_that_is_played_here():
    rows = {row["name"]: row for row in catalog.describe("data_seats")}
    assert {name: catalog.DATA_SEATS[name].broken_by for name in catalog.DATA_SEATS} == PLAYED
    for name, attacks in PLAYED.items():
        assert all(attack in catalog.INFERENCE for attack in attacks)
        assert rows[name]["guarantee"] == f"none: broken by {', '.join(attacks)}"
        assert rows[name]["paper"]


def test_a_seat_that_names_no_attack_is_refused():
    class Hopeful(ATS):
        broken_by = ()

    with pytest.raises(ConfigError, match="Hopeful names no attack that breaks it"):
        federated([digits().take(range(8))], [Hopeful()])


def test_encodings_mix_k_samples_and_hold_none_of_them():
    data = digits().take(range(40))
    made = InstaHide(k=3).encode(data, torch.Generator().manual_seed(0))
    shares, _ = torch.linalg.lstsq(
        data.x.flatten(1).double().T, made.x.abs().flatten(1).double().T
    )[:2]
    assert made.x.shape == data.x.shape
    assert torch.allclose(made.y.sum(dim=1), torch.ones(40))
    assert float(made.y.max()) <= 1.0
    assert bool((made.x < LOW - 0.1).any(dim=(1, 2, 3)).all())  # signs were flipped
    assert float(psnr(made.x, data.x).max()) < 20
    assert float(psnr(made.x.abs(), data.x).max()) < 25
    assert shares.shape == (40, 40)


def test_encodings_are_drawn_anew_in_each_round_and_the_same_where_it_is_played_again():
    data, seat = digits().take(range(12)), InstaHide()
    one, again, other = (
        seat.encode(data, torch.Generator().manual_seed(seed)).x for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_soft_labels_that_are_one_class_each_have_the_loss_of_labels():
    module, x, y = net(), torch.randn(5, 64), torch.tensor([0, 3, 9, 1, 1])
    hard = cross_entropy(module, x, y)
    soft = cross_entropy(module, x, nn.functional.one_hot(y, 10).float())
    assert torch.isclose(hard, soft)


@pytest.mark.parametrize("seat", [InstaHide(k=2), ATS("38-38")], ids=["instahide", "ats"])
def test_clients_learn_on_what_a_seat_makes_of_their_samples(seat):
    data = digits()
    clients = [data.take(range(i, 500, 2)) for i in range(2)]
    training = LocalSGD(lr=0.3, plan=LocalPlan(batch_size=20, epochs=6))
    run, stacked = (
        federated(clients, [seat], rounds=5, training=training, executor=executor).run()
        for executor in ("sequential", "stacked")
    )
    assert run.accuracy > 0.35
    assert stacked.accuracy > 0.35


ONE = LocalSGD(lr=0.05, plan=LocalPlan(batch_size=1, steps=1))


def unmixed(mine, seat, rounds, **parts):
    given = {"training": ONE, "model": net(32), "rounds": rounds} | parts
    run = federated([mine], [seat], **given).run()
    return Unmixing(most=8).run(views(run), knows(digits()))


def test_instahide_is_opened_through_the_engine():
    data = digits()
    mine = data.take(range(12))
    found = unmixed(mine, InstaHide(), 144)
    blind = psnr(knows(data).auxiliary.x.mean(dim=0, keepdim=True), mine.x)
    assert float(psnr(found.samples, mine.x).min()) > 60
    assert found.mismatch < 1e-5
    assert found.notes["rows that are shares"] == 1
    # the same claims are worth no more than a blind guess at samples that nobody mixed
    strangers = data.take(range(200, 212)).x
    assert float(psnr(found.samples, strangers).mean()) < float(blind.mean()) + 3


def noise(n):
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * WIDE + LOW
    return Dataset(x, torch.arange(n) % 10, 10, span=((LOW,), (LOW + WIDE,)))


def test_images_of_noise_are_opened_too_for_the_attack_needs_no_picture():
    mine = noise(8)
    found = unmixed(mine, InstaHide(k=2), 100)
    assert float(psnr(found.samples, mine.x).min()) > 60


@pytest.mark.parametrize(
    ("mine", "rounds", "words"),
    [
        (digits().take(range(4)), 30, "shares below zero or above one"),
        (digits().take([0] * 6), 24, "shares below zero|some are alike"),
        (replace(noise(6), x=torch.zeros(6, 1, 8, 8)), 24, "explain the encodings only"),
    ],
    ids=["all in each mix", "one image", "nothing"],
)
def test_factors_that_fit_and_are_no_shares_of_images_are_not_claimed(mine, rounds, words):
    told = unmixed(mine, InstaHide(), rounds)
    assert isinstance(told, NotFound)
    assert re.search(words, str(told))


@pytest.mark.parametrize("seats", [[], [ATS("3-1-7")], [ATS("3-1-7"), InstaHide()]])
def test_the_attack_on_instahide_claims_nothing_of_a_run_that_mixes_otherwise(seats):
    run = federated([digits().take(range(8))], seats, rounds=2, training=ONE).run()
    assert "takes one data seat that mixes" in str(Unmixing().run(views(run), knows(digits())))


@pytest.mark.parametrize("seat", [InstaHide(), ATS("3-1-7")], ids=["instahide", "ats"])
def test_a_sum_over_clients_tells_neither_attack_a_sample(seat):
    data = digits()
    clients = [data.take(range(i, i + 4)) for i in (0, 4)]
    run = federated(clients, [seat], channel=SecAgg(), bound=Clip(l2=1.0)).run()
    attack = Unmixing() if isinstance(seat, InstaHide) else Untransforming()
    told = attack.run(views(run), knows(data))
    assert isinstance(told, NotApplicable)
    assert "reads only their sum" in str(told)


def test_one_round_of_encodings_is_too_little_and_the_attack_says_so():
    data = digits()
    run = federated([data.take(range(8))], [InstaHide()], rounds=1, model=net(128)).run()
    told = Unmixing().run(views(run), knows(data))
    assert isinstance(told, NotFound)
    assert "8 images take 24 at least" in str(told)


def test_ats_is_opened_through_the_engine():
    data = digits()
    mine = data.take([0])
    run = federated([mine], [ATS("3-1-7")], rounds=4, model=net(32)).run()
    seen = views(run)
    shown = LinearLeakage(starts=16, tries=4).run(seen[0], knows(data))
    found = Untransforming(steps=30).run(seen, knows(data))
    assert float(psnr(shown.samples, mine.x).mean()) < 15  # what only inverts gradients sees
    assert float(psnr(found.samples, mine.x).mean()) > 20
    assert float(psnr(found.samples, data.take([300]).x).mean()) < 18


def test_images_that_the_policy_does_not_take_to_what_was_seen_are_not_claimed():
    run = federated([noise(1)], [ATS("3-1-7")], rounds=4, model=net(32)).run()
    told = Untransforming(steps=30).run(views(run), knows(digits()))
    assert isinstance(told, NotFound)
    assert "no images were found that the policy takes" in str(told)


def test_a_sample_more_or_another_one_changes_no_other_samples_transformation():
    data, seat = digits(), ATS()

    def made(at):
        return seat.encode(data.take(at), torch.Generator().manual_seed(3)).x

    whole = made(range(20))
    assert torch.equal(made(range(19)), whole[:19])
    assert torch.equal(made(range(1, 20)), whole[1:])
    assert torch.equal(made([500, *range(1, 20)])[1:], whole[1:])
    assert torch.equal(made(range(19, -1, -1)).flip(0), whole)
    kinds = seat.maps((1, 8, 8), torch.full((1, 8, 8), LOW), torch.full((1, 8, 8), LOW + WIDE))
    one = data.take([7])
    rounds = [seat.encode(one, torch.Generator().manual_seed(s)).x for s in range(60)]
    drawn = {
        min(range(len(kinds)), key=lambda k: float((kinds[k](one.x) - x).norm())) for x in rounds
    }
    assert len(drawn) >= len(kinds) // 2  # and each round draws anew


@pytest.mark.parametrize("seat", [InstaHide(), ATS()], ids=["instahide", "ats"])
def test_a_run_that_was_stopped_goes_on_with_the_same_encodings_and_no_other_seat(seat, tmp_path):
    def stop(record, rounds):
        if record.round == 1:
            raise KeyboardInterrupt

    def made(seats):
        return federated([digits().take(range(8))], seats, rounds=3, model=net(8))

    whole = made([seat]).run()
    with pytest.raises(KeyboardInterrupt):
        made([seat]).run(tmp_path / "run", progress=stop)
    with pytest.raises(ConfigError, match="data_seats"):
        made([InstaHide(k=3)]).run(tmp_path / "run", resume=True)
    with pytest.raises(ConfigError, match="data_seats"):
        made([]).run(tmp_path / "run", resume=True)
    assert torch.equal(made([seat]).run(tmp_path / "run", resume=True).parameters, whole.parameters)


@pytest.mark.parametrize("seat", [InstaHide(), ATS("3-1-7")], ids=["instahide", "ats"])
def test_an_audit_takes_what_it_did_not_find_behind_a_seat_for_no_answer(seat):
    clients = [digits().take(range(i, 80, 2)) for i in range(2)]
    report = audit(
        federated(clients, [seat], model=net(8)),
        adversaries=["server"],
        stream=[UpdateMembership()],
        probe=[LinearLeakage(starts=4, tries=2)],
        properties=[PropertyInference()] if isinstance(seat, ATS) else [],
        presence=[ClientPresence()] if isinstance(seat, ATS) else [],
        lies=None,
    )
    unfound = [one for one in report.findings if one.verdict == "not found"]
    name = type(seat).__name__
    assert {one.family for one in report.findings} >= {"inversion", "membership"}
    assert unfound
    assert all(f"{name}, which guarantees nothing" in one.undone for one in unfound)
    assert report.layers["as configured"]["data seats"].startswith(f"{name}, no guarantee")
    gate = over(record(report), Limit("membership", "auc", 0.999))
    assert gate.light != "green"


def test_the_attack_on_ats_knows_nothing_of_a_run_without_it():
    data = digits()
    run = federated([data.take(range(2))], [], rounds=1).run()
    assert "the recipe names 0" in str(Untransforming().run(views(run), knows(data)))


def test_all_fifty_transformations_are_of_one_image_each_and_stay_in_range():
    x = digits().take(range(3))
    for at in range(len(LIBRARY)):
        seat = ATS(str(at))
        low, high = torch.full((1, 8, 8), LOW), torch.full((1, 8, 8), LOW + WIDE)
        for way in seat.maps((1, 8, 8), low, high):
            together, alone = way(x.x), torch.cat([way(x.x[i : i + 1]) for i in range(3)])
            assert torch.allclose(together, alone, atol=1e-5), LIBRARY[at]
            assert float(together.min()) >= LOW - 1e-5
            assert float(together.max()) <= LOW + WIDE + 1e-5
    assert len(LIBRARY) == 50
    assert {name for name, _ in LIBRARY} <= set(TRANSFORMS)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: InstaHide(k=1), "k"),
        (lambda: InstaHide(k=2, largest=0.5), "leaves hardly any shares"),
        (lambda: ATS("3-50"), "names transformation 50"),
        (lambda: ATS("a-b"), "joined by"),
        (lambda: ATS(""), "joined by"),
    ],
)
def test_settings_that_cannot_be_are_refused(made, words):
    with pytest.raises(ConfigError, match=words):
        made()


def test_private_training_on_mixed_samples_is_refused_and_on_single_ones_is_not():
    clients = [digits().take(range(20))]
    private = LocalSGD(gradient=DPGradient(l2=1.0, noise_multiplier=1.0, batch_size=5))
    with pytest.raises(ConfigError, match="one sample moves the gradients of several"):
        federated(clients, [InstaHide()], training=private)
    assert federated(clients, [ATS()], training=private).scenario.data_seats == [ATS()]


def test_noise_for_clients_is_charged_alike_with_mixed_samples():
    clients = [digits().take(range(i, 80, 4)) for i in range(4)]
    parts = {
        "bound": Clip(l2=1.0),
        "mechanism": Gaussian(noise_multiplier=1.0),
        "training": LocalSGD(weighting="uniform"),
        "aggregator": catalog.AGGREGATORS["mean"](weighted=False, denominator=4.0),
    }
    with_seat, without = (federated(clients, s, **parts).run() for s in ([InstaHide()], []))
    assert with_seat.history[-1].epsilon == without.history[-1].epsilon
    assert with_seat.history[-1].epsilon


def test_a_client_with_fewer_samples_than_are_mixed_is_refused_by_name():
    data = digits()
    with pytest.raises(ConfigError, match="client 1: instahide mixes k=4"):
        federated([data.take(range(9)), data.take(range(3))], [InstaHide()])
    with pytest.raises(ConfigError, match=r"client 0: instahide mixes features and labels"):
        federated([data.take(range(9))], [InstaHide(), InstaHide()])
    with pytest.raises(ConfigError, match="without a range"):
        federated([replace(data.take(range(9)), span=None)], [ATS()])


def test_a_config_names_seats_and_the_run_says_that_they_promise_nothing():
    config = {
        "data": {"name": "digits", "clients": 4},
        "rounds": 2,
        "data_seats": [{"name": "ats", "policies": "3-1-7"}, {"name": "instahide", "k": 3}],
    }
    federation = Federation.from_config(config)
    assert federation.scenario.facts["data seats"] == (
        "ATS, no guarantee: broken by untransforming; InstaHide, no guarantee: broken by unmixing"
    )
    whole = federation.run()
    with pytest.raises(ConfigError, match="k"):
        Federation.from_config(config, ["data_seats=[{name: instahide, kk: 3}]"])
    assert whole.accuracy is not None
