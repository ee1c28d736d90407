"""The Opacus engine: per-sample gradients by Opacus's hooks, for any module that Opacus
supports.
"""

from __future__ import annotations

import warnings
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from privfl.core import Loss, UnsupportedModel
from privfl.dp.sgd.engine import ClippedSum, Factors, add_rows, trainable


def opacus(
    module: nn.Module,
    loss: Loss,
    x: Tensor,
    y: Tensor,
    factors: Factors,
    total: Float[Tensor, " d"],
) -> ClippedSum:
    """Add the sum of per-sample gradients of x [b, ...] and y [b, ...], each times its factor, to
    ``total`` by Opacus's ``GradSampleModule`` (Yousefpour et al. 2021).

    Raises:
        UnsupportedModel: Opacus does not support a layer, or a checkpoint runs one again in the
            backward pass, whose norms Opacus then gets wrong.
    """
    from opacus.grad_sample import GradSampleModule

    named = trainable(module)
    kept = {name: parameter.grad for name, parameter in named.items()}
    try:
        wrapped = GradSampleModule(module, batch_first=True, loss_reduction="mean", strict=True)
    except Exception as refused:
        raise UnsupportedModel(
            f"engine 'opacus' cannot train this model ({refused}): use engine 'vmap'."
        ) from refused
    scored = False

    def refuse_again(layer: nn.Module, given: Any) -> None:
        if scored:
            raise UnsupportedModel(
                f"a {type(layer).__name__} runs again in the backward pass (a checkpoint), which"
                " engine 'opacus' takes for another use of it: use engine 'bookkeeping'."
            )

    watched = [
        layer.register_forward_pre_hook(refuse_again)
        for layer in module.modules()
        if next(layer.parameters(recurse=False), None) is not None
    ]
    try:
        for parameter in named.values():
            parameter.grad = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of module hooks on inputs that need no gradient
            mean = loss(wrapped, x, y)
            scored = True
            mean.backward()  # type: ignore[no-untyped-call]
        rows = []
        for parameter in named.values():
            sampled = getattr(parameter, "grad_sample", None)
            rows.append(
                x.new_zeros(len(x), parameter.numel(), dtype=parameter.dtype)
                if sampled is None
                else sampled.flatten(1)
            )
    finally:
        for hook in watched:
            hook.remove()
        wrapped.to_standard_module()
        for name, parameter in named.items():
            parameter.grad = kept[name]
            for left in ("grad_sample", "_forward_counter"):
                parameter.__dict__.pop(left, None)
        for layer in module.modules():  # a loss that raises leaves what no backward took
            layer.__dict__.pop("activations", None)
    return ClippedSum(add_rows(rows, factors, total), mean.item())
