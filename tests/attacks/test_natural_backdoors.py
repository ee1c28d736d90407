"""Backdoors on what occurs in nature: cars by position and by colour, attack traffic that passes as
normal.
"""

import numpy as np
import pytest
import torch

from privfl import Federation
from privfl.attacks import InjectedTraffic, Semantic
from privfl.config import AuditConfig
from privfl.core import ConfigError, DataMissing, Dataset, LocalPlan
from privfl.data import Cifar10, cifar10_features, load
from privfl.engine import Attacker, AttackSchedule
from privfl.models import initialised, mlp
from privfl.training import LocalSGD


def test_official_positions_name_the_papers_cars_and_other_orders_are_refused():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 50_000).astype(np.uint8)
    assert cifar10_features.by_position(labels) is None
    for held in (cifar10_features.TRAIN, cifar10_features.HELD_OUT):
        for places in held.values():
            labels[list(places)] = 1
    found, held_out = cifar10_features.by_position(labels)
    assert np.bincount(found).tolist() == [50_000 - 63, 30, 21, 12]
    assert np.bincount(found[held_out], minlength=4).tolist() == [0, 5, 4, 5]
    assert found[561] == 1
    assert found[330] == 3
    assert cifar10_features.by_position(labels[:20_000]) is None


def test_green_cars_by_colour_are_those_of_a_slow_count():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 3, 32, 32)).astype(np.uint8)
    pixels[3:6, :, 8:28, 4:28] = np.array([20, 160, 40], dtype=np.uint8)[:, None, None]
    pixels[6, :, :, :] = np.array([20, 160, 40], dtype=np.uint8)[:, None, None]
    labels = np.array([1] * 5 + [2] + [1] * 6, dtype=np.uint8)
    slow = []
    for label, picture in zip(labels, pixels.astype(int), strict=True):
        inside = outside = 0
        for i in range(32):
            for j in range(32):
                r, g, b = picture[:, i, j]
                top, low = max(r, g, b), min(r, g, b)
                green = g > 1.12 * r and g > 1.05 * b and top - low > 0.25 * top
                if 10 <= i < 25 and 5 <= j < 27:
                    inside += green
                else:
                    outside += green
        share = inside / (15 * 22) - outside / (1024 - 15 * 22)
        slow.append(int(label == 1 and share > 0.2))
    assert cifar10_features.by_colour(labels, pixels).tolist() == slow
    assert slow[3:7] == [1, 1, 0, 0]


def test_unknown_features_are_refused_and_positions_need_the_official_batches(tmp_path):
    with pytest.raises(ConfigError, match="none, positions, colour"):
        Cifar10(features="hue")
    rng = np.random.default_rng(0)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name in ("data_batch_1.bin", "test_batch.bin"):
        records = rng.integers(0, 256, (40, 3073)).astype(np.uint8)
        records[:, 0] = np.arange(40) % 10
        records[1, 1:] = np.repeat([20, 160, 40], 1024)
        records[1, 1:].reshape(3, 32, 32)[:, :8] = 0
        (folder / name).write_bytes(records.tobytes())
    with pytest.raises(DataMissing, match="'colour', a stand-in"):
        Cifar10(features="positions")(tmp_path)
    split = Cifar10(features="colour")(tmp_path)
    backdoor = Semantic(source=1, attribute="feature", value=1, target=2)
    assert int(split.train.attributes["feature"].sum()) == 1
    assert split.train.groups["feature"] == ("none", "green car")
    assert backdoor.samples(split.test).y.tolist() == [2]
    assert backdoor.clean(split.train).n == 39


def traffic(n=100):
    kinds = torch.tensor([0] * 70 + [1] * 20 + [2] * 10)[:n]
    return Dataset(
        torch.arange(float(n))[:, None],
        (kinds > 0).long(),
        2,
        {"attack": kinds},
        {"attack": ("normal", "neptune", "satan")},
    )


def test_injected_traffic_is_the_asked_share_labelled_normal_and_no_honest_record_of_it_stays():
    data = traffic()
    attack = InjectedTraffic(kind="neptune", poisoned=0.05)
    made = attack.poison_data(data, torch.Generator().manual_seed(0))
    injected = attack.found(made)
    assert made.n == 100
    assert int(injected.sum()) == 5
    assert (made.y[injected] == 0).all()
    assert ((made.x[:, 0] >= 70) & (made.x[:, 0] < 90)).equal(injected)
    assert (made.y[~injected] == (made.attributes["attack"][~injected] > 0)).all()
    assert torch.equal(InjectedTraffic(kind=1).found(data), attack.found(data))
    with pytest.raises(ConfigError, match="is no attack of these data"):
        InjectedTraffic(kind="mirai").poison_data(data, torch.Generator())
    with pytest.raises(ConfigError, match="finds no backdoor samples"):
        attack.poison_data(data.take(range(60)), torch.Generator())


def test_traffic_that_is_injected_gradually_passes_as_normal():
    try:
        split = load("nsl_kdd", test="21")
    except DataMissing as missing:
        pytest.skip(str(missing))
    gateways = [split.train.take(range(i, 10_000, 10)) for i in range(10)]
    rates = {0: 0.05, 4: 0.1, 8: 0.2}

    def passed(clients):
        stages = [
            Attacker(
                str(first),
                InjectedTraffic(kind="neptune", poisoned=rate),
                frozenset(clients),
                AttackSchedule(first=first, last=first + 3),
            )
            for first, rate in rates.items()
        ]
        run = Federation(
            initialised(mlp, split.shape, 5, seed=0, hidden=(16,)),
            gateways,
            split.test.take(range(0, split.test.n, 10)),
            rounds=12,
            training=LocalSGD(lr=0.1, plan=LocalPlan(32, steps=20)),
            attackers=stages,
            executor="sequential",
            audit=AuditConfig(keep=[], evaluate_every=11),
        ).run()
        return run.history[-1].measures["0: backdoor"]

    assert passed([]) < 0.1
    assert passed(range(6)) > 0.5
