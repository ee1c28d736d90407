"""Correlated noise of one training: batches in an order that lasts, one stream of noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from privfl.core import ConfigError, NoiseSource, Participation
from privfl.dp.mechanisms.correlated import Correlated, CorrelatedRun
from privfl.dp.noise import normals
from privfl.dp.strategies import NoiseStream, Strategy


def run_of(strategy: Strategy, noise_multiplier: float, steps: int, apart: int) -> CorrelatedRun:
    """The noise of a training of so many steps that comes back to a sample after ``apart``."""
    most = -(-steps // apart)
    return Correlated(noise_multiplier, strategy).over(Participation(steps, most, apart))


def in_order(n: int, batch_size: int, steps: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Positions of each batch: the samples in one order, drawn once, pass by pass. The last batch
    of a pass may be short.

    >>> rng = torch.Generator().manual_seed(0)
    >>> passes = list(in_order(5, 2, 6, rng))
    >>> [len(one) for one in passes[:3]], torch.equal(passes[0], passes[3])
    ([2, 2, 1], True)
    """
    batches = torch.split(torch.randperm(n, generator=rng), min(batch_size, n))
    for step in range(steps):
        yield batches[step % len(batches)]


class Ongoing:
    """The noise of the training that is going on. It does not travel: what is pickled or copied
    begins anew.
    """

    __slots__ = ("_deviation", "_stream")

    def __init__(self) -> None:
        self._stream: NoiseStream | None = None
        self._deviation = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        return Ongoing, ()

    def __repr__(self) -> str:
        return "<Ongoing: holds secrets>"

    def begin(self, run: CorrelatedRun) -> None:
        """A training begins, with noise of its own."""
        self._stream = run.matrix.stream()
        self._deviation = run.noise_multiplier * run.unit

    def write(self, grad: Tensor, unit: float, noise: NoiseSource) -> None:
        """The next row of the noise in place of a gradient [d], in units of ``unit``.

        Raises:
            ConfigError: no training has begun, so there is no row.
        """
        if self._stream is None:
            raise ConfigError(
                "correlated noise belongs to a training, and none has begun: draw its batches"
                " first."
            )
        z = normals(len(grad), noise, grad.dtype).mul_(self._deviation * unit)
        grad.copy_(self._stream.next(z))
