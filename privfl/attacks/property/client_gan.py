"""A client that learns what a class looks like which it does not hold, from the shared model alone
(Hitaj, Ateniese, Perez-Cruz 2017).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from privfl.attacks.inference import Family, Inference, Lacking, recipe
from privfl.attacks.knowledge import Knowledge
from privfl.attacks.property.generators import Generator, descended, fixed_copy, judge, noise_in
from privfl.attacks.result import Representatives
from privfl.core import (
    AttackSeat,
    Broadcast,
    ClientId,
    ClientState,
    ConfigError,
    Dataset,
    Examples,
    FlatModel,
    Loss,
    NoisySteps,
    RoundKnowledge,
    Update,
    View,
    require,
)

_KEPT = "generator"
"""Where the generator lies in the attacker's state between rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientGAN(Inference):
    """A generator against the shared model (Hitaj, Ateniese, Perez-Cruz 2017, section 6): the
    broadcast model is its discriminator.

    In every round the attacker trains a generator until the model of that round takes its samples
    for ``wanted``, a class that others hold. It then trains as everybody does, on its own samples
    and on ``fakes`` generated ones that it labels ``labelled``: the model learns to tell the fakes
    from the class, for which those who hold the class must say more of it. `infer` trains the same
    generator against the models that the attacker was sent and hands out what it makes.

    All that is used are released models. A channel that hides updates changes nothing; noise in the
    release does, because it is in the discriminator. What comes out are representatives: what the
    model takes for the class. That is a property of all data of the class together, and of no
    member (`privfl.audit.representatives` holds them against both).

    Seat: training. Knows its own samples, the range of features, and the models that it is sent.

    Args:
        steps: of the generator in each round, ``batch_size`` samples each.
        lr, epochs: of the attacker's own training of the model, in batches of ``batch_size``.
        samples: representatives that are handed out.
        active: False adds no fakes, and so is the honest client that only looks.

    Raises:
        ConfigError: wanted and labelled are the same class. Classes that the data lack, and tokens,
            show only in training: there the attacker fails, which the run has among its incidents.

    >>> ClientGAN(wanted=3, labelled=0).active
    True
    """

    seats: ClassVar[frozenset[AttackSeat]] = frozenset({"training"})
    examples: ClassVar[Examples] = {"": {"wanted": 1, "labelled": 0, "steps": 3, "samples": 8}}

    family: ClassVar[Family] = "property"
    wanted: int
    labelled: int
    steps: int = 60
    fakes: int = 64
    lr: float = 0.1
    epochs: int = 1
    batch_size: int = 32
    width: int = 16
    samples: int = 64
    seed: int = 0
    active: bool = True

    def __post_init__(self) -> None:
        require.at_least(0, wanted=self.wanted, labelled=self.labelled)
        require.at_least(1, steps=self.steps, fakes=self.fakes, epochs=self.epochs)
        require.at_least(1, width=self.width, samples=self.samples)
        require.at_least(2, batch_size=self.batch_size)
        require.positive(lr=self.lr)
        if self.wanted == self.labelled:
            raise ConfigError(
                f"wanted and labelled are both {self.wanted}: fakes that are labelled as the class"
                " that is wanted teach the model nothing. Set labelled to another class."
            )

    @property
    def variant(self) -> tuple[str, ...]:
        """Whether it lies."""
        return ("active" if self.active else "passive",)

    @property
    def takes_sum(self) -> bool:
        """It asks about everybody's data of the class together."""
        return True

    def poison_training(self, knowledge: RoundKnowledge) -> ClientGAN:
        """What its clients do instead of honest training."""
        return self

    def on(self, model: FlatModel, loss: Loss) -> ClientGANTrainer:
        """The attacker at work on this model."""
        return ClientGANTrainer(self, model, loss)

    def generator(self, low: Tensor, high: Tensor) -> Generator:
        """The generator before the first round, for samples in this range, [*shape] each."""
        return Generator(low, high, seed=self.seed, width=self.width)

    def taught(self, generator: Generator, discriminator: nn.Module, round: int) -> None:
        """Train the generator against the model of a round.

        Raises:
            Lacking: the model does not answer with one score a class, or has no such class.
        """

        def objective(made: Tensor) -> Tensor:
            scores = discriminator(made)
            if scores.ndim != 2 or not self.wanted < scores.shape[1]:
                raise Lacking(
                    f"a generator for class {self.wanted} needs a model that scores that class, and"
                    f" this one answers {tuple(scores.shape[1:])} for a sample."
                )
            labels = torch.full((len(made),), self.wanted, device=scores.device)
            return functional.cross_entropy(scores, labels)

        descended(generator, objective, self.steps, self.batch_size, self._chance(round))

    def _chance(self, round: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 1_000_003 + 7 * round + 1)

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Representatives:
        """Representatives of the wanted class, after all the models that the views show.

        Raises:
            Lacking: the recipe is not known; a model is not finite or has no such class; samples
                are tokens.
        """
        forward = recipe(views[0], knowledge)
        if forward.tokens:
            raise Lacking("no gradient leads to tokens, so no generator learns to write them.")
        low, high = forward.span(torch.empty(0))
        generator = self.generator(low.clone(), high.clone())
        last = views[-1]
        models = [(view.plan.number, view.before, view) for view in views]
        models.append((last.plan.number + 1, last.after, last))
        discriminator: nn.Module = forward.module
        for number, parameters, view in models:
            discriminator = judge(forward, view, parameters, knowledge)
            self.taught(generator, discriminator, number)
        made = generator.drawn(self.samples, knowledge.generator(61))
        with torch.no_grad():
            sure = functional.softmax(discriminator(made), dim=1)[:, self.wanted].mean()
        return Representatives(
            type(self).__name__,
            last.adversary,
            made,
            torch.full((len(made),), self.wanted),
            notes={
                "kind": "active" if self.active else "passive",
                "rounds": len(views),
                "the model is sure of them by": float(sure),
                "it reads": f"released models, {noise_in(forward)}",
            },
        )


@dataclass(frozen=True, slots=True)
class ClientGANTrainer:
    """`ClientGAN` at work on a model whose parameters it overwrites (a `core.LocalTraining`). Its
    generator is in the client's state.
    """

    how: ClientGAN
    model: FlatModel = field(repr=False)
    loss: Loss = field(repr=False)

    def __call__(
        self,
        client: ClientId,
        broadcast: Broadcast,
        dataset: Dataset,
        state: ClientState,
        rng: torch.Generator,
    ) -> tuple[Update, ClientState, tuple[NoisySteps, ...]]:
        """Train the generator, and then the model on the attacker's samples and on the fakes.

        Raises:
            ConfigError: the attacker holds no samples; its samples are tokens; or there are no such
                classes.
        """
        how = self.how
        if dataset.n == 0 or not dataset.x.is_floating_point():
            raise ConfigError(
                f"client_gan needs samples with features to train beside its fakes, and client"
                f" {client} has {dataset.n} of type {dataset.x.dtype}."
            )
        if max(how.wanted, how.labelled) >= dataset.classes:
            raise ConfigError(
                f"client_gan.wanted is {how.wanted} and labelled {how.labelled}, and there are"
                f" {dataset.classes} classes: name two of 0 to {dataset.classes - 1}."
            )
        held, vectors = dataset, state.vectors
        if how.active:
            generator = self._generator(dataset, state)
            how.taught(
                generator, fixed_copy(self.model.module, broadcast.parameters), broadcast.version
            )
            fakes = generator.drawn(how.fakes, rng)
            held = Dataset(
                torch.cat([dataset.x, fakes.to(dataset.x.dtype)]),
                torch.cat([dataset.y, dataset.y.new_full((how.fakes,), how.labelled)]),
                dataset.classes,
            )
            vectors = {**vectors, _KEPT: generator.vector}
        self.model.write(broadcast.parameters)
        for _ in range(how.epochs):
            for batch in torch.split(torch.randperm(held.n, generator=rng), how.batch_size):
                self.model.grad.zero_()
                torch.autograd.backward(self.loss(self.model.module, held.x[batch], held.y[batch]))
                self.model.flat.add_(self.model.grad, alpha=-how.lr)
        delta = self.model.flat - broadcast.parameters
        return Update(client, delta, float(dataset.n)), ClientState(vectors), ()

    def _generator(self, dataset: Dataset, state: ClientState) -> Generator:
        """Its generator as the last round left it, in the range that the data declare, or else in
        that of the attacker's own samples.
        """
        own = ((float(dataset.x.min()),), (float(dataset.x.max()),))
        shape = dataset.x.shape[1:]
        per = (-1, *[1] * (len(shape) - 1))
        low, high = (
            dataset.x.new_tensor(ends).view(per).expand(shape).clone()
            for ends in dataset.span or own
        )
        generator = self.how.generator(low, high)
        if _KEPT in state.vectors:
            generator.write(state.vectors[_KEPT])
        return generator
