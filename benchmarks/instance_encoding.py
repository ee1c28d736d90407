"""What data seats cost and what they hide: accuracy on MNIST with and without each, at its default
settings, and how close the attack that knows it comes to a client's images through the engine
(PSNR in dB of the range of features; the mean image beside it).

Accuracy: 4 clients of 500 images, a perceptron, 5 local epochs. Attack: one client whose server
reads its updates; one image a step for InstaHide (16 images, 200 rounds), all of 4 images in each
step for ATS (8 rounds).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from benchmarks.harness import Case, Row, gain, main, say
from privfl import Federation
from privfl.attacks import Inference, Knowledge, Reconstruction, Unmixing, Untransforming
from privfl.config import AuditConfig
from privfl.core import ClientDataSeat, Dataset, LocalPlan
from privfl.data import ATS, InstaHide, load
from privfl.training import FedSGD, LocalSGD, Method


def _net(width: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))


def _accuracy(seats: Sequence[ClientDataSeat], rounds: int) -> float:
    data = load("mnist")
    clients = [data.train.take(range(i, 2000, 4)) for i in range(4)]
    training = LocalSGD(lr=0.1, plan=LocalPlan(batch_size=25, epochs=5))
    test = data.test.take(range(2000))
    run = Federation(
        _net(128), clients, test, rounds=rounds, training=training, data_seats=seats
    ).run()
    return float(run.accuracy or 0.0)


def _psnr(images: Tensor, true: Dataset) -> Tensor:
    (low,), (high,) = true.span or ((0.0,), (1.0,))
    gap = images.flatten(1)[None] - true.x.flatten(1)[:, None]
    off = (gap / (high - low)).square().mean(dim=2)
    return (-10 * torch.log10(off + 1e-12)).amax(dim=1)


def _opened(
    seat: ClientDataSeat,
    attack: Inference,
    n: int,
    rounds: int,
    width: int,
    training: Method,
    seed: int,
) -> tuple[float, float, float, float]:
    data = load("mnist").train
    drawn = torch.randperm(data.n, generator=torch.Generator().manual_seed(seed))
    mine, aux = data.take(drawn[:n]), data.take(drawn[-500:])
    run = Federation(
        _net(width),
        [mine],
        aux,
        rounds=rounds,
        training=training,
        data_seats=[seat],
        audit=AuditConfig(keep="all"),
        seed=seed,
    ).run()
    views = [run.view("server", round=at) for at in range(rounds)]
    found = attack.run(views, Knowledge(auxiliary=aux, seed=seed))
    blind = float(_psnr(aux.x.mean(dim=0, keepdim=True), mine).mean())
    if not isinstance(found, Reconstruction):
        say(str(found))
        return blind, blind, 0.0, blind
    psnr = _psnr(found.samples, mine)
    over = float((psnr > 20).float().mean())
    return float(psnr.mean()), float(psnr.min()), over, blind


def _rows(
    name: str, seat: ClientDataSeat, told: Sequence[tuple[float, float, float, float]], quick: bool
) -> Iterator[Row]:
    means, worst, over, blinds = zip(*told, strict=True)
    mean, blind = sum(means) / len(means), sum(blinds) / len(blinds)
    say(
        f"{name}: {min(means):.1f}, {mean:.1f}, {max(means):.1f} dB (least, mean, most of"
        f" {len(told)} seeds; worst image {min(worst):.1f}, at least {min(over):.0%} over 20), mean"
        f" image {blind:.1f} dB"
    )
    yield gain(f"mnist, {name}, opened", "mean image", "dB", mean, blind)
    rounds = 3 if quick else 30
    with_seat, without = _accuracy([seat], rounds), _accuracy([], rounds)
    say(f"{name}: accuracy {with_seat:.3f}, without {without:.3f}, after {rounds} rounds")
    yield gain(f"mnist, {name}, {rounds} rounds", "no seat", "accuracy", with_seat, without)


def instahide(quick: bool) -> Iterator[Row]:
    """InstaHide, k = 4, and the attack that unmixes it."""
    training = LocalSGD(lr=0.05, plan=LocalPlan(batch_size=1, steps=1))
    told = [
        _opened(InstaHide(), Unmixing(), 16, 200, 64, training, seed)
        for seed in range(1 if quick else 5)
    ]
    yield from _rows("instahide", InstaHide(), told, quick)


def ats(quick: bool) -> Iterator[Row]:
    """ATS, the hybrid policy, and the attack that knows it."""
    told = [
        _opened(ATS(), Untransforming(), 4, 8, 256, FedSGD(lr=0.05), seed)
        for seed in range(1 if quick else 4)
    ]
    yield from _rows("ats", ATS(), told, quick)


CASES: dict[str, Case] = {"instahide": instahide, "ats": ats}

if __name__ == "__main__":
    main("instance_encoding", CASES)
