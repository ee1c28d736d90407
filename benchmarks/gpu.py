"""What an accelerator gives: training of several clients at once, rules on rows that lie there,
shadows of thousands of samples, and rounds beside pfl-research's on the same device.

``python -m benchmarks.gpu [--quick] [--json] [--only CASE] [--device cuda]``. Without such a device
every case is missing; ``--device cpu`` plays them where there is none, which says that they run and
nothing of a GPU. Seconds are those of the clock, with the device waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.aggregators.shared import context
from benchmarks.harness import Case, Row, command_line, cost, gain, interleaved, play
from benchmarks.pfl_peer import on_device
from privfl.aggregators import Krum, Median, NearestNeighbourMixing, TrimmedMean
from privfl.attacks import Forward, Knowledge, LossThreshold, ShadowMembership
from privfl.audit import Shadows
from privfl.audit.score import membership
from privfl.core import (
    Broadcast,
    Dataset,
    FlatModel,
    LocalPlan,
    RoundPlan,
    Rows,
    Seeds,
    View,
    exact_products,
)
from privfl.data import load
from privfl.models import cnn, initialised, lstm, resnet20
from privfl.training import LocalSGD, Sequential, Task, Vmapped, Workload, cross_entropy

STEPS = 4
NETS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...], int, int]] = {
    "CNN, batch 10": (cnn, (3, 32, 32), 10, 10),
    "ResNet-20 with GroupNorm, batch 32": (resnet20, (3, 32, 32), 10, 32),
    "LSTM of 128, 80 characters, batch 10": (lstm, (80,), 90, 10),
}
COHORTS = (1, 8, 64)
N, D, F = 50, 10_000_000, 10
MEMBERS, SHADOWS, EPOCHS = 10_000, 32, 20


def waited(run: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """A run that ends when the device has done what it was asked."""

    def whole() -> None:
        run()
        if device.type != "cpu":
            getattr(torch, device.type).synchronize(device)

    return whole


def _work(name: str, device: torch.device, clients: int) -> tuple[Workload, list[Task]]:
    make, shape, classes, batch = NETS[name]
    rng, n = torch.Generator().manual_seed(0), clients * batch * STEPS
    if len(shape) == 1:
        text = torch.randint(classes, (n, shape[0] + 1), generator=rng)
        data = Dataset(text[:, :-1].clone(), text[:, 1:].clone(), classes)
    else:
        labels = torch.randint(classes, (n,), generator=rng)
        data = Dataset(torch.randn(n, *shape, generator=rng), labels, classes)
    model = FlatModel(initialised(make, shape, classes, seed=0), device)
    method = LocalSGD(lr=0.05, plan=LocalPlan(batch))
    tasks = [Task(k, index) for k, index in enumerate(torch.arange(n).split(batch * STEPS))]
    return Workload(model, cross_entropy, method, data.to(device)), tasks


def training(device: torch.device, quick: bool) -> Iterable[Row]:
    """Local training of 1, 8 and 64 clients at once, and of one after the other."""
    for name in NETS:
        for clients in COHORTS:
            work, tasks = _work(name, device, clients)
            sent = Broadcast(0, work.model.read().cpu())
            out = torch.empty(clients, work.model.d)
            seconds = interleaved(
                {
                    kind.__name__: waited(
                        partial(kind(work).train, sent, tasks, out, Seeds(0)), device
                    )
                    for kind in (Vmapped, Sequential)
                },
                2 if quick else 5,
            )
            yield cost(
                "training",
                "one after the other",
                f"seconds, {name}, {clients} clients x {STEPS} steps",
                seconds["Vmapped"],
                seconds["Sequential"],
            )


def rules(device: torch.device, quick: bool) -> Iterable[Row]:
    """Rules on 50 updates of 10M values that lie on the device, beside reading these once and
    writing a row; and beside the CPU.
    """
    values = 1e-3 * torch.randn(N, D, generator=torch.Generator().manual_seed(0))
    there = values.to(device)
    repeats = 2 if quick else 5
    for name, rule in {
        "Krum": Krum(f=F),
        "NNM": _mixed,
        "trimmed mean": TrimmedMean(f=F),
        "median": Median(),
    }.items():
        seconds = interleaved(
            {
                "rule": waited(partial(_ruled, rule, there), device),
                "floor": waited(partial(torch.sum, there, dim=0), device),
            },
            repeats,
        )
        metric = f"seconds, {name}, {N} x {D:,}"
        yield cost("rules", "a sum of the rows (floor)", metric, *seconds.values())
        if device.type != "cpu":
            here = interleaved({"cpu": partial(_ruled, rule, values)}, 1)
            yield cost("rules", "one CPU thread", metric, seconds["rule"], here["cpu"])


def _ruled(rule: Callable[[Rows], object], values: Tensor) -> object:
    with exact_products():
        return rule(Rows(values, torch.ones(len(values)), tuple(range(len(values)))))


def _mixed(rows: Rows) -> object:
    return NearestNeighbourMixing(F).before(rows, None, context(rows.d))


def lira(device: torch.device, quick: bool) -> Iterable[Row]:
    """LiRA and RMIA with 32 shadows against a CNN that was trained on 10,000 photographs of
    CIFAR-10; 10,000 others are no members, and shadows see half of both.
    """
    split = load("cifar10")
    shape, classes = tuple(split.train.x.shape[1:]), split.train.classes
    method = LocalSGD(lr=0.05, momentum=0.9, plan=LocalPlan(64, epochs=EPOCHS))
    net = initialised(cnn, shape, classes, seed=0)
    train = Shadows(net, method, device=device)
    start = FlatModel(net).read()
    pool = split.train.take(range(2 * MEMBERS))
    inside = torch.arange(pool.n) < MEMBERS
    after = start + train(start, pool, [torch.arange(MEMBERS)], seed=1)[0]
    view = View("server", RoundPlan(0, (0,), len(start), float("inf")), start, after, {})
    knows = Knowledge(
        forward=Forward(
            net, cross_entropy, shape, classes, lr=method.lr, batch_size=64, epochs=EPOCHS
        ),
        candidates=pool,
        auxiliary=split.train.take(range(2 * MEMBERS, 4 * MEMBERS)),
        trainer=train,
        seed=3,
    )
    blind = membership(LossThreshold().run(view, knows).scores, inside)
    for statistic in ("lira_online", "rmia"):
        began = time.perf_counter()
        scores = ShadowMembership(statistic, shadows=SHADOWS, epochs=EPOCHS).run(view, knows).scores
        taken, found = time.perf_counter() - began, membership(scores, inside)
        case = f"{statistic}, {SHADOWS} shadows of {MEMBERS:,} members"
        yield gain(case, "loss threshold", "AUC", found.auc.value, blind.auc.value)
        rates = (max(one.at_thousandth.value, 1 / MEMBERS) for one in (found, blind))
        yield gain(case, "loss threshold", "TPR at .1 % FPR", *rates)
        yield cost(case, "goal", "seconds", taken, 1200.0)


CASES: dict[str, Callable[[torch.device, bool], Iterable[Row]]] = {
    "training": training,
    "pfl": on_device,
    "rules": rules,
    "lira": lira,
}


def _case(run: Callable[[torch.device, bool], Iterable[Row]], name: str) -> Case:
    def case(quick: bool) -> Iterable[Row]:
        device = torch.device(name)
        kind = getattr(torch, device.type, None)
        if device.type != "cpu" and not (kind is not None and kind.is_available()):
            raise ImportError(f"torch finds no device '{name}' here; --device cpu plays the cases")
        return run(device, quick)

    return case


if __name__ == "__main__":
    parser = command_line("gpu", CASES)
    parser.add_argument("--device", default="cuda", help="where everything computes")
    options = parser.parse_args()
    play("gpu", {name: _case(run, options.device) for name, run in CASES.items()}, options)
