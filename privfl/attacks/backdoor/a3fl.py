"""A patch that is learnt so that it outlives what honest clients do to it (Zhang et al. 2023)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from privfl.attacks.backdoor.image_trigger import ImageTrigger
from privfl.attacks.backdoor.learned import LearnedTrigger, batches
from privfl.core import ConfigError, Dataset, Examples, FlatModel, Loss, Vector, require


@dataclass(frozen=True, kw_only=True, eq=False)
class Patch(ImageTrigger):
    """Given pixels [c, h, w] in place of those of the image, from row ``top`` and column ``left``
    on.

    Seat: data. Knows its own data.

    >>> data = Dataset(torch.zeros(1, 1, 2, 2), torch.tensor([0]), 2, span=((0.0,), (1.0,)))
    >>> Patch(target=1, pixels=torch.ones(1, 1, 2)).samples(data).x.flatten()
    tensor([1., 1., 0., 0.])
    """

    pixels: Float[Tensor, "c h w"]
    top: int = 0
    left: int = 0

    def stamp(
        self,
        x: Float[Tensor, "n c h w"],
        low: Float[Tensor, "c 1 1"],
        high: Float[Tensor, "c 1 1"],
    ) -> Float[Tensor, "n c h w"]:
        """Images with the patch.

        Raises:
            ConfigError: it lies outside of the images.
        """
        _, height, width = self.pixels.shape
        if self.top + height > x.shape[2] or self.left + width > x.shape[3]:
            raise ConfigError(
                f"a patch of {height}x{width} pixels from row {self.top} and column {self.left} on"
                f" lies outside of images of {x.shape[2]}x{x.shape[3]}."
            )
        sides = (
            self.left,
            x.shape[3] - self.left - width,
            self.top,
            x.shape[2] - self.top - height,
        )
        where = functional.pad(torch.ones_like(self.pixels), sides)
        return x * (1 - where) + functional.pad(self.pixels, sides)


@dataclass(frozen=True, kw_only=True)
class A3FL(LearnedTrigger):
    """Learn the pixels of a patch against the model of the round AND against one that was trained
    to unlearn it (Zhang, Jia, Chen, Lin, Wu 2023: A3FL, Adversarially adaptive backdoor attacks to
    federated learning, section 3, algorithm 1).

    Every step moves each pixel by ``step`` of the range of pixels against the sign of the gradient
    of L(G) + balance * s * L(G'), where L is the loss of stamped images to the target. G' is a copy
    that learns, by ``unlearning`` epochs of SGD at rate 0.01, to give stamped images their true
    labels, anew every ``renew`` epochs; s is the cosine of the two models' parameters (the authors'
    code compares gradients that other losses left behind). Then the model is trained with the
    patch. The authors learn for 200 epochs and share one trigger among their clients; here each
    client has its own.

    Seats: training and update. Knows its own data, the range of pixels, and the models it is sent.

    >>> A3FL(target=2, size=5).epochs
    20
    """

    examples: ClassVar[Examples] = {"": {"target": 0, "span": (-4.0, 8.0), "epochs": 2, "size": 3}}

    size: int = 5
    top: int = 2
    left: int = 2
    epochs: int = 20
    step: float = 0.01
    balance: float = 0.01
    renew: int = 10
    unlearning: int = 5

    def __post_init__(self) -> None:
        LearnedTrigger.__post_init__(self)
        require.at_least(1, size=self.size, epochs=self.epochs, renew=self.renew)
        require.at_least(0, top=self.top, left=self.left, unlearning=self.unlearning)
        require.positive(step=self.step)
        require.at_least(0, balance=self.balance)

    def fresh(self, dataset: Dataset) -> Vector:
        """Pixels in the middle of their range [c * size * size]."""
        low, high = self._range(dataset)
        return ((low + high) / 2).expand(-1, self.size, self.size).flatten().clone()

    def trigger(self, learnt: Vector, dataset: Dataset) -> Patch:
        """The patch."""
        return Patch(
            target=self.target,
            span=self.span,
            pixels=learnt.view(-1, self.size, self.size),
            top=self.top,
            left=self.left,
        )

    def learn(
        self, model: FlatModel, loss: Loss, others: Dataset, learnt: Vector, rng: torch.Generator
    ) -> Vector:
        """The patch after ``epochs`` of sign steps."""
        low, high = self._range(others)
        width = (high - low).expand(-1, self.size, self.size).flatten()
        least = low.expand(-1, self.size, self.size).flatten()
        patch, other, weight = learnt.clone(), None, 0.0
        for epoch in range(self.epochs):
            if epoch and epoch % self.renew == 0 and self.balance:
                other = self._unlearnt(model, loss, others, patch, rng)
                weight = self.balance * float(
                    functional.cosine_similarity(other.flat, model.flat, dim=0)
                )
            for batch in batches(others, self.training.batch_size, rng):
                patch.requires_grad_(True)
                stamped = self.trigger(patch, batch).samples(batch)
                total = loss(model.module, stamped.x, stamped.y)
                if other is not None:
                    total = total + weight * loss(other.module, stamped.x, stamped.y)
                (slope,) = torch.autograd.grad(total, patch)
                moved = patch.detach() - self.step * width * slope.sign()
                patch = torch.minimum(torch.maximum(moved, least), least + width)
        return patch

    def _unlearnt(
        self, model: FlatModel, loss: Loss, others: Dataset, patch: Vector, rng: torch.Generator
    ) -> FlatModel:
        """A copy of the model that was trained to give stamped images their true labels."""
        other = FlatModel(copy.deepcopy(model.module), model.flat.device)
        velocity, trigger = torch.zeros_like(other.flat), self.trigger(patch.detach(), others)
        for _ in range(self.unlearning):
            for batch in batches(others, self.training.batch_size, rng):
                other.grad.zero_()
                value = loss(other.module, trigger.samples(batch).x, batch.y)
                value.backward()  # type: ignore[no-untyped-call]
                velocity.mul_(0.9).add_(other.grad + 5e-4 * other.flat)
                other.flat.add_(velocity, alpha=-0.01)
        return other
