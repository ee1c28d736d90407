"""Differential privacy: a DP step beside plain SGD and Opacus's ghost clipping and hooks, its
memory, accountants, and noise in a ring.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.dp_nets import NETS, Net
from benchmarks.harness import KEPT, Case, Row, apart, cost, interleaved, main, take_turns
from privfl.core import FlatModel, OsNoise
from privfl.dp import DistributedSkellam, DPGradient, ModularCode, RdpAccount, Release
from privfl.dp.noise import normals
from privfl.training import cross_entropy

LR, CLIP, SIGMA = 1e-3, 1.0, 1.0
PLAIN, OURS, CLIPPING = "plain SGD", "ours", "ours without noise"
PEERS = ("opacus ghost", "opacus hooks", "opacus functorch")


def optimizer_of(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=LR)


def plain(net: Net, x: Tensor, y: Tensor) -> Callable[[], object]:
    model = net.build()
    optimizer = optimizer_of(model)

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(model, x, y).backward()
        optimizer.step()

    return step


def ours(net: Net, x: Tensor, y: Tensor, sigma: float = SIGMA) -> Callable[[], object]:
    model = FlatModel(net.build())
    gradient = DPGradient(l2=CLIP, noise_multiplier=sigma, batch_size=net.batch)

    def step() -> None:
        gradient(model, cross_entropy, x, y)
        model.flat.add_(model.grad, alpha=-LR)

    return step


def opacus(net: Net, x: Tensor, y: Tensor, mode: str) -> Callable[[], object]:
    from opacus.grad_sample import wrap_model
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    model = net.build()
    ghost = {"max_grad_norm": CLIP, "use_ghost_clipping": True} if mode == "ghost" else {}
    wrapped = wrap_model(model, grad_sample_mode=mode, **ghost)
    kind = DPOptimizerFastGradientClipping if mode == "ghost" else DPOptimizer
    sgd = optimizer_of(model)
    optimizer = kind(sgd, noise_multiplier=SIGMA, max_grad_norm=CLIP, expected_batch_size=net.batch)
    criterion = nn.CrossEntropyLoss()
    private_loss = (
        DPLossFastGradientClipping(wrapped, optimizer, criterion, "mean")
        if mode == "ghost"
        else criterion
    )

    def step() -> None:
        optimizer.zero_grad()
        logits = wrapped(x)
        shape = {"shape": logits.shape} if net.symbols and mode == "ghost" else {}
        private_loss(logits.flatten(0, -2), y.flatten(), **shape).backward()
        optimizer.step()

    return step


def stepper(name: str, who: str) -> Callable[[], object]:
    """A step of one contestant on one net."""
    net = NETS[name]
    torch.manual_seed(0)
    if net.symbols:
        x, y = torch.randint(0, net.symbols, (2, net.batch, *net.shape))
    else:
        x, y = torch.randn(net.batch, *net.shape), torch.randint(0, 10, (net.batch,))
    if who == PLAIN:
        return plain(net, x, y)
    if who == OURS:
        return ours(net, x, y)
    if who == CLIPPING:
        return ours(net, x, y, sigma=0.0)
    return opacus(net, x, y, who.split()[1])


def own_process(job: str, name: str, who: str) -> list[str]:
    """The command that does a job for one contestant, alone in a process."""
    return [sys.executable, "-W", "ignore", "-m", "benchmarks.dp", job, name, who]


def step_case(name: str) -> Case:
    """A net's rows: as a process finds its memory, and with an allocator that keeps what is freed;
    how often the first pays for its pages again is luck, and not the same for both sides.
    """

    def case(quick: bool) -> Iterable[Row]:
        net = NETS[name]
        turns, runs = 3 if quick else 8, max(2, net.repeats // 4)
        peers = () if net.alone else PEERS
        jobs = {who: own_process("--turns", name, who) for who in (PLAIN, OURS, CLIPPING, *peers)}
        seconds = apart(jobs, turns, runs)
        mine, case, metric = seconds[OURS], f"step_{name}", f"CPU seconds a step, batch {net.batch}"
        yield cost(case, PLAIN, metric, mine, seconds[PLAIN], target=1 / net.plain)
        yield cost(case, PLAIN, f"{metric}, clipping only", seconds[CLIPPING], seconds[PLAIN])
        targets = {} if net.alone else {"opacus ghost": net.ghost, "opacus hooks": net.hooks}
        for peer in peers:
            yield cost(case, peer, metric, mine, seconds[peer], target=targets.get(peer))
        few = {who: jobs[who] for who in (PLAIN, OURS, *targets)}
        kept = apart(few, turns, runs, environment=KEPT)
        for peer in (PLAIN, *targets):
            yield cost(case, peer, f"{metric}, memory kept", kept[OURS], kept[peer])

    return case


def status_bytes(field: str) -> int:
    """A field of this process's status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) << 10
    raise OSError(f"no {field} in /proc/self/status: memory is measured on Linux only")


def probe(name: str, who: str) -> None:
    """In a process of its own: how many bytes three steps need beyond the model and its data."""
    step = stepper(name, who)
    before = status_bytes("VmRSS")
    for _ in range(3):
        step()
    print(json.dumps(status_bytes("VmHWM") - before))


def extra_bytes(name: str, who: str) -> float:
    command = own_process("--probe", name, who)
    return float(
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    )


def memory(quick: bool) -> Iterable[Row]:
    """Peak memory of three steps beyond what was there before them."""
    mine = {name: extra_bytes(name, "ours") for name in ("cnn", "resnet", "mlp")}
    yield cost(
        "memory",
        "plain SGD",
        "extra bytes, mlp",
        mine["mlp"],
        extra_bytes("mlp", "plain SGD"),
        target=1 / 1.5,
    )
    yield cost(
        "memory",
        "plain SGD",
        "extra bytes, resnet",
        mine["resnet"],
        extra_bytes("resnet", "plain SGD"),
    )
    yield cost(
        "memory",
        "opacus hooks",
        "extra bytes, resnet",
        mine["resnet"],
        extra_bytes("resnet", "opacus hooks"),
        target=1.0,
    )
    yield cost(
        "memory",
        "opacus hooks",
        "extra bytes, cnn",
        mine["cnn"],
        extra_bytes("cnn", "opacus hooks"),
    )


def accounting(quick: bool) -> Iterable[Row]:
    """Seconds for epsilon after a new round, and after 100 rounds that all differ."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant
    from opacus.accountants import RDPAccountant

    fresh = iter(np.linspace(1.0, 2.0, 100_000))

    def hundred() -> RdpAccount:
        account = RdpAccount()
        for _ in range(100):
            account = account.plus(Release.gaussian(float(next(fresh)), rate=0.01))
        account.epsilon(1e-5)
        return account

    account = hundred()
    online = interleaved(
        {
            "ours": (
                lambda: account.plus(Release.gaussian(float(next(fresh)), rate=0.01)).epsilon(1e-5)
            )
        },
        20,
        clock=time.thread_time,
    )
    yield cost(
        "accounting",
        "limit of 5 ms",
        "CPU seconds to epsilon after a new round",
        online["ours"],
        5e-3,
        target=1.0,
    )

    def theirs() -> None:
        accountant = RDPAccountant()
        for _ in range(100):
            accountant.history.append((float(next(fresh)), 0.01, 1))
        accountant.get_epsilon(1e-5)

    def google() -> None:
        accountant = RdpAccountant()
        for _ in range(100):
            accountant.compose(PoissonSampledDpEvent(0.01, GaussianDpEvent(float(next(fresh)))))
        accountant.get_epsilon(1e-5)

    peers = interleaved(
        {"ours": hundred, "opacus": theirs, "dp-accounting": google},
        1 if quick else 3,
        clock=time.thread_time,
    )
    yield cost(
        "accounting",
        "limit of 0.1 s",
        "CPU seconds for 100 distinct rounds",
        peers["ours"],
        0.1,
        target=1.0,
    )
    for peer in ("opacus", "dp-accounting"):
        yield cost(
            "accounting", peer, "CPU seconds for 100 distinct rounds", peers["ours"], peers[peer]
        )


def ring(quick: bool) -> Iterable[Row]:
    """Root mean squared error of a Skellam-noised sum in a ring of few bits, over central Gaussian
    noise; n=100, d=2^14, z=1.
    """
    n, d = 100, 1 << 14
    rows = np.random.default_rng(0).standard_normal((n, d))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for bits, most in ((10, None), (12, 1.05), (14, 1.01)):
        code = ModularCode(bits=bits, l2=1.0, d=d, among=n, noise=DistributedSkellam(1.0))
        squares = []
        for repeat in range(2 if quick else 8):
            seed = repeat.to_bytes(4, "big")
            total = sum(code.encode(row, seed, OsNoise()) for row in rows) & ((1 << bits) - 1)
            squares.append(((code.decode(total, seed) - rows.sum(axis=0)) ** 2).mean())
        target = None if most is None else 1 / most
        yield cost(
            "ring",
            "central Gaussian",
            f"error of the sum, {bits} bits",
            math.sqrt(float(np.mean(squares))),
            1.0,
            target,
        )


def noise(quick: bool) -> Iterable[Row]:
    """CPU seconds for a million normals from a CSPRNG, beside a generator that a seed repeats."""
    both = {
        "ours": lambda: normals(1_000_000, OsNoise(), torch.float32),
        "torch.randn": lambda: torch.randn(1_000_000),
    }
    seconds = interleaved(both, 10, clock=time.thread_time)
    yield cost(
        "noise",
        "torch.randn",
        "CPU seconds for 1,000,000 normals",
        seconds["ours"],
        seconds["torch.randn"],
    )


CASES = {f"step_{name}": step_case(name) for name in NETS} | {
    "memory": memory,
    "accounting": accounting,
    "ring": ring,
    "noise": noise,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")  # Opacus, about hooks on inputs that need no gradient
    if sys.argv[1:2] == ["--probe"]:
        torch.set_num_threads(1)
        probe(*sys.argv[2:4])
    elif sys.argv[1:2] == ["--turns"]:
        torch.set_num_threads(1)
        take_turns(stepper(*sys.argv[2:4]), time.thread_time)
    else:
        main("dp", CASES)
