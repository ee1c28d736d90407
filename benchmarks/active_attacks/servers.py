"""Servers that do more than follow: a planted layer, class fishing."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from benchmarks.active_attacks.runs import ONE, SUMMED, run, shuffled
from benchmarks.harness import Row, gain
from benchmarks.privacy_attacks.runs import HIGH, LOW, large, mean
from privfl.attacks import ByRow, Fishing, Imprint, Loki, alone, imprinted, lokied
from privfl.audit.score import pictures
from privfl.engine import Attacker
from privfl.models import initialised, mlp


def bins(quick: bool) -> Iterable[Row]:
    """Samples that are alone in a bin, against (1 - 1/k)^(n - 1): one layer of bins for the SecAgg
    sum of everybody (Imprint), and kernels with bins of each client (LOKI), in a sum that binds no
    model, and in SecAgg's, where plans name theirs.
    """
    data = shuffled(0)
    held = data.take(range(1000, 1797))
    for n, k in ((100, 1024), (800, 1024)):
        clients = [data.take(range(at, at + n // 10)) for at in range(0, n, n // 10)]
        net = initialised(
            lambda shape, classes, k=k: imprinted(mlp(shape, classes, hidden=(16,)), shape, k),
            (1, 8, 8),
            10,
            seed=0,
        )
        imprint = Imprint(inputs=64, bins=k, outputs=64).fitted(held)
        acting = [Attacker("imprint", imprint, frozenset(range(10)))]
        view = run(net, clients, ONE, attackers=acting, **SUMMED).view("server", 0)
        exact = _exact(imprint.run(view).samples, torch.cat([client.x for client in clients]))
        case = f"Imprint, SecAgg sum of {n} samples, {k} bins"
        yield gain(case, "alone in a bin", "share over 40 dB", exact, alone(n, k))
    for n, k in ((64, 256), (64, 512)):
        clients = [data.take(range(at, at + n)) for at in range(0, 8 * n, n)]
        loki = Loki((1, 8, 8), clients=tuple(range(8)), bins=k, outputs=64).fitted(held)
        acting = [Attacker("loki", loki, frozenset(range(8)))]
        for name, options in (("rows added up, nothing bound", {}), ("SecAgg", SUMMED)):
            net = initialised(
                lambda shape, classes, k=k: lokied(mlp(shape, classes, hidden=(16,)), shape, 8, k),
                (1, 8, 8),
                10,
                seed=0,
            )
            played = run(net, clients, ONE, attackers=acting, **options)
            told = loki.run(played.view("server", 0))
            answers = told.answers if isinstance(told, ByRow) else ()
            exact = sum(_exact(found.samples, clients[who[0]].x) for who, found in answers) / 8
            case = f"LOKI, 8 clients x {n}, {k} bins each, {name}"
            yield gain(case, "alone in a bin", "share over 40 dB", exact, alone(n, k))


def _exact(found: Tensor, true: Tensor) -> float:
    return float((pictures(found, true, peak=HIGH - LOW).psnr > 40).float().mean())


def active_server(quick: bool) -> Iterable[Row]:
    """Planted bins against what SecAgg opens of 8 clients; class fishing of one client in clear,
    and what of it is in a SecAgg sum: the bait is another model than the others are sent, and who
    was sent another model is in no sum with them. A planted layer is sent to everybody alike.
    """
    data = large(scaled=True)
    filled, caught, out = [], [], []
    for seed in range(2 if quick else 5):
        index = torch.randperm(data.n, generator=torch.Generator().manual_seed(seed))
        clients = [data.take(part) for part in index[:64].chunk(8)]
        net = initialised(
            lambda shape, classes: imprinted(mlp(shape, classes, hidden=(32,)), shape, 1024),
            (1, 32, 32),
            10,
            seed=seed,
        )
        attack = Imprint(inputs=1024, bins=1024, outputs=1024).fitted(data.take(index[64:564]))
        played = run(
            net,
            clients,
            ONE,
            attackers=[Attacker("imprint", attack, frozenset(range(8)))],
            **SUMMED,
        )
        found = pictures(
            attack.run(played.view("server", 0)).samples, data.x[index[:64]], peak=HIGH - LOW
        )
        filled.append(float((found.psnr > 40).float().mean()))
        wanted = int((torch.bincount(clients[3].y, minlength=10) == 1).nonzero()[0])
        net = initialised(mlp, (1, 32, 32), 10, seed=seed, hidden=(64,))
        bait = Fishing(features=64, classes=10, wanted=wanted, victim=3)
        fishing = [Attacker("fishing", bait, frozenset(range(8)))]
        hidden = run(net, clients, ONE, attackers=fishing, **SUMMED)
        opened = hidden.transcripts[0].carried.opened["delta"]
        out.append(float(opened is None or 3 not in opened.survivors))
        net = initialised(mlp, (1, 32, 32), 10, seed=seed, hidden=(64,))
        played = run(net, clients, ONE, attackers=fishing)
        true = clients[3].x[clients[3].y == wanted]
        caught.append(
            float(pictures(bait.run(played.view("server", 0)).samples, true, peak=HIGH - LOW).psnr)
        )
    yield gain(
        "Robbing the Fed, SecAgg sum of 8 x 8, 1,024 bins",
        "shown",
        "share over 40 dB",
        mean(filled),
        1.0,
    )
    yield gain(
        "fishing one sample of one client, in clear, MLP",
        "shown",
        "PSNR, dB",
        mean(caught),
        40.0,
    )
    yield gain(
        "fishing one client out of SecAgg",
        "all",
        "share of baited clients that are in no sum",
        mean(out),
        1.0,
        1.0,
    )
