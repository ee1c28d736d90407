"""Forms in which the per-sample gradients of one parameter can be held: each knows its norms and
its weighted sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class PerSampleGradient(Protocol):
    """Per-sample gradients of one parameter."""

    def squared(self) -> Float[Tensor, " b"]:
        """Each sample's squared norm."""
        ...

    def add(self, slot: Tensor, factors: Float[Tensor, " b"]) -> None:
        """Add the sum over samples, each times its factor, to a tensor of the parameter's shape
        [...], in place.
        """
        ...


def squares(rows: Float[Tensor, "b i"]) -> Float[Tensor, " b"]:
    """Each row's squared norm."""
    squared: Tensor = torch.linalg.vector_norm(rows, dim=1).square_()
    return squared


@dataclass(frozen=True, slots=True)
class StoredGradient:
    """The gradients themselves [b, *shape]; ``order`` permutes their shape into the parameter's;
    ``known`` are their squared norms.
    """

    gradients: Float[Tensor, "b *shape"]
    order: tuple[int, ...] | None = None
    known: Float[Tensor, " b"] | None = None

    def squared(self) -> Float[Tensor, " b"]:
        """Each sample's squared norm."""
        if self.known is not None:
            return self.known
        return squares(self.gradients.flatten(1))

    def add(self, slot: Tensor, factors: Float[Tensor, " b"]) -> None:
        """One product of a matrix and a vector."""
        if self.order is None:
            slot.view(-1).addmv_(self.gradients.flatten(1).T, factors)
        else:
            slot.add_(
                (factors @ self.gradients.flatten(1))
                .view(self.gradients.shape[1:])
                .permute(self.order)
            )


@dataclass(frozen=True, slots=True)
class OuterProduct:
    """One outer product a sample: what a linear layer on [b, i] has. Norms are products of norms
    (Goodfellow 2015).

    ``known`` are the errors' squared norms, which a bias has as well.
    """

    inputs: Float[Tensor, "b i"]
    errors: Float[Tensor, "b o"]
    known: Float[Tensor, " b"] | None = None

    def squared(self) -> Float[Tensor, " b"]:
        """|a|^2 |g|^2."""
        errors = squares(self.errors) if self.known is None else self.known
        return squares(self.inputs).mul_(errors)

    def add(self, slot: Tensor, factors: Float[Tensor, " b"]) -> None:
        """(f g)^T a."""
        slot.addmm_((self.errors * factors[:, None]).T, self.inputs)


@dataclass(frozen=True, slots=True)
class SequenceOuterProduct:
    """A sum of t outer products a sample: a linear layer on [b, t, i], where t is small beside i
    and o (Li et al. 2022, ghost norms).
    """

    inputs: Float[Tensor, "b t i"]
    errors: Float[Tensor, "b t o"]

    def squared(self) -> Float[Tensor, " b"]:
        """The sum over pairs of positions of (a.a') (g.g')."""
        alike = torch.bmm(self.inputs, self.inputs.mT)
        return alike.mul_(torch.bmm(self.errors, self.errors.mT)).sum(dim=(1, 2)).clamp_(min=0)

    def add(self, slot: Tensor, factors: Float[Tensor, " b"]) -> None:
        """(f g)^T a over all positions."""
        slot.addmm_(
            (self.errors * factors[:, None, None]).flatten(0, 1).T, self.inputs.flatten(0, 1)
        )


def outers(inputs: Float[Tensor, "b t i"], errors: Float[Tensor, "b t o"]) -> PerSampleGradient:
    """Sums of outer products, in the cheaper of the two forms."""
    t, i, o = inputs.shape[1], inputs.shape[2], errors.shape[2]
    if t == 1:
        return OuterProduct(inputs[:, 0], errors[:, 0])
    if t * (i + o) <= i * o:
        return SequenceOuterProduct(inputs, errors)
    return StoredGradient(torch.bmm(errors.mT, inputs))


@dataclass(frozen=True, slots=True)
class EmbeddingGradient:
    """Rows of a table [v, e] that each sample looked up: its gradient is zero elsewhere, and never
    made.
    """

    tokens: Int[Tensor, "b t"]
    errors: Float[Tensor, "b t e"]

    def squared(self) -> Float[Tensor, " b"]:
        """The sum over pairs of positions with the same token of g.g'."""
        same = self.tokens[:, :, None] == self.tokens[:, None, :]
        return (torch.bmm(self.errors, self.errors.mT) * same).sum(dim=(1, 2)).clamp_(min=0)

    def add(self, slot: Tensor, factors: Float[Tensor, " b"]) -> None:
        """Errors added up at their rows."""
        slot.index_add_(
            0, self.tokens.flatten(), (self.errors * factors[:, None, None]).flatten(0, 1)
        )
