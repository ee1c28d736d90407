"""Priors that the attacker tunes on its own samples, beside fixed ones and the best by hand."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch.nn import functional

from benchmarks.harness import Row, gain
from benchmarks.privacy_attacks.runs import convnet, mean, play
from privfl.attacks import Forward, GradientInversion, Knowledge, Reconstruction
from privfl.attacks.inversion.matching import TVS
from privfl.audit.effort import attacks_of
from privfl.audit.score import pictures
from privfl.core import Dataset, View
from privfl.data import load
from privfl.training import FedSGD, cross_entropy


def tuned(quick: bool) -> Iterable[Row]:
    """PSNR at one sample and 200 iterations on a ReLU ConvNet, tuned on auxiliary samples and at
    the fixed weight of the total variation.
    """
    for name, more in (("mnist", 4.0), ("cifar10", -1.0)):
        split = load(name)
        middle, spread = torch.tensor(split.mean), torch.tensor(split.std)
        low, high = (tuple(((edge - middle) / spread).tolist()) for edge in (0.0, 1.0))
        x = split.train.x[:2000]
        x = functional.interpolate(x, size=(32, 32), mode="bilinear")
        data = Dataset(x, split.train.y[:2000], 10)
        quality: dict[bool, list[float]] = {True: [], False: []}
        scale, shift = spread.view(1, -1, 1, 1), middle.view(1, -1, 1, 1)
        for seed in range(2 if quick else 6):
            net, client = convnet(seed, channels=x.shape[1]), data.take([7 * seed + 3])
            view = play(net, [client], FedSGD(lr=0.1))[0]
            forward = Forward(
                net, cross_entropy, tuple(x.shape[1:]), 10, lr=0.1, low=low, high=high, steps=1
            )
            knows = Knowledge(forward=forward, auxiliary=data.take(range(1000, 2000)), seed=seed)
            for tune, told_of in quality.items():
                told = GradientInversion(iterations=200, tune=tune).run(view, knows)
                if not isinstance(told, Reconstruction):
                    raise TypeError(str(told))
                found, true = told.samples * scale + shift, client.x * scale + shift
                told_of.append(float(pictures(found, true).psnr.mean()))
        ours, theirs = mean(quality[True]), mean(quality[False])
        case = f"tuned prior, {name} at 32x32"
        yield gain(case, f"tv .01 and {more:.0f} dB", "PSNR, dB", ours, theirs + more, 1.0)


BY_HAND = tuple(
    GradientInversion(iterations=200, tv=tv, own=own, lr=lr)
    for lr in (0.03, 0.1)
    for tv, own in (*((tv, 0.0) for tv in TVS), (0.0, 0.01), (0.0, 0.1), (0.0, 0.3), (0.0, 1.0))
)
"""Priors and steps that somebody who knows the photographs would try."""


def unseen(quick: bool) -> Iterable[Row]:
    """PSNR of the default audit's gradient inversion, tuned on other photographs, on photographs of
    the test set, beside the one setting by hand that has the best mean on these very photographs.
    """
    split = load("cifar10")
    middle, spread = (torch.tensor(part).view(1, 3, 1, 1) for part in (split.mean, split.std))
    ends = torch.tensor(split.mean), torch.tensor(split.std)
    low, high = (tuple(((edge - ends[0]) / ends[1]).tolist()) for edge in (0.0, 1.0))
    own = split.train.take(range(10_000, 11_000))
    asked = next(one for one in attacks_of("default").probe if isinstance(one, GradientInversion))
    by_audit: list[float] = []
    by_hand: dict[GradientInversion, list[float]] = {attack: [] for attack in BY_HAND}
    for seed in range(4 if quick else 12):
        net, client = convnet(seed, channels=3), split.test.take([50 + 7 * seed])
        view = play(net, [client], FedSGD(lr=0.1))[0]
        forward = Forward(net, cross_entropy, (3, 32, 32), 10, lr=0.1, low=low, high=high, steps=1)
        knows = Knowledge(forward=forward, auxiliary=own, seed=seed)

        def reached(
            attack: GradientInversion,
            view: View = view,
            knows: Knowledge = knows,
            client: Dataset = client,
        ) -> float:
            told = attack.run(view, knows)
            found, true = told.samples * spread + middle, client.x * spread + middle
            return float(pictures(found, true).psnr.mean())

        chosen = asked.prepared((view,), knows)
        by_audit.append(reached(chosen))
        for attack, told in by_hand.items():
            told.append(reached(replace(attack, iterations=asked.iterations)))
        print(seed, chosen, by_audit[-1], file=sys.stderr)
    best = max(by_hand, key=lambda attack: mean(by_hand[attack]))
    print("by hand:", best, file=sys.stderr)
    case = f"photographs of the test set, default audit, {len(by_audit)} of them"
    wanted = mean(by_hand[best])
    yield gain(case, "the best by hand", "PSNR, dB", mean(by_audit), wanted)
    yield gain(case, "the best by hand, less .5 dB", "PSNR, dB", mean(by_audit), wanted - 0.5, 1.0)
