"""Gradients that are differentiated again, as gradient matching does: what convolutions and batch
normalisation need for it in closed form, and nothing else.

What autograd does by itself is right and slow: it differentiates a convolution's gradient by one
with kernels as large as the picture, and batch normalisation's by some forty passes over it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

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

Pair: TypeAlias = tuple[int, int]


class _Geometry(NamedTuple):
    """How a convolution lies on its input."""

    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    def back(self, e: Tensor, x: Tensor, w: Tensor, mask: tuple[bool, bool, bool]) -> Any:
        """The gradients of input and weight that ``mask`` asks for."""
        rest = (self.stride, self.padding, self.dilation, False, (0, 0), self.groups, mask)
        return torch.ops.aten.convolution_backward(e, x, w, None, *rest)


# Convolution is linear in its input and in its kernel, and so are its two gradients in the error
# and in either: each of the three is differentiated by the other two, as often as one likes.


class _Conv(torch.autograd.Function):
    """y of input x and kernel w; ``shift`` is a constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, shift: Tensor | None, at: _Geometry) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.at = at
        return torch.conv2d(x, w, shift, *at)

    @staticmethod
    def backward(ctx: Any, e: Tensor) -> Any:
        x, w = ctx.saved_tensors
        by_x = _by_input(e, w, x, ctx.at) if ctx.needs_input_grad[0] else None
        by_w = _by_kernel(e, x, w, ctx.at) if ctx.needs_input_grad[1] else None
        return by_x, by_w, None, None


class _ByInput(torch.autograd.Function):
    """The gradient of the input, of error e and kernel w; of ``like`` only the shape counts."""

    @staticmethod
    def forward(ctx: Any, e: Tensor, w: Tensor, like: Tensor, at: _Geometry) -> Tensor:
        ctx.save_for_backward(e, w)
        ctx.at = at
        by_x: Tensor = at.back(e, like, w, (True, False, False))[0]
        return by_x

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Any:
        e, w = ctx.saved_tensors
        by_e = _conv(u, w, None, ctx.at) if ctx.needs_input_grad[0] else None
        by_w = _by_kernel(e, u, w, ctx.at) if ctx.needs_input_grad[1] else None
        return by_e, by_w, None, None


class _ByKernel(torch.autograd.Function):
    """The gradient of the kernel, of error e and input x; of ``like`` only the shape counts."""

    @staticmethod
    def forward(ctx: Any, e: Tensor, x: Tensor, like: Tensor, at: _Geometry) -> Tensor:
        ctx.save_for_backward(e, x)
        ctx.at = at
        by_w: Tensor = at.back(e, x, like, (False, True, False))[1]
        return by_w

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        e, x = ctx.saved_tensors
        by_e = _conv(x, v, None, ctx.at) if ctx.needs_input_grad[0] else None
        by_x = _by_input(e, v, x, ctx.at) if ctx.needs_input_grad[1] else None
        return by_e, by_x, None, None


class _Norm(torch.autograd.Function):
    """Normalisation of x [n, c, ...] by its own batch's statistics, times w [c] plus b [c]; and
    those statistics, as `moments` has them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor, eps: float, told: bool) -> Any:
        y, mean, inverse = torch.native_batch_norm(x, w, b, None, None, True, 0.0, eps)
        ctx.save_for_backward(x, w, mean, inverse)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        if not told:
            return y, None
        size = x.numel() // x.shape[1]
        variance = inverse.pow(-2).sub_(eps).mul_(size / max(size - 1, 1))
        return y, torch.cat([mean, variance])

    @staticmethod
    def backward(ctx: Any, e: Tensor | None, v: Tensor | None) -> Any:
        x, w, mean, inverse = ctx.saved_tensors
        e = torch.zeros_like(x) if e is None else e
        by_x, by_w, by_b = _norm_grads(e, x, w, mean, inverse, ctx.eps)
        if v is not None:
            if torch.is_grad_enabled():
                mean = x.mean(dim=_but_channels(x))
            size = x.numel() // x.shape[1]
            of_mean, of_variance = v.view(2, -1)
            factor = of_variance * (2.0 / max(size - 1, 1))
            fixed = torch.addcmul(of_mean * (1.0 / size), factor, mean, value=-1)
            by_x = by_x + torch.addcmul(_wide(fixed, x), x, _wide(factor, x))
        return by_x, by_w, by_b, None, None


class _NormGrads(torch.autograd.Function):
    """The gradients of normalisation: of x, w and b, of error e."""

    @staticmethod
    def forward(
        ctx: Any, e: Tensor, x: Tensor, w: Tensor, mean: Tensor, inverse: Tensor, eps: float
    ) -> Any:
        by_x, by_w, by_b = _norm_back(e, x, w, mean, inverse, eps)
        ctx.save_for_backward(e, x, w, mean, inverse, by_w, by_b)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        return by_x, by_w, by_b

    @staticmethod
    def backward(ctx: Any, u: Tensor | None, a: Tensor | None, b: Tensor | None) -> Any:
        """Of adjoints u [n, c, ...] of x's gradient, a [c] of w's and b [c] of b's.

        With s the inverse deviation, h = (x - mean) s and E means per channel, x's gradient is
        w s (e - E[e] - h E[e h]), w's the sum of e h, b's that of e.
        """
        e, x, w, mean, s, by_w, by_b = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody differentiates a third time
            over = _but_channels(x)
            apart = x - x.mean(dim=over, keepdim=True)
            mean, s = x.mean(dim=over), (apart.square().mean(dim=over) + ctx.eps).rsqrt()
            by_w, by_b = _channel_sum(apart, e) * s, e.sum(dim=over)
        u = torch.zeros_like(x) if u is None else u
        a = torch.zeros_like(w) if a is None else a
        b = torch.zeros_like(w) if b is None else b
        by_e, u_h, u_1 = _norm_back(u, x, w, mean, s, ctx.eps)
        size = x.numel() // x.shape[1]
        of_one, k = 1.0 / size, w * s
        E_e, E_eh, E_u, E_uh = by_b * of_one, by_w * of_one, u_1 * of_one, u_h * of_one
        covary = torch.addcmul(_channel_sum(u, e) * of_one, E_u, E_e, value=-1)
        p, q = torch.addcmul(a, k, E_uh, value=-1) * s, k * E_eh * s
        h = s * (2.0 * q * E_uh - p * E_eh - k * s * covary)
        slope = a * s
        by_e.addcmul_(x, _wide(slope, x)).add_(_wide(torch.addcmul(b, slope, mean, value=-1), x))
        fixed = q * E_u - p * E_e - h * mean
        by_x = torch.addcmul(_wide(fixed, x), x, _wide(h, x))
        by_x.addcmul_(e, _wide(p, x)).addcmul_(u, _wide(q, x), value=-1)
        to_w = s * (float(size) * (covary - E_uh * E_eh)) if ctx.needs_input_grad[2] else None
        return by_e, by_x, to_w, None, None, None


def _norm_back(e: Tensor, x: Tensor, w: Tensor, mean: Tensor, inverse: Tensor, eps: float) -> Any:
    return torch.ops.aten.native_batch_norm_backward(
        e, x, w, None, None, mean.detach(), inverse.detach(), True, eps, (True, True, True)
    )


def _wide(channel: Tensor, like: Tensor) -> Tensor:
    """A value per channel [c], to be broadcast over [n, c, ...]."""
    return channel.view(-1, *(1,) * (like.ndim - 2))


def _channel_sum(a: Tensor, b: Tensor) -> Float[Tensor, " c"]:
    return (a * b).sum(dim=_but_channels(a))


def _but_channels(x: Tensor) -> list[int]:
    return [k for k in range(x.ndim) if k != 1]


_conv: Callable[..., Any] = _Conv.apply
_by_input: Callable[..., Any] = _ByInput.apply
_by_kernel: Callable[..., Any] = _ByKernel.apply
_norm: Callable[..., Any] = _Norm.apply
_norm_grads: Callable[..., Any] = _NormGrads.apply


class _Use(NamedTuple):
    """A convolution that a loss went through: where its error is to be had, and its input [n, ...]
    as it was then.
    """

    error: GradientEdge
    x: Tensor
    version: int
    kernel: Tensor
    at: _Geometry
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


_REACHES_INTO_IT = {torch.autograd.grad, Tensor.backward, Tensor.register_hook}
"""What a loss may do with its own graph, which is not the one that it would have by itself: kernels
are constants in it, and errors are read where a hook has not come by.
"""


class _Watch(TorchFunctionMode):
    """Lets convolutions and batch normalisation be differentiated as above. Kernels that are among
    the leaves are constants of the graph, and what becomes of them is kept: so nobody computes how
    a gradient's gradient would change them.
    """

    def __init__(self, leaves: Sequence[Tensor]) -> None:
        super().__init__()
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
        at = _Geometry(_pair(stride), _pair(padding), _pair(dilation), groups)
        x, kernel = _last(input), _last(weight.detach())
        y: Tensor = _conv(x, kernel, None if bias is None else bias.detach(), at)
        edge = get_gradient_edge(y)
        place = None if bias is None else self.at[id(bias)]
        self.uses.append(_Use(edge, x, x._version, kernel, at, self.at[id(weight)], place))
        return y

    def _moments(self, z: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
        """The statistics of what is about to be normalised, by normalising it."""
        if not _ours(z) or z.numel() <= z.shape[1]:
            return None
        y, told = _norm(z, *_affine(z, weight, bias), eps, True)
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
        y: Tensor = _norm(input, *_affine(input, weight, bias), eps, False)[0]
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


def gradients(loss: Callable[[], Tensor], leaves: Sequence[Tensor]) -> tuple[Tensor, ...] | None:
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
    with _Watch(leaves) as watch:
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
            _add(parts, use.weight, _by_kernel(e, use.x, use.kernel, use.at))
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


def _pair(size: int | Sequence[int]) -> Pair:
    return (size, size) if isinstance(size, int) else (size[0], size[-1])


def _last(x: Tensor) -> Tensor:
    """Channels last in memory, where convolutions are twice as fast in float32."""
    return x.contiguous(memory_format=torch.channels_last) if x.dtype == torch.float32 else x
