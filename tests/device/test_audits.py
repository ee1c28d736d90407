"""An audit of a run on a device finds what that of the same run on the CPU finds, and trains its
shadows on the device.
"""

import pytest
import torch

from privfl import Federation
from privfl.aggregators import Mean
from privfl.attacks import (
    DAGER,
    LAMP,
    ClientGAN,
    GradientInversion,
    LabelCounts,
    LinearLeakage,
    LossThreshold,
    PropertyInference,
    ServerGAN,
    ShadowMembership,
    UpdateMembership,
)
from privfl.audit import Attacks, Settings, audit, audit_claims
from privfl.audit.shadows import Shadows
from privfl.core import Dataset, FlatModel, LocalPlan
from privfl.dp import Clip, Gaussian
from privfl.models import initialised, transformer
from privfl.training import FedSGD, LocalSGD, Stacked, Vmapped, Workload, cross_entropy, several
from tests.device.pretended import BACKEND
from tests.device.test_federations import DATA, PARTS, layers, plain, private


@pytest.mark.parametrize(("kind", "way"), [("mlp", Stacked), ("cnn", Vmapped)])
def test_shadows_train_on_a_device_and_come_back_as_those_of_the_cpu(kind, way, device):
    module = layers(kind)
    start, subsets = FlatModel(layers(kind)).read(), [torch.arange(7), torch.arange(5, 15)]
    workload = Workload(FlatModel(layers(kind), device), cross_entropy, plain(), DATA.to(device))
    assert isinstance(several(workload), way)
    there, here = (
        Shadows(module, plain(), device=on)(start, DATA, subsets, seed=3) for on in (device, "cpu")
    )
    assert there.device.type == "cpu"
    assert there.norm(dim=1).min() > 1e-3
    assert torch.allclose(there, here, atol=1e-5)


def images(on):
    rng = torch.Generator().manual_seed(1)
    data = Dataset(torch.randn(90, 1, 6, 6, generator=rng), torch.arange(90) % 3, 3)
    parts, test = [data.take(range(i, 60, 4)) for i in range(4)], data.take(range(60, 90))
    training = LocalSGD(plan=LocalPlan(batch_size=4), weighting="uniform")
    return Federation(
        layers("cnn"), parts, test, rounds=1, device=on, training=training, executor="sequential"
    )


def text(on):
    rng = torch.Generator().manual_seed(1)
    drawn = torch.randint(9, (90, 6), generator=rng)
    data = Dataset(drawn[:, :-1].clone(), drawn[:, 1:].clone(), 9)
    parts, test = [data.take(range(i, 60, 4)) for i in range(4)], data.take(range(60, 90))
    net = initialised(transformer, (5,), 9, seed=0, width=16, heads=2)
    return Federation(
        net, parts, test, rounds=1, device=on, training=FedSGD(), executor="sequential"
    )


OF_IMAGES = Attacks(
    probe=(LabelCounts(), LinearLeakage(), GradientInversion(iterations=4, tune=False)),
    properties=(PropertyInference(shadows=4),),
    stream=(
        LossThreshold(),
        UpdateMembership(statistic="cosine"),
        ShadowMembership("rmia", shadows=4, epochs=1),
    ),
    active=True,
    presence=(LossThreshold(), UpdateMembership(statistic="cosine")),
    representatives=(
        ClientGAN(wanted=1, labelled=0, active=False, steps=3),
        ServerGAN(wanted=1, target="sum", steps=3),
    ),
)
OF_TEXT = Attacks(
    stream=(LossThreshold(),),
    text=(DAGER(rehearsals=1), LAMP(iterations=2, turns=1, swaps=1, starts=1)),
)


# a search over words goes elsewhere where a loss is rounded otherwise
@pytest.mark.parametrize(
    ("made", "attacks", "near"), [(images, OF_IMAGES, 0.05), (text, OF_TEXT, 0.2)]
)
def test_an_audit_finds_on_a_device_what_it_finds_on_the_cpu(made, attacks, near, device):
    told = []
    for on in (device, "cpu"):
        BACKEND.waits.clear()
        report = audit(made(on), adversaries=["server", "client(1)"], attacks=attacks, seed=2)
        told.append({(one.adversary, one.attack, one.metric): one for one in report.findings})
        assert bool(BACKEND.waits["to the CPU"]) == (on == device)
    there, here = told
    assert there.keys() == here.keys()
    assert sum(one.value is not None for one in here.values()) >= 4
    for key, one in here.items():
        other = there[key]
        assert (one.undone, one.value is None) == (other.undone, other.value is None), key
        if one.value is not None:
            assert other.value.value == pytest.approx(one.value.value, abs=near), key


QUICK = Settings(canaries=8, pairs=2, climb=1, values=1_000, inclusions=200)


def of_clients():
    return {
        "training": plain(),
        "bound": Clip(l2=1.0),
        "mechanism": Gaussian(1.0),
        "aggregator": Mean(weighted=False),
    }


def of_samples():
    return {"training": private()}


@pytest.mark.parametrize("settings", [of_clients, of_samples])
def test_claims_of_privacy_are_audited_on_a_device(settings, device):
    there, here = (
        audit_claims(
            Federation(
                layers("cnn"), PARTS, DATA, rounds=2, device=on, executor="sequential", **settings()
            ),
            settings=QUICK,
        )
        for on in (device, "cpu")
    )
    assert [(one.unit, one.verdict) for one in there] == [(one.unit, one.verdict) for one in here]
    for one, other in zip(there, here, strict=True):
        assert [test.name for test in one.findings] == [test.name for test in other.findings]
        assert not one.alarms
