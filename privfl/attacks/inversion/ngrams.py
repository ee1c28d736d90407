"""A language model of pairs and triples of tokens, learnt from the adversary's own text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_ENTRIES = 1 << 22
"""Tables of more entries are not made: of large vocabularies only pairs or single tokens count."""


@dataclass(frozen=True, slots=True)
class NGrams:
    """Log probabilities of a token after none, one and two others, as far as tables go: each
    interpolated with the shorter one (Witten, Bell 1991).

    >>> told = ngrams(torch.tensor([[0, 1, 0, 1, 0, 1]]), vocabulary=2)
    >>> float(told.cost(torch.tensor([[0, 1, 0]]))) < float(told.cost(torch.tensor([[1, 1, 1]])))
    True
    """

    tables: tuple[Tensor, ...]

    def cost(self, sequences: Int[Tensor, "n T"]) -> Float[Tensor, " n"]:
        """Mean negative log probability of a token."""
        total = torch.zeros(len(sequences))
        for at in range(sequences.shape[1]):
            total -= self._next(sequences[:, :at]).gather(1, sequences[:, at : at + 1])[:, 0]
        return total / max(sequences.shape[1], 1)

    def drawn(
        self, n: int, length: int, allowed: Int[Tensor, " k"], rng: torch.Generator
    ) -> Int[Tensor, "n T"]:
        """So many sequences of allowed tokens."""
        mask = torch.full_like(self.tables[0], -torch.inf)
        mask[allowed] = 0
        made = torch.zeros(n, 0, dtype=torch.int64)
        for _ in range(length):
            chances = (self._next(made) + mask).softmax(dim=1)
            made = torch.cat([made, torch.multinomial(chances, 1, generator=rng)], dim=1)
        return made

    def _next(self, before: Int[Tensor, "n t"]) -> Float[Tensor, "n V"]:
        order = min(before.shape[1], len(self.tables) - 1)
        table = self.tables[order]
        for at in range(order, 0, -1):
            column = before[:, -at]
            table = table[column] if at == order else table[torch.arange(len(before)), column]
        return table.expand(len(before), -1) if order == 0 else table


def ngrams(text: Int[Tensor, "n T"], vocabulary: int) -> NGrams:
    """The language model of some sequences; tokens that are not in them get the least that is
    smoothed.
    """
    counts = torch.bincount(text.flatten(), minlength=vocabulary).float()
    now = (counts + 1) / (counts.sum() + vocabulary)
    tables = [now.log()]
    for order in (2, 3):
        if vocabulary**order > _ENTRIES or text.shape[1] < order:
            break
        flat = torch.zeros(text.shape[0], text.shape[1] - order + 1, dtype=torch.int64)
        for at in range(order):
            flat = flat * vocabulary + text[:, at : at + flat.shape[1]]
        seen = torch.bincount(flat.flatten(), minlength=vocabulary**order).float()
        seen = seen.view(*[vocabulary] * order)
        kinds = (seen > 0).float().sum(dim=-1, keepdim=True).clamp(min=1)
        now = (seen + kinds * now) / (seen.sum(dim=-1, keepdim=True) + kinds)
        tables.append(now.log())
    return NGrams(tuple(tables))
