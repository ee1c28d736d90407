"""A lie that is ordinary in every layer: its length there, and its signs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privfl.core import Knows, RoundKnowledge, UpdatePoison, Vector, require


@dataclass(frozen=True, slots=True)
class Ordinary(UpdatePoison):
    """The honest mean turned around, in each layer as long as the median honest row is there, and
    with its share of positive signs.

    Made against LASA, which averages the rows whose length and signs in a layer lie about the
    median: such a row always counts, and honest ones that do not are dropped. As LASA does, it
    cuts honest rows to their median norm and looks at the entries left when the ``sparsity`` l
    least of a layer of l are taken away. Signs are put right at the least of the entries that
    count, where it costs least. ``layers`` are the sizes of the layers, or whatever the rule takes
    for them; a vector of another length is one layer. No outside paper.

    Seat: updates, in collusion. Knows all honest updates.

    >>> from privfl.core import RoundPlan, Rows
    >>> rows = Rows.of([[1.0, -1, 3, 4], [1, -1, 3, 4], [2, -2, 4, 3]])
    >>> known = RoundKnowledge(RoundPlan(0, (0, 1, 2, 3), d=4, l2=9.0), torch.zeros(4), benign=rows)
    >>> Ordinary([2, 2], sparsity=0.0).poison_updates(torch.ones(1, 4), known, torch.Generator())
    tensor([[-1.0000,  1.0000,  3.3402,  3.7206]])
    """

    layers: Sequence[int] = ()
    sparsity: float = 0.3

    def __post_init__(self) -> None:
        require.within(0, 1, sparsity=self.sparsity)
        for number, size in enumerate(self.layers):
            require.at_least(1, **{f"layers[{number}]": size})

    @property
    def knows(self) -> Knows:
        """All honest updates."""
        return "benign"

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """The same row for each attacker [f, d]."""
        honest = knowledge.honest("Ordinary").values
        norms = honest.norm(dim=1)
        honest = honest * (norms.median() / norms.clamp(min=1e-30)).clamp(max=1)[:, None]
        sizes = list(self.layers) if sum(self.layers) == honest.shape[1] else [honest.shape[1]]
        parts = [turned(part, self.sparsity) for part in honest.split(sizes, dim=1)]
        return torch.cat(parts).expand(own.shape).clone()


def turned(honest: Float[Tensor, "h l"], sparsity: float) -> Float[Tensor, " l"]:
    """The mean of a layer's rows turned around, with the median length and the median share of
    positive entries of these rows, both without the least entries.
    """
    row = -honest.mean(dim=0)
    counts = torch.stack([largest(one, sparsity) for one in honest])
    positive = ((honest > 0) & counts).sum(dim=1) / counts.sum(dim=1).clamp(min=1)
    length = float((honest * counts).norm(dim=1).median())
    own = largest(row, sparsity)
    many = round(float(own.sum()) * float(positive.median())) - int(((row > 0) & own).sum())
    wrong = (own & ((row < 0) if many > 0 else (row > 0))).nonzero().flatten()
    least = wrong[row[wrong].abs().argsort()][: abs(many)]
    row[least] = -row[least]
    return row * (length / float((row * own).norm().clamp(min=1e-30)))


def largest(row: Vector, sparsity: float) -> Bool[Tensor, " l"]:
    """Which entries are left when the floor(``sparsity`` l) least in magnitude are taken away; none
    that is zero.

    >>> largest(torch.tensor([3.0, -1.0, 0.0, 2.0]), 0.5)
    tensor([ True, False, False,  True])
    """
    size, least = row.abs(), int(sparsity * len(row))
    if least == len(row):
        return torch.zeros_like(row, dtype=torch.bool)
    cut = size.kthvalue(least).values if least else torch.zeros(())
    return size > cut
