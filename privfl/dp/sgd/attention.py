"""nn.MultiheadAttention whose projections also give per-sample weight gradients; what lies between
them has no weights, and is left to autograd.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privfl.core import UnsupportedModel
from privfl.dp.sgd.kernels import Forward, Found
from privfl.dp.sgd.lstm import Run
from privfl.dp.sgd.per_sample_gradients import (
    BlockGradient,
    PerSampleGradient,
    StoredGradient,
    outers,
)


def attention(
    layer: nn.MultiheadAttention,
    run: Run,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """What ``layer(query, key, value, ...)`` returns of query [b, t, d], key and value [b, s, ...]
    (time first without ``batch_first``). ``is_causal`` is a hint about ``attn_mask``, as in torch.

    Raises:
        UnsupportedModel: no batch in front, learnt or zero extra keys, or a hint without its mask.
    """
    if (
        query.ndim != 3
        or layer.bias_k is not None
        or layer.bias_v is not None
        or layer.add_zero_attn
        or (is_causal and attn_mask is None)
    ):
        raise UnsupportedModel(
            "engine 'bookkeeping' runs nn.MultiheadAttention on batches of sequences, without"
            " add_bias_kv and add_zero_attn, and with attn_mask given where is_causal is: use"
            " engine 'vmap' for those."
        )
    itself = query is key and key is value
    if not layer.batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    width, heads = layer.embed_dim, layer.num_heads
    if layer.in_proj_weight is not None and itself:
        whole = run(layer, _projection("in_proj_weight", 0, 3 * width, packed=True), query, "all")
        q, k, v = whole.chunk(3, dim=2)
    else:
        q, k, v = (
            run(
                layer,
                _projection(
                    f"{name}_proj_weight" if layer.in_proj_weight is None else "in_proj_weight",
                    place * width,
                    (place + 1) * width,
                    packed=layer.in_proj_weight is not None,
                ),
                x,
                name,
            )
            for place, (name, x) in enumerate((("q", query), ("k", key), ("v", value)))
        )
    b, t, s = len(q), q.shape[1], k.shape[1]
    q, k, v = (x.view(b, -1, heads, width // heads).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.mT / math.sqrt(width // heads)
    if attn_mask is not None:
        scores = _masked(
            scores, attn_mask.view(b, heads, t, s) if attn_mask.ndim == 3 else attn_mask
        )
    if key_padding_mask is not None:
        scores = _masked(scores, key_padding_mask[:, None, None, :])
    weights = F.dropout(scores.softmax(dim=3), layer.dropout, layer.training)
    out: Tensor = layer.out_proj((weights @ v).transpose(1, 2).flatten(2))
    if not layer.batch_first:
        out = out.transpose(0, 1)
    if not need_weights:
        return out, None
    return out, weights.mean(dim=1) if average_attn_weights else weights


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    return scores.masked_fill(mask, -math.inf) if mask.dtype == torch.bool else scores + mask


def _projection(
    name: str, start: int, stop: int, packed: bool
) -> Callable[[nn.Module, Tensor], Forward]:
    """Y = x W^T + b with rows ``start`` to ``stop`` of ``in_proj_weight``, or with a weight of its
    own; the bias is always packed.
    """

    def kernel(layer: nn.Module, x: Tensor) -> Forward:
        weight = layer.get_parameter(name).detach()
        weight = weight[start:stop] if packed else weight
        biased = layer._parameters["in_proj_bias"] is not None
        bias = layer.get_parameter("in_proj_bias").detach()[start:stop] if biased else None

        def backward(
            g: Tensor, saved: tuple[Tensor, ...], wanted: bool
        ) -> tuple[Tensor | None, Found]:
            (x,) = saved
            made: PerSampleGradient = outers(x, g)
            found: Found = {name: BlockGradient(made, start, stop) if packed else made}
            if biased:
                found["in_proj_bias"] = BlockGradient(StoredGradient(g.sum(dim=1)), start, stop)
            return g @ weight if wanted else None, found

        return F.linear(x, weight, bias), (x,), backward

    return kernel
