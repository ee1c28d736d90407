"""A server that learns what one client's samples of a class look like, from that client's updates
(mGAN-AI: Wang, Song, Zhang, Song, Wang, Qi 2019).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
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
from privfl.attacks.inversion.matching import GradientInversion
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.property.generators import Generator, descended, judge, noise_in
from privfl.attacks.result import Representatives
from privfl.attacks.rows import readable
from privfl.core import ClientId, Dataset, Examples, Vector, View, require

_OTHERS = 2
"""Updates of so many other clients are looked at, for what the victim is told from."""
_STEP = 0.02
"""The rate of the discriminator's steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerGAN(Targeted):
    """mGAN-AI (Wang et al. 2019, section 4): a generator against a discriminator with several
    heads, which each of a client's updates feeds.

    In every round the discriminator takes over the layers of the client's own model (the broadcast
    one and its update), and has three heads: the model's own for the class, one for real or fake,
    learnt on the adversary's samples, and one for identity. Identity is learnt on representatives
    of the clients' data, which gradient matching makes of the victim's update and of others'
    (section 4.4). The generator learns to be taken for real, for ``wanted``, and for the victim.

    Passive, it only looks. A server that keeps the victim apart, and sends it its own last model in
    place of everybody's (section 5.3), hands over the same views of such rounds, with what it sent
    as the victim's base (`privfl.audit.games.isolated`).

    What comes out are representatives of the class, out of the victim's model: a property of its
    samples, and no sample (`privfl.audit.representatives`). That they show what sets the victim's
    apart is not said: on MNIST, of one client whose digits are mirrored, most do not
    (docs/results.md). Where only sums are seen, ``target="sum"`` has no identity left, and says
    what everybody's samples of the class are like.

    Args:
        wanted: the class; ``client`` the victim (the first row's unless said).
        steps: of the generator in each round, in batches of ``batch_size``.
        matched: representatives that are made of each update, by ``iterations`` of gradient
            matching; 0 leaves out identity.
        samples: representatives that are handed out.

    >>> ServerGAN(wanted=3).variant
    ('client',)
    """

    family: ClassVar[Family] = "property"
    examples: ClassVar[Examples] = {
        "": {"wanted": 1, "steps": 2, "samples": 4, "matched": 4, "iterations": 5}
    }
    wanted: int
    target: Target = "client"
    client: ClientId | None = None
    steps: int = 60
    batch_size: int = 32
    matched: int = 16
    iterations: int = 100
    width: int = 16
    samples: int = 64

    def __post_init__(self) -> None:
        require.at_least(0, wanted=self.wanted, matched=self.matched)
        require.at_least(1, steps=self.steps, iterations=self.iterations)
        require.at_least(1, width=self.width, samples=self.samples)
        require.at_least(2, batch_size=self.batch_size)

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Representatives:
        """Representatives of the wanted class, from all views in order.

        Raises:
            NotVisible: a view shows no update of the victim.
            Lacking: the recipe is not known; there are fewer than 20 auxiliary samples; a model is
                not finite, or does not end with a linear layer that scores the class; samples are
                tokens.
        """
        forward = recipe(views[0], knowledge)
        if forward.tokens:
            raise Lacking("no gradient leads to tokens, so no generator learns to write them.")
        held = auxiliary(knowledge, type(self).__name__, 20)
        linear = [one for one in forward.module.modules() if isinstance(one, nn.Linear)]
        if not linear or not self.wanted < linear[-1].out_features == forward.classes:
            raise Lacking(
                f"a generator for class {self.wanted} needs a model of {forward.classes} classes"
                " whose last layer is linear and scores that class."
            )
        low, high = forward.span(torch.empty(0))
        generator = Generator(low.clone(), high.clone(), seed=knowledge.seed, width=self.width)
        heads = _heads(linear[-1].in_features, knowledge.seed)
        rng = knowledge.generator(62)
        identified = 0
        for view in views:
            observed = observe(view, knowledge, self.target, self.client)
            theirs: Vector = observed.base + observed.delta
            discriminator = _Discriminator(judge(forward, view, theirs, knowledge), heads)
            mine, others = self._representatives(view, observed, forward, knowledge)
            identified += len(mine) > 0
            trained = _Trained(discriminator, held, mine, others, self.batch_size, rng)
            descended(
                generator,
                partial(discriminator.fooled, wanted=self.wanted, identity=len(mine) > 0),
                self.steps,
                self.batch_size,
                rng,
                trained.step,
            )
        whose = "everybody's" if observed.client is None else f"client {observed.client}'s"
        seen = f"{whose} updates" if self.target == "client" else f"sums, {noise_in(forward)}"
        return Representatives(
            type(self).__name__,
            views[-1].adversary,
            generator.drawn(self.samples, knowledge.generator(63)),
            torch.full((self.samples,), self.wanted),
            notes={
                "rounds": len(views),
                "it reads": seen,
                "rounds with an identity": identified,
            },
        )

    def _representatives(
        self, view: View, observed: Observed, forward: Forward, knowledge: Knowledge
    ) -> tuple[Tensor, Tensor]:
        """What gradient matching makes of the victim's update and of a few others; none where there
        is nobody to tell apart, or labels are not to be had.
        """
        none = torch.empty(0, *forward.shape)
        if self.target == "sum" or not self.matched:
            return none, none
        rows = readable(view)
        at = 0 if self.client is None or rows.ids is None else rows.ids.index(self.client)
        fit = rows.values.isfinite().all(dim=1).tolist()
        far = [i for i in range(rows.n) if i != at and fit[i]][:_OTHERS]
        seen = [observed, *(self._row(view, i, forward, observed) for i in far)]
        made: list[Tensor] = []
        for one in seen:
            sized = replace(one, samples=self.matched, clients=1)
            try:
                made.append(
                    GradientInversion(iterations=self.iterations)
                    .solved(sized, forward, replace(knowledge, labels=None))
                    .samples
                )
            except Lacking:
                return none, none
        return made[0], torch.cat(made[1:]) if far else none

    def _row(self, view: View, at: int, forward: Forward, like: Observed) -> Observed:
        rows = readable(view)
        who = None if rows.ids is None else rows.ids[at]
        scale = view.scale(who)
        return replace(
            like, delta=rows.values[at] / scale, client=who, noise=forward.local_noise / scale
        )


@dataclass(frozen=True, slots=True)
class _Discriminator:
    """A client's model with two heads more on what its last linear layer reads."""

    module: nn.Module
    heads: nn.ModuleDict

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of classes [n, C], and what the last linear layer read [n, k]."""
        last = [one for one in self.module.modules() if isinstance(one, nn.Linear)][-1]
        seen: list[Tensor] = []
        hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            scores = self.module(x)
        finally:
            hook.remove()
        return scores, seen[0]

    def fooled(self, made: Tensor, wanted: int, *, identity: bool) -> Tensor:
        """The generator's loss."""
        scores, read = self(made)
        loss = functional.cross_entropy(scores, torch.full((len(made),), wanted))
        loss = loss + _told(self.heads["real"], read, 1.0)
        return loss + _told(self.heads["identity"], read, 1.0) if identity else loss


@dataclass(frozen=True, slots=True)
class _Trained:
    """The discriminator's half of a round."""

    one: _Discriminator
    held: Dataset
    mine: Float[Tensor, "n *shape"]
    others: Float[Tensor, "m *shape"]
    batch_size: int
    rng: torch.Generator

    def step(self, fakes: Tensor) -> None:
        """One step of plain descent on all heads and the layers under them. The client's next
        update brings these layers anew, so that no memory of steps is worth keeping.
        """
        some = torch.randint(0, self.held.n, (self.batch_size,), generator=self.rng)
        real, y = self.held.x[some], self.held.y[some]
        scores, read = self.one(real)
        loss = functional.cross_entropy(scores, y) + _told(self.one.heads["real"], read, 1.0)
        loss = loss + _told(self.one.heads["real"], self.one(fakes)[1], 0.0)
        if len(self.mine):
            other = self.others if len(self.others) else real
            for x, truth in ((self.mine, 1.0), (other, 0.0)):
                loss = loss + _told(self.one.heads["identity"], self.one(x)[1], truth)
        free = [p for p in self.one.module.parameters() if p.requires_grad]
        free += list(self.one.heads.parameters())
        with torch.no_grad():
            slopes = torch.autograd.grad(loss, free, materialize_grads=True)
            for p, slope in zip(free, slopes, strict=True):
                p.sub_(slope, alpha=_STEP)


def _told(head: nn.Module, read: Tensor, truth: float) -> Tensor:
    """How far a head is from saying so of all."""
    said = head(read).squeeze(1)
    return functional.binary_cross_entropy_with_logits(said, torch.full_like(said, truth))


def _heads(width: int, seed: int) -> nn.ModuleDict:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.ModuleDict({name: nn.Linear(width, 1) for name in ("real", "identity")})
