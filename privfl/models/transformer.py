"""A small transformer for text, with low-rank adapters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from privfl.core import ConfigError, UnsupportedModel, require
from privfl.models.shapes import features


class LoRA(nn.Module):
    """A linear layer that stays as it is, and a product of two small ones that is trained beside it
    (Hu et al. 2022, section 4.1): y = W x + (2 / rank) B A x, with B = 0 at the start.
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        self.scale = 2 / rank
        nn.init.normal_(self.down.weight, std=base.in_features**-0.5)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [..., o] of inputs [..., i]."""
        out: Tensor = self.base(x) + self.up(self.down(x)) * self.scale
        return out


class SelfAttention(nn.Module):
    """Attention of several heads with query, key, value and output as layers of their own, written
    out in operations that have second derivatives.
    """

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query: nn.Linear | LoRA = nn.Linear(width, width)
        self.value: nn.Linear | LoRA = nn.Linear(width, width)
        self.key, self.output = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """States [B, T, width] of states [B, T, width]."""
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = (q / math.sqrt(q.shape[3])) @ k.mT
        if self.causal:
            ahead = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
            scores = scores.masked_fill(ahead, -math.inf)
        mixed = (scores.softmax(dim=3) @ v).transpose(1, 2).flatten(2)
        out: Tensor = self.output(mixed)
        return out


class TransformerBlock(nn.Module):
    """Attention and a perceptron, each behind a LayerNorm and beside a shortcut (GPT-2)."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, causal)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """States [B, T, width] of states [B, T, width]."""
        x = x + self.attention(self.before_attention(x))
        out: Tensor = x + self.mlp(self.before_mlp(x))
        return out


class Transformer(nn.Module):
    """Tokens [B, T] (int64) to logits: of the next token [B, T, V], or of a class [B, C] from the
    last position's state.
    """

    def __init__(
        self,
        vocabulary: int,
        classes: int | None,
        length: int,
        width: int,
        layers: int,
        heads: int,
        causal: bool,
    ) -> None:
        super().__init__()
        self.classifies = classes is not None
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, causal) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, vocabulary if classes is None else classes, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, T, V] or [B, C]."""
        places = torch.arange(tokens.shape[1], device=tokens.device).repeat(len(tokens), 1)
        x = self.embedding(tokens) + self.position(places)
        for block in self.blocks:
            x = block(x)
        if self.classifies:
            x = x[:, -1]
        logits: Tensor = self.output(self.norm(x))
        return logits


def adapted(model: Transformer, rank: int) -> Transformer:
    """The same model with all weights frozen, and trainable adapters of that rank beside the
    queries and values of every block (Hu et al. 2022, section 4.2). The model given is changed.

    Raises:
        ConfigError: a rank under 1, or a model that has adapters.

    >>> model = adapted(transformer((8,), 65), rank=4)
    >>> sum(p.numel() for p in model.parameters() if p.requires_grad)
    4096
    """
    require.at_least(1, rank=rank)
    model.requires_grad_(False)
    for layer in model.modules():
        if isinstance(layer, SelfAttention):
            query, value = layer.query, layer.value
            if isinstance(query, LoRA) or isinstance(value, LoRA):
                raise ConfigError("this transformer has adapters: give rank once.")
            layer.query, layer.value = LoRA(query, rank), LoRA(value, rank)
    return model


def transformer(
    shape: Sequence[int],
    classes: int,
    *,
    width: int = 128,
    layers: int = 2,
    heads: int = 4,
    tied: bool = False,
    causal: bool = True,
    lora: int = 0,
    vocabulary: int | None = None,
) -> Transformer:
    """A transformer with normalisation in front, GELU and learnt positions, as GPT-2 (Radford et
    al. 2019) and small: samples are sequences of tokens [T], and T is the longest that it reads.

    ``tied``: the output layer is the embedding. ``causal``: a position sees none behind it.
    ``lora``: freeze everything but adapters of that rank (`adapted`); 0: train all.
    ``vocabulary``: None: it predicts the next token, of ``classes``; otherwise it sorts sequences
    of so many tokens into classes.

    Raises:
        ConfigError: a size under 1, heads that do not divide the width, or a classifier with tied
            weights.
        UnsupportedModel: samples that are no sequences of tokens.

    >>> model = transformer((80,), 65)
    >>> sum(p.numel() for p in model.parameters())
    423680
    >>> model(torch.zeros(3, 80, dtype=torch.int64)).shape
    torch.Size([3, 80, 65])
    """
    features(shape, classes)
    require.at_least(1, width=width, layers=layers, heads=heads, vocabulary=vocabulary or 1)
    require.at_least(0, lora=lora)
    if len(shape) != 1:
        raise UnsupportedModel(
            "model 'transformer' reads sequences of tokens, and samples have shape"
            f" {tuple(shape)}: use cnn or mlp."
        )
    if width % heads:
        raise ConfigError(f"heads={heads} must divide width={width}.")
    if tied and vocabulary is not None:
        raise ConfigError(
            "tied=True makes the output layer the embedding, and a classifier has other outputs:"
            " leave tied or vocabulary out."
        )
    model = Transformer(
        classes if vocabulary is None else vocabulary,
        None if vocabulary is None else classes,
        shape[0],
        width,
        layers,
        heads,
        causal,
    )
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            behind = name.endswith(("attention.output.weight", "mlp.2.weight"))
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if behind else 0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    if tied:
        model.output.weight = model.embedding.weight
    return adapted(model, lora) if lora else model
