"""Priors that the attacker tunes on its own samples, beside the fixed ones."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn import functional

from benchmarks.harness import Row, gain
from benchmarks.privacy_attacks.runs import convnet, mean, play
from privfl.attacks import Forward, GradientInversion, Knowledge, Reconstruction
from privfl.audit.score import pictures
from privfl.core import Dataset
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
