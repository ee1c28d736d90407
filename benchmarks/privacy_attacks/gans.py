"""What MNIST's classes look like, out of the shared model and out of one client's updates."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.harness import Row, gain, say
from benchmarks.privacy_attacks.runs import mean
from privfl import Federation
from privfl.aggregators import Mean
from privfl.attacks import ClientGAN, Knowledge, Representatives, Result, ServerGAN
from privfl.audit.games import isolated
from privfl.audit.representatives import ClassLikeness, class_likeness
from privfl.config import AuditConfig
from privfl.core import Dataset, LocalPlan
from privfl.crypto import SecAgg
from privfl.data import load
from privfl.dp import Clip, Gaussian
from privfl.engine import Attacker
from privfl.models import cnn, initialised
from privfl.training import LocalSGD

WANTED, FAKE, EACH, ROUNDS = (0, 3), 10, 300, 12
SGD = LocalSGD(lr=0.1, plan=LocalPlan(32), weighting="uniform")
MULTIPLIERS = (0.002, 0.02, 0.2)
Settings: TypeAlias = Mapping[str, tuple[bool, Mapping[str, Any]]]
"""By name: whether the client lies, and the parts of the federation."""
SUMMED: Mapping[str, Any] = {"bound": Clip(l2=2.0), "channel": SecAgg(fidelity="ideal", bits=24)}


class Images:
    """MNIST's training digits, dealt by a seed: those of clients, of somebody who holds samples of
    his own, of the judges' classifier, and those held out.
    """

    def __init__(self, seed: int) -> None:
        train = load("mnist").train
        rng = torch.Generator().manual_seed(seed)
        data = train.take(torch.randperm(train.n, generator=rng))
        self.peak = float(data.x.max() - data.x.min())
        self.span = data.span
        self.clients = data.take(range(12_000))
        self.held_out = data.take(range(12_000, 24_000))
        self.own = data.take(range(24_000, 26_000))
        self.judge = _classifier(data.take(range(30_000, 40_000)), seed)

    def part(self, data: Dataset, low: bool, at: int, classes: int = 11) -> Dataset:
        """The ``at``-th portion of the digits under 5, or of the others."""
        index = ((data.y < 5) == low).nonzero().squeeze(1)[at * EACH : (at + 1) * EACH]
        return Dataset(data.x[index], data.y[index], classes, span=self.span)

    def likeness(self, told: Result, wanted: int, members: Tensor, blind: Tensor) -> ClassLikeness:
        """What an attack made, held against members and as many others of the class."""
        if not isinstance(told, Representatives):
            raise TypeError(str(told))
        others = of_class(self.held_out, wanted)
        return class_likeness(
            told.samples, wanted, members, others, blind, self.judge, peak=self.peak
        )


def of_class(data: Dataset, wanted: int) -> Tensor:
    """Its samples of a class."""
    return data.x[data.y == wanted]


def _classifier(data: Dataset, seed: int) -> nn.Module:
    net = initialised(cnn, (1, 28, 28), 10, seed=1000 + seed, channels=8)
    adam, rng = torch.optim.Adam(net.parameters(), 2e-3), torch.Generator().manual_seed(seed)
    for _ in range(2):
        for batch in torch.split(torch.randperm(data.n, generator=rng), 64):
            adam.zero_grad()
            torch.autograd.backward(functional.cross_entropy(net(data.x[batch]), data.y[batch]))
            adam.step()
    return net.eval()


def _federation(clients: list[Dataset], test: Dataset, seed: int, **parts: Any) -> Federation:
    net = initialised(cnn, (1, 28, 28), clients[0].classes, seed=seed, channels=8)
    return Federation(
        net,
        clients,
        test,
        rounds=ROUNDS,
        training=SGD,
        executor="sequential",
        audit=AuditConfig(keep="all"),
        seed=seed,
        **parts,
    )


def client_gan(quick: bool) -> Iterable[Row]:
    """Hitaj et al.: two clients hold the digits under 5, two the others, and one of the latter
    attacks; active, passive and over SecAgg.
    """
    settings: Settings = {
        "active": (True, {}),
        "passive": (False, {}),
        "active, SecAgg": (True, SUMMED),
    }
    yield from _by_client(settings, 1 if quick else 3)


def client_gan_noise(quick: bool) -> Iterable[Row]:
    """The same, active, under noise in the release: each update is clipped to 2, and the mean of
    four has noise of half the multiplier in each entry.
    """
    settings: Settings = {
        f"active, noise multiplier {multiplier:g}": (
            True,
            {
                "bound": Clip(l2=2.0),
                "mechanism": Gaussian(noise_multiplier=multiplier),
                "aggregator": Mean(weighted=False),
            },
        )
        for multiplier in MULTIPLIERS
    }
    yield from _by_client(settings, 1 if quick else 3)


def _by_client(settings: Settings, seeds: int) -> Iterable[Row]:
    for name, (active, parts) in settings.items():
        told: list[ClassLikeness] = []
        holders: list[float] = []
        accuracy: list[float] = []
        for seed in range(seeds):
            images = Images(seed)
            clients = [images.part(images.clients, at < 2, at % 2) for at in range(4)]
            test = Dataset(images.held_out.x[:1000], images.held_out.y[:1000], 11)
            for wanted in WANTED:
                attack = ClientGAN(wanted=wanted, labelled=FAKE, active=active)
                attacker = Attacker("gan", attack, frozenset([3]))
                began = time.process_time()
                run = _federation(clients, test, seed, attackers=[attacker], **parts).run()
                seen = attack.run([run.view("client(3)", at) for at in range(ROUNDS)])
                members = torch.cat([of_class(client, wanted) for client in clients[:2]])
                told.append(images.likeness(seen, wanted, members, clients[3].x.mean(dim=0)))
                holder = of_class(images.own, wanted).mean(dim=0)
                holders.append(images.likeness(seen, wanted, members, holder).blind_psnr)
                accuracy.append(run.accuracy)
                say(name, seed, wanted, told[-1], f"{time.process_time() - began:.0f} s")
        case = f"GAN at a client, {name} (accuracy {mean(accuracy):.2f})"
        yield from _rows(case, "the mean of its own classes", told)
        psnr = mean([one.psnr for one in told])
        yield gain(case, "the class mean of somebody who has it", "PSNR", psnr, mean(holders))


def shares(case: str, peer: str, metric: str, ours: float, theirs: float) -> Row:
    """A row of shares of representatives; the ratio counts one more on both sides, so that it is a
    number where the blind share is 0.
    """
    one = 1 / ServerGAN(wanted=0).samples
    return Row(case, peer, metric, ours, theirs, (ours + one) / (theirs + one))


def _rows(case: str, blind: str, told: list[ClassLikeness]) -> Iterable[Row]:
    right = mean([one.right.value for one in told])
    yield shares(case, blind, "taken for it", right, mean([one.blind_right for one in told]))
    psnr = mean([one.psnr for one in told])
    yield gain(case, blind, "PSNR of means", psnr, mean([one.blind_psnr for one in told]))
    nearer = mean([one.nearer.value for one in told])
    luck = mean([one.blind_nearer for one in told])
    yield gain(case, f"{blind}, by distance", "AUC of members", nearer, luck)
    yield gain(case, "all", "no member's", mean([float(not one.of_members) for one in told]), 1.0)


def server_gan(quick: bool) -> Iterable[Row]:
    """mGAN-AI: one client of five has its digits mirrored left to right, and nobody else has. The
    server's own samples are not; how many representatives are nearer to a mirrored class than to a
    plain one (and how many of its own samples are), passively, with the victim kept apart, and from
    sums; and where nobody mirrors. What is made and what is claimed blind are mirrored back alike
    before they are held against plain digits. ``quick`` wants one class of the two.
    """
    for name in ("passive", "isolated", "sums", "passive, nobody mirrors"):
        told: list[ClassLikeness] = []
        mirrored: list[float] = []
        blindly: list[float] = []
        for seed in range(1 if quick else 3):
            images = Images(seed)
            data = images.clients
            clients = [
                Dataset(data.x[at::40], data.y[at::40], 10, span=images.span) for at in range(5)
            ]
            flips = "nobody" not in name
            if flips:
                victim = clients[0]
                clients[0] = Dataset(victim.x.flip(-1), victim.y, 10, span=images.span)
            made = _federation(
                clients,
                images.held_out.take(range(1000)),
                seed,
                **(SUMMED if name == "sums" else {}),
            )
            if name == "isolated":
                views = list(isolated(made, 0, ROUNDS))
            else:
                run = made.run()
                views = [run.view("server", at) for at in range(ROUNDS)]
            knows = Knowledge(auxiliary=images.own, seed=seed)
            for wanted in (3,) if quick else (3, 7):
                target: Any = "sum" if name == "sums" else "client"
                attack = ServerGAN(
                    wanted=wanted, target=target, client=None if name == "sums" else 0
                )
                seen = attack.run(views, knows)
                others = of_class(images.held_out, wanted)
                if not isinstance(seen, Representatives):
                    raise TypeError(str(seen))
                own, members = (of_class(held, wanted) for held in (images.own, clients[0]))
                found, blind = seen.samples, own.mean(dim=0)
                if flips:
                    found, members, blind = found.flip(-1), members.flip(-1), blind.flip(-1)
                told.append(
                    class_likeness(
                        found,
                        wanted,
                        members,
                        others,
                        blind,
                        images.judge,
                        peak=images.peak,
                    )
                )
                plain = others.mean(dim=0)
                mirrored.append(_nearer(seen.samples, plain.flip(-1), plain))
                blindly.append(_nearer(own, plain.flip(-1), plain))
                say(name, seed, wanted, mirrored[-1], told[-1])
        case = f"GAN at the server, {name}"
        yield shares(case, "its own samples", "nearer to mirrored", mean(mirrored), mean(blindly))
        yield from _rows(case, "the class mean of its own", told)


def _nearer(found: Tensor, one: Tensor, other: Tensor) -> float:
    """The share of samples that are nearer to one mean than to another."""
    near, far = ((found - centre).flatten(1).norm(dim=1) for centre in (one, other))
    return float((near < far).double().mean())
