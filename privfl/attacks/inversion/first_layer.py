"""What an update shows of a linear first layer."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor, nn

from privfl.attacks.inference import Lacking, Observed
from privfl.attacks.knowledge import Forward


def first_layer(
    observed: Observed, forward: Forward
) -> tuple[Float[Tensor, "m inputs"], Float[Tensor, " m"], bool]:
    """The change of the first layer's weights and biases, and whether a ReLU follows it.

    Raises:
        Lacking: the first layer is not linear on the whole sample, or has no bias.
    """
    layers = [
        layer
        for layer in forward.module.modules()
        if not isinstance(layer, nn.Flatten) and not list(layer.children())
    ]
    first = layers[0] if layers else None
    if (
        not isinstance(first, nn.Linear)
        or first.bias is None
        or first.in_features != math.prod(forward.shape)
    ):
        raise Lacking(
            "the closed form needs a linear first layer with a bias, and this model begins with"
            " another one."
        )
    m, inputs = first.weight.shape
    weight = observed.delta[: m * inputs].view(m, inputs)
    return (
        weight,
        observed.delta[m * inputs : m * inputs + m],
        len(layers) > 1 and isinstance(layers[1], nn.ReLU),
    )
