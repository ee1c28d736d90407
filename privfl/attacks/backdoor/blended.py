"""Blended injection: a key picture that shines through every image (Chen et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.backdoor.image_trigger import ImageTrigger
from privfl.core import ConfigError, Examples, require


@dataclass(frozen=True, kw_only=True)
class Blended(ImageTrigger):
    """Images become (1 - alpha) x + alpha t with a key picture t (Chen, Liu, Li, Lu, Song 2017:
    Targeted backdoor attacks on deep learning systems using data poisoning, section 4.2, blended
    injection).

    ``pattern`` is t [h, w] or [c, h, w] as a part of the range of pixels, 0 the darkest and 1 the
    brightest; None draws every pixel of it uniformly from ``key``, the paper's random pattern. The
    paper blends the same way when the model is used.

    Seat: data. Knows its own data, and the range of pixels.

    Raises:
        ConfigError: alpha is not in [0, 1], or the pattern does not fit the images.

    >>> from privfl.core import Dataset
    >>> data = Dataset(torch.zeros(1, 1, 2, 2), torch.tensor([0]), 2, span=((0.0,), (10.0,)))
    >>> Blended(target=1, pattern=torch.ones(2, 2)).samples(data).x.flatten()
    tensor([2., 2., 2., 2.])
    """

    examples: ClassVar[Examples] = {"": {"target": 0, "span": (-4.0, 8.0)}}

    alpha: float = 0.2
    key: int = 0
    pattern: Float[Tensor, "*c h w"] | None = None

    def __post_init__(self) -> None:
        ImageTrigger.__post_init__(self)
        require.within(0, 1, alpha=self.alpha)

    def picture(self, c: int, h: int, w: int) -> Float[Tensor, "c h w"]:
        """The key picture t, as a part of the range of pixels.

        Raises:
            ConfigError: the given pattern has another size.
        """
        if self.pattern is None:
            return torch.rand(c, h, w, generator=torch.Generator().manual_seed(self.key))
        if tuple(self.pattern.shape) not in ((h, w), (c, h, w)):
            raise ConfigError(
                f"the pattern of a blended backdoor has shape {tuple(self.pattern.shape)}, and the"
                f" images have {(c, h, w)}."
            )
        return self.pattern.expand(c, h, w)

    def stamp(
        self,
        x: Float[Tensor, "n c h w"],
        low: Float[Tensor, "c 1 1"],
        high: Float[Tensor, "c 1 1"],
    ) -> Float[Tensor, "n c h w"]:
        """Images with the key picture in them; blending commutes with scaling, so it is the same in
        any units of pixels.
        """
        _, c, h, w = x.shape
        t = low + (high - low) * self.picture(c, h, w).to(x)
        blended: Tensor = (1 - self.alpha) * x + self.alpha * t
        return blended
