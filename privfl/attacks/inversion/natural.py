"""What the adversary's own samples say of others: their mean and how they vary, as coordinates in
which descents run.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.inference import Lacking

OWN = (0.0, 1e-2, 0.1, 0.3)
"""Weights of the coordinates' mean square that a rehearsal tries; at 0 there are none."""
FLOOR = 1e-2
"""The least deviation of a coordinate, in units of all coordinates' root mean square."""


@dataclass(frozen=True, slots=True)
class OwnPrior:
    """Samples as a linear function of coordinates that have mean 0 and deviation 1 in the
    adversary's own samples.

    Of images the coordinates are each principal colour's plane with a flat power spectrum: natural
    images have most of their power in slow waves (Field 1987), which a descent in pixels finds
    last, and their colours go together. Of other samples each feature is scaled by itself.
    """

    mean: Float[Tensor, "..."]
    deviation: Float[Tensor, "..."]
    colours: Float[Tensor, "c c"] | None

    @classmethod
    def of(cls, x: Float[Tensor, "n ..."]) -> OwnPrior:
        """From own samples, two at least.

        Raises:
            Lacking: they are not finite, or all alike, so that nothing says how others vary.
        """
        finite = bool(x.isfinite().all())
        if not finite or bool((x == x[:1]).all()):
            raise Lacking(
                f"the adversary's {len(x)} own samples are"
                f" {'all alike' if finite else 'not all finite'}, and say nothing of how others"
                " vary: leave `own` at 0."
            )
        mean = x.mean(dim=0)
        apart = x - mean
        if x.ndim != 4:
            return cls(mean, _floored(apart.square().mean(dim=0).sqrt()), None)
        flat = apart.transpose(0, 1).flatten(1)
        colours: Tensor = torch.linalg.eigh(flat @ flat.T)[1]
        planes = torch.einsum("nchw,cd->ndhw", apart, colours)
        power = torch.fft.fft2(planes, norm="ortho").abs().square().mean(dim=0)
        return cls(mean, _floored(power.sqrt()), colours)

    @property
    def reach(self) -> float:
        """The root mean square deviation of a feature."""
        return float(self.deviation.square().mean().sqrt())

    def samples(self, z: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """Samples of coordinates, with a graph."""
        if self.colours is None:
            return self.mean + self.deviation * z
        planes = torch.fft.ifft2(torch.fft.fft2(z) * self.deviation).real
        return self.mean + torch.einsum("ndhw,cd->nchw", planes, self.colours)


def outside(
    x: Float[Tensor, "n ..."], low: Float[Tensor, "..."], high: Float[Tensor, "..."]
) -> Float[Tensor, ""]:
    """The mean square by which samples leave the features' box, with a graph."""
    beyond: Tensor = (x - x.clamp(low, high)).square().mean()
    return beyond


def _floored(deviation: Tensor) -> Tensor:
    return deviation.clamp(min=FLOOR * float(deviation.square().mean().sqrt()))
