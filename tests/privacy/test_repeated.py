"""A step that was written down gives what the step gives, or is not written down."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from privfl import Federation
from privfl.attacks import LAMP, GradientInversion, GradInversion, Inference, Knowledge, TabLeak
from privfl.attacks.inversion.repeated import WORTH, Repeated
from privfl.config import AuditConfig
from privfl.core import Dataset
from privfl.data import load
from privfl.models import initialised, mlp, transformer
from privfl.training import FedSGD

POINTS = [torch.tensor([0.5 + 0.3 * k, -1.0 + 0.2 * k, 2.0 - 0.1 * k]) for k in range(20)]


def cube(x: Tensor) -> tuple[Tensor, ...]:
    free = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(free.pow(3).sum(), free, create_graph=True)
    return slope.detach(), torch.autograd.grad(slope.square().sum(), free)[0]


def in_place(x: Tensor) -> tuple[Tensor, ...]:
    table = torch.zeros(2, 3)
    table[1] = x
    table.mul_(torch.ones(3).add_(1))
    return (table, x)


def halves(x: Tensor) -> tuple[Tensor, ...]:
    first, rest = torch.cat([x, x.exp()]).split([2, 4])
    return first, torch.stack([rest, rest.flip(0)]).max(dim=0).values


def chosen(x: Tensor) -> tuple[Tensor, ...]:
    free = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(free.square()[torch.tensor([2, 0, 2])].sum(), free)
    return (slope,)


@pytest.mark.parametrize("step", [cube, in_place, halves, chosen])
def test_gives_what_the_step_gives(step: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
    repeated = Repeated(step)
    for x in POINTS:
        for found, true in zip(repeated(x.clone()), step(x), strict=True):
            assert torch.equal(found, true)
    assert repeated.written


def by_sign(x: Tensor) -> Tensor:
    return x if x.sum() > 2.5 else -x


def by_item(x: Tensor) -> Tensor:
    return x * round(x[0].item())


def by_list(x: Tensor) -> Tensor:
    return x * round(x.tolist()[0])


def by_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(np.rint(x.numpy()))


def by_array(x: Tensor) -> Tensor:
    return torch.as_tensor(np.asarray(x) * 2)


def by_choice(x: Tensor) -> Tensor:
    return x[x > 0].sum()


def by_nothing(x: Tensor) -> Tensor:
    return x[torch.nonzero(x > 0)[0]]


@pytest.mark.parametrize(
    "function", [by_sign, by_item, by_list, by_numpy, by_array, by_choice, by_nothing]
)
def test_a_step_that_looks_at_values_is_run_itself(function: Callable[[Tensor], Tensor]) -> None:
    repeated = Repeated(lambda x: (function(x),))
    for x in POINTS:
        assert torch.equal(repeated(x)[0], function(x))
    assert not repeated.written


class Backwards(torch.autograd.Function):
    """Looks at values in its second pass."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: object, e: Tensor) -> Tensor:
        return e * float(e.sum() > 4)


def test_a_look_in_the_backward_pass_counts() -> None:
    def slope(x: Tensor) -> tuple[Tensor, ...]:
        free = x.detach().requires_grad_()
        return torch.autograd.grad(Backwards.apply(free).square().sum(), free)

    repeated = Repeated(slope)
    for x in POINTS:
        assert torch.equal(repeated(x)[0], slope(x)[0])
    assert not repeated.written


def test_draws_are_drawn_anew() -> None:
    repeated = Repeated(lambda x: (x + torch.randn(3),))
    found = torch.stack([repeated(POINTS[0])[0] for _ in range(8)])
    assert len(found.unique(dim=0)) == 8
    assert not repeated.written


def test_what_is_kept_between_calls_is_kept() -> None:
    count, calls = torch.zeros(()), [0]

    def counted(x: Tensor) -> tuple[Tensor, ...]:
        count.add_(1)
        return (x * count,)

    def by_python(x: Tensor) -> tuple[Tensor, ...]:
        calls[0] += 1
        return (x * calls[0],)

    for step in (counted, by_python):
        repeated = Repeated(step)
        for x in POINTS[:2]:
            repeated(x)
        third, fourth = repeated(POINTS[2])[0], repeated(POINTS[3])[0]
        assert torch.equal(third, 3 * POINTS[2]), step
        assert torch.equal(fourth, 4 * POINTS[3]), step
        assert not repeated.written


def test_a_step_that_overwrites_its_argument_does_so_each_time() -> None:
    def doubled(x: Tensor) -> tuple[Tensor, ...]:
        x.mul_(2)
        return (x + 1,)

    repeated, x = Repeated(doubled), torch.ones(3)
    for k in range(6):
        assert torch.equal(repeated(x)[0], torch.full((3,), 2.0 ** (k + 1) + 1))


def test_values_that_are_no_numbers_are_compared_as_they_are() -> None:
    repeated = Repeated(lambda x: (x / 0 * 0,))
    for x in POINTS[:5]:
        assert bool(repeated(x)[0].isnan().all())
    assert repeated.written


def test_a_few_calls_are_not_worth_it() -> None:
    repeated = Repeated(cube, WORTH - 1)
    for x in POINTS[:5]:
        repeated(x)
    assert not repeated.written


def conv(shape: tuple[int, ...], classes: int) -> nn.Module:
    layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(36, classes))


MATCHING: dict[str, tuple[Inference, ...]] = {
    "pictures": (
        GradInversion(iterations=30, seeds=2),
        GradInversion(iterations=60, seeds=1, own=0.3),
        GradientInversion(iterations=60),
        GradientInversion(iterations=60, own=0.3),
    ),
    "records": (TabLeak(iterations=30, restarts=2),),
    "text": (LAMP(iterations=60, turns=2, swaps=2, starts=2),),
}


@pytest.mark.parametrize("kind", MATCHING)
def test_descents_are_those_of_the_steps_themselves(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {}
    if kind == "text":
        drawn = torch.randint(0, 12, (60, 7), generator=torch.Generator().manual_seed(0))
        data = Dataset(drawn[:, :-1].clone(), drawn[:, 1:].clone(), 12)
        net = initialised(transformer, (6,), 12, seed=0, width=16, heads=2)
    elif kind == "records":
        data = load("adult").train.take(range(60))
        net = initialised(mlp, tuple(data.x.shape[1:]), data.classes, seed=0, hidden=(8,))
    else:
        data = load("digits").train.take(range(60))
        net, more = initialised(conv, (1, 8, 8), 10, seed=0), {"buffers": "averaged"}
    client, own = data.take(range(2)), data.take(range(2, 60))
    run = Federation(
        net,
        [client],
        own,
        training=FedSGD(lr=0.1),
        rounds=1,
        executor="sequential",
        audit=AuditConfig(keep="all"),
        **more,
    ).run()
    view, knows = run.view("server", 0), Knowledge(auxiliary=own, seed=1)
    written: list[bool] = []
    write = Repeated._write

    def noted(self: Repeated, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        out = write(self, inputs)
        written.append(self.written)
        return out

    for attack in MATCHING[kind]:
        monkeypatch.setattr(Repeated, "_write", noted)
        fast = attack.run(view, knows)
        monkeypatch.setattr(Repeated, "_write", lambda self, inputs: self.step(*inputs))
        slow = attack.run(view, knows)
        told = [one.sequences if kind == "text" else one.samples for one in (fast, slow)]
        assert torch.equal(*told), attack
    assert len(written) >= len(MATCHING[kind])
    assert all(written)
