"""Local SGD: what a client does in federated averaging, and the settings that its relatives
share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from privfl.core import (
    BatchGradient,
    Broadcast,
    ClientId,
    ClientState,
    ConfigError,
    Dataset,
    FlatModel,
    LocalPlan,
    LocalRecipe,
    Loss,
    NoisySteps,
    Objective,
    Perturbation,
    Update,
    Vector,
    Weighting,
    is_private,
    require,
    seeded,
)
from privfl.training.gradient import WHOLE, PlainGradient
from privfl.training.method import State
from privfl.training.task import Samples, Trained

_AHEAD = 256
"""So many batches are drawn before their positions go to an accelerator together."""


@dataclass(frozen=True)
class LocalSGD:
    """Local SGD, the client half of FedAvg (McMahan et al. 2017, algorithm 1); sends the change of
    the flat parameters.

    ``momentum``, ``nesterov`` and ``weight_decay`` are those of ``torch.optim.SGD``, with momentum
    fresh each round. ``prox`` adds (prox / 2) |w - w_start|^2 to the loss. The rate of round r is
    ``lr * decay ** r``. ``weighting="samples"`` weighs a client by its number of samples;
    client-level privacy needs ``"uniform"``. ``gradient`` and ``objective`` are the seats of DP-SGD
    and of attackers; ``adversarial`` moves each sample before its gradient is taken, which makes
    the objective the largest loss within a ball around it.

    Raises:
        ConfigError: a setting out of its range; a private gradient beside an ``adversarial`` that
            lets one sample move another.

    >>> LocalSGD(lr=0.1, plan=LocalPlan(batch_size=10, epochs=5)).rate(round=3)
    0.1
    """

    lr: float = 0.1
    plan: LocalPlan = LocalPlan(batch_size=32)
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    prox: float = 0.0
    decay: float = 1.0
    weighting: Weighting = "samples"
    gradient: BatchGradient = PlainGradient()
    objective: Objective | None = None
    adversarial: Perturbation | None = None

    def __post_init__(self) -> None:
        require.positive(lr=self.lr, decay=self.decay)
        require.finite(lr=self.lr, decay=self.decay)
        require.at_least(0, weight_decay=self.weight_decay, prox=self.prox)
        require.within(0, 1, momentum=self.momentum)
        require.at_least(1, batch_size=self.plan.batch_size, epochs=self.plan.epochs)
        if self.plan.steps is not None:
            require.at_least(1, steps=self.plan.steps)
        if self.nesterov and not self.momentum:
            raise ConfigError("nesterov=True needs a momentum above 0.")
        if self.weighting not in ("samples", "uniform"):
            raise ConfigError(f"weighting is 'samples' or 'uniform', and is '{self.weighting}'.")
        if (
            is_private(self.gradient)
            and self.adversarial is not None
            and not self.adversarial.alone
        ):
            raise ConfigError(
                f"{type(self.adversarial).__name__} moves a sample by what others of earlier"
                " batches left, and steps on a batch more than once: clipping bounds no sample's"
                " share then. Take pgd or fgsm beside a private gradient."
            )

    @property
    def recipe(self) -> LocalRecipe:
        """What everybody is told of it."""
        return LocalRecipe(
            self.lr,
            self.plan,
            self.momentum,
            self.nesterov,
            self.weight_decay,
            self.prox,
            self.decay,
        )

    def rate(self, round: int) -> float:
        """The learning rate of a round."""
        return float(self.lr * self.decay**round)

    def on(self, model: FlatModel, loss: Loss) -> LocalTrainer:
        """The client half, at work on this model."""
        return LocalTrainer(self, model, loss)

    def parts(self, d: int) -> Mapping[str, int]:
        """No extra vectors."""
        return {}

    def init(self, d: int) -> State:
        """No memory."""
        return {}

    def broadcast(self, state: State) -> Mapping[str, Vector]:
        """Nothing beside the parameters."""
        return {}

    def combine(
        self, aggregate: Vector, aux: Mapping[str, Vector], state: State, cohort_fraction: float
    ) -> tuple[Vector, State]:
        """The aggregate itself."""
        return aggregate, state

    def arrived(self, state: ClientState, sent: Mapping[str, Vector]) -> ClientState:
        """The same: nothing hangs on it."""
        return state

    def correction(self, broadcast: Broadcast, state: ClientState) -> Vector | None:
        """A constant vector [d] that is added to every step's gradient, or None."""
        return None

    def hand_out(
        self, delta: Vector, broadcast: Broadcast, state: ClientState, steps: int
    ) -> tuple[Mapping[str, Vector], ClientState]:
        """The extra vectors and the new memory after ``steps`` steps; may rewrite ``delta`` [d] in
        place.
        """
        return {}, state

    def finish(
        self,
        client: ClientId,
        delta: Vector,
        broadcast: Broadcast,
        state: ClientState,
        n: int,
        steps: int,
        loss: float,
    ) -> Trained:
        """What training on n samples in ``steps`` steps leaves; may rewrite ``delta`` [d] in
        place.
        """
        aux, after = self.hand_out(delta, broadcast, state, steps)
        weight = float(n) if self.weighting == "samples" else 1.0
        noisy = self.gradient.noisy(n, self.plan, steps)
        return Trained(client, weight, after, aux, noisy, loss)


@dataclass(frozen=True)
class FedProx(LocalSGD):
    """Local SGD held near the broadcast model by (prox / 2) |w - w_start|^2 (Li et al. 2020,
    algorithm 2, their mu).

    >>> FedProx().prox
    0.01
    """

    prox: float = 0.01


@dataclass(frozen=True)
class FedSGD(LocalSGD):
    """One step with the gradient of all local data (McMahan et al. 2017, section 2): the delta is
    -lr times the gradient.

    >>> FedSGD().plan.steps
    1
    """

    plan: LocalPlan = LocalPlan(batch_size=WHOLE, steps=1)


@dataclass(frozen=True, slots=True)
class LocalTrainer:
    """Local SGD, or a relative of it, at work on a model whose parameters it overwrites (a
    `core.LocalTraining`).
    """

    method: LocalSGD
    model: FlatModel
    loss: Loss

    def __call__(
        self,
        client: ClientId,
        broadcast: Broadcast,
        dataset: Dataset,
        state: ClientState,
        rng: torch.Generator,
    ) -> tuple[Update, ClientState, tuple[NoisySteps, ...]]:
        """Train once.

        Raises:
            ConfigError: the client holds no samples.
        """
        delta = torch.empty_like(self.model.flat)
        done = self.fit(client, broadcast, Samples(dataset.x, dataset.y), state, rng, delta)
        return done.update(delta), done.state, done.noisy

    def fit(
        self,
        client: ClientId,
        broadcast: Broadcast,
        samples: Samples,
        state: ClientState,
        rng: torch.Generator,
        out: Vector,
    ) -> Trained:
        """Train once and write the delta [d] into ``out``.

        Raises:
            ConfigError: the client holds no samples.
        """
        if samples.n == 0:
            raise ConfigError(
                f"client {client} holds no samples: leave it out of the cohort, or give min_samples"
                " to the partition."
            )
        device = self.model.flat.device
        broadcast, state = broadcast.to(device), state.to(device)
        method, start = self.method, broadcast.parameters
        self.model.write(start)
        loss = (
            self.loss if method.objective is None else method.objective.objective(self.loss, start)
        )
        correction = method.correction(broadcast, state)
        with seeded(device, rng.initial_seed()):  # dropout and its like
            steps, mean_loss = self._descend(
                samples, start, loss, correction, method.rate(broadcast.version), rng
            )
        torch.sub(self.model.flat, start, out=out)
        return method.finish(client, out, broadcast, state, samples.n, steps, mean_loss)

    def _presented(
        self, samples: Samples, loss: Loss, rng: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """What each step is taken on: the batches, or where their samples are moved to."""
        method = self.method
        moved = None if method.adversarial is None else method.adversarial.begin()
        drawn = method.gradient.batches(samples.n, method.plan, rng)
        if samples.x.device.type != "cpu" and type(method.gradient) is PlainGradient:
            drawn = _moved(drawn, samples.x.device)
        samples = samples.near()
        for positions in drawn:
            x, y = samples.batch(positions)
            if moved is None:
                yield x, y
                continue
            for inner in moved(self.model.module, loss, x, y):
                yield inner, y

    def _descend(
        self,
        samples: Samples,
        start: Vector,
        loss: Loss,
        correction: Vector | None,
        lr: float,
        rng: torch.Generator,
    ) -> tuple[int, float]:
        method, model = self.method, self.model
        flat, grad = model.flat, model.grad
        apart = torch.empty_like(flat) if method.prox else None
        velocity: Vector | None = None
        steps = 0
        total: float | Tensor = 0.0
        for x, y in self._presented(samples, loss, rng):
            total += method.gradient(model, loss, x, y)
            steps += 1
            if method.weight_decay:
                grad.add_(flat, alpha=method.weight_decay)
            if apart is not None:
                grad.add_(torch.sub(flat, start, out=apart), alpha=method.prox)
            if correction is not None:
                grad.add_(correction)
            if not method.momentum:
                flat.add_(grad, alpha=-lr)
                continue
            velocity = (
                grad.clone() if velocity is None else velocity.mul_(method.momentum).add_(grad)
            )
            flat.add_(
                grad.add_(velocity, alpha=method.momentum) if method.nesterov else velocity,
                alpha=-lr,
            )
        return steps, float(total) / max(steps, 1)


def _moved(drawn: Iterator[Tensor], device: torch.device) -> Iterator[Tensor]:
    """The same positions on a device, those of `_AHEAD` batches at a time: each move waits for it.
    Only for batches that hang on nothing but the generator of their own draw.
    """
    while some := list(islice(drawn, _AHEAD)):
        sizes = [len(positions) for positions in some]
        yield from torch.split(torch.cat(some).to(device), sizes)
