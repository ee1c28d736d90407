"""A step that was written down gives what the step gives, or is not written down."""

from __future__ import annotations

import copy
import gc
import random
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from privfl import Federation
from privfl.attacks import LAMP, GradientInversion, GradInversion, Inference, Knowledge, TabLeak
from privfl.attacks.inversion.repeated import WORTH, Repeated
from privfl.config import AuditConfig
from privfl.core import Dataset, View
from privfl.data import load
from privfl.models import initialised, mlp, transformer
from privfl.training import FedSGD

POINTS = [torch.tensor([0.5 + 0.3 * k, -1.0 + 0.2 * k, 2.0 - 0.1 * k]) for k in range(20)]
LATE = 1.9
"""The first value of points is greater from the sixth on."""


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


def turned(x: Tensor) -> tuple[Tensor, ...]:
    """Tensors whose layout changes in place, one of them under another name as well."""
    table = torch.stack([x, x.exp()])
    same = table.detach()
    table.t_()
    pooled = table.mean(dim=1, keepdim=True).as_strided_((1, 3), (3, 1))
    return table.cumsum(0), same.cumsum(0), pooled.squeeze_(0)


def pooled(x: Tensor) -> tuple[Tensor, ...]:
    """Averages of a picture whose channels lie last, which torch turns around in place."""
    picture = (x.view(1, 3, 1, 1) * POINTS[0].view(1, 1, 3, 1)).expand(1, 3, 3, 2)
    free = picture.contiguous(memory_format=torch.channels_last).requires_grad_()
    means = torch.nn.functional.adaptive_avg_pool2d(free, 1)
    return torch.autograd.grad(means.square().sum(), free)


def late(x: Tensor) -> Tensor:
    """More than zero from the sixth point on."""
    return torch.relu(x[0] - LATE)


def read_and_overwritten(x: Tensor) -> tuple[Tensor, ...]:
    """Tensors that hang on no argument, and have other values at the end than where they count."""
    table = torch.zeros(3)
    first = late(x) * table
    row = torch.arange(3.0) + 0
    second = late(x) * row
    table.add_(1)
    row.as_strided_((3,), (0,))
    return (first + second + x * table * row,)


def tracked(x: Tensor) -> tuple[Tensor, ...]:
    """Running statistics, which an operation writes to without saying so."""
    mean, variance = torch.zeros(1), torch.ones(1)
    normed = torch.nn.functional.batch_norm(x[:, None], mean, variance, training=True)
    return normed[:, 0] + late(x) * mean, variance


def numbered(x: Tensor) -> tuple[Tensor, ...]:
    """Sums and products with numbers, which a type rounds, or which it does not know."""
    y = (x * 3 + (2**24 + 1) - 0.1) / 7
    y.mul_(0.7).add_(2).sub_(1e-3).div_(3)
    half, whole, wave = x.half() * 0.1 + 1e-3, x.int() * 3 - 1, x * 0.1j + 2
    return y, half, whole, wave, x.double() * 0.1 - 1e-9, x.sum() * 0.3 + True, 2 * x.sum(dim=())


def lone(x: Tensor) -> tuple[Tensor, ...]:
    """Operations that return lists of one tensor."""
    (whole,), (row,) = x.exp().split([3]), x[None].sin().unbind()
    return whole + 1, row * 2


EXACT = [
    numbered,
    lone,
    cube,
    in_place,
    halves,
    chosen,
    turned,
    pooled,
    read_and_overwritten,
    tracked,
]


@pytest.mark.parametrize("step", EXACT)
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


def by_text(x: Tensor) -> Tensor:
    return -x if float(str(x)[8:14]) > LATE else x


def by_likeness(x: Tensor) -> Tensor:
    return x if x.equal(x.clamp(max=LATE)) and x.allclose(x.clamp(max=LATE)) else -x


def by_packed_list(x: Tensor) -> Tensor:
    return x + torch.tensor([x[0]]).sub(LATE).relu() + x.new_tensor([x[0]]).sub(LATE).relu()


def by_copy(x: Tensor) -> Tensor:
    return x + copy.deepcopy(x)[0].sub(LATE).relu()


def by_each(x: Tensor) -> Tensor:
    return x.clone().apply_(lambda value: -value if value > LATE else value)


def by_place(x: Tensor) -> Tensor:
    parts = torch.tensor_split(torch.arange(6.0) + x[1], (x[:1] > LATE).long() + 2)
    return parts[0].sum()


def by_data(x: Tensor) -> Tensor:
    y = x * 1
    y.data = y.data.clamp(max=LATE)
    return y * 2


def by_parameter(x: Tensor) -> Tensor:
    return x + nn.Parameter(x * 1).sub(LATE).relu().detach()


def by_thread(x: Tensor) -> Tensor:
    with ThreadPoolExecutor(1) as pool:
        return x + pool.submit(lambda: torch.relu(x[0] - LATE)).result()


def by_package(x: Tensor) -> Tensor:
    return x + torch.from_dlpack(torch._C._to_dlpack(x)).sub(LATE).relu()


def by_old_mask(x: Tensor) -> Tensor:
    some = x[(x > 0).to(torch.uint8)]
    return some.sum() / len(some)


LOOKS = [
    by_old_mask,
    *(by_sign, by_item, by_list, by_numpy, by_array, by_choice, by_nothing, by_text, by_likeness),
    *(by_packed_list, by_copy, by_each, by_place, by_data, by_parameter, by_thread, by_package),
]


@pytest.mark.filterwarnings("ignore:indexing with dtype torch.uint8")
@pytest.mark.parametrize("function", LOOKS)
def test_a_step_that_looks_at_values_is_run_itself(function: Callable[[Tensor], Tensor]) -> None:
    """Some look where it makes a difference from the sixth call on alone."""
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


class InNumpy(Backwards):
    """Does so in numpy."""

    @staticmethod
    def backward(ctx: object, e: Tensor) -> Tensor:
        return e * 2 if e.detach().numpy()[0] > 8 * LATE else e


class InLists(Backwards):
    """Does so in Python's lists."""

    @staticmethod
    def backward(ctx: object, e: Tensor) -> Tensor:
        return e * 2 if e.tolist()[0] > 8 * LATE else e


def hooked(x: Tensor) -> Tensor:
    y = x * 2
    y.register_hook(lambda e: e * 2 if e.tolist()[0] > 8 * LATE else e)
    return y


def computed_again(x: Tensor) -> Tensor:
    def part(x: Tensor) -> Tensor:
        return x.sin() if torch.is_grad_enabled() and max(x.tolist()) < LATE else x.cos()

    y: Tensor = checkpoint(part, x, use_reentrant=False)
    return y


@pytest.mark.parametrize(
    "function", [Backwards.apply, InNumpy.apply, InLists.apply, hooked, computed_again]
)
def test_a_look_in_the_backward_pass_counts(function: Callable[[Tensor], Tensor]) -> None:
    def slope(x: Tensor) -> tuple[Tensor, ...]:
        free = x.detach().requires_grad_()
        return torch.autograd.grad(function(free).square().sum(), free)

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


class Keeps:
    """A step that keeps something, which makes a difference late."""

    def __init__(self) -> None:
        self.calls, self.peak, self.past = 0, torch.tensor(2.0), [torch.zeros(3)]
        self.drawn, self.numbers = random.Random(3), np.random.default_rng(3)

    def counted(self, x: Tensor) -> tuple[Tensor, ...]:
        self.calls += 1
        return (x if self.calls < 6 else -x,)

    def peaked(self, x: Tensor) -> tuple[Tensor, ...]:
        self.peak = torch.maximum(self.peak, (3 * x).sin().max() * 2.5)
        return (x / self.peak,)

    def remembering(self, x: Tensor) -> tuple[Tensor, ...]:
        self.past.append(x.clone())
        return (x + sum(self.past[:-6]),)

    def drawing(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x if self.drawn.random() > 0.2 else -x,)

    def drawing_in_numpy(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x if self.numbers.random() > 0.2 else -x,)

    def drawing_by_all(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x if random.random() > 0.2 else -x,)


@pytest.mark.parametrize("name", [name for name in vars(Keeps) if not name.startswith("_")])
def test_what_is_kept_beside_tensors_is_kept(name: str) -> None:
    random.seed(3)
    true = [getattr(keeps, name)(x)[0] for keeps in (Keeps(),) for x in POINTS]
    random.seed(3)
    repeated = Repeated(getattr(Keeps(), name))
    found = [repeated(x)[0] for x in POINTS]
    assert torch.equal(torch.stack(found), torch.stack(true))
    assert not repeated.written


def test_what_cannot_be_written_down_fails_nobody() -> None:
    """A number that the program's text cannot hold."""

    def endless(x: Tensor) -> tuple[Tensor, ...]:
        return ((x * complex(1, float("inf"))).imag,)

    repeated = Repeated(endless)
    for x in POINTS:
        assert torch.allclose(repeated(x)[0], endless(x)[0], 0, 0, equal_nan=True)


def test_a_step_that_compiles_goes_on() -> None:
    """What is compiled while operations are noted cannot be run later."""

    def compiled(x: Tensor) -> tuple[Tensor, ...]:
        free = x.detach().requires_grad_()
        eyes = (torch.ones(3),)
        twice = torch.cond(x[0] > LATE, lambda one: one * 2, lambda one: one * 1, eyes)
        return torch.autograd.grad((twice * free).square().sum(), free)

    repeated = Repeated(compiled)
    for x in POINTS[:8]:
        true = x * 8 if x[0] > LATE else x * 2
        assert torch.equal(repeated(x)[0], true)
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


def test_arguments_that_are_one_tensor_may_be_two_later() -> None:
    """Or an argument was what the step holds."""
    held = torch.ones(3)
    steps: list[Callable[..., tuple[Tensor, ...]]] = [
        lambda a, b: (a - b, a + b),
        lambda a, _: (a - held,),
    ]
    for step in steps:
        repeated = Repeated(step)
        for _ in range(4):
            repeated(held, held)
        for x in POINTS:
            for found, true in zip(repeated(x, held), step(x, held), strict=True):
                assert torch.equal(found, true)


def test_arguments_may_have_another_layout_or_type_later() -> None:
    def corner(x: Tensor) -> tuple[Tensor, ...]:
        return (x.contiguous().as_strided((2, 2), (3, 1)) * 2,)

    repeated, x = Repeated(corner), torch.arange(6.0).view(2, 3)
    for _ in range(4):
        repeated(x)
    assert repeated.written
    for other in (x.t().contiguous().t(), x.double(), torch.complex(x, x).conj(), x + 1):
        found, true = repeated(other)[0], corner(other)[0]
        assert found.dtype == true.dtype
        assert torch.equal(found, true)
    assert repeated.written


def test_what_comes_out_may_go_in_again() -> None:
    def descended(x: Tensor) -> tuple[Tensor, ...]:
        free = x.detach().requires_grad_()
        return (x - 0.1 * torch.autograd.grad(free.sin().sum(), free)[0],)

    repeated, x, y = Repeated(descended), POINTS[0], POINTS[0]
    for _ in range(18):
        x, y = repeated(x)[0], descended(y)[0]
        assert torch.equal(x, y)
    assert repeated.written
    free = torch.ones(3, requires_grad=True)
    (free * repeated(x)[0]).sum().backward()
    assert free.grad is not None


def test_a_step_that_complains_does_so_when_it_is_repeated() -> None:
    singular = POINTS[8].clone()
    repeated = Repeated(lambda x: (torch.linalg.inv(torch.diag(x - singular)),))
    for x in POINTS[:8]:
        repeated(x)
    assert repeated.written
    with pytest.raises(torch.linalg.LinAlgError):
        repeated(POINTS[8])


def test_an_operation_with_lists_in_what_it_returns_fails_nobody() -> None:
    library = torch.library.Library("privfl_tests", "FRAGMENT")
    library.define("pair(Tensor x) -> (Tensor, Tensor[])")
    library.impl("pair", lambda x: (x + 1, [x * 2, x * 3]), "CPU")

    def paired(x: Tensor) -> tuple[Tensor, ...]:
        one, (two, three) = torch.ops.privfl_tests.pair(x)
        return (one + two * three,)

    repeated = Repeated(paired)
    for x in POINTS[:6]:
        assert torch.equal(repeated(x)[0], paired(x)[0])


def test_a_few_calls_are_not_worth_it() -> None:
    repeated = Repeated(cube, WORTH - 1)
    for x in POINTS[:5]:
        repeated(x)
    assert not repeated.written


def conv(shape: tuple[int, ...], classes: int) -> nn.Module:
    layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(36, classes))


def seen(net: nn.Module, client: Dataset, test: Dataset, **more: Any) -> View:
    """What the server sees of one step of one client."""
    run = Federation(
        net,
        [client],
        test,
        training=FedSGD(lr=0.1),
        rounds=1,
        executor="sequential",
        audit=AuditConfig(keep="all"),
        **more,
    ).run()
    return run.view("server", 0)


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
    view, knows = seen(net, client, own, **more), Knowledge(auxiliary=own, seed=1)
    monkeypatch.setattr("privfl.attacks.inversion.repeated.WORTH", 50)
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


class Recurrent(nn.Module):
    """What it computes in one call has gradients that autograd alone can pass back."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.last = nn.LSTM(8, 4, batch_first=True), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.rows(x.flatten(1).view(-1, 8, 8))[0].mean(dim=1))
        return out


class Dropping(nn.Module):
    """Leaves a layer out by Python's own random numbers, and changes after twenty passes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.passes = nn.Linear(64, 8), nn.Linear(8, 10), 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        hidden = self.first(x.flatten(1)).sigmoid()
        kept = random.random() > 0.1 and self.passes < 20
        out: Tensor = self.last(hidden.tanh() if kept else hidden)
        return out


@pytest.mark.parametrize("kind", [Recurrent, Dropping])
def test_descents_on_networks_of_others_are_those_of_the_steps_themselves(
    kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load("digits").train.take(range(20))
    torch.manual_seed(0)
    view = seen(kind(), data.take(range(2)), data)
    found = []
    for worth in (50, 1000):
        monkeypatch.setattr("privfl.attacks.inversion.repeated.WORTH", worth)
        random.seed(1)
        attack = GradientInversion(iterations=60)
        found.append(attack.run(view, Knowledge(seed=1)).samples)
    assert torch.equal(*found)


@pytest.mark.parametrize(("start", "own"), [("own", 0.0), ("noise", 0.3)])
def test_a_rehearsal_that_leaves_no_own_samples_keeps_what_is_given(start: str, own: float) -> None:
    data = load("digits").train.take(range(20))
    view = seen(initialised(mlp, (1, 8, 8), 10, seed=0, hidden=(8,)), data.take(range(2)), data)
    attack = GradInversion(iterations=2, seeds=1, tune=True, start=start, own=own)
    found = attack.run(view, Knowledge(auxiliary=data.take(range(4, 7)), seed=1))
    assert found.samples.isfinite().all()


def test_who_listens_to_the_collection_of_garbage_is_no_part_of_a_step() -> None:
    listener = types.FunctionType(_listened.__code__, {"__name__": "somebody.elses"})

    def littering(x: Tensor) -> tuple[Tensor, ...]:
        litter: list[object] = []
        litter.append(litter)
        return cube(x)

    gc.callbacks.append(listener)
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        repeated = Repeated(littering)
        for x in POINTS[:5]:
            repeated(x)
        assert repeated.written
        assert gc.isenabled()
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(listener)


def _listened(phase: str, info: dict[str, int]) -> None:
    return
