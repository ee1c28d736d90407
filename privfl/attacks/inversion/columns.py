"""Which columns of a table are one category between them, as an adversary's own rows show it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def categories(rows: Float[Tensor, "n columns"]) -> tuple[slice, ...]:
    """Runs of columns that are one-hot: only 0 and 1 stand in them, and no row has two ones. A run
    ends where every row has its one, or where the next column would give a row a second one.

    >>> rows = torch.tensor([[0.3, 1, 0, 1, 0], [0.1, 0, 1, 1, 0], [0.2, 0, 1, 0, 1]])
    >>> categories(rows)
    (slice(1, 3, None), slice(3, 5, None))
    """
    binary = ((rows == 0) | (rows == 1)).all(dim=0).tolist()
    found: list[slice] = []
    start, taken = 0, torch.zeros(len(rows), dtype=torch.bool)
    for at, told in enumerate([*binary, False]):
        ones = rows[:, at] == 1 if told else taken
        done = at > start and (bool(taken.all()) or bool((taken & ones).any()))
        if not told or done:
            if at - start > 1:
                found.append(slice(start, at))
            start, taken = (at if told else at + 1), torch.zeros(len(rows), dtype=torch.bool)
        if told:
            taken = taken | ones
    return tuple(found)
