"""Passive property inference: shadow updates with and without the property, and a linear classifier
between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.inference import Family, Lacking, Target, Targeted, auxiliary, recipe, summed
from privfl.attacks.knowledge import Forward, Knowledge, Trainer
from privfl.attacks.result import PropertyScores
from privfl.attacks.rows import contributors, readable, told_apart
from privfl.core import ClientId, Dataset, Examples, NotVisible, Vector, View

_SIZES = (4, 8, 16, 32, 64, 128)
"""Numbers of samples that are tried where a client's is not public."""
_TRIED = 3
"""So many shadow contributions of each."""


@dataclass(frozen=True, slots=True)
class PropertyInference(Targeted):
    """Whether a client's samples have a property in a round (Melis, Song, De Cristofaro, Shmatikov
    2019, section 4.5, passive).

    At each round's broadcast model the adversary trains shadow clients on its own samples, half of
    them with a share of samples that have the property (``Knowledge.attribute``, 0 or 1 by
    auxiliary sample), and separates the two kinds of updates by a ridge classifier in the span of
    the shadows. The classifier's margin on the observed update, in units of its spread over
    shadows, is the score: above zero says yes. Scores come by round, so a property that appears and
    disappears is seen to. Where rows are means of groups whose members are disclosed, a client has
    the score of its group's row.

    Args:
        share: of the samples of a shadow with the property that have it; ``contrast`` of one
            without (a ratio of the sexes is told from another one); ``shadows`` are trained of each
            kind.

    >>> PropertyInference(share=0.3).shadows
    40
    """

    family: ClassVar[Family] = "property"
    examples: ClassVar[Examples] = {"": {"shadows": 8}}
    share: float = 0.3
    contrast: float = 0.0
    shadows: int = 40
    target: Target = "client"
    ridge: float = 0.1

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> PropertyScores:
        """Scores of every round and client, or of every round's sum.

        Raises:
            NotVisible: a view shows no such contribution.
            Lacking: no shadow training, no attribute, or too few auxiliary samples of either kind.
        """
        forward = recipe(views[0], knowledge)
        held = auxiliary(knowledge, type(self).__name__, 40)
        if (
            knowledge.trainer is None
            or knowledge.attribute is None
            or knowledge.attribute not in held.attributes
        ):
            raise Lacking(
                "shadow clients must be trained: give Knowledge(trainer=..., attribute=...) and"
                " samples with it."
            )
        has = held.attributes[knowledge.attribute] == 1
        if int(has.sum()) < 20 or int((~has).sum()) < 20:
            raise Lacking(
                f"of the auxiliary samples {int(has.sum())} have the property and"
                f" {int((~has).sum())} do not: 20 of each are needed."
            )
        table: list[Tensor] = []
        clients: tuple[ClientId | None, ...] = ()
        shadows: _Shadows | None = None
        for view in views:
            seen = _seen(view, self.target, forward, knowledge)
            now = tuple(seen.place)
            if clients and now != clients:
                raise Lacking(
                    "clients come and go between these rounds: attack each round's view by itself."
                )
            clients = now
            if shadows is None or not shadows.serve(view, seen):
                shadows = self._shadows(view, held, has, seen, knowledge.trainer, knowledge.seed)
            scores = shadows.scored(seen.rows, self.ridge)
            table.append(scores[torch.tensor([seen.place[client] for client in clients])])
        rounds = tuple(view.plan.number for view in views)
        return PropertyScores(
            type(self).__name__, views[0].adversary, torch.stack(table), clients, rounds
        )

    def _shadows(
        self, view: View, held: Dataset, has: Tensor, seen: _Seen, trainer: Trainer, seed: int
    ) -> _Shadows:
        """Shadow contributions, as many with the property as without, each among as many other
        clients as the contribution in question.
        """
        rng = torch.Generator().manual_seed(seed * 1009 + view.plan.number)
        size = seen.samples or _size(view, held, seen, trainer, seed)
        others = seen.among - 1
        subsets = [_draw(has, size, self.share, rng) for _ in range(self.shadows)]
        subsets += [_draw(has, size, self.contrast, rng) for _ in range(self.shadows)]
        crowd = [
            _draw(has, size, self.contrast, rng) for _ in range(4 * self.shadows if others else 0)
        ]
        updates = trainer(view.before, held, subsets + crowd, seed=seed)
        X = updates[: 2 * self.shadows]
        if others:  # a shadow sum: the client in question among others drawn from the crowd
            rest = updates[2 * self.shadows :]
            picks = torch.randint(len(rest), (len(X), others), generator=rng)
            X = (X + rest[picks].sum(dim=1)) / (others + 1)
        y = torch.cat([torch.ones(self.shadows), -torch.ones(self.shadows)])
        return _Shadows(view.before, seen.among, seen.samples, X / X.norm(dim=1, keepdim=True), y)


@dataclass(frozen=True, slots=True)
class _Seen:
    """Contributions [k, d] of a round; which row is about whom; of how many clients a row is the
    mean; samples of each client, None where they are not public.
    """

    rows: Float[Tensor, "k d"]
    place: dict[ClientId | None, int]
    among: int
    samples: int | None


@dataclass(frozen=True, slots=True)
class _Shadows:
    """Shadow contributions X [n, d] of unit length made at one model, with (y = 1) and without."""

    before: Vector
    among: int
    samples: int | None
    X: Float[Tensor, "n d"]
    y: Float[Tensor, " n"]

    def serve(self, view: View, seen: _Seen) -> bool:
        """Whether they stand for this contribution too: the same model, clients and samples."""
        alike = (self.among, self.samples) == (seen.among, seen.samples)
        return alike and torch.equal(self.before, view.before)

    def scored(self, rows: Float[Tensor, "k d"], ridge: float) -> Float[Tensor, " k"]:
        """The classifier's margin on each row."""
        unit = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-30)
        return _margins(self.X, self.y, unit, ridge)


def _seen(view: View, target: Target, forward: Forward, knowledge: Knowledge) -> _Seen:
    if target == "sum":
        total = summed(view)
        public = forward.weighted and "delta" in view.opened
        size = knowledge.samples or (round(total.weight / total.count) if public else None)
        return _Seen(total.mean()[None], {None: 0}, max(1, view.plan.n), size)
    rows = readable(view)
    if rows.ids is not None:
        size = knowledge.samples or (
            round(float(rows.weights.mean())) if forward.weighted else None
        )
        return _Seen(rows.values, {client: at for at, client in enumerate(rows.ids)}, 1, size)
    if not told_apart(view):
        raise NotVisible(
            f"{view.adversary} reads rows of round {view.plan.number} without knowing whose they"
            " are."
        )
    whose = contributors(view)
    place: dict[ClientId | None, int] = {
        client: at for at, group in enumerate(whose) for client in group
    }
    among = round(sum(len(group) for group in whose) / len(whose))
    return _Seen(rows.values, dict(sorted(place.items(), key=str)), among, knowledge.samples)


def _size(view: View, held: Dataset, seen: _Seen, trainer: Trainer, seed: int) -> int:
    """How many samples a client has, where nobody says so: the size whose shadow updates are about
    as long as those that were seen.
    """
    rng = torch.Generator().manual_seed(seed * 1009 + 7)
    wanted = float(seen.rows.norm(dim=1).mean().clamp(min=1e-30).log())
    off: dict[int, float] = {}
    for size in _SIZES:
        subsets = [
            torch.randint(held.n, (size,), generator=rng) for _ in range(_TRIED * seen.among)
        ]
        updates = trainer(view.before, held, subsets, seed=seed)
        sums = updates.view(_TRIED, seen.among, -1).mean(dim=1)
        off[size] = abs(float(sums.norm(dim=1).mean().clamp(min=1e-30).log()) - wanted)
    return min(off, key=off.__getitem__)


def _draw(has: Tensor, size: int, share: float, rng: torch.Generator) -> Tensor:
    """Positions of one shadow's samples, the given share of them with the property."""
    marked = round(size * share)
    pieces = []
    for kind, count in ((has, marked), (~has, size - marked)):
        at = kind.nonzero().squeeze(1)
        pieces.append(at[torch.randint(len(at), (count,), generator=rng)])
    return torch.cat(pieces)


def _margins(
    X: Float[Tensor, "n d"], y: Float[Tensor, " n"], Z: Float[Tensor, "k d"], ridge: float
) -> Float[Tensor, " k"]:
    """Ridge classification in the span of X; margins over the spread of left-out ones."""
    centre = X.mean(dim=0)
    X, Z = X - centre, Z - centre
    K = (X @ X.T).double()
    solved = torch.linalg.solve(
        K + ridge * K.diagonal().mean() * torch.eye(len(K), dtype=K.dtype),
        torch.eye(len(K), dtype=K.dtype),
    )
    alpha = solved @ y.double()
    left_out = y.double() - alpha / solved.diagonal()
    margins: Tensor = ((Z @ X.T).double() @ alpha / left_out.std().clamp(min=1e-12)).float()
    return margins
