"""What a guest does to what leaves it, so that gradients say less about labels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.core import NoiseSource, OsNoise, Sensitivity, require
from privfl.dp import RandomisedResponse
from privfl.dp.noise import normals

Gradients = Float[Tensor, "B k"]


@runtime_checkable
class LabelDefence(Protocol):
    """Where a guest may act: once on the labels that it trains with, and on each batch's gradients
    [B, k] before they go to a host.
    """

    def labels(self, y: Int[Tensor, " n"], classes: int) -> Int[Tensor, " n"]:
        """The labels to train with."""
        ...

    def gradients(self, down: Gradients) -> Gradients:
        """What the host is sent."""
        ...

    def describe(self) -> str:
        """What is promised, in words."""
        ...


@dataclass(frozen=True, slots=True)
class Undefended:
    """Gradients as they are. They tell every label: all rows of a batch lie near one line, and the
    side is the class (Li et al. 2022; Fu et al. 2022).
    """

    def labels(self, y: Int[Tensor, " n"], classes: int) -> Int[Tensor, " n"]:
        """As they are [n]."""
        return y

    def gradients(self, down: Gradients) -> Gradients:
        """As they are."""
        return down

    def describe(self) -> str:
        """Nothing is promised."""
        return "nothing hides the labels"


@dataclass(frozen=True, slots=True)
class MaxNorm(Undefended):
    """Noise along each row, so that its expected square norm is the batch's largest (Li et al.
    2022, max norm): row g becomes (1 + s z) g, z ~ N(0, 1), s^2 = max |g|^2 / |g|^2 - 1.

    A heuristic. The longest row of a batch goes as it is, so a batch of one row does; the noise is
    fresh in every epoch, and who adds epochs up averages it away; completion needs no gradient.
    The coins of ``source`` are nobody else's: a host that could draw them again would subtract.

    >>> rows = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    >>> MaxNorm().gradients(rows)[0].tolist()
    [3.0, 4.0]
    """

    source: NoiseSource = field(default_factory=OsNoise)

    def gradients(self, down: Gradients) -> Gradients:
        """Stretched, and turned round, at random."""
        norms = down.norm(dim=1, keepdim=True)
        squares = (norms.max() / norms.clamp(min=1e-30)) ** 2 - 1
        stretch = squares.clamp(min=0).sqrt()
        noise = normals(len(down), self.source, down.dtype)[:, None]
        return torch.where(norms > 0, down * (1 + stretch * noise), down)

    def describe(self) -> str:
        """A heuristic."""
        return (
            "gradients stretched to the largest norm of their batch: a heuristic, no guarantee"
            f"{_void(self.source)}"
        )


@dataclass(frozen=True, slots=True)
class Isotropic(Undefended):
    """Gaussian noise on every row whose norm is about ``ratio`` times the batch's largest (Li et
    al. 2022, isotropic): of deviation ratio max |g| / sqrt(k) in each of k coordinates.

    A heuristic: the deviation follows the data, so no epsilon comes of it, and the noise is fresh
    in every epoch, so who adds epochs up averages it away. The coins of ``source`` are nobody
    else's: a host that could draw them again would subtract.

    Raises:
        ConfigError: a ratio that is not above zero.
    """

    ratio: float = 1.0
    source: NoiseSource = field(default_factory=OsNoise)

    def __post_init__(self) -> None:
        require.positive(ratio=self.ratio)
        require.finite(ratio=self.ratio)

    def gradients(self, down: Gradients) -> Gradients:
        """With noise."""
        deviation = self.ratio / math.sqrt(down.shape[1]) * float(down.norm(dim=1).max())
        return down + deviation * normals(down.numel(), self.source, down.dtype).view(down.shape)

    def describe(self) -> str:
        """A heuristic."""
        return (
            f"noise on gradients, {self.ratio:g} times the largest norm: a heuristic, no guarantee"
            f"{_void(self.source)}"
        )


@dataclass(frozen=True, slots=True)
class LabelResponse(Undefended):
    """Randomised response on the labels, once (Warner 1965; label differential privacy as in Ghazi
    et al. 2021): the true class with probability e^epsilon / (e^epsilon + classes - 1), else one of
    the others.

    Guarantee: all that hosts ever get, and the model, is ``epsilon``-DP in one sample's label
    (replaced by another), because labels are used nowhere else; features have no part in it. It
    bounds what is learnt of ONE label beyond what the others say: not the class boundary, which
    completion reads, and which is what training is for. Every run draws anew, and the epsilons of
    several add up. It rests on coins that nobody sees:
    ``source`` is the operating system's.

    Raises:
        ConfigError: an epsilon that is not above zero, or infinite.

    >>> LabelResponse(epsilon=1.0).keeps(classes=2)  # doctest: +ELLIPSIS
    0.731...
    """

    epsilon: float
    source: NoiseSource = field(default_factory=OsNoise)

    def __post_init__(self) -> None:
        require.positive(epsilon=self.epsilon)
        require.finite(epsilon=self.epsilon)

    def keeps(self, classes: int) -> float:
        """How likely a label stays."""
        return self._response(classes).truth

    def labels(self, y: Int[Tensor, " n"], classes: int) -> Int[Tensor, " n"]:
        """The responses [n]."""
        nowhere = Sensitivity(l2=math.inf)  # a response does not ask how far a label moves
        told, _ = self._response(classes).share(y.double(), nowhere, 1, self.source)
        return told.to(y.dtype)

    def _response(self, classes: int) -> RandomisedResponse:
        return RandomisedResponse(self.epsilon, classes)

    def describe(self) -> str:
        """The epsilon, whose it is, and what voids it."""
        return (
            f"epsilon {self.epsilon:g} for one sample's label (replace-one), all epochs of this"
            f" run; further runs add theirs{_void(self.source)}"
        )


def _void(source: NoiseSource) -> str:
    return "; VOID: its coins repeat" if source.repeatable else ""
