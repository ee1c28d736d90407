"""Images out of updates on transformed images, by somebody who knows the transformations (ATS)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from privfl.attacks.inference import Family, Inference, Lacking, Observed, auxiliary, recipe
from privfl.attacks.inversion.first_layer import first_layer
from privfl.attacks.inversion.matching import GradientInversion, total_variation
from privfl.attacks.inversion.signs import Prior
from privfl.attacks.inversion.sparse_factors import factor
from privfl.attacks.inversion.unmixing import batch_of, samples_of, updates_of
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.result import Reconstruction
from privfl.core import ClientId, Examples, View

_AUXILIARY = 50
_FITS = 0.03
"""Images whose transformations are further from what was seen, over the range, explain nothing."""
_SWEEPS = 2

Maps = Sequence[Callable[[Tensor], Tensor]]


@dataclass(frozen=True, slots=True)
class _Seen:
    """A transformed image [d], of which image and by which map it is taken to be."""

    image: int
    way: int
    x: Float[Tensor, " d"]


@dataclass(frozen=True, slots=True)
class Untransforming(Inference):
    """A client's images behind the transformations that it trains them under (the setting of
    Balunović, Dimitrov, Staab, Vechev 2022, section 5.2: an adversary that knows the defence).

    First what was trained on: exactly where the first layer is linear (`LinearLeakage`'s closed
    form), by gradient matching elsewhere. Then the transformation: the policy is public, so its
    outcomes are few, and for each the image is sought that it takes to what was seen, near the mean
    of auxiliary images and smooth; the likeliest outcome stays. Transformations are drawn anew in
    each round, and what one of them shifts out of the picture the next one shows: the images of
    later rounds are told to whom they belong, and each image is sought from all of its views.

    Args:
        client: whose images (None: the first of the first round's).
        steps: of descent to an image.
        smooth: weight of the total variation.
        near: weight of the distance to the mean, over the variance.
        matching: iterations of gradient matching, where the first layer is not linear.

    >>> Untransforming(steps=100).takes_sum
    False
    """

    family: ClassVar[Family] = "inversion"
    examples: ClassVar[Examples] = {"": {"steps": 30, "matching": 30}}
    client: ClientId | None = None
    steps: int = 150
    smooth: float = 1e-3
    near: float = 1e-4
    matching: int = 500

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Reconstruction:
        """Images from all views.

        Raises:
            NotVisible: a view shows no single update.
            Lacking: no transformation is known, or the number of the client's samples, or samples
                like them; an update has several steps; no images explain what was seen.
        """
        forward = recipe(views[0], knowledge)
        low, high = forward.span(torch.empty(0, dtype=torch.float64))
        maps = _maps(forward, low, high)
        prior = Prior.of(auxiliary(knowledge, type(self).__name__, _AUXILIARY), low, high)
        seen = list(updates_of(views, knowledge, self.client))
        n = samples_of(seen[0], forward, knowledge)
        if batch_of(forward, n) < n:
            raise Lacking(
                "which of a client's images a batch holds is not public, and this attack tells"
                " images apart where each update is of all of them."
            )
        rounds = [self._trained_on(one, forward, n, knowledge) for one in seen]
        shown = [one for one in rounds if one is not None]
        if not shown:
            raise Lacking("no update shows what it was trained on.")
        flat = [one.double().flatten(1) for one in shown]
        x = self._joined(flat, maps, prior)
        off = _unexplained(flat, x, maps, prior)
        if not off < _FITS:
            raise Lacking(
                "no images were found that the policy takes to what was seen: it is off by"
                f" {off:.2f} of the range of features."
            )
        return Reconstruction(
            type(self).__name__,
            views[0].adversary,
            x.float().reshape(n, *forward.shape),
            torch.full((n,), -1),
            off,
            notes={"rounds": len(shown), "transformations": len(maps)},
        )

    def _trained_on(
        self, seen: Observed, forward: Forward, n: int, knowledge: Knowledge
    ) -> Tensor | None:
        """Transformed images [n, ...] of one update."""
        try:
            weight, bias, rectified = first_layer(seen, forward)
        except Lacking:
            matching = GradientInversion(iterations=self.matching)
            return matching.solved(replace(seen, samples=n), forward, knowledge).samples
        if n >= min(weight.shape) or (n > 1 and not rectified):
            raise Lacking(f"a first layer of {weight.shape[0]} does not tell {n} images apart.")
        if not bool(bias.abs().max() > 0):
            return None
        rng = knowledge.generator(60 + seen.view.plan.number)
        found = factor(weight.double(), bias.double(), n, None, rng, 64, 24)
        return found.X if found.sure == n else None

    def _joined(
        self, rounds: Sequence[Float[Tensor, "n d"]], maps: Maps, prior: Prior
    ) -> Float[Tensor, "n d"]:
        """Images from all that was seen of them."""
        first = rounds[0]
        n, ways = len(first), len(maps)
        tried = [
            _Seen(at * ways + way, way, x) for at, x in enumerate(first) for way in range(ways)
        ]
        found, worth = self._sought(n * ways, tried, maps, prior)
        best = worth.view(n, ways).argmin(dim=1)
        images = found.view(n, ways, -1)[torch.arange(n), best]
        seen = [_Seen(at, int(best[at]), x) for at, x in enumerate(first)]
        for _ in range(_SWEEPS if len(rounds) > 1 else 0):
            seen = [one for shown in rounds for one in _dealt(shown, images, maps, prior)]
            images, _ = self._sought(n, seen, maps, prior, images)
        return images

    def _sought(
        self,
        n: int,
        seen: Sequence[_Seen],
        maps: Maps,
        prior: Prior,
        start: Float[Tensor, "n d"] | None = None,
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
        """Images that are taken to what was seen of each, and how far each is from explaining it
        and from being likely.
        """
        span = prior.high - prior.low
        x = (prior.mean.expand(n, -1) if start is None else start).clone().requires_grad_()
        adam = torch.optim.Adam([x], lr=0.1 * float(span.mean()))
        groups = [
            (way, [one for one in seen if one.way == way]) for way in {one.way for one in seen}
        ]
        stacked = [
            (way, torch.tensor([one.image for one in of]), torch.stack([one.x for one in of]))
            for way, of in groups
        ]

        def far() -> Tensor:
            off = x.new_zeros(n)
            for way, at, goal in stacked:
                taken = maps[way](x[at].reshape(-1, *prior.shape)).flatten(1)
                off = off.index_add(0, at, ((taken - goal) / span).square().mean(dim=1))
            return off + self.near * ((x - prior.mean).square() / prior.variance).mean(dim=1)

        for step in range(self.steps):
            if step in (self.steps // 2, 3 * self.steps // 4):
                adam.param_groups[0]["lr"] /= 5
            adam.zero_grad()
            rough = total_variation((x / span).reshape(-1, *prior.shape))
            (far().sum() + self.smooth * n * rough).backward()  # type: ignore[no-untyped-call]
            adam.step()
            with torch.no_grad():
                x.copy_(torch.minimum(torch.maximum(x, prior.low), prior.high))
        with torch.no_grad():
            return x.detach(), far()


def _maps(forward: Forward, low: Tensor, high: Tensor) -> Maps:
    """All that clients may do to an image.

    Raises:
        Lacking: nothing is known of that.
    """
    if len(forward.data_seats) != 1:
        raise Lacking(
            "it undoes the transformations of one data seat, and the recipe names"
            f" {len(forward.data_seats)}."
        )
    maps = forward.data_seats[0].maps(forward.shape, low, high)
    if not maps:
        raise Lacking(
            f"{type(forward.data_seats[0]).__name__} is no transformation of single images: see"
            f" {', '.join(forward.data_seats[0].broken_by)}."
        )
    return maps


def _unexplained(
    rounds: Sequence[Float[Tensor, "n d"]], images: Float[Tensor, "n d"], maps: Maps, prior: Prior
) -> float:
    """How far what was seen is from the images' likeliest transformations: the root of the mean
    square over all rounds, as a share of the range of features.
    """
    span = prior.high - prior.low
    total, many = 0.0, 0
    for shown in rounds:
        for one in _dealt(shown, images, maps, prior):
            with torch.no_grad():
                taken = maps[one.way](images[one.image].reshape(1, *prior.shape)).flatten()
            total, many = total + float(((taken - one.x) / span).square().mean()), many + 1
    return math.sqrt(total / many)


def _dealt(
    shown: Float[Tensor, "n d"], images: Float[Tensor, "n d"], maps: Maps, prior: Prior
) -> list[_Seen]:
    """Which image each transformed one of a round is of, and by which map."""
    with torch.no_grad():
        taken = torch.stack([way(images.reshape(-1, *prior.shape)).flatten(1) for way in maps])
        span = prior.high - prior.low
        off = ((taken[:, None] - shown[None, :, None]) / span).square().mean(dim=3)
    least, way = off.min(dim=0)
    rows, columns = linear_sum_assignment(least.numpy().astype(np.float64))
    return [_Seen(int(j), int(way[i, j]), shown[i]) for i, j in zip(rows, columns, strict=True)]
