"""A network of affine layers and squares as what an encrypted evaluation needs: matrices."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from privfl.core import ConfigError, UnsupportedModel
from privfl.inference.circuit import HELD
from privfl.models import Square

Matrix = npt.NDArray[np.float64]

AFFINE: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.Flatten,
    nn.Unflatten,
    nn.Identity,
    nn.Dropout,
)
"""Layers that are affine maps of one sample once training is over."""


SQUARED = 4.0
"""The largest value that is squared."""


@dataclass(frozen=True, slots=True)
class Affine:
    """y = ``weight`` x + ``bias``: weight [outputs, inputs], bias [outputs]."""

    weight: Matrix
    bias: Matrix


def affine_stages(module: nn.Module, shape: Sequence[int]) -> tuple[Affine, ...]:
    """A network as affine maps with squares between them; ``shape`` is one sample's.

    Layers between two squares become one map, so that they cost one multiplication of depth.

    Raises:
        UnsupportedModel: no nn.Sequential, a layer that is neither affine nor a `Square`, two
            squares without a layer between them, weights that are all zero, or layers that do not
            take this shape.

    >>> net = nn.Sequential(nn.Linear(3, 2), Square(), nn.Linear(2, 2), nn.Linear(2, 1))
    >>> [stage.weight.shape for stage in affine_stages(net, (3,))]
    [(2, 3), (1, 2)]
    """
    if not isinstance(module, nn.Sequential):
        raise UnsupportedModel(
            "only an nn.Sequential of affine layers and squares can be evaluated on encrypted"
            f" inputs, and the model is a {type(module).__name__}: take square_cnn."
        )
    runs: list[list[nn.Module]] = [[]]
    for layer in module:
        if isinstance(layer, Square):
            runs.append([])
        elif isinstance(layer, AFFINE):
            runs[-1].append(layer)
        else:
            raise UnsupportedModel(
                f"a {type(layer).__name__} cannot be evaluated on encrypted inputs, only affine"
                " layers and squares can: take square_cnn, or privfl.models.Square for the"
                " activation."
            )
    if not all(runs):
        raise UnsupportedModel("a network begins and ends with an affine layer, not with a square.")
    found, sample = [], torch.zeros(1, *shape, dtype=torch.float64)
    for run in runs:
        weight, at_zero = _as_matrix(run, sample)
        if not weight.any():
            raise UnsupportedModel(
                f"the layers {[type(layer).__name__ for layer in run]} have zero weights alone: the"
                " network's answer does not hang on the sample, and there is nothing to encrypt."
            )
        found.append(Affine(weight, at_zero.reshape(-1).numpy()))
        sample = at_zero
    return tuple(found)


def _as_matrix(run: Sequence[nn.Module], sample: Tensor) -> tuple[Matrix, Tensor]:
    """The map's matrix [outputs, inputs], and its value at zero; ``sample`` [1, ...] is of the
    inputs' shape.

    What the layers compute is compared with the matrix: a subclass, a hook, or batch normalization
    by the batch's own statistics looks affine and need not be.
    """
    layers = copy.deepcopy(nn.Sequential(*run)).double().eval()
    names = [type(layer).__name__ for layer in run]
    inputs, shape = math.prod(sample.shape[1:]), sample.shape[1:]
    basis = torch.eye(inputs, dtype=torch.float64)
    probe = torch.randn(2, inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    probe[0] *= HELD
    try:
        with torch.no_grad():
            at_zero = layers(torch.zeros_like(sample))
            columns = (layers(basis.reshape(inputs, *shape)) - at_zero).reshape(inputs, -1)
            found = layers(probe.reshape(2, *shape)).reshape(2, -1)
            due = probe @ columns + at_zero.reshape(1, -1)
            size = float(due.abs().nan_to_num(posinf=0.0).max())
    except (RuntimeError, ValueError, IndexError) as error:
        raise UnsupportedModel(
            f"the layers {names} cannot evaluate one sample of shape {tuple(shape)}: {error}"
        ) from error
    if not torch.allclose(found, due, rtol=1e-6, atol=1e-8 * size, equal_nan=True):
        raise UnsupportedModel(
            f"the layers {names} compute another function than an affine one: only layers as torch"
            " has them can be evaluated on encrypted inputs, batch normalization with running"
            " statistics."
        )
    return columns.T.contiguous().numpy(), at_zero


@dataclass(frozen=True, slots=True)
class Balanced:
    """A network with the same outputs whose values between the stages stay small, and the largest
    magnitude of an input and of an output on the samples that it was balanced on.
    """

    stages: tuple[Affine, ...]
    inputs: float
    outputs: float


def balanced(stages: Sequence[Affine], samples: Tensor) -> Balanced:
    """Scale what is squared, by powers of two, so that it is below `SQUARED` on these samples
    [B, ...], and undo it in the stage after.

    Raises:
        ConfigError: no samples, of another size than the network's, or values that are not finite.

    >>> net = nn.Sequential(nn.Linear(1, 1), Square(), nn.Linear(1, 1))
    >>> _ = [nn.init.constant_(p, 8.0) for p in net.parameters()]
    >>> found = balanced(affine_stages(net, (1,)), torch.tensor([[1.0]]))
    >>> found.stages[0].weight.item(), found.outputs  # 8 (8 + 8)^2 + 8
    (2.0, 2056.0)
    """
    values = samples.detach().cpu().double().flatten(1).numpy()
    if not len(values) or values.shape[1] != stages[0].weight.shape[1]:
        raise ConfigError(
            f"calibration: samples of {stages[0].weight.shape[1]} values are needed, and these are"
            f" {tuple(samples.shape)}."
        )
    largest, undo, found = float(np.abs(values).max()), 1.0, []
    for number, stage in enumerate(stages):
        weight = stage.weight * undo
        values = (values * values if number else values) @ weight.T + stage.bias
        most, scale = float(np.abs(values).max()), 1.0
        if number < len(stages) - 1 and 0 < most < math.inf:
            scale = 2.0 ** math.floor(math.log2(SQUARED / most))
        found.append(Affine(weight * scale, stage.bias * scale))
        values, undo = values * scale, scale**-2
    if not (math.isfinite(largest) and math.isfinite(most)):
        raise ConfigError("calibration: the network's values on these samples are not finite.")
    return Balanced(tuple(found), largest, most)
