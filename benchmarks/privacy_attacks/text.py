"""Text out of updates of a small transformer on Shakespeare's characters."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from benchmarks.harness import Row, cost, gain
from benchmarks.privacy_attacks.runs import mean, play
from privfl.attacks import DAGER, LAMP, Forward, Inference, Knowledge, Result, Sequences
from privfl.attacks.inversion.ngrams import ngrams
from privfl.core import Dataset, LocalPlan, Rows, View, cross_entropy
from privfl.data import Split, load
from privfl.models import initialised, transformer
from privfl.training import FedSGD, LocalSGD

RATE, STEPS = 0.1, 60
ONE = FedSGD(lr=RATE)
TWO = LocalSGD(lr=RATE, plan=LocalPlan(batch_size=1 << 20, steps=2))


def trained(split: Split, width: int, seed: int, steps: int) -> nn.Module:
    """The transformer after so many steps of Adam on batches of 16 windows."""
    net = initialised(transformer, split.shape, split.classes, seed=seed, width=width)
    adam, rng = torch.optim.Adam(net.parameters(), 1e-3), torch.Generator().manual_seed(seed)
    for _ in range(steps):
        some = split.train.take(torch.randint(0, split.train.n, (16,), generator=rng))
        adam.zero_grad()
        torch.autograd.backward(cross_entropy(net, some.x, some.y))
        adam.step()
    return net


def seen(
    net: nn.Module, client: Dataset, training: LocalSGD, noise: float, seed: int
) -> tuple[View, Forward]:
    """The server's view of one client's update, with noise of so many times the deviation of its
    entries added by the client; and the recipe.
    """
    view, plan = play(net, [client], training)[0], training.plan
    forward = Forward(
        net,
        cross_entropy,
        tuple(client.x.shape[1:]),
        client.classes,
        lr=RATE,
        batch_size=plan.batch_size,
        epochs=plan.epochs,
        steps=plan.steps,
    )
    if not noise:
        return view, forward
    rows = view.rows
    deviation = noise * float(rows.values.norm()) / rows.values.numel() ** 0.5
    rng = torch.Generator().manual_seed(seed)
    values = rows.values + deviation * torch.randn(rows.values.shape, generator=rng)
    opened = {"delta": Rows(values, rows.weights, rows.ids)}
    return replace(view, opened=opened), replace(forward, local_noise=deviation)


def right(told: Result, true: Tensor, common: int) -> tuple[float, float]:
    """The shares of sequences that are whole and of tokens that are right, with the commonest token
    where a claim says nothing.
    """
    found = true[:0]
    if isinstance(told, Sequences):
        found = torch.where(told.sequences < 0, common, told.sequences)
    more = torch.full((max(len(true) - len(found), 0), true.shape[1]), common)
    same = (true[:, None] == torch.cat([found, more])[None]).double().mean(dim=2)
    picked = same[linear_sum_assignment(-same.numpy())]
    return float((picked == 1).double().mean()), float(picked.mean())


def attacked(
    split: Split,
    attack: Inference,
    width: int,
    b: int,
    seeds: int,
    *,
    steps: int = 0,
    noise: float = 0.0,
    training: LocalSGD = ONE,
) -> tuple[list[float], list[float], list[float], list[float]]:
    """By seed: sequences whole, tokens right, tokens right of somebody blind, and CPU seconds."""
    common = int(torch.bincount(split.test.x.flatten()).argmax())
    whole, tokens, blind, seconds = [], [], [], []
    for seed in range(seeds):
        rng = torch.Generator().manual_seed(100 + seed)
        client = split.train.take(torch.randint(0, split.train.n, (b,), generator=rng))
        net = trained(split, width, seed, steps)
        view, forward = seen(net, client, training, noise, seed)
        knows = Knowledge(forward=forward, auxiliary=split.test, seed=seed)
        began = time.process_time()
        told = attack.run(view, knows)
        seconds.append(time.process_time() - began)
        both = right(told, client.x, common)
        whole.append(both[0])
        tokens.append(both[1])
        blind.append(float((client.x == common).double().mean()))
    return whole, tokens, blind, seconds


Setting = tuple[str, int, int, float, LocalSGD]


def dager(quick: bool) -> Iterable[Row]:
    """Exact recovery: within the limit b T < d, past it, and what noise, training and local steps
    leave of it.
    """
    seeds = 2 if quick else 5
    for width, b, length, steps in (
        (128, 3, 32, 0),
        (128, 3, 32, STEPS),
        (128, 7, 16, 0),
        (256, 4, 32, 0),
    ):
        split = load("shakespeare", length=length)
        whole, _, _, seconds = attacked(split, DAGER(), width, b, seeds, steps=steps)
        after = f", after {steps} steps of Adam" if steps else ""
        case = f"DAGER, {b} x {length} tokens, d = {width}{after}"
        yield gain(case, "must reach", "share whole", mean(whole), 1.0, 1.0)
        yield cost(case, "must reach", "CPU s", max(seconds), 5.0, 1.0)
    split = load("shakespeare", length=32)
    settings: Sequence[Setting] = (
        ("b T = d", 128, 4, 0, 0.0, ONE),
        ("b T = 160 > d", 128, 5, 0, 0.0, ONE),
        *((f"noise of {noise:g}", 128, 3, 0, noise, ONE) for noise in (1e-4, 1e-3, 1e-2)),
        ("noise of 0.001, one sequence", 128, 1, 0, 1e-3, ONE),
        ("two local steps", 128, 3, 0, 0.0, TWO),
        ("two local steps, after Adam", 128, 3, STEPS, 0.0, TWO),
        ("noise of 0.001, after Adam", 128, 3, STEPS, 1e-3, ONE),
    )
    for name, width, b, steps, noise, training in settings:
        whole, tokens, blind, _ = attacked(
            split, DAGER(), width, b, seeds, steps=steps, noise=noise, training=training
        )
        case = f"DAGER, {b} x 32 tokens, d = {width}, {name}"
        yield gain(case, "blind", "tokens right", mean(tokens), mean(blind))
        yield gain(case, "all", "share whole", mean(whole), 1.0)


def lamp(quick: bool) -> Iterable[Row]:
    """The inexact attack where DAGER works and where it ends, beside DAGER, and beside two who are
    blind: the commonest token everywhere, and as many sequences drawn from the same n-grams.
    """
    seeds = 1 if quick else 3
    split = load("shakespeare", length=32)
    drawn = _drawn(split, 20)
    settings: Sequence[Setting] = (
        ("one step", 128, 1, 0, 0.0, ONE),
        ("one step", 128, 3, 0, 0.0, ONE),
        ("b T = d", 128, 4, 0, 0.0, ONE),
        ("b T = 160 > d", 128, 5, 0, 0.0, ONE),
        ("noise of 0.001", 128, 3, 0, 1e-3, ONE),
        ("noise of 0.001, after Adam", 128, 3, STEPS, 1e-3, ONE),
        ("two local steps, after Adam", 128, 3, STEPS, 0.0, TWO),
    )
    for name, width, b, steps, noise, training in settings:
        told = {
            which: attacked(
                split, attack, width, b, seeds, steps=steps, noise=noise, training=training
            )
            for which, attack in (("LAMP", LAMP()), ("DAGER", DAGER()))
        }
        case = f"LAMP, {b} x 32 tokens, d = {width}, {name}"
        found = mean(told["LAMP"][1])
        yield gain(case, "DAGER", "tokens right", found, mean(told["DAGER"][1]))
        yield gain(case, "the commonest token", "tokens right", found, mean(told["LAMP"][2]))
        yield gain(case, "n-grams alone", "tokens right", found, drawn[b])
        yield cost(case, "shown", "CPU s", mean(told["LAMP"][3]), 60.0)


def _drawn(split: Split, tries: int) -> dict[int, float]:
    """By batch size, what sequences drawn from n-grams of other text have right, matched alike."""
    model, vocabulary = ngrams(split.test.x, split.classes), torch.arange(split.classes)
    rng = torch.Generator().manual_seed(7)
    told: dict[int, float] = {}
    for b in (1, 3, 4, 5):
        shares = []
        for _ in range(tries):
            true = split.train.x[torch.randint(0, split.train.n, (b,), generator=rng)]
            found = model.drawn(b, true.shape[1], vocabulary, rng)
            shares.append(right(Sequences("n-grams", "nobody", found), true, 0)[1])
        told[b] = mean(shares)
    return told
