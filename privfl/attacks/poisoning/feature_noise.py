"""Feature noise: honest training on spoilt inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from privfl.core import ConfigError, DataPoison, Dataset, require


@dataclass(frozen=True, slots=True)
class FeatureNoise(DataPoison):
    """Add N(0, sigma^2) to the features of a fraction of the samples; labels stay (Li et al. 2023:
    Blades, section 3, noise on data).

    sigma is in the features' own units: inputs are standardised, so 1 is as strong as the data
    itself.

    Seat: data. Knows its own data.

    >>> data = Dataset(torch.zeros(4, 1000), torch.tensor([0, 1, 0, 1]), classes=2)
    >>> bool(0.9 < FeatureNoise(sigma=1.0).poison_data(data, torch.Generator()).x.std() < 1.1)
    True
    """

    sigma: float = 1.0
    fraction: float = 1.0

    def __post_init__(self) -> None:
        require.positive(sigma=self.sigma)
        require.within(0, 1, fraction=self.fraction)

    def poison_data(self, dataset: Dataset, rng: torch.Generator) -> Dataset:
        """The samples with noise.

        Raises:
            ConfigError: the features are tokens, which noise cannot be added to.
        """
        if not dataset.x.is_floating_point():
            raise ConfigError(
                f"feature noise needs numbers, and these features are {dataset.x.dtype}."
            )
        x = dataset.x.clone()
        chosen = torch.randperm(dataset.n, generator=rng)[: round(self.fraction * dataset.n)]
        x[chosen] += (self.sigma * torch.randn(x[chosen].shape, generator=rng)).to(x)
        return replace(dataset, x=x)
