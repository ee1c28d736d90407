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
        waves = torch.view_as_real(torch.fft.fft2(planes, norm="ortho"))
        power = waves.square().sum(dim=-1).mean(dim=0)
        return cls(mean, _floored(power.sqrt()), colours)

    @property
    def reach(self) -> float:
        """The root mean square deviation of a feature."""
        return float(self.deviation.square().mean().sqrt())

    def samples(self, z: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """Samples of coordinates, with a graph."""
        if self.colours is None:
            return self.mean + self.deviation * z
        return self.mean + torch.einsum("ndhw,cd->nchw", self._filtered(z), self.colours)

    def pulled(self, slope: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """The slope in coordinates of something with this slope in samples: `samples` is linear but
        for the mean, and this its transpose.
        """
        if self.colours is None:
            return self.deviation * slope
        return self._filtered(torch.einsum("nchw,cd->ndhw", slope, self.colours))

    def weighed(
        self,
        z: Float[Tensor, "n ..."],
        x: Float[Tensor, "n ..."],
        slope: Float[Tensor, "n ..."],
        weight: float,
        box: tuple[Float[Tensor, "..."], Float[Tensor, "..."]],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "n ..."]]:
        """What the prior says of coordinates z and their samples x, ``weight`` times z's mean
        square plus that by which samples leave the features' box; and the slope in z of that and of
        something with this slope in x.
        """
        beyond = x - x.clamp(*box)
        size = z.numel()
        value = (weight * z.square().sum() + beyond.square().sum()) / size
        by_z = self.pulled(slope.add(beyond, alpha=2 / size)).add_(z, alpha=2 * weight / size)
        return value, by_z

    def _filtered(self, planes: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Planes with each wave times its deviation, which is that of the wave the other way (so
        half of them do, and the filter is its own transpose).
        """
        half = planes.shape[-1] // 2 + 1
        waves = torch.fft.rfft2(planes) * self.deviation[..., :half]
        filtered: Tensor = torch.fft.irfft2(waves, s=planes.shape[-2:])
        return filtered


def _floored(deviation: Tensor) -> Tensor:
    return deviation.clamp(min=FLOOR * float(deviation.square().mean().sqrt()))
