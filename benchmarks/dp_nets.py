"""The networks whose steps of DP-SGD are timed, with what each must reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from privfl.models import resnet20, tanh_cnn, transformer

LENGTH, SYMBOLS = 80, 65
"""Windows and characters of the Shakespeare data set."""
SENTENCE, WORDS = 32, 1000
"""Of text by words."""


@dataclass(frozen=True)
class Net:
    """A model, the shape of a sample, a batch size, and what a step must reach: at most so many
    times plain SGD, and so many times faster than Opacus's ghost clipping and its hooks.
    ``symbols``: samples are tokens, and the model predicts the next of so many. ``alone``: Opacus
    takes no such model.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch: int
    ghost: float | None
    hooks: float | None
    repeats: int
    plain: float = 1.5
    symbols: int | None = None
    alone: bool = False


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))


class AttentionBlock(nn.Module):
    """A block of GPT-2 around torch's own attention, whose projections are one weight."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """States [B, T, width] of states [B, T, width]."""
        ahead = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        y = self.before_attention(x)
        x = x + self.attention(y, y, y, attn_mask=ahead, need_weights=False)[0]
        out: Tensor = x + self.mlp(self.before_mlp(x))
        return out


class TiedTransformer(nn.Module):
    """Tokens [B, T] to logits [B, T, V] by an embedding that is the output layer too."""

    def __init__(self, symbols: int, length: int, width: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(symbols, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(AttentionBlock(width, 4) for _ in range(layers)))
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, symbols, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, T, V]."""
        places = torch.arange(tokens.shape[1]).repeat(len(tokens), 1)
        x = self.blocks(self.embedding(tokens) + self.position(places))
        logits: Tensor = self.output(self.norm(x))
        return logits


NETS = {
    "cnn": Net(lambda: tanh_cnn((28, 28), 10), (28, 28), 256, 1.3, 1.3, 15),
    "resnet": Net(lambda: resnet20((3, 32, 32), 10), (3, 32, 32), 64, 1.6, 1.6, 6),
    "mlp": Net(mlp, (784,), 256, 1.3, 10.0, 60),
    "transformer": Net(
        lambda: transformer((LENGTH,), SYMBOLS), (LENGTH,), 32, 1.0, None, 12, 1.6, SYMBOLS
    ),
    "words": Net(
        lambda: transformer((SENTENCE,), WORDS), (SENTENCE,), 32, 1.8, None, 12, 1.5, WORDS
    ),
    "tied": Net(
        lambda: TiedTransformer(WORDS, SENTENCE),
        (SENTENCE,),
        32,
        None,
        None,
        12,
        1.6,
        WORDS,
        alone=True,
    ),
    "lora": Net(
        lambda: transformer((LENGTH,), SYMBOLS, lora=8), (LENGTH,), 32, 1.0, None, 12, 1.6, SYMBOLS
    ),
}
