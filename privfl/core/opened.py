"""What the aggregating side can read: every row, or a sum and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core.errors import BadUpdate
from privfl.core.types import ClientId, PartyId, Vector

O_co = TypeVar("O_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Rows:
    """The side that aggregates reads every row: values [n, d], weights [n].

    Without ids the rows are anonymous (group means): rules with a memory per client refuse them.

    Raises:
        BadUpdate: values, weights and ids are not of one length.

    >>> Rows.of([[1.0, 2.0], [3.0, 4.0]]).n
    2
    """

    values: Float[Tensor, "n d"]
    weights: Float[Tensor, " n"]
    ids: tuple[ClientId, ...] | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 2:
            raise BadUpdate(
                f"rows are a matrix [n, d], and this has shape {tuple(self.values.shape)}."
            )
        if self.weights.shape != self.values.shape[:1]:
            raise BadUpdate(
                f"{len(self.values)} rows need as many weights, and got"
                f" {tuple(self.weights.shape)}."
            )
        if self.ids is not None and len(self.ids) != len(self.values):
            raise BadUpdate(f"{len(self.values)} rows need as many ids, and got {len(self.ids)}.")

    @classmethod
    def of(
        cls, values: Sequence[Sequence[float]] | Tensor, weights: Sequence[float] | None = None
    ) -> Rows:
        """Rows from nested lists or a tensor, of weight 1 unless said, with ids 0..n-1."""
        matrix = values if isinstance(values, Tensor) else torch.tensor(values, dtype=torch.float32)
        n = len(matrix)
        return cls(
            matrix,
            torch.ones(n) if weights is None else torch.tensor(weights, dtype=torch.float32),
            tuple(range(n)),
        )

    @property
    def n(self) -> int:
        """How many rows."""
        return len(self.values)

    @property
    def d(self) -> int:
        """How long each row is."""
        return self.values.shape[1]

    def take(self, chosen: Sequence[int] | Tensor) -> Rows:
        """The rows at these positions, in this order."""
        index = torch.as_tensor(chosen, dtype=torch.int64)
        ids = None if self.ids is None else tuple(self.ids[int(i)] for i in index)
        return Rows(_taken(self.values, index), self.weights[index], ids)


def _taken(values: Tensor, index: Tensor) -> Tensor:
    """The rows at these positions. numpy's memory has huge pages: fresh small ones cost several
    times the copy.
    """
    if values.device.type != "cpu" or values.dtype not in (torch.float32, torch.float64):
        return values[index]
    return torch.from_numpy(values.detach().numpy()[index.numpy()])


@dataclass(frozen=True, slots=True)
class Total:
    """The side that aggregates reads a weighted sum [d], the sum of the weights, the number of
    contributions. Nothing else.

    >>> Total(torch.tensor([2.0]), weight=4.0, count=2).mean()
    tensor([0.5000])
    """

    value: Float[Tensor, " d"]
    weight: float
    count: int

    def mean(self) -> Vector:
        """The weighted mean.

        Raises:
            BadUpdate: the weights sum to nothing.
        """
        if not self.weight > 0:
            raise BadUpdate(f"a total of weight {self.weight} has no mean.")
        return self.value / self.weight


@dataclass(frozen=True, slots=True)
class Opened(Generic[O_co]):
    """What a channel opened, who is in it, what leaked beside it (selection bits, norms, group
    means) by name, and who was refused.

    ``excluded`` names the parties whose contribution the protocol could not use, with the reason.
    """

    what: O_co
    survivors: tuple[ClientId, ...]
    disclosed: Mapping[str, Tensor] = field(default_factory=dict)
    excluded: Mapping[PartyId, str] = field(default_factory=dict)
