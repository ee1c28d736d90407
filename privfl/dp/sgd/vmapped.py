"""The vmap engine: per-sample gradients of anything that torch.func can trace, by definition and at
its price.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from privfl.core import Loss
from privfl.dp.sgd.engine import ClippedSum, Factors, add_rows, trainable


class _Scored(nn.Module):
    """A module and its loss as one module, so that its parameters can be swapped inside of any
    loss.
    """

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.module = module
        self.loss = loss

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch of one."""
        return self.loss(self.module, x[None], y[None])


def vmapped(
    module: nn.Module,
    loss: Loss,
    x: Tensor,
    y: Tensor,
    factors: Factors,
    total: Float[Tensor, " d"],
) -> ClippedSum:
    """Add the sum of per-sample gradients of x [b, ...] and y [b, ...], each times its factor, to
    ``total`` by ``vmap(grad)``; the oracle of the other engines.
    """
    named = trainable(module)
    scored = _Scored(module, loss)
    parameters = {f"module.{name}": parameter.detach() for name, parameter in named.items()}

    def one(values: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        result: Tensor = functional_call(scored, values, (x, y))
        return result

    gradients, losses = vmap(grad_and_value(one), in_dims=(None, 0, 0), randomness="different")(
        parameters, x, y
    )
    rows = [gradient.flatten(1) for gradient in gradients.values()]
    return ClippedSum(add_rows(rows, factors, total), losses.mean().item())
