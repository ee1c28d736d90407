"""Property inference from a black box: what a released model answers to queries, and what shadow
releases with and without the property answer to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.inference import Family, Inference, Lacking, auxiliary, recipe
from privfl.attacks.inversion.simulate import Simulator
from privfl.attacks.knowledge import Forward, Knowledge, Trainer
from privfl.attacks.result import PropertyScores
from privfl.core import Dataset, Examples, Vector, View

_SIZES = (4, 8, 16, 32, 64, 128)
"""Numbers of samples of a client that are tried, because a black box does not tell it."""
_TRIED = 12
"""So many shadow clients of each."""


@dataclass(frozen=True, slots=True)
class BlackBoxProperty(Inference):
    """Whether the data that a released model was trained on have a property, from its answers alone
    (Zhang, Tople, Ohrimenko 2021, section 4).

    Of a view it takes the public plan and the models around the round: the one after it as a box
    that answers ``queries``, samples of the adversary's own, with probabilities of classes, and the
    one before it, which everybody was sent, to start shadows from. Half of the shadow releases are
    made of clients a ``share`` of whose samples have the property (``Knowledge.attribute``, 0 or 1
    by auxiliary sample), half of clients without it (``contrast``). Logistic regression on the
    shadows' log probabilities tells the two kinds apart; its log odds on the release's answers are
    the score of the round. Nothing of updates, sums or rows is read, so whoever can query the model
    can play it, through every channel.

    Args:
        shadows: releases of each kind; ``ridge`` the weight of the squared norm in the regression,
            relative to the mean squared norm of the features.

    >>> BlackBoxProperty().takes_sum
    True
    """

    family: ClassVar[Family] = "property"
    examples: ClassVar[Examples] = {"": {"shadows": 2, "queries": 40}}
    share: float = 0.3
    contrast: float = 0.0
    shadows: int = 40
    queries: int = 1000
    ridge: float = 0.001

    @property
    def takes_sum(self) -> bool:
        """It asks about all clients' data together."""
        return True

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> PropertyScores:
        """Log odds for every round's release.

        Raises:
            Lacking: no shadow training, no attribute, or fewer than 20 auxiliary samples of either
                kind.
        """
        forward = recipe(views[0], knowledge)
        held = auxiliary(knowledge, type(self).__name__, 40)
        name, trainer = knowledge.attribute, knowledge.trainer
        if trainer is None or name is None or name not in held.attributes:
            raise Lacking(
                "shadow releases must be trained: give Knowledge(trainer=..., attribute=...) and"
                " samples with it."
            )
        has = held.attributes[name] == 1
        if int(has.sum()) < 20 or int((~has).sum()) < 20:
            raise Lacking(
                f"of the auxiliary samples {int(has.sum())} have the property and"
                f" {int((~has).sum())} do not: 20 of each are needed."
            )
        rng = knowledge.generator(41)
        asked = held.x[torch.randperm(held.n, generator=rng)[: self.queries]]
        model = Simulator(forward, views[0].after)
        boxes: list[tuple[Vector, int, _Box]] = []
        scores = []
        for view in views:
            n = max(1, view.plan.n)
            box = next((b for at, k, b in boxes if k == n and torch.equal(at, view.before)), None)
            if box is None:
                made = _Shadows(self, forward, model, held, has, trainer, knowledge.seed)
                box = made.box(view, asked, n, rng)
                boxes.append((view.before, n, box))
            scores.append(box.log_odds(_answers(model, view.after, asked)))
        return PropertyScores(
            type(self).__name__,
            views[0].adversary,
            torch.tensor(scores)[:, None],
            (None,),
            tuple(view.plan.number for view in views),
            notes={"queries": len(asked), "shadow releases": 2 * self.shadows},
        )


@dataclass(frozen=True, slots=True)
class _Box:
    """A logistic regression in the span of the shadows' answers X [s, q], centred."""

    centre: Float[Tensor, " q"]
    X: Float[Tensor, "s q"]
    a: Float[Tensor, " s"]
    intercept: float

    def log_odds(self, answers: Float[Tensor, " q"]) -> float:
        """Of one release's answers."""
        z = (answers - self.centre).double()
        return float(self.X.double() @ z @ self.a) + self.intercept


@dataclass(frozen=True, slots=True)
class _Shadows:
    how: BlackBoxProperty
    forward: Forward
    model: Simulator
    held: Dataset
    has: Tensor
    trainer: Trainer
    seed: int

    def box(self, view: View, asked: Tensor, n: int, rng: torch.Generator) -> _Box:
        """The regression on shadow releases of rounds of ``n`` clients from the view's model."""
        size = self._size(view, asked, n, rng)
        pool = max(n, 2 * self.how.shadows)
        X: list[Tensor] = []
        for share in (self.how.share, self.how.contrast):
            deltas = self._clients(view.before, [self._draw(size, share, rng) for _ in range(pool)])
            for _ in range(self.how.shadows):
                some = torch.randperm(pool, generator=rng)[:n]
                X.append(self._released(view.before, deltas[some], asked, rng))
        y = torch.arange(2 * self.how.shadows) < self.how.shadows
        return _fitted(torch.stack(X), y, self.how.ridge)

    def _clients(self, start: Vector, subsets: list[Tensor]) -> Float[Tensor, "k d"]:
        """What shadow clients send."""
        rows = self.trainer(start, self.held, subsets, seed=self.seed)
        norms = rows.norm(dim=1, keepdim=True).clamp(min=1e-30)
        clipped: Tensor = rows * (self.forward.l2 / norms).clamp(max=1)
        return clipped

    def _released(
        self, start: Vector, rows: Float[Tensor, "n d"], asked: Tensor, rng: torch.Generator
    ) -> Float[Tensor, " q"]:
        noise = (self.forward.local_noise**2 / len(rows) + self.forward.central_noise**2) ** 0.5
        moved = rows.mean(dim=0)
        moved = moved + noise * torch.randn(moved.shape, generator=rng) if noise else moved
        return _answers(self.model, start + moved, asked)

    def _draw(self, size: int, share: float, rng: torch.Generator) -> Tensor:
        """Positions of one shadow client's samples, the given share of them with the property."""
        marked = round(size * share)
        marked += int(torch.rand((), generator=rng) < size * share - marked)
        pieces = []
        for kind, count in ((self.has, marked), (~self.has, size - marked)):
            at = kind.nonzero().squeeze(1)
            pieces.append(at[torch.randint(len(at), (count,), generator=rng)])
        return torch.cat(pieces)

    def _size(self, view: View, asked: Tensor, n: int, rng: torch.Generator) -> int:
        """How many samples a client has: the size whose shadow releases answer about as far from
        the model before the round as the release does.
        """
        before = _answers(self.model, view.before, asked)
        wanted = (_answers(self.model, view.after, asked) - before).norm().clamp(min=1e-30).log()
        off: dict[int, float] = {}
        for size in _SIZES:
            subsets = [self._draw(size, self.how.contrast, rng) for _ in range(_TRIED)]
            rows = self._clients(view.before, subsets)
            picked = rows[torch.randint(len(rows), (n,), generator=rng)]
            far = (self._released(view.before, picked, asked, rng) - before).norm()
            off[size] = abs(float(far.clamp(min=1e-30).log() - wanted))
        return min(off, key=off.__getitem__)


def _answers(model: Simulator, parameters: Vector, asked: Tensor) -> Float[Tensor, " q"]:
    """The log probabilities that a model answers, one query after the other."""
    model.write(parameters)
    with torch.no_grad():
        logits = torch.cat([model.module(part) for part in torch.split(asked, 512)])
        return logits.log_softmax(dim=-1).clamp(min=-30).flatten()


def _fitted(X: Float[Tensor, "s q"], y: Tensor, ridge: float) -> _Box:
    """Logistic regression with a ridge, by Newton's method on the weights of the samples (Zhu,
    Hastie 2005): there are far fewer shadows than features.
    """
    centre = X.mean(dim=0)
    X = X - centre
    K = (X @ X.T).double()
    scale = K.diagonal().mean().clamp(min=1e-30)
    K = K / scale
    target, a, b = y.double(), torch.zeros(len(X), dtype=torch.float64), 0.0
    eye = torch.eye(len(X), dtype=torch.float64)
    ones = torch.ones(len(X), dtype=torch.float64)
    for _ in range(25):
        p = torch.sigmoid(K @ a + b)
        w = (p * (1 - p)).clamp(min=1e-6)
        working = K @ a + b + (target - p) / w
        A = K + ridge * (eye / w)
        solved = torch.linalg.solve(A, torch.stack([working, ones], dim=1))
        b = float(solved[:, 0].sum() / solved[:, 1].sum())
        a = solved[:, 0] - b * solved[:, 1]
    return _Box(centre, X, a / scale, b)
