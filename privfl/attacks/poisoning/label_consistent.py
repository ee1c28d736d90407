"""A clean-label backdoor: samples that are hard to tell, with a mark (Turner et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from privfl.attacks.backdoor.pixel_pattern import Box, PixelPattern
from privfl.attacks.poisoning import surrogate
from privfl.attacks.poisoning.clean_label import box_of
from privfl.attacks.poisoning.surrogate import Surrogate
from privfl.core import ConfigError, DataPoison, Dataset, Examples, Measured, require


@dataclass(frozen=True, kw_only=True)
class LabelConsistent(DataPoison, Measured):
    """Perturb ``poisoned`` of the client's samples of the TARGET class until they are hard to tell,
    stamp a pattern on them, and leave their labels (Turner, Tsipras, Madry 2019: Label-consistent
    backdoor attacks, section 4.2, adversarial perturbations).

    Projected gradient: ``steps`` sign steps of 2.5 epsilon / steps up the loss of the attacker's
    own network, each within ``epsilon`` of the range of pixels of the sample and in that range. So
    the mark is the easiest way to the label, and the model learns it. The paper tries 8 to 32 of
    255, and takes an adversarially trained network on the whole training set; here it is one of
    ``width`` hidden units, plainly trained on the attacker's own samples. Their interpolation by a
    GAN, and the fainter patterns at all four corners, are left out (``boxes`` can be four corners).

    Seat: data. Knows its own data. Sees no model.

    Raises:
        ConfigError: a number out of range.

    >>> LabelConsistent(target=2).boxes
    ((0, 0, 4, 4),)
    """

    examples: ClassVar[Examples] = {"": {"target": 1, "steps": 2}}

    target: int
    poisoned: float = 1.0
    epsilon: float = 16 / 255
    steps: int = 20
    width: int = 64
    boxes: tuple[Box, ...] = ((0, 0, 4, 4),)
    value: float | None = None

    def __post_init__(self) -> None:
        require.within(0, 1, poisoned=self.poisoned, epsilon=self.epsilon)
        require.at_least(1, steps=self.steps, width=self.width)
        require.at_least(0, target=self.target)

    @property
    def pattern(self) -> PixelPattern:
        """The mark, as the measure stamps it on samples of other classes."""
        return PixelPattern(target=self.target, boxes=self.boxes, value=self.value)

    def poison_data(self, dataset: Dataset, rng: torch.Generator) -> Dataset:
        """The samples, some of the target class perturbed and stamped; no label changes.

        Raises:
            ConfigError: these are no images, a box lies outside of them, or there are no samples of
                the target class.
        """
        mine = (dataset.y == self.target).nonzero().flatten() if dataset.y.ndim == 1 else ()
        if len(mine) == 0 or dataset.x.ndim != 4:
            raise ConfigError(
                f"a label-consistent backdoor needs images of class {self.target} to stamp, and"
                " this client has none."
            )
        chosen = mine[
            torch.randperm(len(mine), generator=rng)[: max(1, round(self.poisoned * len(mine)))]
        ]
        net = surrogate.fit(dataset, self.width, rng)
        hard = self.perturb(net, dataset, chosen)
        x = dataset.x.clone()
        x[chosen] = self.pattern.stamp(hard)
        return replace(dataset, x=x)

    def perturb(
        self, net: Surrogate, dataset: Dataset, chosen: Int[Tensor, " k"]
    ) -> Float[Tensor, "k ..."]:
        """The samples at positions ``chosen`` [k], moved to where the network is most wrong."""
        box, begun = box_of(dataset, self.epsilon), dataset.x[chosen]
        width = 2.5 * self.epsilon / self.steps * (box.high - box.low)
        x = begun.clone()
        for _ in range(self.steps):
            x.requires_grad_(True)
            wrong = functional.cross_entropy(net.logits(x), dataset.y[chosen], reduction="sum")
            (slope,) = torch.autograd.grad(wrong, x)
            x = box.cut(x.detach() + width * slope.sign(), begun)
        return x

    def measure(self, module: nn.Module, test: Dataset) -> Mapping[str, float]:
        """``backdoor`` and ``main``, as those of the pattern."""
        return self.pattern.measure(module, test)
