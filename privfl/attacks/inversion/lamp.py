"""Text by gradient matching over embeddings, with swaps of tokens that a language model judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from privfl.attacks.inference import (
    Family,
    Lacking,
    Observed,
    Target,
    Targeted,
    auxiliary,
    observe,
    recipe,
)
from privfl.attacks.inversion.ngrams import NGrams, ngrams
from privfl.attacks.inversion.repeated import Repeated
from privfl.attacks.inversion.simulate import Simulator
from privfl.attacks.inversion.spans import vocabulary_of
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.result import Sequences
from privfl.core import ClientId, Examples, View

_SHARP = 0.1
"""Temperature at which a soft token is read off an embedding."""
_DEVIATIONS = 4.0
"""A token's row counts as moved from so many deviations of the noise's norm upwards."""


@dataclass(frozen=True, slots=True)
class LAMP(Targeted):
    """Gradient matching over a batch's token embeddings, and swaps judged by a language model
    (Balunović, Dimitrov, Jovanović, Vechev 2022, sections 4.1 to 4.3): the inexact attack on text,
    which neither b T < d nor one exact step is asked of.

    In turns, Adam moves the embeddings so that the gradient that they would cause looks like the
    one seen (``objective``: the cosine by layer, or squared L2), with a weight ``norm`` on how far
    their mean length is from that of the vocabulary's; and tokens are swapped and moved within
    their sequences, of which the change is kept that lowers the objective plus ``language`` times
    the cost under a language model. Here that is one of n-grams of the adversary's own text, in
    place of GPT-2. Labels of a model that predicts the next token are read off the next embedding,
    softly. Where the embedding is trained, only tokens count whose rows moved (Melis et al. 2019).

    It always claims sequences, and nothing says which tokens are right: hold it against what
    n-grams alone have right. A model that sorts into classes needs ``Knowledge.labels``.

    Args:
        iterations: steps of Adam, with swaps after each of ``turns`` equal parts.
        swaps: changes that are tried in each turn; ``starts`` drawn texts of which the best begins.
        lr: in deviations of the embedding's entries; it falls turn by turn.

    >>> LAMP(objective="l2").turns
    6
    """

    family: ClassVar[Family] = "inversion"
    examples: ClassVar[Examples] = {"": {"iterations": 2, "turns": 2, "swaps": 2, "starts": 1}}
    target: Target = "client"
    client: ClientId | None = None
    objective: Literal["cosine", "l2"] = "cosine"
    iterations: int = 360
    turns: int = 6
    swaps: int = 60
    starts: int = 20
    lr: float = 1.0
    norm: float = 0.1
    language: float = 0.05

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Sequences:
        """Sequences from the first view.

        Raises:
            NotVisible: the view shows no such contribution.
            Lacking: samples are no tokens, there is no text of the adversary's own, or labels of a
                classifier are not known.
        """
        view = views[0]
        forward = recipe(view, knowledge)
        observed = observe(view, knowledge, self.target, self.client)
        vocabulary = vocabulary_of(forward.module)
        if min(self.iterations, self.turns, self.swaps, self.starts) < 1:
            raise Lacking("LAMP needs iterations, turns, swaps and starts of at least 1.")
        own = auxiliary(knowledge, type(self).__name__, 1)
        guess = _Guess.of(self, observed, forward, knowledge, vocabulary)
        model, rng = ngrams(own.x, vocabulary), knowledge.generator(91)
        b, length = guess.samples, forward.shape[0]
        drawn = [model.drawn(b, length, guess.allowed, rng) for _ in range(self.starts)]
        z = min((guess.embedding[one] for one in drawn), key=guess.off).clone()
        z = z + 0.3 * guess.deviation * torch.randn(z.shape, generator=rng)

        def slope(z: Tensor) -> tuple[Tensor, ...]:
            """That of the objective in embeddings."""
            free = z.detach().requires_grad_()
            loss = guess.mismatch(free, graph=True) + self.norm * guess.too_long(free)
            return torch.autograd.grad(loss, free)

        step = Repeated(slope, self.iterations)
        best, least = z, float("inf")
        for turn in range(self.turns):
            z = self._moved(guess, step, z, turn)
            z = self._swapped(guess, model, z, rng)
            off = guess.off(z)
            if off < least:
                best, least = z.clone(), off
        return Sequences(
            type(self).__name__,
            view.adversary,
            guess.tokens(best),
            notes={
                "mismatch": least,
                "tokens that moved": len(guess.allowed),
                "b T": b * length,
            },
        )

    def _moved(self, guess: _Guess, step: Repeated, start: Tensor, turn: int) -> Tensor:
        """Embeddings after one turn's steps."""
        z = start.clone()
        steps = max(1, self.iterations // self.turns)
        rate = self.lr * guess.deviation * (1 - turn / self.turns)
        adam = torch.optim.Adam([z], lr=rate)
        for _ in range(steps):
            (z.grad,) = step(z)
            adam.step()
        return z

    def _swapped(self, guess: _Guess, model: NGrams, z: Tensor, rng: torch.Generator) -> Tensor:
        """Embeddings with the best change of order of those tried, where one is better."""
        best, least = z, self._judged(guess, model, z)
        for _ in range(self.swaps):
            tried = best.clone()
            row = int(torch.randint(len(z), (1,), generator=rng))
            tried[row] = tried[row][_reordered(z.shape[1], rng)]
            off = self._judged(guess, model, tried)
            if off < least:
                best, least = tried, off
        return best

    def _judged(self, guess: _Guess, model: NGrams, z: Tensor) -> float:
        return guess.off(z) + self.language * float(model.cost(guess.tokens(z)).mean())


@dataclass(frozen=True, slots=True)
class _Guess:
    """What is matched: the observed gradient by parameter, but for that of the embedding, and the
    model from embeddings on.
    """

    how: LAMP
    simulator: Simulator
    first: nn.Embedding
    goal: tuple[Tensor, ...]
    embedding: Float[Tensor, "V d"]
    allowed: Int[Tensor, " k"]
    samples: int
    labels: Tensor | None

    @classmethod
    def of(
        cls,
        how: LAMP,
        observed: Observed,
        forward: Forward,
        knowledge: Knowledge,
        vocabulary: int,
    ) -> _Guess:
        """The problem that an update poses.

        Raises:
            Lacking: a classifier's labels are not known, or nothing but the embedding is trained.
        """
        simulator = Simulator(forward, observed.base, round=observed.view.plan.number)
        first = next(one for one in simulator.module.modules() if isinstance(one, nn.Embedding))
        with torch.no_grad():
            scores = simulator.module(torch.zeros((1, *forward.shape), dtype=torch.int64))
        samples = observed.samples or max(1, observed.clients)
        labels = None
        if scores.ndim != 3:
            labels = knowledge.labels
            if labels is None or len(labels) != samples:
                raise Lacking("LAMP on a classifier needs its labels: give Knowledge(labels=...).")
        parts = torch.split(observed.delta, [leaf.numel() for leaf in simulator.leaves])
        goal, allowed = [], torch.arange(vocabulary)
        for leaf, part in zip(simulator.leaves, parts, strict=True):
            if leaf is first.weight:
                lengths = part.view(leaf.shape).norm(dim=1)
                usual = observed.noise * leaf.shape[1] ** 0.5
                limit = usual + _DEVIATIONS * observed.noise / 2**0.5
                moved = (lengths > limit).nonzero().squeeze(1)
                allowed = moved if len(moved) > 1 else allowed
            else:
                goal.append(-part.view(leaf.shape) / simulator.lr)
        if not goal or not any(bool(part.square().sum() > 0) for part in goal):
            raise Lacking("the update is zero beside the embedding, so there is nothing to match.")
        weight = first.weight.detach()
        return cls(how, simulator, first, tuple(goal), weight, allowed, samples, labels)

    @property
    def deviation(self) -> float:
        """That of the embedding's entries."""
        return float(self.embedding.std())

    def tokens(self, z: Float[Tensor, "b T d"]) -> Int[Tensor, "b T"]:
        """The allowed tokens with the nearest direction."""
        return self.allowed[self._alike(z).argmax(dim=2)]

    def _alike(self, z: Tensor) -> Float[Tensor, "b T k"]:
        near = functional.normalize(self.embedding[self.allowed], dim=1)
        cosines: Tensor = functional.normalize(z, dim=2) @ near.T
        return cosines

    def too_long(self, z: Tensor) -> Tensor:
        """The squared difference of mean lengths, relative to the vocabulary's."""
        usual = self.embedding[self.allowed].norm(dim=1).mean()
        off: Tensor = (z.norm(dim=2).mean() / usual - 1).square()
        return off

    def off(self, z: Tensor) -> float:
        """The objective, without a graph."""
        return float(self.mismatch(z, graph=False))

    def mismatch(self, z: Float[Tensor, "b T d"], *, graph: bool) -> Tensor:
        """How far the gradient that embeddings would cause is from the one seen."""
        leaves = [leaf for leaf in self.simulator.leaves if leaf is not self.first.weight]
        slopes = torch.autograd.grad(
            self._loss(z), leaves, create_graph=graph, materialize_grads=True
        )
        if self.how.objective == "l2":
            apart = sum_of([(a - b).square().sum() for a, b in zip(slopes, self.goal, strict=True)])
            return apart / sum_of([part.square().sum() for part in self.goal])
        return sum_of([_apart(a, b) for a, b in zip(slopes, self.goal, strict=True)]) / len(
            self.goal
        )

    def _loss(self, z: Tensor) -> Tensor:
        def replaced(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            return z

        hook = self.first.register_forward_hook(replaced)
        try:
            scores = self.simulator.module(torch.zeros(z.shape[:2], dtype=torch.int64))
        finally:
            hook.remove()
        if self.labels is not None:
            return functional.cross_entropy(scores, self.labels)
        soft = (self._alike(z) / _SHARP).softmax(dim=2)
        told = scores.log_softmax(dim=2)[..., self.allowed]
        known: Tensor = -(soft[:, 1:] * told[:, :-1]).sum(dim=2)
        last = -told[:, -1].mean(dim=1)  # of the last position the label is no token that is read
        mean: Tensor = (known.sum() + last.sum()) / (z.shape[0] * z.shape[1])
        return mean


def sum_of(parts: Sequence[Tensor]) -> Tensor:
    """Their sum, with a graph."""
    return torch.stack(list(parts)).sum()


def _apart(a: Tensor, b: Tensor) -> Tensor:
    cosine: Tensor = (a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-30)
    return 1 - cosine


def _reordered(length: int, rng: torch.Generator) -> Int[Tensor, " T"]:
    """One of the paper's changes of order: two tokens swapped, a piece of up to half of the
    sequence moved elsewhere, or a beginning moved to the end.
    """
    order = list(range(length))
    kind, i, j = (int(torch.randint(n, (1,), generator=rng)) for n in (3, length, length))
    if kind == 0:
        order[i], order[j] = order[j], order[i]
    elif kind == 1:
        size = 1 + int(torch.randint(max(1, length // 2), (1,), generator=rng))
        piece, rest = order[i : i + size], order[:i] + order[i + size :]
        order = rest[:j] + piece + rest[j:]
    else:
        order = order[i:] + order[:i]
    return torch.tensor(order)
