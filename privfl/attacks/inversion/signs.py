"""Signs that encodings lost: of every entry of a mix, and of every pixel of all images together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privfl.core import Dataset

_SLACK = 1e-4
"""Of the range of features: so far may rounding carry one out of it."""
_SWEEPS = 20


@dataclass(frozen=True, slots=True)
class Prior:
    """What is known of an image's features without the image: their least and greatest value, mean
    and variance [d], and how much neighbouring pixels differ (0 where they have no neighbours).
    """

    low: Float[Tensor, " d"]
    high: Float[Tensor, " d"]
    mean: Float[Tensor, " d"]
    variance: Float[Tensor, " d"]
    shape: tuple[int, ...]
    roughness: float

    @classmethod
    def of(cls, held: Dataset, low: Tensor, high: Tensor) -> Prior:
        """That of an adversary's own samples, and the public range of features [...].

        >>> data = Dataset(torch.zeros(2, 1, 2, 2), torch.zeros(2), 2)
        >>> Prior.of(data, torch.zeros(1, 2, 2), torch.ones(1, 2, 2)).mean
        tensor([0., 0., 0., 0.], dtype=torch.float64)
        """
        x = held.x.double()
        rough = 0.0
        if x.dim() == 4:
            across, down = x.diff(dim=3).square(), x.diff(dim=2).square()
            rough = float((across.mean() + down.mean()) / 2)
        flat = x.flatten(1)
        span = (high - low).double().flatten()
        return cls(
            low.double().flatten(),
            high.double().flatten(),
            flat.mean(dim=0),
            flat.var(dim=0, correction=0) + 1e-4 * span.square(),
            tuple(x.shape[1:]),
            rough + 1e-6 * float(span.mean()) ** 2,
        )

    def first(self, sizes: Float[Tensor, "m d"]) -> tuple[Tensor, Bool[Tensor, "m d"]]:
        """Signs [m, d] of mixes of which only the sizes are known, and where they are sure: a size
        beyond the range on one side has the other side's sign; elsewhere it is the mean's.
        """
        slack = _SLACK * (self.high - self.low)
        plus, minus = sizes <= self.high + slack, sizes <= slack - self.low
        sign = torch.where(plus & (~minus | (self.mean > 0)), 1.0, -1.0).double()
        return sign, plus ^ minus

    def settled(self, images: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Images whose pixels are known up to a sign that all images share: the sign is the one
        that is within the range, near the mean, and like that of its neighbours, found by going
        over all pixels until none changes.
        """
        slack = 20 * _SLACK * (self.high - self.low)
        d = images.shape[1]
        outside = torch.stack(
            [
                ((way * images < self.low - slack) | (way * images > self.high + slack)).sum(dim=0)
                for way in (1.0, -1.0)
            ]
        ).double()
        # by how much less a pixel fits the mean turned round than as it is
        far = 4 * (images * self.mean).sum(dim=0) / (2 * self.variance)
        alone = far + 1e3 * (outside[1] - outside[0])
        ties = _neighbours(self.shape)
        bond = torch.zeros(d, d, dtype=torch.float64)
        if len(ties):
            a, b = ties.unbind(dim=1)
            alike = 4 * (images[:, a] * images[:, b]).sum(dim=0) / (2 * self.roughness)
            bond[a, b] = bond[b, a] = alike
        sign = torch.where(alone >= 0, 1.0, -1.0).double()
        order = (alone.abs() + bond.abs().sum(dim=1)).argsort(descending=True).tolist()
        for _ in range(_SWEEPS):
            before = sign.clone()
            for pixel in order:
                sign[pixel] = 1.0 if float(alone[pixel] + bond[pixel] @ sign) >= 0 else -1.0
            if torch.equal(before, sign):
                break
        return images * sign


def _neighbours(shape: tuple[int, ...]) -> Tensor:
    """Pairs [k, 2] of entries of a flat image [channels, height, width] that touch."""
    if len(shape) != 3:
        return torch.empty(0, 2, dtype=torch.int64)
    at = torch.arange(shape[0] * shape[1] * shape[2]).view(shape)
    down = torch.stack([at[:, 1:].flatten(), at[:, :-1].flatten()], dim=1)
    across = torch.stack([at[:, :, 1:].flatten(), at[:, :, :-1].flatten()], dim=1)
    return torch.cat([down, across])
