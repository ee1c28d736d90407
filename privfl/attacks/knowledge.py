"""What an adversary that only looks knows beside its view: the public recipe of training, and
auxiliary data, all explicit.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privfl.core import Buffers, ClientDataSeat, Dataset, Loss, Vector


@dataclass(frozen=True, slots=True)
class Forward:
    """The public recipe from samples to an update, which every participant is told: the forward
    model of an adaptive attack.

    ``module`` is the architecture (its weights are not looked at), ``shape`` one sample's, ``low``
    and ``high`` the range of features by channel in the model's units (empty: unknown). Rates and
    plan are those of local SGD; ``l2`` is the clip (inf: none), ``local_noise`` the deviation of
    the noise that a client adds to every entry of its update, ``central_noise`` that of the noise
    in the released mean. ``buffers`` is what becomes of running statistics (None: there are none),
    ``buffers_l2`` the clip of their change. ``data_seats`` are what clients make of their samples
    before they train. ``weighted`` tells whether clients are weighed by their number of samples,
    which then is public.

    >>> Forward(nn.Linear(4, 2), lambda m, x, y: m(x).sum(), (4,), 2, lr=0.1).rate(round=3)
    0.1
    """

    module: nn.Module = field(repr=False)
    loss: Loss = field(repr=False)
    shape: tuple[int, ...]
    classes: int
    lr: float
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    batch_size: int = 1 << 62
    epochs: int = 1
    steps: int | None = None
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    prox: float = 0.0
    decay: float = 1.0
    weighted: bool = True
    l2: float = float("inf")
    local_noise: float = 0.0
    central_noise: float = 0.0
    buffers: Buffers | None = None
    buffers_l2: float = float("inf")
    data_seats: tuple[ClientDataSeat, ...] = ()

    @property
    def tokens(self) -> bool:
        """Whether samples are tokens of a vocabulary, to which no gradient leads."""
        return any(isinstance(layer, nn.Embedding) for layer in self.module.modules())

    def to(self, device: torch.device) -> Forward:
        """The same recipe with a module on a device: itself, or with a copy, as the module is
        somebody else's.
        """
        if all(p.device == device for p in self.module.parameters()):
            return self
        return replace(self, module=copy.deepcopy(self.module).to(device))

    def rate(self, round: int) -> float:
        """The learning rate of a round."""
        return self.lr * self.decay**round

    def steps_on(self, n: int) -> int:
        """How many local steps a client with n samples takes."""
        return (
            self.steps if self.steps is not None else self.epochs * -(-n // min(self.batch_size, n))
        )

    def span(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The least and greatest feature, each broadcast to one sample [...] of the type of
        ``like``; -3 and 3 where unknown.
        """
        if not self.low:
            return like.new_full(self.shape, -3.0), like.new_full(self.shape, 3.0)
        per = (-1, *[1] * (len(self.shape) - 1))
        low, high = (
            like.new_tensor(values).view(per).expand(self.shape) for values in (self.low, self.high)
        )
        return low, high


@runtime_checkable
class Trainer(Protocol):
    """Local training as the adversary runs it on its own machine, for shadow models and shadow
    updates.
    """

    def __call__(
        self,
        start: Vector,
        data: Dataset,
        subsets: Sequence[Tensor],
        *,
        epochs: int | None = None,
        seed: int = 0,
    ) -> Float[Tensor, "K d"]:
        """The change of the flat parameters [d] from ``start`` on each of the K subsets (positions
        in ``data``).

        ``epochs`` None trains as the public recipe says.
        """
        ...


@runtime_checkable
class FederatedTrainer(Protocol):
    """Whole federations as the adversary plays them on its own machine: what shadow models of a
    federated model are.
    """

    def __call__(
        self,
        start: Vector,
        data: Dataset,
        dealt: Sequence[Sequence[Tensor]],
        *,
        rounds: int,
        seed: int = 0,
    ) -> Float[Tensor, "K d"]:
        """The change of the flat parameters [d] from ``start`` after so many rounds of each of K
        federations; ``dealt`` are their clients' positions in ``data``.
        """
        ...


@dataclass(frozen=True, slots=True)
class Knowledge:
    """All that an attack may use beside its view. A field that is None the adversary does not have.

    ``forward`` is the recipe (the view's own facts where None). ``auxiliary`` are samples of the
    same distribution that nobody trained on; ``candidates`` the pool whose membership is asked, in
    an order that tells nothing; ``members`` samples that are known to have been trained on (a
    participant's own). ``labels`` and ``samples`` are those of the batch that is to be
    reconstructed. ``trainer`` is the computing power for shadows of one client, ``federated`` that
    for shadows of the whole federation. ``attribute`` names the fact that a property attack asks
    about.

    >>> Knowledge(samples=4).told()
    'samples of the target: 4'
    """

    forward: Forward | None = None
    auxiliary: Dataset | None = None
    candidates: Dataset | None = None
    members: Dataset | None = None
    labels: Tensor | None = None
    samples: int | None = None
    trainer: Trainer | None = None
    federated: FederatedTrainer | None = None
    attribute: str | None = None
    seed: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)

    def told(self) -> str:
        """One line for a report: what the adversary has."""
        has = []
        for name in ("auxiliary", "candidates", "members"):
            held: Dataset | None = {
                "auxiliary": self.auxiliary,
                "candidates": self.candidates,
                "members": self.members,
            }[name]
            if held is not None:
                has.append(f"{name}: {held.n:,} samples")
        if self.labels is not None:
            has.append(f"labels of the target: {len(self.labels)}")
        if self.samples is not None:
            has.append(f"samples of the target: {self.samples}")
        if self.trainer is not None:
            has.append("shadow training")
        if self.federated is not None:
            has.append("shadow federations")
        if self.attribute is not None:
            has.append(f"the attribute '{self.attribute}' of its auxiliary samples")
        return "; ".join(has) or "nothing beside its view"

    def to(self, device: torch.device) -> Knowledge:
        """The same with samples, labels and module on a device."""
        return replace(
            self,
            forward=None if self.forward is None else self.forward.to(device),
            auxiliary=None if self.auxiliary is None else self.auxiliary.to(device),
            candidates=None if self.candidates is None else self.candidates.to(device),
            members=None if self.members is None else self.members.to(device),
            labels=None if self.labels is None else self.labels.to(device),
        )

    def generator(self, purpose: int = 0) -> torch.Generator:
        """Chance of the attack's own."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + purpose)
