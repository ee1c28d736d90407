"""Defences without a guarantee: they stop who does not know of them, and the attacker who does gets
the sample back.
"""

import torch
from torch import nn

from privfl import Federation
from privfl.aggregators import Quantise
from privfl.attacks import Forward, GradientInversion, Knowledge
from privfl.audit.score import pictures
from privfl.config import AuditConfig
from privfl.core import Context, RoundPlan, Update
from privfl.data import load
from privfl.models import initialised
from privfl.training import FedSGD, Soteria, cross_entropy

LOW, HIGH = -0.3053 / 0.3761, (1 - 0.3053) / 0.3761


def build(shape, classes):
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(768, classes)
    )


def test_soteria_stops_an_attack_that_ignores_it_and_not_one_that_leaves_its_columns_out():
    digits = load("digits")
    client, net = digits.train.take([2]), initialised(build, (1, 8, 8), 10, seed=0)
    training = FedSGD(lr=0.1, gradient=Soteria(0.8))
    run = Federation(
        net,
        [client],
        client,
        rounds=1,
        training=training,
        executor="sequential",
        audit=AuditConfig(keep="all"),
    ).run()
    view = run.view("server", 0)
    weight = view.rows.values[0][12 * 9 + 12 : -10].view(10, 768)
    assert (weight == 0).all(dim=0).sum() >= round(0.8 * 768)
    knows = Knowledge(
        forward=Forward(
            net, cross_entropy, (1, 8, 8), 10, lr=0.1, low=(LOW,), high=(HIGH,), steps=1
        )
    )
    dB = {
        a: float(
            pictures(
                GradientInversion(iterations=300, adaptive=a).run(view, knows).samples,
                client.x,
                peak=HIGH - LOW,
            ).psnr
        )
        for a in (True, False)
    }
    assert dB[True] > dB[False] + 5


def test_quantised_updates_have_few_levels_and_no_bias():
    delta = torch.tensor([1.0, -0.3, 0.11, 0.0])
    seat, plan = Quantise(bits=3), RoundPlan(0, (0,), d=4, l2=1.0)
    sent = torch.stack(
        [
            seat.at_client(
                Update(0, delta), None, Context(plan, delta, torch.Generator().manual_seed(seed))
            )[0].delta
            for seed in range(3000)
        ]
    )
    assert len(sent.unique()) <= 7
    assert torch.allclose(sent.mean(dim=0), delta, atol=0.02)  # over five standard errors
