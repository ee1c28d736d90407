"""Text out of a transformer's gradients, exactly: which tokens, from the states that the first
attention layer read, and in which order, from those of the second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from privfl.attacks.inference import Family, Lacking, Observed, Target, Targeted, observe, recipe
from privfl.attacks.inversion.rehearsal import Victim, victims
from privfl.attacks.inversion.simulate import Simulator
from privfl.attacks.inversion.spans import Attention, Span, attention_layers, vocabulary_of
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.result import Sequences
from privfl.core import ClientId, Dataset, View

CUTS = tuple(10.0 ** (-k / 4) for k in range(4, 29))
"""Where a rehearsal cuts a spectrum, relative to its greatest value."""
WRONG, PLACES = 4, 12
"""In a rehearsal, so many wrong tokens are tried at so many positions of each sequence."""
TOLD_APART, EXACT = 0.7, 0.99
"""How often the right one of `WRONG` + 1 tokens must be the nearest in a rehearsal, for the attack
to go on; and where there are more tokens than directions.
"""
_EQUAL = 0.05
"""Cuts that part true from wrong by so much less than the best one are as good."""
_TINY = 1e-12
_CHUNK = 256
"""So many tokens of a vocabulary are looked at together."""


@dataclass(frozen=True, slots=True)
class SpanCheck:
    """A span check: where to cut the spectrum, how near a state must lie to count as read, and how
    often in a rehearsal the right one was the nearest.
    """

    cut: float
    near: float
    right: float


@dataclass(frozen=True, slots=True)
class DAGER(Targeted):
    """Whole batches of text, exactly (Petrov, Dimitrov, Baader, Müller, Vechev 2024), from one
    gradient step of a causal transformer.

    The update of a linear layer that read states z is a sum of outer products, so the states lie
    in its rows' span while they are fewer than the layer is wide. The first attention layer reads
    z = LN(e_v + p_t): a token v whose z lies in the span was there. Positions add to tokens, so
    there that says which tokens, and not where. The second layer's z depends on all tokens up to a
    position: sequences are grown token by token, and those whose z lies in its span are kept. All
    of it holds of sums too, as long as all sequences together have fewer tokens than the model is
    wide (b T < d).

    Which singular values count and how near is near enough is chosen in a rehearsal, on updates
    that the adversary makes of its own samples (of random tokens, where it has too few) by the same
    recipe: small states drown in noise and in the drift of local steps, and there the nearest
    ``beam`` sequences go on.

    >>> DAGER(target="sum").beam
    16
    """

    family: ClassVar[Family] = "inversion"
    target: Target = "client"
    client: ClientId | None = None
    beam: int = 16
    rehearsals: int = 2

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Sequences:
        """Sequences from the first view.

        Raises:
            NotVisible: the view shows no such contribution.
            Lacking: the model has no two attention layers that are trained and causal, or there are
                too many tokens for its width.
        """
        view = views[0]
        forward = recipe(view, knowledge)
        observed = observe(view, knowledge, self.target, self.client)
        vocabulary = vocabulary_of(forward.module)
        if self.beam < 1 or self.rehearsals < 1:
            raise Lacking("DAGER needs a beam and rehearsals of at least 1.")
        simulator = Simulator(forward, view.before, round=view.plan.number)
        first, second = _layers(simulator, forward)
        delta = _undecayed(observed, simulator)
        sets, order = first.span(delta), second.span(delta)
        T, d = forward.shape[0], second.width
        public = observed.samples is not None
        b = observed.samples or max(observed.clients, -(-order.gap() // T))
        observed = replace(observed, samples=b)
        practice = _practice(observed, forward, knowledge, vocabulary, self.rehearsals)
        rng = knowledge.generator(51)
        spans = [
            [
                self._played(layer, _undecayed(victim.observed, simulator), seen, b * T < d, rng)
                for victim in practice
            ]
            for layer, seen in ((first, sets), (second, order))
        ]
        which, continues = (
            _rehearsed(
                [
                    (span, *tried(layer, victim.samples, vocabulary, rng))
                    for span, victim in zip(played, practice, strict=True)
                ]
            )
            for layer, played, tried in ((first, spans[0], _absent), (second, spans[1], _continued))
        )
        needed = TOLD_APART if b * T < d else EXACT
        if continues.right < needed:
            raise Lacking(
                f"the update holds {b} sequences of {T} tokens, b T = {b * T}, and the states of a"
                f" model of width d = {d} are told apart while b T < d, noise and local steps"
                f" permitting: in a rehearsal the right one of {WRONG + 1} tokens was the nearest"
                f" {continues.right:.0%} of the time."
            )
        allowed = _allowed(first, sets, which, vocabulary, T)
        found = self._grown(second, order, continues, allowed, b if public else self.beam)
        return Sequences(
            type(self).__name__,
            view.adversary,
            found,
            notes={
                "b T": b * T,
                "d": d,
                "rank of the second layer": order.rank(continues.cut),
                "right in rehearsal": continues.right,
            },
        )

    def _played(
        self, layer: Attention, delta: Tensor, seen: Span, narrow: bool, rng: torch.Generator
    ) -> Span:
        """What a rehearsed update spans, blurred until its floor is that of the target's: rounding
        and noise that nobody told of.
        """
        played = layer.span(delta)
        more = max(seen.floor**2 - played.floor**2, 0.0) ** 0.5
        return layer.span(delta, more, rng) if narrow and more > 0 else played

    def _grown(
        self,
        layer: Attention,
        span: Span,
        check: SpanCheck,
        allowed: Bool[Tensor, "V T"],
        most: int,
    ) -> Int[Tensor, "n T"]:
        """Sequences of allowed tokens whose states lie in the span, position by position, ``most``
        of them; those that nothing goes on from end there.
        """
        rank, keep = span.rank(check.cut), max(self.beam, 2 * most)
        prefixes = torch.zeros(1, 0, dtype=torch.int64)
        cost = torch.zeros(1, dtype=torch.float64)
        ended: list[Tensor] = []
        for at in range(allowed.shape[1]):
            tokens = allowed[:, at].nonzero()
            k = len(tokens)
            if not k:
                break
            before = prefixes.repeat_interleave(k, dim=0)
            tried = torch.cat([before, tokens.repeat(len(prefixes), 1)], dim=1)
            far = span.distance(layer.states(tried, at=at), rank)
            total = cost.repeat_interleave(k) + far.square()
            near = (far < check.near).nonzero().squeeze(1)
            near = near[_spread(tried[near], total[near], keep, max(2, -(-keep // most)))]
            went_on = set((near // k).tolist())
            ended += [one for i, one in enumerate(prefixes) if i not in went_on]
            prefixes, cost = tried[near], total[near]
            if not len(near):
                break
        final = prefixes[_spread(prefixes, cost, most, 1)]
        found = [*final, *sorted(ended, key=len, reverse=True)][:most]
        whole = torch.full((len(found), allowed.shape[1]), -1, dtype=torch.int64)
        for row, one in zip(whole, found, strict=True):
            row[: len(one)] = one
        return whole


def _spread(
    tried: Int[Tensor, "n t"], cost: Float[Tensor, " n"], keep: int, share: int
) -> Int[Tensor, " k"]:
    """Which ``keep`` sequences go on: those of least cost, but at most ``share`` of such as agree
    in most positions. Where noise hides the difference, one sequence with a wrong token here or
    there would else crowd out all others.
    """
    order = cost.argsort()
    if len(order) <= keep:
        return order
    kept: list[int] = []
    for at in order[: _CHUNK * keep].tolist():
        alike = (tried[kept] == tried[at]).double().mean(dim=1) > 0.5
        if int(alike.sum()) < share:
            kept.append(at)
        if len(kept) == keep:
            break
    return torch.tensor(kept)


def _layers(simulator: Simulator, forward: Forward) -> tuple[Attention, Attention]:
    """The first two attention layers.

    Raises:
        Lacking: there are none, they are not trained, or positions see what follows them.
    """
    tokens = torch.zeros(1, forward.shape[0], dtype=torch.int64)
    found = attention_layers(simulator, tokens)[:2]
    if len(found) < 2:
        raise Lacking(
            "text is read off two attention layers whose queries, keys and values are linear layers"
            f" of their own, and this model has {len(found)}."
        )
    first, second = found
    for layer in found:
        rows = sum(one.out_features for one in layer.layers)
        if rows < layer.width:
            raise Lacking(
                f"{rows} rows of an attention layer's weights are trained, which span less than its"
                f" width of {layer.width}: adapters and frozen layers hide states."
            )
    other = tokens.clone()
    other[:, -1] = 1
    if not torch.equal(second.states(tokens)[:, :-1], second.states(other)[:, :-1]):
        raise Lacking(
            "sequences are grown from the left, and in this model positions see what is"
            " right of them."
        )
    if simulator.module(tokens).ndim < 3:
        raise Lacking(
            "the model reads one class off the last position, so that few directions of the second"
            " attention layer's gradient are there."
        )
    return first, second


def _undecayed(observed: Observed, simulator: Simulator) -> Tensor:
    """The change without what weight decay pulled: the broadcast weights are public."""
    forward = simulator.forward
    if not forward.weight_decay:
        return observed.delta
    each = max(1, (observed.samples or 1) // max(observed.clients, 1))
    shrunk = 1 - (1 - simulator.lr * forward.weight_decay) ** forward.steps_on(each)
    return observed.delta + shrunk * observed.view.before


def _practice(
    observed: Observed, forward: Forward, knowledge: Knowledge, vocabulary: int, count: int
) -> list[Victim]:
    """Updates of as many auxiliary sequences as the target has, or of random tokens; where the
    target's is a difference of rounded weights, so are these.
    """
    size, before = observed.samples or 1, observed.view.before
    made = victims(observed, forward, knowledge, size, count)
    if not made:
        rng = knowledge.generator(52)
        text = torch.randint(0, vocabulary, (2 * size, forward.shape[0] + 1), generator=rng)
        drawn = Dataset(text[:, :-1].clone(), text[:, 1:].clone(), forward.classes)
        made = victims(observed, forward, replace(knowledge, auxiliary=drawn), size, count)
    if not torch.equal((before + observed.delta) - before, observed.delta):
        return made
    return [
        replace(one, observed=replace(one.observed, delta=(before + one.observed.delta) - before))
        for one in made
    ]


def _absent(
    layer: Attention, sequences: Int[Tensor, "n T"], vocabulary: int, rng: torch.Generator
) -> tuple[Float[Tensor, "m 1 d"], Float[Tensor, "m wrong d"]]:
    """The first layer's states of the tokens that were there, each at its position, and at the same
    position those of tokens that were not there at all; none, where all tokens of the vocabulary
    were.
    """
    there = torch.zeros(vocabulary, dtype=torch.bool)
    there[sequences.flatten()] = True
    others = (~there).nonzero().squeeze(1)
    others = others[torch.randperm(len(others), generator=rng)[:PLACES]]
    wrong = layer.states(others[:, None].expand(-1, sequences.shape[1]))
    true = layer.states(sequences).flatten(0, 1)[:, None]
    return true, wrong.transpose(0, 1).repeat(len(sequences), 1, 1)


def _continued(
    layer: Attention, sequences: Int[Tensor, "n T"], vocabulary: int, rng: torch.Generator
) -> tuple[Float[Tensor, "m 1 d"], Float[Tensor, "m wrong d"]]:
    """The second layer's states of true beginnings, and of the same beginnings with another of the
    batch's tokens (of the vocabulary's, where the batch has few) as the last.
    """
    tokens = torch.unique(sequences)
    tokens = tokens if len(tokens) > 2 * WRONG else torch.arange(vocabulary)
    true: list[Tensor] = []
    wrong: list[Tensor] = []
    real = layer.states(sequences)
    for at in torch.randperm(sequences.shape[1], generator=rng)[:PLACES].tolist():
        known = {tuple(one) for one in sequences[:, : at + 1].tolist()}
        for i, one in enumerate(sequences[:, : at + 1]):
            drawn = tokens[torch.randperm(len(tokens), generator=rng)].tolist()
            others = [v for v in drawn if (*one[:-1].tolist(), v) not in known][:WRONG]
            if len(others) == WRONG:
                tried = one.repeat(WRONG, 1)
                tried[:, -1] = torch.tensor(others)
                wrong.append(layer.states(tried, at=at))
                true.append(real[i, at][None])
    if not true:
        raise Lacking(
            f"of {vocabulary} tokens there are too few others to tell the right one from."
        )
    return torch.stack(true), torch.stack(wrong)


def _rehearsed(played: Sequence[tuple[Span, Tensor, Tensor]]) -> SpanCheck:
    """The cut that tells true states [m, .., d] from wrong ones [k, .., d] best, and the distance
    between them. Of cuts that do equally well it is the middle one, because the target's spectrum
    is another one.
    """
    tried = [_check(cut, played) for cut in CUTS]
    most = max(clear for _, clear in tried)
    best = [check for check, clear in tried if clear >= most - _EQUAL * abs(most)]
    return best[len(best) // 2]


def _check(cut: float, played: Sequence[tuple[Span, Tensor, Tensor]]) -> tuple[SpanCheck, float]:
    """The distance that parts true from wrong states at this cut, and how clearly it does: by how
    many decades the nearest wrong state is farther than the true one, in the worst twentieth.
    """
    near, far = [torch.full((1,), _TINY)], [torch.ones(1)]
    for span, true, wrong in played:
        if wrong.numel():
            inside, outside = (span.distance(states, span.rank(cut)) for states in (true, wrong))
            near.append(inside.amax(dim=1).clamp(min=_TINY))
            far.append(outside.amin(dim=1).clamp(min=_TINY))
    inside, outside = torch.cat(near[1:] or near), torch.cat(far[1:] or far)
    apart = (outside / inside).log10()
    most, least = float(inside.max()), float(outside.min())
    between = math.sqrt(most * least) if most < least else 2 * most
    right = float((apart > 0).float().mean()) if len(near) > 1 else 0.0
    return SpanCheck(cut, between, right), float(apart.quantile(0.05)) + 0.1 * float(apart.mean())


def _allowed(
    layer: Attention, span: Span, check: SpanCheck, vocabulary: int, length: int
) -> Bool[Tensor, "V T"]:
    """Which tokens may stand at which position, by the first layer's span; all of them, where a
    rehearsal does not tell them apart.
    """
    if check.right < TOLD_APART:
        return torch.ones(vocabulary, length, dtype=torch.bool)
    rank = span.rank(check.cut)
    parts = torch.split(torch.arange(vocabulary)[:, None].expand(-1, length), _CHUNK)
    return torch.cat([span.distance(layer.states(part), rank) < check.near for part in parts])
