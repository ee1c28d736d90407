"""Server optimisers and methods' server halves against slow references written from the papers."""

import math

import pytest
import torch

from privfl.core import (
    Broadcast,
    ClientState,
    ConfigError,
    Dataset,
    FlatModel,
    LocalPlan,
    Released,
    Seeds,
)
from privfl.training import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedNova,
    FedYogi,
    LocalSGD,
    Scaffold,
    Sequential,
    ServerHalf,
    ServerOptimizer,
    Task,
    Workload,
)


def adaptive(second):
    """Algorithm 2 of Reddi et al. (2021), one coordinate at a time."""

    def reference(changes, lr, beta1, tau):
        w, m, v = 0.25, 0.0, tau**2
        for change in changes:
            m = beta1 * m + (1 - beta1) * change
            v = second(v, change**2)
            w = w + lr * m / (math.sqrt(v) + tau)
        return w

    return reference


def momentum_reference(changes, lr, momentum):
    w, v = 0.25, 0.0
    for change in changes:
        v = momentum * v + change
        w = w + lr * v
    return w


CASES = [
    (FedAvg(lr=0.5), lambda changes: 0.25 + 0.5 * sum(changes)),
    (FedAvgM(lr=0.5, momentum=0.8), lambda c: momentum_reference(c, 0.5, 0.8)),
    (FedAdagrad(lr=0.3, tau=0.01), lambda c: adaptive(lambda v, s: v + s)(c, 0.3, 0.0, 0.01)),
    (
        FedAdam(lr=0.3, tau=0.01, beta2=0.9),
        lambda c: adaptive(lambda v, s: 0.9 * v + 0.1 * s)(c, 0.3, 0.9, 0.01),
    ),
    (
        FedYogi(lr=0.3, tau=0.01, beta2=0.9),
        lambda c: adaptive(lambda v, s: v - 0.1 * s * math.copysign(1, v - s))(c, 0.3, 0.9, 0.01),
    ),
]


@pytest.mark.parametrize(
    ("optimizer", "reference"), CASES, ids=[type(o).__name__ for o, _ in CASES]
)
def test_a_server_optimiser_follows_its_formula_coordinate_by_coordinate(optimizer, reference):
    changes = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    changes[:, 3] *= 1e-3  # small ones, where tau rules and Yogi's v shrinks
    w, state = torch.full((4,), 0.25), optimizer.init(4)
    for change in changes:
        w, state = optimizer.step(w, change, state)
    expected = torch.tensor([reference(column) for column in changes.double().T.tolist()])
    assert torch.allclose(w, expected, rtol=1e-4)


@pytest.mark.parametrize("optimizer", [o for o, _ in CASES], ids=lambda o: type(o).__name__)
def test_a_step_leaves_what_went_in_as_it_was(optimizer):
    assert isinstance(optimizer, ServerOptimizer)
    w, change, state = torch.zeros(3), torch.ones(3), optimizer.init(3)
    copies = {name: value.clone() for name, value in state.items()}
    optimizer.step(w, change, state)
    assert torch.equal(w, torch.zeros(3))
    assert torch.equal(change, torch.ones(3))
    assert all(torch.equal(state[name], copies[name]) for name in copies)


@pytest.mark.parametrize(
    "make", [lambda: FedAvg(lr=0.0), lambda: FedAdam(tau=0.0), lambda: FedAvgM(momentum=2.0)]
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(ConfigError):
        make()


def test_a_server_half_joins_method_and_optimiser_memory_for_a_checkpoint():
    half = ServerHalf(Scaffold(), FedAvgM(momentum=0.5))
    state = half.init(2)
    assert sorted(state) == ["method.control", "optimizer.velocity"]
    w, state = half.step(
        torch.zeros(2),
        {"delta": Released(torch.ones(2)), "control": Released(torch.full((2,), 4.0))},
        state,
        cohort_fraction=0.25,
    )
    later = {"delta": Released(torch.ones(2)), "control": Released(torch.zeros(2))}
    w, state = half.step(w, later, state, cohort_fraction=0.25)
    assert w.tolist() == [2.5, 2.5]
    assert half.broadcast(state)["control"].tolist() == [1.0, 1.0]


class Quadratic(torch.nn.Module):
    """w on its own: the loss of a sample x is |w - x|^2 / 2, so a client's optimum is its mean and
    curvature is 1.
    """

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(2))


def half_square(module, x, y):
    return 0.5 * (module.w - x).square().sum(dim=1).mean()


def play(method, centres, sizes, rounds, plans=None, optimizer=None):
    """Full participation with uniform weights; every client's samples lie on its own centre."""
    x = torch.cat([c.expand(n, 2) for c, n in zip(centres, sizes, strict=True)])
    model = FlatModel(Quadratic())
    load = Workload(
        model, half_square, method, Dataset(x, torch.zeros(len(x), dtype=torch.int64), classes=2)
    )
    half = ServerHalf(method, optimizer or FedAvg())
    ends = torch.tensor(sizes).cumsum(0)
    w, state, memory = torch.zeros(2), half.init(2), [ClientState() for _ in sizes]
    for number in range(rounds):
        tasks = [
            Task(
                i,
                torch.arange(int(ends[i]) - n, int(ends[i])),
                memory[i],
                method=plans[i] if plans else None,
            )
            for i, n in enumerate(sizes)
        ]
        out = torch.empty(len(sizes), 2)
        broadcast = Broadcast(number, w, half.broadcast(state))
        results = Sequential(load).train(broadcast, tasks, out, Seeds(0))
        memory = [method.arrived(r.state, r.aux) for r in results]
        released = {"delta": Released(out.mean(dim=0))} | {
            part: Released(torch.stack([r.aux[part] for r in results]).mean(dim=0))
            for part in method.parts(2)
        }
        w, state = half.step(w, released, state, cohort_fraction=1.0)
    return w, state


CENTRES = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0])]


def test_fednova_lands_on_the_mean_of_optima_where_fedavg_lands_nearer_the_busier_client():
    """One client takes 1 step a round, the other 20: FedAvg's fixed point weighs them by their
    steps, FedNova's does not (for small lr; Wang et al. 2020, theorem 1).
    """
    few, many = LocalPlan(4, steps=1), LocalPlan(4, steps=20)
    away = {}
    for method in (LocalSGD, FedNova):
        lazy, busy = (method(lr=0.005, plan=plan, weighting="uniform") for plan in (few, many))
        w, _ = play(lazy, CENTRES, [4, 4], rounds=120, plans=[lazy, busy])
        away[method] = float((w - torch.stack(CENTRES).mean(dim=0)).norm())
    assert away[FedNova] < 0.05
    assert away[LocalSGD] > 1.0


def test_scaffold_follows_a_slow_reference_of_algorithm_one():
    lr, K, rounds, sizes = 0.1, 5, 6, [3, 3]
    w, state = play(Scaffold(lr=lr, plan=LocalPlan(3, steps=K)), CENTRES, sizes, rounds)
    x, c, c_i = (
        torch.zeros(2, dtype=torch.float64),
        torch.zeros(2),
        [torch.zeros(2), torch.zeros(2)],
    )
    for _ in range(rounds):
        moves, changes = [], []
        for i, centre in enumerate(CENTRES):
            y = x.clone()
            for _ in range(K):
                y = y - lr * ((y - centre) - c_i[i] + c)
            after = c_i[i] - c + (x - y) / (K * lr)
            moves.append(y - x)
            changes.append(after - c_i[i])
            c_i[i] = after
        x = x + torch.stack(moves).mean(dim=0)
        c = c + torch.stack(changes).mean(dim=0)
    assert torch.allclose(w.double(), x, atol=1e-5)
    assert torch.allclose(state["method.control"].double(), c, atol=1e-5)
