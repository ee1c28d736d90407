"""Forms in which the per-sample gradients of one parameter can be held: each knows its norms and
its weighted sum.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class PerSampleGradient(Protocol):
    """Per-sample gradients of one parameter."""

    def tensors(self) -> tuple[Tensor, ...]:
        """What it is made of: none of these may change between `squared` and `add`."""
        ...

    def squared(self) -> Float[Tensor, " b"]:
        """Each sample's squared norm; never less than it is, beyond rounding."""
        ...

    def add(self, slot: Tensor, factors: Float[Tensor, " b"]) -> None:
        """Add the sum over samples, each times its factor, to a tensor of the parameter's shape
        [...], in place. Only after `squared`.
        """
        ...

    def dense(self, shape: torch.Size) -> Float[Tensor, "b *shape"]:
        """The gradients themselves, of a parameter of that shape."""
        ...


_RUN = 256
"""So many squares are added up in the rows' own precision: of more, where all are alike, all would
be rounded alike, and a norm of 10^6 of them could be off by 10^-3.
"""


def squares(rows: Float[Tensor, "b i"]) -> Float[Tensor, " b"]:
    """Each row's squared norm, within 1e-6 of the exact one."""
    width = rows.shape[1]
    whole = width - width % _RUN
    squared: Tensor
    if not whole:
        squared = torch.linalg.vector_norm(rows, dim=1).square_()
        return squared
    runs = rows[:, :whole].view(len(rows), whole // _RUN, _RUN)
    squared = torch.linalg.vector_norm(runs, dim=2).square_().sum(dim=1)
    if whole < width:
        squared.add_(torch.linalg.vector_norm(rows[:, whole:], dim=1).square_())
    return squared


@dataclass(frozen=True, slots=True)
class StoredGradient:
    """The gradients themselves [b, *shape]; ``order`` permutes their shape into the parameter's;
    ``known`` are their squared norms.
    """

    gradients: Float[Tensor, "b *shape"]
    order: tuple[int, ...] | None = None
    known: Float[Tensor, " b"] | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        """What it is made of."""
        return (self.gradients,)

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

    def dense(self, shape: torch.Size) -> Float[Tensor, "b *shape"]:
        """What is held, in the parameter's order."""
        if self.order is None:
            return self.gradients.reshape(-1, *shape)
        return self.gradients.permute(0, *(axis + 1 for axis in self.order))


@dataclass(frozen=True, slots=True)
class OuterProduct:
    """One outer product a sample: what a linear layer on [b, i] has. Norms are products of norms
    (Goodfellow 2015).

    ``known`` are the errors' squared norms, which a bias has as well.
    """

    inputs: Float[Tensor, "b i"]
    errors: Float[Tensor, "b o"]
    known: Float[Tensor, " b"] | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        """What it is made of."""
        return self.inputs, self.errors

    def squared(self) -> Float[Tensor, " b"]:
        """|a|^2 |g|^2."""
        errors = squares(self.errors) if self.known is None else self.known
        return squares(self.inputs).mul_(errors)

    def add(self, slot: Tensor, factors: Float[Tensor, " b"]) -> None:
        """(f g)^T a."""
        slot.addmm_((self.errors * factors[:, None]).T, self.inputs)

    def dense(self, shape: torch.Size) -> Float[Tensor, "b o i"]:
        """The outer products."""
        return self.errors[:, :, None] * self.inputs[:, None, :]


ILL = 1e4
"""A sum of outer products whose squared norm is so many times under what its terms could reach is
made term by term: the short form loses that factor of its digits.
"""
ROUNDINGS = 4
"""The short form's error, in units of rounding times what its terms could reach."""


@dataclass(slots=True)
class SequenceOuterProduct:
    """A sum of t outer products a sample: a linear layer on [b, t, i], where t is small beside i
    and o (Li et al. 2022, ghost norms).

    Where a sample's terms cancel, its norm from inner products has few digits or none. So its
    rounding error, at most a few units of (sum_t |a_t| |g_t|)^2, is added to the squared norm, and
    a sample that it would dominate is made in float64 instead, for the norm and for the sum.
    ``alike`` are the inputs' inner products where they are known.
    """

    inputs: Float[Tensor, "b t i"]
    errors: Float[Tensor, "b t o"]
    alike: Float[Tensor, "b t t"] | None = None
    ill: Int[Tensor, " k"] | None = field(default=None, init=False)

    def tensors(self) -> tuple[Tensor, ...]:
        """What it is made of."""
        return self.inputs, self.errors

    def squared(self) -> Float[Tensor, " b"]:
        """The sum over pairs of positions of (a.a') (g.g')."""
        alike = products(self.inputs) if self.alike is None else self.alike
        errors = products(self.errors)
        lengths = alike.diagonal(dim1=1, dim2=2) * errors.diagonal(dim1=1, dim2=2)
        reach = lengths.sqrt_().sum(dim=1).square_()
        squared = errors.mul_(alike).sum(dim=(1, 2)).clamp_(min=0)
        ill = squared * ILL < reach
        squared.add_(reach, alpha=ROUNDINGS * torch.finfo(reach.dtype).eps)
        if bool(ill.any()):
            self.ill = torch.nonzero(ill).flatten()
            for row in self.ill.tolist():
                squared[row] = torch.linalg.matrix_norm(self.exact(row)).square()
        return squared

    def exact(self, row: int) -> Float[Tensor, "o i"]:
        """A sample's gradient in float64."""
        return self.errors[row].double().T @ self.inputs[row].double()

    def add(self, slot: Tensor, factors: Float[Tensor, " b"]) -> None:
        """(f g)^T a over all positions."""
        if self.ill is not None:
            for row in self.ill.tolist():
                slot.add_(self.exact(row).mul_(factors[row]))
            factors = factors.index_fill(0, self.ill, 0)
        inputs, errors = self.inputs, self.errors
        if inputs.shape[2] < errors.shape[2]:
            inputs = inputs * factors[:, None, None]
        else:
            errors = errors * factors[:, None, None]
        slot.addmm_(errors.flatten(0, 1).T, inputs.flatten(0, 1))

    def dense(self, shape: torch.Size) -> Float[Tensor, "b o i"]:
        """The sums of outer products."""
        return torch.bmm(self.errors.mT, self.inputs)


def products(rows: Float[Tensor, "b t i"]) -> Float[Tensor, "b t t"]:
    """Inner products of each sample's rows, of long ones in runs: see `_RUN`."""
    first, *others = torch.split(rows, 2 * _RUN, dim=2)
    made = torch.bmm(first, first.mT)
    for run in others:
        made.baddbmm_(run, run.mT)
    return made


def outers(inputs: Float[Tensor, "b t i"], errors: Float[Tensor, "b t o"]) -> PerSampleGradient:
    """Sums of outer products, in the cheaper of the two forms."""
    t, i, o = inputs.shape[1], inputs.shape[2], errors.shape[2]
    if t == 1:
        return OuterProduct(inputs[:, 0], errors[:, 0])
    if 2 * t * (i + o) <= i * o:
        return SequenceOuterProduct(inputs, errors)
    return StoredGradient(torch.bmm(errors.mT, inputs))


@dataclass(slots=True)
class EmbeddingGradient:
    """Rows of a table [v, e] that each sample looked up: its gradient is zero elsewhere, and never
    made.
    """

    tokens: Int[Tensor, "b t"]
    errors: Float[Tensor, "b t e"]
    size: int
    """How many rows the table has."""
    _merged: tuple[Tensor, Tensor, Tensor] | None = field(default=None, init=False)

    def rows(self) -> tuple[Int[Tensor, " r"], Int[Tensor, " r"], Float[Tensor, "r e"]]:
        """Samples, tokens and gradients: no pair of sample and token comes twice."""
        if self._merged is None:
            batch = torch.arange(len(self.tokens), device=self.tokens.device)[:, None]
            kept, where = torch.unique(batch * self.size + self.tokens, return_inverse=True)
            rows = self.errors.new_zeros(len(kept), self.errors.shape[2])
            rows.index_add_(0, where.flatten(), self.errors.flatten(0, 1))
            self._merged = kept // self.size, kept % self.size, rows
        return self._merged

    def tensors(self) -> tuple[Tensor, ...]:
        """What it is made of."""
        return self.tokens, self.errors

    def squared(self) -> Float[Tensor, " b"]:
        """Squared rows, added up by sample."""
        samples, _, rows = self.rows()
        return rows.new_zeros(len(self.tokens)).index_add_(0, samples, squares(rows))

    def add(self, slot: Tensor, factors: Float[Tensor, " b"]) -> None:
        """Rows added up at their places."""
        samples, tokens, rows = self.rows()
        slot.index_add_(0, tokens, rows * factors[samples, None])

    def dense(self, shape: torch.Size) -> Float[Tensor, "b v e"]:
        """A table a sample."""
        samples, tokens, rows = self.rows()
        tables = rows.new_zeros(len(self.tokens), *shape)
        tables[samples, tokens] = rows
        return tables


@dataclass(frozen=True, slots=True)
class BlockGradient:
    """The gradient of a parameter's rows ``start`` to ``stop``; it is zero elsewhere."""

    part: PerSampleGradient
    start: int
    stop: int

    def tensors(self) -> tuple[Tensor, ...]:
        """What its part is made of."""
        return self.part.tensors()

    def squared(self) -> Float[Tensor, " b"]:
        """Those of the rows."""
        return self.part.squared()

    def add(self, slot: Tensor, factors: Float[Tensor, " b"]) -> None:
        """Into the rows of a parameter [...]."""
        self.part.add(slot[self.start : self.stop], factors)

    def dense(self, shape: torch.Size) -> Float[Tensor, "b *shape"]:
        """Zero but for the rows."""
        rows = self.part.dense(torch.Size((self.stop - self.start, *shape[1:])))
        whole = rows.new_zeros(len(rows), *shape)
        whole[:, self.start : self.stop] = rows
        return whole
