"""What clean-label poisons share: a sample of the attacker's own that is to be misread, samples of
the wanted class that are changed faintly, labels that stay right.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from privfl.attacks.backdoor.measure import accuracy
from privfl.attacks.poisoning import surrogate
from privfl.attacks.poisoning.surrogate import Surrogate
from privfl.core import (
    ClientState,
    ConfigError,
    DataPoison,
    Dataset,
    MeasuredByClient,
    require,
)


@dataclass(frozen=True, slots=True)
class Box:
    """What a poison may become: within ``epsilon`` of the range of features of where it began, and
    in that range. The range is everybody's (`Dataset.span`), or that of the attacker's own data.
    """

    low: Tensor
    high: Tensor
    epsilon: float

    def cut(
        self, x: Float[Tensor, "k ..."], begun: Float[Tensor, "k ..."]
    ) -> Float[Tensor, "k ..."]:
        """The nearest points that are allowed, feature by feature."""
        reach = self.epsilon * (self.high - self.low)
        near = torch.minimum(torch.maximum(x, begun - reach), begun + reach)
        return torch.minimum(torch.maximum(near, self.low), self.high)


def box_of(dataset: Dataset, epsilon: float) -> Box:
    """The box of samples like these, in their shape.

    >>> data = Dataset(torch.tensor([[0.0], [2.0]]), torch.tensor([0, 1]), 2)
    >>> box_of(data, 0.1).cut(torch.tensor([[1.0]]), torch.tensor([[0.5]]))
    tensor([[0.7000]])
    """
    if dataset.span is None:
        return Box(dataset.x.amin(dim=0), dataset.x.amax(dim=0), epsilon)
    low, high = (torch.tensor(side).to(dataset.x) for side in dataset.span)
    shape = (-1, *[1] * (dataset.x.ndim - 2))
    return Box(low.view(shape), high.view(shape), epsilon)


@dataclass(frozen=True, kw_only=True)
class CleanLabel(DataPoison, MeasuredByClient, ABC):
    """Change ``poisoned`` of the client's samples of class ``base`` by at most ``epsilon`` of the
    range of features, so that whoever trains on them takes a victim of class ``source`` for
    ``base``. Labels stay.

    The victim is the attacker's own sample of its class number ``victim``, which it keeps out of
    training: nobody trains on it. Poisons are crafted on ``surrogates`` networks of ``width``
    hidden units that the attacker trains on its own samples, since it does not see the model; the
    papers use large networks, and attack one learner. The measure is, over the attack's clients,
    how often the victim is taken for ``base``, its mean probability, and the accuracy on test data.

    Raises:
        ConfigError: a number out of range, or source and base are one class.
    """

    source: int
    base: int
    poisoned: float = 0.5
    epsilon: float = 0.1
    victim: int = 0
    steps: int = 100
    surrogates: int = 2
    width: int = 64

    def __post_init__(self) -> None:
        require.at_least(0, source=self.source, base=self.base, victim=self.victim)
        require.within(0, 1, poisoned=self.poisoned, epsilon=self.epsilon)
        require.at_least(1, steps=self.steps, surrogates=self.surrogates, width=self.width)
        if self.source == self.base:
            raise ConfigError(
                f"a clean-label attack makes one class look like another, and source and base are"
                f" both {self.source}."
            )

    def split(self, dataset: Dataset) -> tuple[Dataset, Dataset]:
        """The victim, and the samples without it.

        Raises:
            ConfigError: features are tokens, or the attacker holds too few samples of the classes.
        """
        who = type(self).__name__
        if not dataset.x.is_floating_point() or dataset.y.ndim != 1:
            raise ConfigError(
                f"{who} needs numbers with one label each, and these data are tokens."
            )
        found = (dataset.y == self.source).nonzero().flatten()
        if len(found) <= self.victim or not (dataset.y == self.base).any():
            raise ConfigError(
                f"{who} needs {self.victim + 1} samples of class {self.source} and one of class"
                f" {self.base}, and this client has {len(found)} and"
                f" {int((dataset.y == self.base).sum())}: give it another client."
            )
        kept = torch.ones(dataset.n, dtype=torch.bool)
        kept[found[self.victim]] = False
        return dataset.take(found[self.victim, None]), dataset.take(kept.nonzero().flatten())

    def poison_data(self, dataset: Dataset, rng: torch.Generator) -> Dataset:
        """The samples without the victim, some of the base class changed."""
        victim, rest = self.split(dataset)
        bases = (rest.y == self.base).nonzero().flatten()
        count = max(1, round(self.poisoned * len(bases)))
        chosen = bases[torch.randperm(len(bases), generator=rng)[:count]]
        crafted = self.craft(victim.x, rest, chosen, self.trained(rest, rng), rng)
        x = rest.x.clone()
        x[chosen] = crafted.to(x)
        return replace(rest, x=x)

    @abstractmethod
    def craft(
        self,
        victim: Float[Tensor, "1 ..."],
        rest: Dataset,
        chosen: Int[Tensor, " k"],
        nets: list[Surrogate],
        rng: torch.Generator,
    ) -> Float[Tensor, "k ..."]:
        """Poisons, crafted on these networks, in place of the samples at positions ``chosen`` [k]
        of the attacker's rest.
        """

    def trained(self, rest: Dataset, rng: torch.Generator) -> list[Surrogate]:
        """The attacker's own networks."""
        return [surrogate.fit(rest, self.width, rng) for _ in range(self.surrogates)]

    def measure_of(
        self, own: Dataset, state: ClientState, module: nn.Module, test: Dataset
    ) -> Mapping[str, float]:
        """``victim``: 1 where the model takes this client's victim for the base class;
        ``probability``: what it gives that class; ``main``: the accuracy on test data.
        """
        victim, _ = self.split(own)
        training = module.training
        module.eval()
        try:
            with torch.inference_mode():
                share = module(victim.x).softmax(dim=-1)[0]
        finally:
            module.train(training)
        return {
            "victim": float(int(share.argmax()) == self.base),
            "probability": float(share[self.base]),
            "main": accuracy(module, test),
        }
