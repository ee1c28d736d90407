"""The per-sample gradient of a parameter that is used more than once: a layer that runs twice, or
an output layer that is the embedding (Bu et al. 2023, section 3; the norm of a sum has cross
terms).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.dp.sgd.per_sample_gradients import (
    ILL,
    ROUNDINGS,
    BlockGradient,
    EmbeddingGradient,
    OuterProduct,
    PerSampleGradient,
    SequenceOuterProduct,
    StoredGradient,
    outers,
)

Outer: TypeAlias = OuterProduct | SequenceOuterProduct


def together(pieces: Sequence[PerSampleGradient], shape: torch.Size) -> PerSampleGradient:
    """The sum of what each use of a parameter of that shape left, in the cheapest form that has an
    exact norm.
    """
    if len(pieces) == 1:
        return pieces[0]
    blocks = [piece for piece in pieces if isinstance(piece, BlockGradient)]
    if len(blocks) == len(pieces) and _apart(blocks):
        return Blocks(tuple(blocks))
    products = [piece for piece in pieces if isinstance(piece, OuterProduct | SequenceOuterProduct)]
    tables = [piece for piece in pieces if isinstance(piece, EmbeddingGradient)]
    found: list[PerSampleGradient] = [
        piece
        for piece in pieces
        if not isinstance(piece, OuterProduct | SequenceOuterProduct | EmbeddingGradient)
    ]
    if products:
        found.append(_joined(products))
    if tables:
        found.append(_table(tables))
    if len(found) == 1:
        return found[0]
    if len(found) == 2 and isinstance(found[0], SequenceOuterProduct) and tables:
        return TiedGradient(_table(tables), found[0])
    return StoredGradient(torch.stack([piece.dense(shape) for piece in found]).sum(dim=0))


def _table(tables: Sequence[EmbeddingGradient]) -> EmbeddingGradient:
    """One longer sequence of look-ups."""
    if len(tables) == 1:
        return tables[0]
    return EmbeddingGradient(
        torch.cat([table.tokens for table in tables], 1),
        torch.cat([table.errors for table in tables], 1),
        tables[0].size,
    )


def _joined(products: Sequence[Outer]) -> PerSampleGradient:
    """One longer sequence of outer products."""
    if len(products) == 1:
        return products[0]
    pairs = [
        (p.inputs[:, None], p.errors[:, None])
        if isinstance(p, OuterProduct)
        else (p.inputs, p.errors)
        for p in products
    ]
    return outers(torch.cat([a for a, _ in pairs], 1), torch.cat([g for _, g in pairs], 1))


def _apart(blocks: Sequence[BlockGradient]) -> bool:
    ordered = sorted(blocks, key=lambda block: block.start)
    return all(a.stop <= b.start for a, b in itertools.pairwise(ordered))


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of rows that do not overlap."""

    blocks: tuple[BlockGradient, ...]

    def tensors(self) -> tuple[Tensor, ...]:
        """What its parts are made of."""
        return tuple(one for block in self.blocks for one in block.tensors())

    def squared(self) -> Float[Tensor, " b"]:
        """Their sum."""
        return torch.stack([block.squared() for block in self.blocks]).sum(dim=0)

    def add(self, slot: Tensor, factors: Float[Tensor, " b"]) -> None:
        """Each into its rows of a parameter [...]."""
        for block in self.blocks:
            block.add(slot, factors)

    def dense(self, shape: torch.Size) -> Float[Tensor, "b *shape"]:
        """All rows."""
        return torch.stack([block.dense(shape) for block in self.blocks]).sum(dim=0)


@dataclass(slots=True)
class TiedGradient:
    """An embedding that is the output layer as well. The squared norm of the sum is the sum of the
    squared norms and twice the inner product, which needs only the output layer's errors at the
    tokens that a sample looked up. A sample whose terms cancel is made in float64 instead.
    """

    table: EmbeddingGradient
    head: SequenceOuterProduct
    ill: Int[Tensor, " k"] | None = field(default=None, init=False)

    def tensors(self) -> tuple[Tensor, ...]:
        """What its parts are made of."""
        return self.table.tensors() + self.head.tensors()

    def squared(self) -> Float[Tensor, " b"]:
        """|in|^2 + |out|^2 + 2 <in, out>."""
        table, head = self.table, self.head
        tokens = table.tokens[:, None, :].expand(-1, head.errors.shape[1], -1)
        at = head.errors.gather(2, tokens)
        cross = torch.bmm(head.inputs, table.errors.mT).mul_(at).sum(dim=(1, 2))
        lengths = head.inputs.norm(dim=2)[:, :, None] * table.errors.norm(dim=2)[:, None, :]
        apart = table.squared() + head.squared()
        reach = apart + 2 * lengths.mul_(at.abs_()).sum(dim=(1, 2))
        squared = (apart + 2 * cross).clamp_(min=0)
        ill = squared * ILL < reach
        squared.add_(reach, alpha=ROUNDINGS * torch.finfo(reach.dtype).eps)
        if bool(ill.any()):
            self.ill = torch.nonzero(ill).flatten()
            for sample in self.ill.tolist():
                squared[sample] = self._exact(sample).square().sum()
        return squared

    def _exact(self, sample: int) -> Tensor:
        made = self.head.exact(sample)
        return made.index_add_(0, self.table.tokens[sample], self.table.errors[sample].double())

    def add(self, slot: Tensor, factors: Float[Tensor, " b"]) -> None:
        """Both, into one table [v, e]."""
        if self.ill is not None:
            for sample in self.ill.tolist():
                slot.add_(self._exact(sample).mul_(factors[sample]))
            factors = factors.index_fill(0, self.ill, 0)
        self.table.add(slot, factors)
        self.head.add(slot, factors)

    def dense(self, shape: torch.Size) -> Float[Tensor, "b v e"]:
        """The sum."""
        return self.table.dense(shape) + self.head.dense(shape)
