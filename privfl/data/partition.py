"""Who holds which samples: partitioners from one data set to the index tensors of its clients,
repeatable from a generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.core import ConfigError, Dataset, require, unknown


@runtime_checkable
class Partitioner(Protocol):
    """Deals a data set out to clients: one index tensor each, no sample twice, the same for the
    same generator state.
    """

    def __call__(
        self, dataset: Dataset, clients: int | None, rng: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Positions of each client's samples."""
        ...


@dataclass(frozen=True, slots=True)
class IID:
    """Every sample to a client at random; sizes differ by at most one.

    >>> parts = IID()(
    ...     Dataset(torch.zeros(5, 1), torch.zeros(5, dtype=torch.int64), classes=1),
    ...     2,
    ...     torch.Generator().manual_seed(0),
    ... )
    >>> [len(part) for part in parts]
    [3, 2]
    """

    def __call__(
        self, dataset: Dataset, clients: int | None, rng: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Every sample exactly once.

        Raises:
            ConfigError: no number of clients, or more clients than samples.
        """
        n = _clients("iid", dataset, clients)
        return torch.tensor_split(torch.randperm(dataset.n, generator=rng), n)


@dataclass(frozen=True, slots=True)
class Dirichlet:
    """Label skew: each class is dealt out in proportions drawn from a symmetric Dirichlet(alpha)
    over the clients.

    Small ``alpha`` gives clients of one or two classes, large ``alpha`` gives IID. Sizes differ as
    well. Where the draw leaves a client under ``min_size``, samples at random of whoever holds most
    make it up: one draw, no rejection, so it always ends. The skew of Hsu, Qi, Brown 2019 in the
    form of Yurochkin et al. 2019, where proportions are drawn by class.

    Raises:
        ConfigError: ``alpha`` is not a positive number, or ``min_size`` is negative.

    >>> data = Dataset(torch.zeros(100, 1), torch.arange(100) % 10, classes=10)
    >>> parts = Dirichlet(alpha=0.1, min_size=3)(data, 5, torch.Generator().manual_seed(0))
    >>> sum(len(part) for part in parts), min(len(part) for part in parts) >= 3
    (100, True)
    """

    alpha: float = 0.5
    min_size: int = 1

    def __post_init__(self) -> None:
        require.positive(alpha=self.alpha)
        require.finite(alpha=self.alpha)
        require.at_least(0, min_size=self.min_size)

    def __call__(
        self, dataset: Dataset, clients: int | None, rng: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Every sample exactly once.

        Raises:
            ConfigError: no number of clients, more clients than samples, a ``min_size`` that there
                are not enough samples for, or samples without one label each.
        """
        n = _clients("dirichlet", dataset, clients, self.min_size)
        y = _labels("dirichlet", dataset)
        owners = torch.empty(dataset.n, dtype=torch.int64)
        for label in range(dataset.classes):
            members = (y == label).nonzero().squeeze(1)
            members = members[torch.randperm(len(members), generator=rng)]
            ends = (self._proportions(n, rng).cumsum(0)[:-1] * len(members)).round().to(torch.int64)
            owners[members] = torch.searchsorted(ends, torch.arange(len(members)), right=True)
        self._make_up(owners, n, rng)
        return _by_owner(owners, n)

    def _proportions(self, clients: int, rng: torch.Generator) -> Float[Tensor, " clients"]:
        """One Dirichlet draw, through log Gamma(a) = log Gamma(a + 1) + log(U) / a: small alphas do
        not underflow to nothing.
        """
        shape = torch.full((clients,), self.alpha + 1, dtype=torch.float64)
        uniform = 1 - torch.rand(clients, generator=rng, dtype=torch.float64)
        return torch.softmax(
            torch._standard_gamma(shape, generator=rng).log() + uniform.log() / self.alpha, dim=0
        )

    def _make_up(self, owners: Int[Tensor, " n"], clients: int, rng: torch.Generator) -> None:
        sizes = torch.bincount(owners, minlength=clients)
        for short in (sizes < self.min_size).nonzero().squeeze(1).tolist():
            while sizes[short] < self.min_size:
                rich = int(sizes.argmax())
                held = (owners == rich).nonzero().squeeze(1)
                count = min(
                    self.min_size - int(sizes[short]), max(1, (len(held) - self.min_size) // 2)
                )
                owners[held[torch.randperm(len(held), generator=rng)[:count]]] = short
                sizes[short] += count
                sizes[rich] -= count


@dataclass(frozen=True, slots=True)
class Shards:
    """Pathological label skew (McMahan et al. 2017, section 3): samples sorted by label, cut into
    shards, ``per_client`` to each client.

    With 100 clients and 2 shards each, most clients of MNIST hold two digits. Shards differ in size
    by at most one.

    Raises:
        ConfigError: ``per_client`` is under 1.

    >>> data = Dataset(torch.zeros(40, 1), torch.arange(40) % 4, classes=4)
    >>> parts = Shards(per_client=1)(data, 4, torch.Generator().manual_seed(0))
    >>> sorted(int(data.y[part].unique()) for part in parts)
    [0, 1, 2, 3]
    """

    per_client: int = 2

    def __post_init__(self) -> None:
        require.at_least(1, per_client=self.per_client)

    def __call__(
        self, dataset: Dataset, clients: int | None, rng: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Every sample exactly once.

        Raises:
            ConfigError: no number of clients, more shards than samples, or samples without one
                label each.
        """
        n = _clients("shards", dataset, clients, self.per_client)
        shuffled = torch.randperm(dataset.n, generator=rng)
        by_label = shuffled[_labels("shards", dataset)[shuffled].argsort(stable=True)]
        shards = torch.tensor_split(by_label, n * self.per_client)
        dealt = torch.randperm(len(shards), generator=rng).view(n, self.per_client)
        return tuple(torch.cat([shards[i] for i in row]) for row in dealt.tolist())


@dataclass(frozen=True, slots=True)
class Natural:
    """One client for each value of an attribute: a writer, a role, a hospital; those with fewer
    than ``min_size`` samples take no part.

    Clients come in the order of the values. Asked for fewer clients than there are, it takes the
    largest ones (of equals, the first); asked for more, it refuses, because a natural client cannot
    be split. Asked for None, it takes all.

    Raises:
        ConfigError: ``min_size`` is under 1.

    >>> hospitals = {"hospital": torch.tensor([2, 0, 2, 0, 2, 1])}
    >>> data = Dataset(
    ...     torch.zeros(6, 1), torch.zeros(6, dtype=torch.int64), classes=1, attributes=hospitals
    ... )
    >>> [part.tolist() for part in Natural("hospital", min_size=2)(data, None, torch.Generator())]
    [[1, 3], [0, 2, 4]]
    """

    attribute: str
    min_size: int = 1

    def __post_init__(self) -> None:
        require.at_least(1, min_size=self.min_size)

    def __call__(
        self, dataset: Dataset, clients: int | None, rng: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Every sample of a value that takes part exactly once, in the data set's order.

        Raises:
            ConfigError: an unknown attribute, or more clients than values that are large enough.
        """
        if self.attribute not in dataset.attributes:
            raise ConfigError(
                f"natural: {unknown('attribute', self.attribute, dataset.attributes)}"
            )
        _, inverse, sizes = torch.unique(
            dataset.attributes[self.attribute], return_inverse=True, return_counts=True
        )
        large = (sizes >= self.min_size).nonzero().squeeze(1)
        if not len(large) or (clients is not None and not 1 <= clients <= len(large)):
            asked = (
                ""
                if clients is None
                else (
                    f" and {clients} were asked for: ask for at most {len(large)}, or lower"
                    " min_size"
                )
            )
            raise ConfigError(
                f"natural: {len(large)} values of '{self.attribute}' have at least {self.min_size}"
                f" samples{asked}."
            )
        if clients is not None:
            large = (
                large[sizes[large].argsort(descending=True, stable=True)[:clients]].sort().values
            )
        parts = _by_owner(inverse, len(sizes))
        return tuple(parts[value] for value in large.tolist())


def label_counts(dataset: Dataset, parts: Sequence[Tensor]) -> Int[Tensor, "clients classes"]:
    """How many samples of each class each client holds; for text, how many of each token it is to
    predict.

    >>> data = Dataset(torch.zeros(4, 1), torch.tensor([0, 1, 1, 2]), classes=3)
    >>> label_counts(data, (torch.tensor([0, 1, 2]), torch.tensor([3]))).tolist()
    [[1, 2, 0], [0, 0, 1]]
    """
    counts = [
        torch.bincount(dataset.y[part].reshape(-1), minlength=dataset.classes) for part in parts
    ]
    return torch.stack(counts) if counts else torch.zeros(0, dataset.classes, dtype=torch.int64)


def _clients(name: str, dataset: Dataset, clients: int | None, each: int = 1) -> int:
    """The number of clients, where there are enough samples to give ``each`` (and one at least) to
    every client.
    """
    if clients is None:
        raise ConfigError(
            f"{name} needs a number of clients; only natural partitions bring their own."
        )
    require.at_least(1, clients=clients)
    if clients * max(each, 1) > dataset.n:
        raise ConfigError(
            f"{name}: {clients} clients with at least {max(each, 1)} samples each need"
            f" {clients * max(each, 1)} samples, and there are {dataset.n}: ask for fewer clients,"
            " or fewer samples each."
        )
    return clients


def _labels(name: str, dataset: Dataset) -> Int[Tensor, " n"]:
    if dataset.y.ndim != 1:
        raise ConfigError(
            f"{name} goes by one label for each sample, and these labels have shape"
            f" {tuple(dataset.y.shape)}: use natural or iid."
        )
    return dataset.y.cpu()


def _by_owner(owners: Int[Tensor, " n"], clients: int) -> tuple[Tensor, ...]:
    """Positions of each owner's samples, in the data set's order."""
    return torch.split(
        owners.argsort(stable=True), torch.bincount(owners, minlength=clients).tolist()
    )
