"""Selective encryption (FedML-HE: Jin, Yao, Han, Gu, Joe-Wong, Ravi, Avestimehr, He 2023) as a
labelled peer, and no channel of ours: only the most sensitive coordinates are encrypted, and the
others travel in clear. What it saves stands beside what an attack reads in the clear ones.

The mask is theirs (section 2.4): a coordinate's sensitivity is the mean over samples of |d/dy (dl /
dw)|, which for cross-entropy, linear in a label's probability, is the size of the sample's own
gradient; the top ``ratio`` of the coordinates is encrypted. Everybody knows the mask, the attack as
well.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks.harness import Row, cost, say
from benchmarks.he.whole_rounds import D, N, Rounds, nvflare_round
from benchmarks.privacy_attacks.runs import convnet, large, play, recipe
from privfl.attacks import GradientInversion, Knowledge
from privfl.attacks.inference import observe
from privfl.attacks.inversion.matching import problem
from privfl.audit.score import pictures
from privfl.core import Dataset, View
from privfl.crypto import OneTimeRLWE
from privfl.models import initialised, mlp
from privfl.training import FedSGD, cross_entropy

RATIOS = (0.1, 0.3, 0.5, 0.7)
SEEN = 20.0
"""PSNR in dB from which a sample counts as read."""
PUBLIC = 64
"""Samples of all clients, the victim's among them, that sensitivities are taken over."""
ONE = FedSGD(lr=0.1)


def sensitivity(net: nn.Module, data: Dataset) -> Tensor:
    """The sensitivity of every coordinate [d]."""
    leaves = [leaf for leaf in net.parameters() if leaf.requires_grad]
    total = torch.zeros(sum(leaf.numel() for leaf in leaves))
    for i in range(data.n):
        loss = cross_entropy(net, data.x[i : i + 1], data.y[i : i + 1]).sum()
        total += torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, leaves)]).abs()
    return total / data.n


def clear(order: Tensor, ratio: float) -> Tensor:
    """The places that stay clear, in order, where those first in ``order`` are encrypted."""
    return order[round(ratio * len(order)) :].sort().values


def matched(view: View, knows: Knowledge, places: Tensor) -> Tensor:
    """Samples by Inverting Gradients on the clear coordinates alone, knowing which these are and
    the labels.
    """
    forward = knows.forward
    if forward is None:
        raise RuntimeError("the attack needs the recipe")
    attack = GradientInversion(tv=0.003, iterations=700)
    observed = observe(view, knows, "client", None)
    posed = problem(observed, forward, knows, adaptive=True, scale_free=True)
    posed = replace(posed, goal=-observed.delta[places] / posed.simulator.lr, mask=places)
    return attack.descend(posed, knows.generator(1))[0]


def completed(view: View, inputs: int, hidden: int, places: Tensor) -> Tensor:
    """One sample in [0, 1] by completing the first layer's gradient, which is of rank one, from its
    clear entries: alternating least squares. The brightest pixel is taken for a one.
    """
    row = view.rows.values[0].double()
    known = torch.zeros(len(row), dtype=torch.double)
    known[places] = 1.0
    goal = (row * known)[: hidden * inputs].view(hidden, inputs)
    there = known[: hidden * inputs].view(hidden, inputs)
    goal = goal / goal.abs().max().clamp_min(1e-30)
    x = torch.ones(inputs, dtype=torch.double)
    for _ in range(300):
        slope = (goal @ x) / (there @ x.square()).clamp_min(1e-12)
        x = (goal.T @ slope) / (there.T @ slope.square()).clamp_min(1e-12)
        x = x / x.abs().max().clamp_min(1e-30)
    return (x * x[x.abs().argmax()].sign()).clamp(0, 1)


@dataclass
class Leak:
    """PSNR in dB of every attacked sample."""

    decibels: list[float]

    @property
    def read(self) -> float:
        """The share of samples that were read."""
        return sum(one >= SEEN for one in self.decibels) / len(self.decibels)

    @property
    def mean(self) -> float:
        return sum(self.decibels) / len(self.decibels)


def _orders(net: nn.Module, data: Dataset, seed: int) -> dict[str, Tensor]:
    found = sensitivity(net, data)
    shuffled = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
    return {"sensitivity": found.argsort(descending=True), "random": shuffled}


def leaks(ratio: float, samples: int) -> dict[tuple[str, str], Leak]:
    """What the clear coordinates of one client's gradient give away, by net and mask."""
    data, found = large(scaled=False), dict[tuple[str, str], Leak]()
    for seed in range(samples):
        pool = data.take(range(seed, seed + PUBLIC))
        client = data.take([seed])
        for name in ("ConvNet", "perceptron"):
            convolutions = name == "ConvNet"
            net = (
                convnet(seed)
                if convolutions
                else initialised(mlp, (1, 32, 32), 10, seed=seed, hidden=(64,))
            )
            knows = Knowledge(
                forward=recipe(net, (1, 32, 32), ONE, scaled=False), seed=seed, labels=client.y
            )
            orders = _orders(net, pool, seed)  # before training, which moves the net
            view = play(net, [client], ONE)[0]
            for mask, order in orders.items():
                places = clear(order, ratio)
                guess = (
                    matched(view, knows, places)
                    if convolutions
                    else completed(view, 1024, 64, places).float().view(1, 1, 32, 32)
                )
                leak = found.setdefault((name, mask), Leak([]))
                leak.decibels.append(float(pictures(guess, client.x).psnr.mean()))
    return found


def selective(quick: bool) -> Iterator[Row]:
    """Bytes and CPU time of a round of ten clients and 200,000 values with only some encrypted,
    under NVFlare's CKKS settings (no mail and no signatures), beside all of them under one-time
    pads; and what an attack reads in what stays clear.
    """
    whole = Rounds(OneTimeRLWE()).played(1 if quick else 3)
    up = whole.up / D
    say(f"one_time_rlwe, all of it: {up:.2f} B/value up, CPU s of a round {whole.total:.3f}")
    for ratio in RATIOS:
        some = nvflare_round(quick, round(ratio * D))
        began = time.process_time()
        rows = torch.randn(N, D - round(ratio * D))
        rows.sum(dim=0)
        some.server += time.process_time() - began
        sent = some.up / D + 4 * (1 - ratio)
        case = f"selective, {ratio:.0%} encrypted"
        yield cost(case, "one_time_rlwe, all", "bytes a value up", up, sent)
        yield cost(case, "one_time_rlwe, all", "CPU s of a round", whole.total, some.total)
        for (net, mask), leak in leaks(ratio, 2 if quick else 6).items():
            told = f"{net}, {mask} mask"
            yield Row(case, told, "PSNR of what is read, dB", leak.mean, SEEN, leak.mean / SEEN)
            yield Row(case, told, f"samples read at {SEEN:g} dB", leak.read, 0.0, leak.read)
