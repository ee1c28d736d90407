"""A federated optimisation method: what its clients do, and what the server makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

from privfl.core import (
    BatchGradient,
    ClientState,
    FlatModel,
    LocalRecipe,
    LocalTraining,
    Loss,
    Vector,
    Weighting,
)

State: TypeAlias = Mapping[str, Any]
"""What a server half remembers between rounds, by name: tensors and numbers, so that a checkpoint
can hold it.
"""


@runtime_checkable
class Method(Protocol):
    """A federated optimisation method: what each client does, what it sends beside the delta, and
    how the server combines it.

    A method is a description without memory. `ServerHalf` runs its server side together with a
    server optimiser.
    """

    @property
    def weighting(self) -> Weighting:
        """How its clients weigh."""
        ...

    @property
    def gradient(self) -> BatchGradient:
        """How its clients make a batch's gradient."""
        ...

    @property
    def recipe(self) -> LocalRecipe:
        """What everybody is told of its clients' training."""
        ...

    def on(self, model: FlatModel, loss: Loss) -> LocalTraining:
        """The client half, at work on this model."""
        ...

    def parts(self, d: int) -> Mapping[str, int]:
        """Length of each extra vector in ``Update.aux``, by name; each is bounded and sent the same
        way as the delta.
        """
        ...

    def init(self, d: int) -> State:
        """The server half's memory before the first round."""
        ...

    def broadcast(self, state: State) -> Mapping[str, Vector]:
        """``Broadcast.aux`` of the next round."""
        ...

    def combine(
        self, aggregate: Vector, aux: Mapping[str, Vector], state: State, cohort_fraction: float
    ) -> tuple[Vector, State]:
        """The model change [d] that a server optimiser then applies, from the aggregated delta and
        extra vectors; ``cohort_fraction`` is whose are in it / all clients.
        """
        ...

    def arrived(self, state: ClientState, sent: Mapping[str, Vector]) -> ClientState:
        """A client's memory once it is told that these extra vectors of its, as it sent them, are
        in what the server applied. The server tells that client, and nobody else, with the next
        model that it sends it.
        """
        ...
