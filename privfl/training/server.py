"""Server optimisers: what the server does with the aggregated change (Reddi et al. 2021: Adaptive
Federated Optimization).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from privfl.core import Released, Vector, require
from privfl.training.method import Method, State

_LARGEST = 1e38
"""The largest lr of a server, about what its 32 bits hold."""


@runtime_checkable
class ServerOptimizer(Protocol):
    """One step of the global model along an aggregated change; its memory is data that goes in and
    comes out.
    """

    @property
    def lr(self) -> float:
        """What it multiplies the aggregate by, which attackers know."""
        ...

    def init(self, d: int) -> State:
        """The memory before the first round."""
        ...

    def step(self, parameters: Vector, change: Vector, state: State) -> tuple[Vector, State]:
        """New parameters [d] and memory; what went in stays as it was."""
        ...


@dataclass(frozen=True, slots=True)
class FedAvg:
    """w + lr change (McMahan et al. 2017; with lr other than 1, Reddi et al. 2021, FedSGD of
    algorithm 1).

    >>> FedAvg(lr=0.5).step(torch.tensor([1.0]), torch.tensor([2.0]), {})[0]
    tensor([2.])
    """

    lr: float = 1.0

    def __post_init__(self) -> None:
        require.positive(lr=self.lr)
        require.within(0, _LARGEST, lr=self.lr)

    def init(self, d: int) -> State:
        """No memory."""
        return {}

    def step(self, parameters: Vector, change: Vector, state: State) -> tuple[Vector, State]:
        """One step."""
        return parameters.add(change, alpha=self.lr), state


@dataclass(frozen=True, slots=True)
class FedAvgM:
    """Server momentum: v = momentum v + change, w + lr v (Hsu, Qi, Brown 2019, section 4.3).

    >>> optimizer, change = FedAvgM(momentum=0.5), torch.tensor([1.0])
    >>> w, state = optimizer.step(torch.zeros(1), change, optimizer.init(1))
    >>> optimizer.step(w, change, state)[0]
    tensor([2.5000])
    """

    lr: float = 1.0
    momentum: float = 0.9

    def __post_init__(self) -> None:
        require.positive(lr=self.lr)
        require.within(0, _LARGEST, lr=self.lr)
        require.within(0, 1, momentum=self.momentum)

    def init(self, d: int) -> State:
        """Zero velocity [d]."""
        return {"velocity": torch.zeros(d)}

    def step(self, parameters: Vector, change: Vector, state: State) -> tuple[Vector, State]:
        """One step."""
        velocity = state["velocity"].to(change.device) * self.momentum + change
        return parameters.add(velocity, alpha=self.lr), {"velocity": velocity}


@dataclass(frozen=True, slots=True)
class _Adaptive:
    """m = beta1 m + (1 - beta1) change; v by the subclass; w + lr m / (sqrt(v) + tau). v starts at
    tau^2; no bias correction.
    """

    lr: float = 0.1
    beta1: float = 0.9
    tau: float = 1e-3

    def __post_init__(self) -> None:
        require.positive(lr=self.lr, tau=self.tau)
        require.within(0, _LARGEST, lr=self.lr)
        require.within(0, 1, beta1=self.beta1)

    def init(self, d: int) -> State:
        """Zero m and v = tau^2, each [d]."""
        return {"m": torch.zeros(d), "v": torch.full((d,), self.tau**2)}

    def second_moment(self, v: Vector, square: Vector) -> Vector:
        """The new v [d] from the old one and the squared change."""
        return v + square

    def step(self, parameters: Vector, change: Vector, state: State) -> tuple[Vector, State]:
        """One step."""
        m = self.beta1 * state["m"].to(change.device) + (1 - self.beta1) * change
        v = self.second_moment(state["v"].to(change.device), change.square())
        return torch.addcdiv(parameters, m, v.sqrt().add_(self.tau), value=self.lr), {
            "m": m,
            "v": v,
        }


@dataclass(frozen=True, slots=True)
class FedAdagrad(_Adaptive):
    """Adagrad at the server: v + change^2 (Reddi et al. 2021, algorithm 2, with their beta1 = 0).

    >>> optimizer = FedAdagrad(lr=1.0, tau=1.0)
    >>> optimizer.step(torch.zeros(1), torch.tensor([2.0]), optimizer.init(1))[
    ...     0
    ... ]  # 2 / (sqrt(5) + 1)
    tensor([0.6180])
    """

    beta1: float = 0.0


@dataclass(frozen=True, slots=True)
class FedAdam(_Adaptive):
    """Adam at the server: beta2 v + (1 - beta2) change^2 (Reddi et al. 2021, algorithm 2; no bias
    correction).

    >>> FedAdam().beta2
    0.99
    """

    beta2: float = 0.99

    def second_moment(self, v: Vector, square: Vector) -> Vector:
        """The new v = beta2 v + (1 - beta2) change^2."""
        return self.beta2 * v + (1 - self.beta2) * square


@dataclass(frozen=True, slots=True)
class FedYogi(_Adaptive):
    """Yogi at the server: v - (1 - beta2) change^2 sign(v - change^2) (Reddi et al. 2021, algorithm
    2).

    >>> FedYogi().beta2
    0.99
    """

    beta2: float = 0.99

    def second_moment(self, v: Vector, square: Vector) -> Vector:
        """The new v = v - (1 - beta2) change^2 sign(v - change^2)."""
        return v - (1 - self.beta2) * square * torch.sign(v - square)


@dataclass(frozen=True, slots=True)
class ServerHalf:
    """A method's server side and a server optimiser as one thing with one memory: all that an
    engine needs between rounds.

    >>> from privfl.training import LocalSGD
    >>> half = ServerHalf(LocalSGD(), FedAvg())
    >>> released = {"delta": Released(torch.ones(2))}
    >>> half.step(torch.zeros(2), released, half.init(2), cohort_fraction=1.0)[0]
    tensor([1., 1.])
    """

    method: Method
    optimizer: ServerOptimizer

    def init(self, d: int) -> State:
        """The memory before the first round: names start with ``method.`` or ``optimizer.``."""
        return _join(self.method.init(d), self.optimizer.init(d))

    def broadcast(self, state: State) -> Mapping[str, Vector]:
        """``Broadcast.aux`` of the next round."""
        return self.method.broadcast(_part(state, "method."))

    def remembering(self, state: State, method: State) -> State:
        """The memory with some of the method's own set anew."""
        return {**state, **_join(method, {})}

    def step(
        self,
        parameters: Vector,
        released: Mapping[str, Released],
        state: State,
        cohort_fraction: float,
    ) -> tuple[Vector, State]:
        """New parameters [d] and memory from what was released of the delta and of each extra
        vector; ``cohort_fraction`` is whose vectors are in it / all clients.

        It reads released vectors and its own memory of them, so it costs no privacy.
        """
        vectors = {part: one.vector for part, one in released.items()}
        change, method = self.method.combine(
            vectors.pop("delta"), vectors, _part(state, "method."), cohort_fraction
        )
        after, optimizer = self.optimizer.step(parameters, change, _part(state, "optimizer."))
        return after, _join(method, optimizer)


def _join(method: State, optimizer: State) -> State:
    return {f"method.{name}": value for name, value in method.items()} | {
        f"optimizer.{name}": v for name, v in optimizer.items()
    }


def _part(state: State, prefix: str) -> State:
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }
