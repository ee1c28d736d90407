"""A next-character LSTM."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from privfl.core import UnsupportedModel, require
from privfl.models.shapes import features


class NextToken(nn.Module):
    """Embedding, LSTM, one linear layer: tokens [B, T] (int64) to logits of the next token [B, T,
    V].
    """

    def __init__(self, vocabulary: int, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True)
        self.output = nn.Linear(hidden, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, T, V]."""
        states, _ = self.lstm(self.embedding(tokens))
        logits: Tensor = self.output(states)
        return logits


def lstm(
    shape: Sequence[int], classes: int, *, embedding: int = 8, hidden: int = 128, layers: int = 1
) -> NextToken:
    """A character LSTM (McMahan et al. 2017, section 3: embedding 8, two layers of 256); the
    vocabulary is ``classes``.

    Raises:
        ConfigError: a size under 1.
        UnsupportedModel: samples that are no sequences of tokens.

    >>> sum(p.numel() for p in lstm((80,), 90, hidden=256, layers=2).parameters())
    822570
    """
    features(shape, classes)
    require.at_least(1, embedding=embedding, hidden=hidden, layers=layers)
    if len(shape) != 1:
        raise UnsupportedModel(
            f"model 'lstm' reads sequences of tokens, and samples have shape {tuple(shape)}: use"
            " cnn or mlp."
        )
    return NextToken(classes, embedding, hidden, layers)
