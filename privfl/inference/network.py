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
            squares without a layer between them, or weights that are all zero.

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
        layers = copy.deepcopy(nn.Sequential(*run)).double().eval()
        with torch.no_grad():
            inputs = math.prod(sample.shape[1:])
            basis = torch.eye(inputs, dtype=torch.float64).reshape(inputs, *sample.shape[1:])
            at_zero = layers(torch.zeros_like(sample))
            columns = layers(basis) - at_zero
        weight = columns.reshape(inputs, -1).T.contiguous().numpy()
        if not weight.any():
            raise UnsupportedModel(
                f"the layers {[type(layer).__name__ for layer in run]} have zero weights alone: the"
                " network's answer does not hang on the sample, and there is nothing to encrypt."
            )
        found.append(Affine(weight, at_zero.reshape(-1).numpy()))
        sample = at_zero
    return tuple(found)


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
