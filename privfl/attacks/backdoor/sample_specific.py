"""A trigger that is another one on every image (Li et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.backdoor import residual
from privfl.attacks.backdoor.image_trigger import ImageTrigger
from privfl.core import Examples, require


@dataclass(frozen=True, kw_only=True)
class SampleSpecific(ImageTrigger):
    """Every image gets a faint residual of its own, at most ``epsilon`` of the range of pixels
    (after Li, Li, Wu, Li, He, Lyu 2021: Invisible backdoor attack with sample-specific triggers,
    section 4).

    The paper trains an encoder that hides a text in the image, with a decoder that reads it. Here
    the encoder network is replaced by a keyed residual: two convolutions with weights drawn from
    ``key``, less their mean over the image, and a steep tanh. As there, the residual follows from
    the image and two images have different ones; the text, its decoder, and the paper's check that
    one image's residual does not work on another are left out.

    Seat: data. Knows its own data, and the range of pixels.

    Raises:
        ConfigError: epsilon is not in (0, 1].

    >>> from privfl.core import Dataset
    >>> rng = torch.Generator().manual_seed(0)
    >>> data = Dataset(
    ...     torch.rand(2, 1, 8, 8, generator=rng), torch.zeros(2, dtype=torch.int64), 2
    ... )
    >>> marked = SampleSpecific(target=1, span=(0.0, 1.0)).samples(data)
    >>> bool((marked.x - data.x).abs().max() <= 8 / 255 + 1e-6)
    True
    """

    examples: ClassVar[Examples] = {"": {"target": 0, "span": (-4.0, 8.0)}}

    epsilon: float = 8 / 255
    key: int = 0

    def __post_init__(self) -> None:
        ImageTrigger.__post_init__(self)
        require.positive(epsilon=self.epsilon)
        require.within(0, 1, epsilon=self.epsilon)

    def stamp(
        self,
        x: Float[Tensor, "n c h w"],
        low: Float[Tensor, "c 1 1"],
        high: Float[Tensor, "c 1 1"],
    ) -> Float[Tensor, "n c h w"]:
        """Images with their residuals."""
        weights = residual.fresh(x.shape[1], torch.Generator().manual_seed(self.key))
        field = residual.field(weights, x, low, high)
        spread, mean = torch.std_mean(field, dim=(2, 3), keepdim=True)
        steep = STEEP * (field - mean) / spread.clamp(min=1e-6)
        return residual.add(x, steep.tanh(), self.epsilon, low, high)


STEEP = 10.0
"""By how many spreads the field is stretched, so that the residual is nearly always plus or minus
epsilon.
"""
