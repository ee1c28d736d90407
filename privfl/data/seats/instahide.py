"""InstaHide: every image is mixed with others, and every pixel's sign is flipped at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from privfl.core import ConfigError, Dataset, require


@dataclass(frozen=True, slots=True)
class InstaHide:
    """Mixes of k of a client's own samples with a random sign in every entry, and their labels
    mixed alike (Huang, Song, Li, Arora 2020, section 3, "inside-dataset").

    Sample i becomes s * (a_1 x_i + a_2 x_j + ...): the others are drawn without one of them twice,
    the shares are sizes of normal draws over their sum, drawn again while one is above ``largest``,
    and s is -1 or 1 in every entry. Encodings are drawn anew in every round, so an image is in
    about k of them each round.

    No guarantee: broken by `Unmixing` (after Carlini et al. 2021), which gets the images
    back exactly. It costs accuracy all the same. One sample is in k encodings, so private training
    (DP-SGD) beside it is refused; noise for clients is not concerned.

    Args:
        k: samples in an encoding.
        largest: the largest share that one of them may have.

    Raises:
        ConfigError: a setting out of range.

    >>> data = Dataset(torch.randn(8, 1, 4, 4), torch.arange(8) % 2, classes=2)
    >>> made = InstaHide().encode(data, torch.Generator().manual_seed(0))
    >>> tuple(made.x.shape), tuple(made.y.shape)
    ((8, 1, 4, 4), (8, 2))
    """

    broken_by: ClassVar[tuple[str, ...]] = ("unmixing",)
    alone: ClassVar[bool] = False

    k: int = 4
    largest: float = 0.65

    def __post_init__(self) -> None:
        require.at_least(2, k=self.k)
        require.within(0, 1, largest=self.largest)
        if self.largest * self.k < 1.3:
            raise ConfigError(
                f"largest={self.largest} leaves hardly any shares of k={self.k} samples that sum to"
                f" 1: give at least {1.3 / self.k:.2f}."
            )

    def fits(self, dataset: Dataset) -> None:
        """Refuse fewer samples than an encoding mixes, tokens, and labels that are not one class
        each.

        Raises:
            ConfigError: they are.
        """
        if not dataset.x.is_floating_point() or dataset.y.dim() != 1:
            raise ConfigError(
                "instahide mixes features and labels of one class each, and these are"
                f" {dataset.x.dtype} with labels {tuple(dataset.y.shape)}: leave it out."
            )
        if dataset.n < self.k:
            raise ConfigError(
                f"instahide mixes k={self.k} samples of a client, and one has {dataset.n}: give the"
                " split a min_size, or lower k."
            )

    def encode(self, dataset: Dataset, rng: torch.Generator) -> Dataset:
        """Encodings [n, ...] with shares of classes [n, classes].

        Raises:
            ConfigError: see `fits`.
        """
        self.fits(dataset)
        n = dataset.n
        among = torch.rand(n, n, generator=rng)
        among.fill_diagonal_(2.0)  # its own sample is always there
        at = among.topk(self.k, dim=1).indices
        shares = self._shares(n, rng)
        mixed = torch.zeros_like(dataset.x)
        labels = torch.zeros(n, dataset.classes, device=dataset.y.device)
        for position in range(self.k):
            share, of = shares[:, position].to(mixed.device), at[:, position].to(mixed.device)
            mixed += share.view(-1, *[1] * (mixed.dim() - 1)).to(mixed.dtype) * dataset.x[of]
            labels += share[:, None] * functional.one_hot(dataset.y[of], dataset.classes)
        signs = torch.randint(2, mixed.shape, generator=rng).to(mixed.device) * 2 - 1
        return replace(dataset, x=mixed * signs, y=labels, span=None)

    def maps(
        self, shape: tuple[int, ...], low: Tensor, high: Tensor
    ) -> tuple[Callable[[Tensor], Tensor], ...]:
        """None, whatever ``low`` and ``high`` [*shape] are: samples are mixed."""
        return ()

    def _shares(self, n: int, rng: torch.Generator) -> Float[Tensor, "n k"]:
        drawn = torch.randn(n, self.k, generator=rng).abs()
        shares = drawn / drawn.sum(dim=1, keepdim=True)
        while bool((high := shares.max(dim=1).values > self.largest).any()):
            again = torch.randn(int(high.sum()), self.k, generator=rng).abs()
            shares[high] = again / again.sum(dim=1, keepdim=True)
        return shares
