"""Data that one client holds: features, labels, and facts about samples that nobody trains on."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from privfl.core.errors import DataCorrupt

Span: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""The least and the greatest value of each channel."""


class _Origin:
    """Where samples were taken from. It is no field: it says nothing about the samples, so it is
    not compared, not in a run's fingerprint, and gone where a data set is copied or replaced.
    """

    __slots__ = ("_taken",)
    _taken: tuple[weakref.ref[Dataset], Tensor]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Dataset(_Origin):
    """Features ``x`` [n, ...] (float32; int64 tokens for text), labels ``y`` [n] (or [n, length]
    next tokens, or [n, classes] shares of the classes, float32), the number of classes.

    ``attributes`` are per-sample facts [n] that nobody trains on: who wrote a digit, a sex, a
    hospital. Natural partitions and property attacks read them. ``groups`` names the values of an
    attribute where they have names. ``span`` is the least and the greatest value that each channel
    can have, where everybody knows that without the data (pixels have a range, columns of a table
    none): attackers are told it.

    Raises:
        DataCorrupt: features, labels and attributes are not of one length.

    >>> Dataset(torch.zeros(3, 4), torch.tensor([0, 1, 1]), classes=2).n
    3
    """

    x: Tensor
    y: Tensor
    classes: int
    attributes: Mapping[str, Tensor] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    span: Span | None = None

    def __post_init__(self) -> None:
        lengths = {"labels": len(self.y)} | {
            name: len(column) for name, column in self.attributes.items()
        }
        for name, length in lengths.items():
            if length != len(self.x):
                raise DataCorrupt(f"{len(self.x)} samples, but {length} {name}.")

    @property
    def n(self) -> int:
        """How many samples."""
        return len(self.x)

    def take(self, index: Tensor | Sequence[int]) -> Dataset:
        """The samples at these positions, in this order."""
        chosen = torch.as_tensor(index, dtype=torch.int64)
        attributes = {
            name: column[chosen.to(column.device)] for name, column in self.attributes.items()
        }
        made = Dataset(
            self.x[chosen], self.y[chosen], self.classes, attributes, self.groups, self.span
        )
        object.__setattr__(made, "_taken", (weakref.ref(self), chosen))
        return made

    @property
    def origin(self) -> tuple[Dataset, Tensor] | None:
        """The data set that `take` copied these samples from, if somebody still holds it, and the
        positions [n] that were asked for; None otherwise. Either may have been written to since.

        >>> whole = Dataset(torch.zeros(3, 4), torch.tensor([0, 1, 1]), classes=2)
        >>> whole.take([2, 0]).origin[1]
        tensor([2, 0])
        """
        try:
            reference, index = self._taken
        except AttributeError:  # made otherwise
            return None
        whole = reference()
        return None if whole is None else (whole, index)

    def to(self, device: torch.device | str) -> Dataset:
        """The same samples with features and labels on a device; itself where they lie there."""
        if self.x.device == self.y.device == torch.device(device):
            return self
        return replace(self, x=self.x.to(device), y=self.y.to(device))


@runtime_checkable
class ClientDataSeat(Protocol):
    """A defence on data: a client trains on an encoding of its samples, drawn anew in each round.

    It promises nothing. Every such seat that is known was broken by somebody who knew how it works,
    so each says by which attacks of the catalogue (``broken_by``), and a run refuses one that names
    none. ``alone``: whether every sample that comes out is made of one that went in, and is the
    same whatever others went in and however many, with the same ``rng``; where several are mixed,
    one sample moves the gradients of several others, and clipping bounds no sample's share.
    """

    broken_by: ClassVar[tuple[str, ...]]
    alone: ClassVar[bool]

    def fits(self, dataset: Dataset) -> None:
        """Refuse data that cannot be encoded.

        Raises:
            ConfigError: they cannot.
        """
        ...

    def encode(self, dataset: Dataset, rng: torch.Generator) -> Dataset:
        """As many samples as went in, with labels of their own."""
        ...

    def maps(
        self, shape: tuple[int, ...], low: Tensor, high: Tensor
    ) -> tuple[Callable[[Tensor], Tensor], ...]:
        """All that it may do to a sample [n, *shape] with features between ``low`` and ``high``
        [*shape], as everybody can look it up; none where samples are mixed.
        """
        ...
