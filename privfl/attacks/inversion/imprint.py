"""A server that plants bins in the first layer, so that samples fall apart by themselves (Robbing
the Fed).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from privfl.attacks.inference import Family, Lacking, Target, Targeted, observe, recipe
from privfl.attacks.inversion.bins import (
    by_bin,
    check_bins,
    filled,
    fitted_levels,
    normal_levels,
    scale_of,
    treat_alike,
)
from privfl.attacks.knowledge import Knowledge
from privfl.attacks.result import Reconstruction
from privfl.core import (
    AttackSeat,
    Broadcast,
    ClientId,
    ConfigError,
    Dataset,
    Examples,
    Vector,
    View,
    require,
)


@dataclass(frozen=True, slots=True)
class Imprint(Targeted):
    """Robbing the Fed (Fowl, Geiping, Czaja, Goldblum, Goldstein 2022): the first layer sorts
    samples into bins by their brightness.

    An active server sends a first layer whose ``bins`` rows all measure the mean feature h'x, with
    biases at the quantiles of its distribution, and a next layer that treats all bins alike. A
    sample then moves the rows of all bins under its own by the same vector, so that the difference
    of two neighbouring rows holds the samples of one bin only, and one sample divided by its bias
    comes out exactly. Sums of clients stay sums: what secure aggregation opens is as good as single
    updates, and more bins are all it takes. Exact over one local step with all samples; a clip
    scales a client and changes nothing. Give the model such a first layer with `imprinted`, unless
    it has one.

    The same object attacks (seat ``broadcast``) and reads the views afterwards.

    Args:
        inputs: features of a sample; ``bins`` and ``outputs`` the sizes of the first linear layer
            (followed by a ReLU) and of the next.
        centre, spread: mean and deviation of samples' mean feature, as the server guesses them;
            ``levels`` its quantiles, one a bin in ascending order, where it has samples of its own
            (`fitted`).

    Raises:
        ConfigError: a size out of range, or another number of levels than bins.

    >>> sent = Imprint(inputs=4, bins=3, outputs=2).planted(torch.randn(3 * 4 + 3 + 2 * 3 + 2))
    >>> sent[:12].unique(), sent[12:15].argsort()
    (tensor([0.1667]), tensor([2, 1, 0]))
    """

    examples: ClassVar[Examples] = {"": {"inputs": 64, "bins": 8, "outputs": 4}}
    seats: ClassVar[frozenset[AttackSeat]] = frozenset({"broadcast"})

    family: ClassVar[Family] = "inversion"
    inputs: int
    bins: int
    outputs: int
    centre: float = 0.0
    spread: float = 0.5
    levels: tuple[float, ...] = ()
    target: Target = "sum"
    client: ClientId | None = None

    def __post_init__(self) -> None:
        require.at_least(1, inputs=self.inputs, outputs=self.outputs)
        check_bins(self.bins, self.spread, self.levels)

    def fitted(self, data: Dataset) -> Imprint:
        """The same with bins that these samples fill evenly."""
        spread, levels = fitted_levels(data, self.bins)
        return replace(self, spread=spread, levels=levels)

    def poison_broadcast(
        self, broadcast: Broadcast, client: ClientId, rng: torch.Generator
    ) -> Broadcast:
        """The model with bins in its first two layers."""
        return replace(broadcast, parameters=self.planted(broadcast.parameters))

    def planted(self, parameters: Vector) -> Vector:
        """The parameters [d] with bins.

        Raises:
            ConfigError: they are too few for layers of these sizes.
        """
        first, second = self.bins * self.inputs, self.outputs * self.bins
        if len(parameters) < first + self.bins + second:
            raise ConfigError(
                f"bins of {self.inputs} x {self.bins} x {self.outputs} do not fit a model of"
                f" {len(parameters)} parameters: give the sizes of its first two linear layers."
            )
        planted = parameters.clone()
        scale = scale_of(self.bins, self.spread)
        levels = self.levels or normal_levels(self.bins, self.centre, self.spread)
        planted[:first] = scale / self.inputs
        planted[first : first + self.bins] = -scale * torch.tensor(levels)
        after = first + self.bins
        treat_alike(planted[after : after + second].view(self.outputs, self.bins))
        return planted

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Reconstruction:
        """A sample for each bin that holds something, from the first view.

        Raises:
            NotVisible: the view shows no such contribution.
            Lacking: nothing fell into the bins, because nobody was sent them.
        """
        view = views[0]
        observed = observe(view, knowledge, self.target, self.client)
        first = self.bins * self.inputs
        W = observed.delta[:first].view(self.bins, self.inputs).double()
        b = observed.delta[first : first + self.bins].double()
        inside, weight = by_bin(W), by_bin(b)
        held = filled(weight, 6 * observed.noise)
        if not len(held):
            raise Lacking("no bin holds a sample: were clients sent the imprint?")
        x = (inside[held] / weight[held, None]).float()
        forward = recipe(view, knowledge)
        low, high = forward.span(x)
        samples = x.view(-1, *forward.shape).clamp(low, high)
        labels = torch.full((len(held),), -1)
        return Reconstruction(
            type(self).__name__,
            view.adversary,
            samples,
            labels,
            notes={"bins filled": f"{len(held)} of {self.bins}"},
        )


def imprinted(module: nn.Module, shape: Sequence[int], bins: int) -> nn.Sequential:
    """A model behind a layer of bins: what a malicious server calls its architecture.

    >>> imprinted(nn.Flatten(), (1, 2, 2), bins=8)(torch.zeros(3, 1, 2, 2)).shape
    torch.Size([3, 4])
    """
    inputs = math.prod(shape)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, bins),
        nn.ReLU(),
        nn.Linear(bins, inputs),
        nn.Unflatten(1, tuple(shape)),
        module,
    )
