"""Which words a client typed: only their rows of the embedding move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from privfl.attacks.inference import Family, Lacking, Target, Targeted, observe, recipe
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.result import Tokens
from privfl.core import ClientId, View


@dataclass(frozen=True, slots=True)
class EmbeddingLeakage(Targeted):
    """The tokens in a client's text, or in all clients' (Melis, Song, De Cristofaro, Shmatikov
    2019, section 4.1).

    An embedding's gradient has a row for each token, and rows of tokens that do not occur are zero:
    exactly those that moved were there, after any number of local steps without weight decay, and
    through a sum as well. Where noise was added (and is public), a row counts from ``deviations``
    of the noise's norm upwards. The tokens come with the greatest move first.

    >>> EmbeddingLeakage(target="sum").deviations
    4.0
    """

    family: ClassVar[Family] = "inversion"
    target: Target = "client"
    client: ClientId | None = None
    deviations: float = 4.0

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Tokens:
        """Tokens whose rows moved in any of the views.

        Raises:
            NotVisible: a view shows no such contribution.
            Lacking: the model has no embedding.
        """
        forward = recipe(views[0], knowledge)
        vocabulary, width = _embedding(forward)
        moved = torch.zeros(vocabulary, dtype=torch.float64)
        for view in views:
            observed = observe(view, knowledge, self.target, self.client)
            noise = max(observed.noise, forward.central_noise)
            lengths = (
                observed.delta[: vocabulary * width].view(vocabulary, width).norm(dim=1).double()
            )
            usual = noise * width**0.5
            moved = torch.maximum(
                moved, torch.where(lengths > usual + self.deviations * noise / 2**0.5, lengths, 0.0)
            )
        order = moved.argsort(descending=True)
        tokens = order[: int((moved > 0).sum())]
        return Tokens(
            type(self).__name__, views[0].adversary, tokens, notes={"vocabulary": vocabulary}
        )


def _embedding(forward: Forward) -> tuple[int, int]:
    """Vocabulary and width of the embedding with which the flat vector begins.

    Raises:
        Lacking: there is none, or it does not come first among the parameters.
    """
    for module in forward.module.modules():
        if isinstance(module, nn.Embedding):
            first = next(p for p in forward.module.parameters() if p.requires_grad)
            if first is not module.weight:
                raise Lacking(
                    "the embedding must be the model's first layer for its rows to be found."
                )
            return module.num_embeddings, module.embedding_dim
    raise Lacking("tokens are read off an embedding, and this model has none.")
