"""How well encrypted answers agree with the network's own, and what they cost."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from privfl.core import ConfigError
from privfl.inference.owner import EncryptedModel
from privfl.inference.querier import EncryptedQuerier


class Seconds(NamedTuple):
    """Of CPU, the least of all queries."""

    encrypt: float
    evaluate: float
    decrypt: float


@dataclass(frozen=True, slots=True, eq=False)
class Inferred:
    """Answers to encrypted queries beside the network's own, each [B, classes]; what a query takes;
    bytes of the keys, a query and an answer.
    """

    encrypted: Float[Tensor, "B classes"]
    clear: Float[Tensor, "B classes"]
    seconds: Seconds
    keys_bytes: int
    query_bytes: int
    answer_bytes: int

    @property
    def agreement(self) -> float:
        """The share of samples whose class is the same."""
        same = self.encrypted.argmax(dim=1) == self.clear.argmax(dim=1)
        return float(same.double().mean())

    @property
    def error(self) -> float:
        """The largest difference of a logit."""
        return float((self.encrypted - self.clear).abs().max())

    def accuracy(self, labels: Int[Tensor, " B"]) -> tuple[float, float]:
        """Of the encrypted answers, and of the network's own."""
        encrypted, clear = (
            float((logits.argmax(dim=1) == labels).double().mean())
            for logits in (self.encrypted, self.clear)
        )
        return encrypted, clear


def infer_encrypted(
    model: nn.Module,
    samples: Float[Tensor, "B ..."],
    *,
    calibration: Float[Tensor, "C ..."],
) -> Inferred:
    """Ask about each sample under encryption, through both parties and their messages, and in the
    clear.

    Raises:
        UnsupportedModel, ConfigError: as `EncryptedModel`; ConfigError: no samples.

    >>> from privfl.models import Square
    >>> net = nn.Sequential(nn.Linear(4, 4), Square(), nn.Linear(4, 2))
    >>> x = torch.linspace(-1, 1, 8).reshape(2, 4)
    >>> infer_encrypted(net, x, calibration=x).error < 1e-2
    True
    """
    if not len(samples):
        raise ConfigError("samples: there are none to ask about.")
    owner = EncryptedModel(model, samples.shape[1:], calibration=calibration)
    client = EncryptedQuerier(owner.circuit)
    sent = client.keys()
    keys, found = owner.keys(sent), []
    seconds = Seconds(math.inf, math.inf, math.inf)
    for sample in samples:
        start = time.process_time()
        query = client.query(sample)
        asked = time.process_time()
        answer = owner.answer(keys, query)
        answered = time.process_time()
        found.append(client.logits(answer))
        steps = asked - start, answered - asked, time.process_time() - answered
        seconds = Seconds(*map(min, zip(seconds, steps, strict=True)))
    with torch.no_grad():
        clear = model.eval()(samples)
    return Inferred(torch.stack(found), clear, seconds, len(sent), len(query), len(answer))
