"""A round to try attacks in: data of three kinds, a small model, and what colluding attackers
know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from privfl.aggregators import Median
from privfl.core import (
    ConfigError,
    Dataset,
    FlatModel,
    Knows,
    RoundKnowledge,
    RoundPlan,
    Rows,
    Vector,
)

N, F, L2 = 15, 3, 9.0
"""Clients, how many of them attack together, and the bound on an update."""


def data_sets() -> Iterator[tuple[str, Dataset]]:
    """Images, a table and text, of four classes (text: nine tokens), with an attribute ``group``
    of 0 and 1.
    """
    rng = torch.Generator().manual_seed(1)
    y = torch.arange(40) % 4
    group = {"group": (torch.arange(40) // 4) % 2}
    images = torch.randn(40, 1, 8, 8, generator=rng) + y[:, None, None, None]
    yield "images", Dataset(images, y, 4, group)
    yield "a table", Dataset(torch.randn(40, 12, generator=rng) + y[:, None], y, 4, group)
    tokens = torch.randint(0, 9, (40, 11), generator=rng)
    yield "text", Dataset(tokens[:, :-1].clone(), tokens[:, 1:].clone(), 9, group)


def model(seed: int = 0) -> FlatModel:
    """One hidden layer of 8 on 8 x 8 pixels, for four classes."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        layers = (nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
        return FlatModel(nn.Sequential(*layers))


def loss(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of logits for samples x [n, ...] with labels y [n]."""
    return functional.cross_entropy(module(x), y)


def rng(seed: int = 5) -> torch.Generator:
    """Chance of an attack's own."""
    return torch.Generator().manual_seed(seed)


def own_rows(seed: int = 3) -> Float[Tensor, "f d"]:
    """What the attackers' clients would send if they were honest."""
    rows: Tensor = benign_rows(seed)[:F]
    return rows


def benign_rows(seed: int = 2) -> Float[Tensor, "h d"]:
    """What the honest clients send, rows of length 3 about."""
    d = model().d
    made = torch.randn(N - F, d, generator=torch.Generator().manual_seed(seed)) / d**0.5
    around: Tensor = made + 2.8 / d**0.5
    return around


@dataclass(frozen=True, slots=True)
class StandIn:
    """A path without encoding, whose server takes the median, for attackers that may know it."""

    knows_rule: bool

    def sent(self, rows: Float[Tensor, "f d"]) -> Float[Tensor, "f d"]:
        """Rows no longer than the bound."""
        short: Tensor = rows * (L2 / rows.norm(dim=1, keepdim=True).clamp(min=L2))
        return short

    def server(self, rows: Rows) -> Vector:
        """The median of the rows.

        Raises:
            ConfigError: the attack does not say that it knows the server's rule.
        """
        if not self.knows_rule:
            raise ConfigError("an attack that tries the server's rule must say knows = 'rule'.")
        return Median()(rows)


def knowledge(knows: Knows, *, number: int = 1, seed: int = 2) -> RoundKnowledge:
    """What an attack that declares this is told in a round."""
    trained = model()
    held = next(data_sets())[1]

    def loss_of(parameters: Vector) -> float:
        tried = model()
        tried.write(parameters)
        return float(loss(tried.module, held.x, held.y))

    sees = knows in ("benign", "rule")
    benign = Rows(benign_rows(seed), torch.ones(N - F), tuple(range(F, N)))
    return RoundKnowledge(
        RoundPlan(number, tuple(range(N)), trained.d, L2),
        trained.read(),
        last=torch.full((trained.d,), 0.01),
        benign=benign if sees else None,
        path=StandIn(knows == "rule"),
        weights=torch.ones(F),
        total=float(N),
        loss=loss_of,
    )
