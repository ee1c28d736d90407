"""Layers whose backward pass also gives per-sample weight gradients: what each computes, forward
and backward, without autograd.

Two of them fold the batch into groups, so that one call of the library's own backward kernel
returns per-sample weight gradients at nearly the price of the batch's: a batch of b samples is ONE
sample with b times the channels and b times the groups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from privfl.core import UnsupportedModel
from privfl.dp.sgd.per_sample_gradients import (
    EmbeddingGradient,
    OuterProduct,
    PerSampleGradient,
    StoredGradient,
    outers,
    squares,
)

Found: TypeAlias = dict[str, PerSampleGradient]
Backward: TypeAlias = Callable[[Tensor, tuple[Tensor, ...], bool], tuple[Tensor | None, Found]]
"""(error of the output, what forward saved, is the input's error wanted) -> (the input's error,
pieces by parameter name).
"""
Forward: TypeAlias = tuple[Tensor, tuple[Tensor, ...], Backward]
"""The output, what backward needs, and backward."""


def linear(layer: nn.Linear, x: Tensor) -> Forward:
    """Y = x W^T + b on [b, ..., i]."""

    def backward(g: Tensor, saved: tuple[Tensor, ...], wanted: bool) -> tuple[Tensor | None, Found]:
        (x,) = saved
        found: Found = {}
        if x.ndim == 2:
            both = squares(g)
            found["weight"], found["bias"] = OuterProduct(x, g, both), StoredGradient(g, known=both)
        else:
            a, e = x.flatten(1, -2), g.flatten(1, -2)
            found["weight"] = outers(a, e)
            if layer.bias is not None:
                found["bias"] = StoredGradient(e.sum(dim=1))
        return g @ layer.weight if wanted else None, found

    return F.linear(x, layer.weight, layer.bias), (x,), backward


def conv(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: Tensor) -> Forward:
    """Convolutions of one, two or three dimensions of x [b, c, ...] with any padding, stride,
    dilation and groups.

    Raises:
        UnsupportedModel: samples without a batch in front.
    """
    dims = len(layer.kernel_size)
    if x.ndim != dims + 2:
        raise UnsupportedModel(
            f"a {type(layer).__name__} wants a batch [b, c, ...], and got {tuple(x.shape)}."
        )
    before, padding = _padding(layer)
    padded = (
        F.pad(x, before, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)
        if before
        else x
    )
    zeros = [0] * dims
    stride, dilation = list(layer.stride), list(layer.dilation)

    def backward(g: Tensor, saved: tuple[Tensor, ...], wanted: bool) -> tuple[Tensor | None, Found]:
        (a,) = saved
        found: Found = {
            "weight": _conv_weight(layer, a, g, padding),
            "bias": StoredGradient(g.flatten(2).sum(dim=2)),
        }
        if not wanted:
            return None, found
        error = torch.ops.aten.convolution_backward(
            g,
            a,
            layer.weight,
            None,
            stride,
            padding,
            dilation,
            False,
            zeros,
            layer.groups,
            [True, False, False],
        )[0]
        return (_unpad(layer, error, before, x.shape) if before else error), found

    out = torch.convolution(
        padded, layer.weight, layer.bias, stride, padding, dilation, False, zeros, layer.groups
    )
    return out, (padded,), backward


def _padding(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> tuple[list[int], list[int]]:
    """What is padded before the convolution (as F.pad takes it), and the zeros that the convolution
    pads itself.
    """
    twice = list(layer._reversed_padding_repeated_twice)
    symmetric = all(a == b for a, b in zip(twice[::2], twice[1::2], strict=True))
    if layer.padding_mode == "zeros" and symmetric:
        return [], twice[::2][::-1]
    return twice, [0] * len(layer.kernel_size)


def _unpad(
    layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, error: Tensor, before: list[int], shape: torch.Size
) -> Tensor:
    """The error of what was padded: the padding's own backward."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    with torch.enable_grad():
        probe = torch.zeros(shape, dtype=error.dtype, device=error.device, requires_grad=True)
        return torch.autograd.grad(F.pad(probe, before, mode=mode), probe, error)[0]


_LONG = 256
"""From this many output positions on, the grouped kernel beats unfolding."""
_PATCHES = 1 << 17
"""How many numbers of unfolded patches are held at once."""


def _conv_weight(
    layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, a: Tensor, g: Tensor, padding: list[int]
) -> PerSampleGradient:
    b, o = g.shape[:2]
    if layer.groups == 1 and a.ndim == 4 and g[0, 0].numel() < _LONG:
        gradients, squared = _unfolded(layer, a, g, padding)
        return StoredGradient(gradients, order=(0, 3, 1, 2), known=squared)
    weight = layer.weight.new_empty(1).expand(b * o, *layer.weight.shape[1:])
    gradients = torch.ops.aten.convolution_backward(
        g.reshape(1, b * o, *g.shape[2:]),
        a.reshape(1, b * a.shape[1], *a.shape[2:]),
        weight,
        None,
        list(layer.stride),
        padding,
        list(layer.dilation),
        False,
        [0] * len(padding),
        b * layer.groups,
        [False, True, False],
    )[1]
    return StoredGradient(gradients.view(b, *layer.weight.shape))


def _unfolded(
    layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, a: Tensor, g: Tensor, padding: list[int]
) -> tuple[Tensor, Tensor]:
    """Per-sample weight gradients [b, o, k, l, c] of a 2-D convolution from its patches, laid out
    channels last, by batched products; and their squared norms [b].

    Patches are laid out for a few samples at a time, in one small buffer: memory that is used again
    costs no page faults. Norms are taken while gradients are in the cache.
    """
    (p, q), (s, t), (u, v), (k, l) = padding, layer.stride, layer.dilation, layer.kernel_size
    (b, o, h, w), c = g.shape, a.shape[1]
    last = a.permute(0, 2, 3, 1)
    last = (F.pad(last, (0, 0, q, q, p, p)) if p or q else last).contiguous()
    sb, sh, sw, sc = last.stride()
    patches = last.as_strided((b, h, w, k, l, c), (sb, sh * s, sw * t, sh * u, sw * v, sc))
    errors, gradients, squared = g.flatten(2), a.new_empty(b, o, k * l * c), a.new_empty(b)
    size = min(b, max(1, _PATCHES // (h * w * k * l * c)))
    buffer = a.new_empty(size, h, w, k, l, c)
    for start in range(0, b, size):
        part = slice(start, min(start + size, b))
        laid = buffer[: part.stop - start].copy_(patches[part]).view(-1, h * w, k * l * c)
        torch.bmm(errors[part], laid, out=gradients[part])
        squared[part] = squares(gradients[part].flatten(1))
    return gradients.view(b, o, k, l, c), squared


def group_norm(layer: nn.GroupNorm, x: Tensor) -> Forward:
    """Group normalisation of [b, c, ...]."""
    b, c = x.shape[:2]
    size, groups = x[0, 0].numel(), layer.num_groups
    x = x.contiguous()
    out, mean, rstd = torch.native_group_norm(
        x, layer.weight, layer.bias, b, c, size, groups, layer.eps
    )

    def backward(g: Tensor, saved: tuple[Tensor, ...], wanted: bool) -> tuple[Tensor | None, Found]:
        x, mean, rstd = saved
        weight = layer.weight.repeat(b)
        error, scale, shift = torch.ops.aten.native_group_norm_backward(
            g.contiguous(),
            x,
            mean.view(1, -1),
            rstd.view(1, -1),
            weight,
            1,
            b * c,
            size,
            b * groups,
            [wanted, True, True],
        )
        return (error.view_as(x) if wanted else None), {
            "weight": StoredGradient(scale.view(b, c)),
            "bias": StoredGradient(shift.view(b, c)),
        }

    return out, (x, mean, rstd), backward


def layer_norm(layer: nn.LayerNorm, x: Tensor) -> Forward:
    """Layer normalisation of [b, ..., *normalised shape]."""
    shape = list(layer.normalized_shape)
    x = x.contiguous()
    out, mean, rstd = torch.native_layer_norm(x, shape, layer.weight, layer.bias, layer.eps)

    def backward(g: Tensor, saved: tuple[Tensor, ...], wanted: bool) -> tuple[Tensor | None, Found]:
        x, mean, rstd = saved
        scale, shift = torch.sub(x, mean).mul_(rstd).mul_(g), g
        between = tuple(range(1, x.ndim - len(shape)))
        if between:
            scale, shift = scale.sum(dim=between), g.sum(dim=between)
        error = None
        if wanted:
            error = torch.ops.aten.native_layer_norm_backward(
                g.contiguous(), x, shape, mean, rstd, layer.weight, layer.bias, [True, False, False]
            )[0]
        return error, {"weight": StoredGradient(scale), "bias": StoredGradient(shift)}

    return out, (x, mean, rstd), backward


def rms_norm(layer: nn.RMSNorm, x: Tensor) -> Forward:
    """Root-mean-square normalisation of [b, ..., *normalised shape] (Zhang, Sennrich 2019)."""
    axes = tuple(range(x.ndim - len(layer.normalized_shape), x.ndim))
    eps = torch.finfo(x.dtype).eps if layer.eps is None else layer.eps
    rate = torch.rsqrt(x.square().mean(dim=axes, keepdim=True) + eps)
    normed = x * rate

    def backward(g: Tensor, saved: tuple[Tensor, ...], wanted: bool) -> tuple[Tensor | None, Found]:
        normed, rate = saved
        scale = g * normed
        between = tuple(range(1, axes[0]))
        found: Found = {"weight": StoredGradient(scale.sum(dim=between) if between else scale)}
        if not wanted:
            return None, found
        behind = (scale * layer.weight).mean(dim=axes, keepdim=True)
        return (g * layer.weight - normed * behind) * rate, found

    return normed * layer.weight, (normed, rate), backward


def embedding(layer: nn.Embedding, tokens: Tensor) -> Forward:
    """A table of rows [v, e], looked up by integer tokens [b, ...].

    Raises:
        UnsupportedModel: settings that mix samples.
    """
    if layer.max_norm is not None or layer.scale_grad_by_freq or layer.sparse:
        raise UnsupportedModel(
            "an Embedding with max_norm, scale_grad_by_freq or sparse mixes samples: leave those"
            " settings out."
        )
    b, width = len(tokens), layer.embedding_dim

    def backward(g: Tensor, saved: tuple[Tensor, ...], wanted: bool) -> tuple[Tensor | None, Found]:
        (tokens,) = saved
        flat, errors = tokens.reshape(b, -1), g.reshape(b, -1, width)
        if layer.padding_idx is not None:
            errors = errors * (flat != layer.padding_idx)[:, :, None]
        return None, {"weight": EmbeddingGradient(flat, errors, layer.num_embeddings)}

    return F.embedding(tokens, layer.weight), (tokens,), backward


KERNELS: dict[type[nn.Module], Callable[[Any, Tensor], Forward]] = {
    nn.Linear: linear,
    NonDynamicallyQuantizableLinear: linear,
    nn.Conv1d: conv,
    nn.Conv2d: conv,
    nn.Conv3d: conv,
    nn.GroupNorm: group_norm,
    nn.LayerNorm: layer_norm,
    nn.RMSNorm: rms_norm,
    nn.Embedding: embedding,
}
