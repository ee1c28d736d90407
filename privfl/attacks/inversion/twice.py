"""Gradients that are differentiated again, as gradient matching does: what convolutions and batch
normalisation need for it in closed form, and nothing else.

What autograd does by itself is right and slow: it differentiates a convolution's gradient by one
with kernels as large as the picture, and batch normalisation's by some forty passes over it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, SupportsIndex, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional
from torch.overrides import (
    TorchFunctionMode,
    handle_torch_function,
    has_torch_function_unary,
)

from privfl.attacks.inversion.closed_form import Geometry, Pair, by_kernel, conv, laid, norm

Layout: TypeAlias = Literal["fastest", "given"]
"""How a convolution's input is laid, and so its output: as is fastest, or as it was given. Modules
that ``view`` what comes out may not stand the first.
"""


class _Use(NamedTuple):
    """A convolution that a loss went through: where its error is to be had, and its input [n, ...]
    as it was then.
    """

    error: GradientEdge
    x: Tensor
    version: int
    kernel: Tensor
    at: Geometry
    weight: int
    bias: int | None


class _Ahead(NamedTuple):
    """What was normalised before its layer asked for it."""

    x: Tensor
    version: int
    weight: Tensor | None
    bias: Tensor | None
    eps: float
    y: Tensor

    def is_of(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> bool:
        same = self.x is x and self.version == x._version and self.eps == eps
        return same and self.weight is weight and self.bias is bias


_REACHES_INTO_IT = {
    *(torch.autograd.grad, torch.autograd.backward, Tensor.backward, Tensor.register_hook),
    Tensor.grad_fn.__get__,  # type: ignore[union-attr]
}
"""What a loss may do with its own graph, which is not the one that it would have by itself: kernels
are constants in it, and errors are read where a hook has not come by.
"""


class _Watch(TorchFunctionMode):
    """Lets convolutions and batch normalisation be differentiated as above. Kernels that are among
    the leaves are constants of the graph, and what becomes of them is kept: so nobody computes how
    a gradient's gradient would change them.
    """

    def __init__(self, leaves: Sequence[Tensor], layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.at = {id(leaf): k for k, leaf in enumerate(leaves)}
        self.uses: list[_Use] = []
        self.ahead: _Ahead | None = None
        self.reached_into = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        own = None
        self.reached_into = self.reached_into or func in _REACHES_INTO_IT
        if func in (torch.conv2d, functional.conv2d):
            own = self._conv(*args, **given)
        elif func is functional.batch_norm:
            own = self._normalised(*args, **given)
        elif func is moments:
            own = self._moments(*args)
        return func(*args, **given) if own is None else own

    def _conv(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Pair = 1,
        padding: int | Pair | str = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
    ) -> Tensor | None:
        known = bias is None or id(bias) in self.at
        if id(weight) not in self.at or not known or isinstance(padding, str):
            return None
        if not _ours(input) or input.ndim != 4:
            return None
        at = Geometry(_pair(stride), _pair(padding), _pair(dilation), groups)
        x, kernel = input, weight.detach()
        if self.layout == "fastest":
            x, kernel = laid(x, kernel, at)
        y: Tensor = conv(x, kernel, None if bias is None else bias.detach(), at)
        edge = get_gradient_edge(y)
        place = None if bias is None else self.at[id(bias)]
        self.uses.append(_Use(edge, x, x._version, kernel, at, self.at[id(weight)], place))
        return y

    def _moments(self, z: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
        """The statistics of what is about to be normalised, by normalising it."""
        if not _ours(z) or z.numel() <= z.shape[1]:
            return None
        y, told = norm(z, *_affine(z, weight, bias), eps, True)
        self.ahead = _Ahead(z, z._version, weight, bias, eps, y)
        return told

    def _normalised(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor | None:
        if not training or running_mean is not None or not _ours(input):
            return None
        if input.numel() <= input.shape[1]:
            return None  # one value per channel, which torch refuses
        ahead, self.ahead = self.ahead, None
        if ahead is not None and ahead.is_of(input, weight, bias, eps):
            return ahead.y
        y: Tensor = norm(input, *_affine(input, weight, bias), eps, False)[0]
        return y


def _ours(x: Tensor) -> bool:
    """Whether what is made of x is differentiated, and by autograd alone, in x's own precision."""
    if torch._C._are_functorch_transforms_active() or not torch.is_grad_enabled():
        return False
    return x.requires_grad and not torch.is_autocast_enabled(x.device.type)


def moments(
    z: Float[Tensor, "n c *rest"], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Float[Tensor, " s"]:
    """Mean and unbiased variance [2 c] of each channel of what a layer with this scale, shift and
    ``eps`` is about to normalise: inside of `gradients` as a by-product of that.
    """
    watched: bool = has_torch_function_unary(z)
    if watched:
        told: Tensor = handle_torch_function(moments, (z,), z, weight, bias, eps)
        return told
    flat = z.transpose(0, 1).flatten(1)
    return torch.cat([flat.mean(dim=1), flat.var(dim=1)])


def gradients(
    loss: Callable[[], Tensor], leaves: Sequence[Tensor], layout: Layout = "fastest"
) -> tuple[Tensor, ...] | None:
    """A loss's gradient by leaf (zero where it does not depend on one), with a graph to whatever
    the loss was made of besides the leaves: by the leaves themselves it is not to be differentiated
    again. None where an input was overwritten after it was used, and where the loss itself takes
    gradients or hooks a tensor: its graph would not be the one that it means.

    >>> w = torch.ones(1, 1, 2, 2, requires_grad=True)
    >>> x = torch.ones(1, 1, 2, 2, requires_grad=True)
    >>> (found,) = gradients(lambda: torch.conv2d(x, w).square().sum(), [w]) or ()
    >>> float(torch.autograd.grad(found.sum(), x)[0].sum())
    64.0
    """
    with _Watch(leaves, layout) as watch:
        try:
            value = loss()
        except Exception:
            if watch.reached_into:
                return None
            raise
    if watch.reached_into:
        return None
    uses = watch.uses
    edges = [use.error for use in uses]
    found = torch.autograd.grad(value, [*edges, *leaves], create_graph=True, allow_unused=True)
    if any(use.x._version != use.version for use in uses):
        return None
    parts: list[Tensor | None] = list(found[len(uses) :])
    errors: list[Tensor | None] = list(found[: len(uses)])
    for use, e in zip(uses, errors, strict=True):
        if e is not None:
            _add(parts, use.weight, by_kernel(e, use.x, use.kernel, use.at))
            if use.bias is not None:
                _add(parts, use.bias, e.sum(dim=(0, 2, 3)))
    return tuple(
        leaf.new_zeros(leaf.shape) if part is None else part
        for part, leaf in zip(parts, leaves, strict=True)
    )


def _add(parts: list[Tensor | None], at: int, part: Tensor) -> None:
    before = parts[at]
    parts[at] = part if before is None else before + part


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    return (
        x.new_ones(x.shape[1]) if weight is None else weight,
        x.new_zeros(x.shape[1]) if bias is None else bias,
    )


def _pair(size: SupportsIndex | Sequence[int]) -> Pair:
    if isinstance(size, SupportsIndex):
        return operator.index(size), operator.index(size)
    return size[0], size[-1]
