"""Columns of the same samples at different parties: who holds which, and which rows all of them
have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.core import ConfigError, DataCorrupt, unknown


@dataclass(frozen=True, slots=True, eq=False)
class Holding:
    """What one party holds: ids [n] of samples, each once, its columns of them [n, d], and what
    these are called.

    Ids are whole numbers: who has others (names, hashes) numbers them as all parties agree.

    Raises:
        DataCorrupt: lengths that differ, ids that are no whole numbers, or one that stands there
            twice.

    >>> Holding(torch.tensor([7, 9]), torch.zeros(2, 1), ("age",)).n
    2
    """

    ids: Int[Tensor, " n"] = field(repr=False)
    x: Float[Tensor, "n d"] = field(repr=False)
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.x) or self.x.shape[1] != len(self.names):
            raise DataCorrupt(
                f"{len(self.ids)} ids and {len(self.names)} names, but columns of shape"
                f" {tuple(self.x.shape)}."
            )
        if self.ids.is_floating_point():
            raise DataCorrupt("ids are whole numbers: number the names that all parties know.")
        if len(set(self.ids.tolist())) != len(self.ids):
            raise DataCorrupt("an id stands there twice: one row a sample is what can be aligned.")

    @property
    def n(self) -> int:
        """How many samples."""
        return len(self.ids)

    def places(self, ids: Int[Tensor, " k"]) -> Int[Tensor, " k"]:
        """Where these ids stand, so that what lies beside the rows (labels) follows an alignment.

        Raises:
            ConfigError: an id that is not held.

        >>> Holding(torch.tensor([7, 3, 9]), torch.zeros(3, 1), ("a",)).places(torch.tensor([3, 9]))
        tensor([1, 2])
        """
        where = {one: place for place, one in enumerate(self.ids.tolist())}
        missing = [one for one in ids.tolist() if one not in where]
        if missing:
            raise ConfigError(f"no sample has id {missing[0]}.")
        return torch.tensor([where[one] for one in ids.tolist()], dtype=torch.int64)

    def take(self, rows: Int[Tensor, " k"]) -> Holding:
        """The samples at these positions, in this order."""
        return Holding(self.ids[rows], self.x[rows], self.names)


def column_of(feature: str) -> str:
    """The column of a table that a feature was made of.

    >>> column_of("sex=Male"), column_of("log(1+duration)"), column_of("age")
    ('sex', 'duration', 'age')
    """
    name = feature.partition("=")[0]
    return name.removeprefix("log(1+").removesuffix(")") if name.startswith("log(1+") else name


def dealt_columns(
    x: Float[Tensor, "n d"], names: Sequence[str], columns: Mapping[str, Sequence[str]], rest: str
) -> dict[str, Holding]:
    """Features by party: the named columns to those who are given them, every other one to
    ``rest``. Ids are the rows' positions.

    Raises:
        ConfigError: no such column, one that two parties are given, or a party without any.

    >>> held = dealt_columns(torch.eye(3), ("age", "sex=F", "sex=M"), {"host/0": ["sex"]}, "guest")
    >>> held["host/0"].names, held["guest"].names
    (('sex=F', 'sex=M'), ('age',))
    """
    known = {column_of(name) for name in names}
    owner: dict[str, str] = {}
    for party, wanted in columns.items():
        for column in wanted:
            if column not in known:
                raise ConfigError(f"{party}: {unknown('column', column, known)}")
            if column in owner:
                raise ConfigError(
                    f"column '{column}' is given to {owner[column]} and to {party}: it is one"
                    " party's."
                )
            owner[column] = party
    places: dict[str, list[int]] = {party: [] for party in (*columns, rest)}
    for place, name in enumerate(names):
        places[owner.get(column_of(name), rest)].append(place)
    for party, held in places.items():
        if not held:
            raise ConfigError(f"{party} has no column: give it one of {', '.join(sorted(known))}.")
    ids = torch.arange(len(x))
    return {
        party: Holding(ids, x[:, held], tuple(names[place] for place in held))
        for party, held in places.items()
    }


def aligned(holdings: Mapping[str, Holding]) -> dict[str, Holding]:
    """The samples that every party has, in the order of their ids. Labels do not come along: the
    guest takes ``y[before.places(after.ids)]``.

    Ids are compared in the clear, so whoever aligns learns who has which: a private set
    intersection would hide the others, and is not here.

    Raises:
        ConfigError: no sample is everybody's.

    >>> a = Holding(torch.tensor([3, 1, 2]), torch.tensor([[3.0], [1.0], [2.0]]), ("a",))
    >>> b = Holding(torch.tensor([2, 3, 9]), torch.tensor([[2.0], [3.0], [9.0]]), ("b",))
    >>> [held.ids.tolist() for held in aligned({"guest": a, "host/0": b}).values()]
    [[2, 3], [2, 3]]
    """
    every = [set(held.ids.tolist()) for held in holdings.values()]
    shared = every[0].intersection(*every[1:]) if every else set()
    if not shared:
        raise ConfigError(f"no sample is held by all of {', '.join(holdings)}: compare their ids.")
    found = {}
    for party, held in holdings.items():
        order = held.ids.argsort()
        there = torch.tensor([one in shared for one in held.ids[order].tolist()])
        found[party] = held.take(order[there])
    return found
