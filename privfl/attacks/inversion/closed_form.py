"""Convolution and batch normalisation with gradients that are differentiated in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Pair: TypeAlias = tuple[int, int]
_SMALL, _NARROW = 20480, 16
"""Values of a sample, and channels, under which convolutions are faster with channels first."""


class Geometry(NamedTuple):
    """How a convolution lies on its input."""

    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    def back(self, e: Tensor, x: Tensor, w: Tensor, mask: tuple[bool, bool, bool]) -> Any:
        """The gradients of input x [n, c, h, w] and kernel w [o, c/groups, k, k] that ``mask`` asks
        for, of the error e [n, o, h', w'].
        """
        rest = (self.stride, self.padding, self.dilation, False, (0, 0), self.groups, mask)
        return torch.ops.aten.convolution_backward(e, x, w, None, *rest)


# Convolution is linear in its input and in its kernel, and so are its two gradients in the error
# and in either: each of the three is differentiated by the other two, as often as one likes.


class _Conv(torch.autograd.Function):
    """y of input x and kernel w; ``shift`` is a constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, shift: Tensor | None, at: Geometry) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.at = at
        return torch.conv2d(x, w, shift, *at)

    @staticmethod
    def backward(ctx: Any, e: Tensor) -> Any:
        x, w = ctx.saved_tensors
        by_x = by_input(e, w, x, ctx.at) if ctx.needs_input_grad[0] else None
        by_w = by_kernel(e, x, w, ctx.at) if ctx.needs_input_grad[1] else None
        return by_x, by_w, None, None


class _ByInput(torch.autograd.Function):
    """The gradient of the input, of error e and kernel w; of ``like`` only the shape counts."""

    @staticmethod
    def forward(ctx: Any, e: Tensor, w: Tensor, like: Tensor, at: Geometry) -> Tensor:
        ctx.save_for_backward(e, w)
        ctx.at = at
        by_x: Tensor = at.back(e, like, w, (True, False, False))[0]
        return by_x

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Any:
        e, w = ctx.saved_tensors
        by_e = conv(u, w, None, ctx.at) if ctx.needs_input_grad[0] else None
        by_w = by_kernel(e, u, w, ctx.at) if ctx.needs_input_grad[1] else None
        return by_e, by_w, None, None


class _ByKernel(torch.autograd.Function):
    """The gradient of the kernel, of error e and input x; of ``like`` only the shape counts."""

    @staticmethod
    def forward(ctx: Any, e: Tensor, x: Tensor, like: Tensor, at: Geometry) -> Tensor:
        ctx.save_for_backward(e, x)
        ctx.at = at
        by_w: Tensor = at.back(e, x, like, (False, True, False))[1]
        return by_w

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        e, x = ctx.saved_tensors
        by_e = conv(x, v, None, ctx.at) if ctx.needs_input_grad[0] else None
        by_x = by_input(e, v, x, ctx.at) if ctx.needs_input_grad[1] else None
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
        by_x, by_w, by_b = norm_grads(e, x, w, mean, inverse, ctx.eps)
        if v is not None:
            if torch.is_grad_enabled():
                mean = x.mean(dim=_but_channels(x))
            size = x.numel() // x.shape[1]
            of_mean, of_variance = v.view(2, -1)
            factor = of_variance * (2.0 / max(size - 1, 1))
            fixed = torch.addcmul(of_mean * (1.0 / size), factor, mean, value=-1)
            if torch.is_grad_enabled():
                by_x = by_x + torch.addcmul(_wide(fixed, x), x, _wide(factor, x))
            else:
                by_x.add_(_wide(fixed, x)).addcmul_(x, _wide(factor, x))
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
        of_one, slope, steep = 1.0 / size, a * s, w * s * s
        covary = torch.addcmul(_channel_sum(u, e), u_1, by_b, value=-of_one)  # times the size
        p = torch.addcmul(slope, steep, u_h, value=-of_one)
        q = steep * by_w  # times the size, as are these two
        h = s * torch.addcmul(steep * covary, torch.addcmul(p, steep, u_h, value=-2 * of_one), by_w)
        fixed = torch.addcmul(h * mean, p, by_b, value=-1).addcmul_(q, u_1, value=of_one)
        by_e.addcmul_(x, _wide(slope, x)).add_(_wide(torch.addcmul(b, slope, mean, value=-1), x))
        by_x = e * _wide(p, x)
        by_x.addcmul_(u, _wide(q, x), value=-of_one).addcmul_(x, _wide(h, x), value=-of_one)
        by_x.add_(_wide(fixed, x), alpha=of_one)
        to_w = None
        if ctx.needs_input_grad[2]:
            to_w = s * torch.addcmul(covary, u_h, by_w, value=-of_one)
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


conv: Callable[..., Any] = _Conv.apply
by_input: Callable[..., Any] = _ByInput.apply
by_kernel: Callable[..., Any] = _ByKernel.apply
norm: Callable[..., Any] = _Norm.apply
norm_grads: Callable[..., Any] = _NormGrads.apply


def laid(x: Tensor, kernel: Tensor, at: Geometry) -> tuple[Tensor, Tensor]:
    """Input [n, c, h, w] and kernel in float32 as they lie best: channels last, where convolutions
    are twice as fast, but for one small sample between few channels, where torch takes one thread's
    product of matrices that would be narrow then.
    """
    if x.dtype != torch.float32:
        return x, kernel
    small = len(x) == 1 and x.numel() <= _SMALL and at.groups == 1
    narrow = small and at.stride == (1, 1) and min(kernel.shape[:2]) < _NARROW
    form = torch.contiguous_format if narrow else torch.channels_last
    return x.contiguous(memory_format=form), kernel.contiguous(memory_format=form)
