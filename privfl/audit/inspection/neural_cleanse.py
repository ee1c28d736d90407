"""Triggers by reverse engineering: the smallest patch that takes clean images to a class, for every
class at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from privfl.core import ConfigError, require
from privfl.core.dataset import Span

MAD_TO_DEVIATION = 1.4826
"""A normal distribution's standard deviation, in median absolute deviations."""
BETAS = (0.5, 0.9)
"""Adam's, as in the authors' code."""
MOST_AT_ONCE = 2048
"""Images that go through the model together."""


@dataclass(frozen=True, slots=True)
class Triggers:
    """A trigger for each of C classes: ``mask`` [C, 1, h, w] in [0, 1], ``pattern`` [C, c, h, w] in
    the images' own units, ``size`` [C], the mask's L1 norm, and ``success`` [C], the share of the
    images that it was made on which it takes to its class. Where no mask had the success that was
    asked for (``reached`` is false), mask and size are those of the last step.

    ``complete``: all steps were made before the time was up.
    """

    mask: Float[Tensor, "C 1 h w"]
    pattern: Float[Tensor, "C c h w"]
    size: Float[Tensor, " C"]
    success: Float[Tensor, " C"]
    reached: Bool[Tensor, " C"]
    complete: bool

    def stamp(self, x: Float[Tensor, "n c h w"], target: int) -> Float[Tensor, "n c h w"]:
        """Images with the trigger of a class: (1 - m) x + m p."""
        mask = self.mask[target]
        return (1 - mask) * x + mask * self.pattern[target]


@dataclass(frozen=True, slots=True)
class NeuralCleanse:
    """Reverse-engineered triggers (Wang, Yao, Shan, Li, Viswanath, Zheng, Zhao 2019: Neural
    Cleanse, section IV).

    For each class t minimise CE(f((1 - m) x + m p), t) + lambda |m|_1 over a mask m and a pattern p
    by Adam, on clean images of other classes; lambda grows by ``factor`` while the trigger takes
    at least the share ``success`` of the images to t, and falls by it otherwise. The trigger is the
    one of the smallest mask that had that success. Beside the authors' code: all classes are
    optimised in one batch of ``batch`` images for each, lambda is looked at every ``every`` steps
    on all images, and there are ``steps`` steps instead of thousands; the target's own images are
    left out. Masks are larger than they would become with more steps, all of them alike.

    Raises:
        ConfigError: a number out of range.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    >>> x, y = torch.rand(32, 1, 4, 4), torch.arange(32) % 4
    >>> few = NeuralCleanse(steps=10)
    >>> few(model, x, y, 4, ((0.0,), (1.0,))).mask.shape
    torch.Size([4, 1, 4, 4])
    """

    steps: int = 200
    batch: int = 16
    lr: float = 0.2
    penalty: float = 0.01
    factor: float = 1.2
    every: int = 5
    success: float = 0.99

    def __post_init__(self) -> None:
        require.at_least(1, steps=self.steps, batch=self.batch, every=self.every)
        require.positive(lr=self.lr, penalty=self.penalty)
        require.within(0, 1, success=self.success)
        require.at_least(1, factor=self.factor)

    def __call__(
        self,
        module: nn.Module,
        x: Float[Tensor, "n c h w"],
        y: Int[Tensor, " n"],
        classes: int,
        span: Span,
        *,
        seed: int = 0,
        deadline: float = float("inf"),
    ) -> Triggers:
        """The triggers of all classes.

        Args:
            module: images to logits [n, C]; parameters and mode stay as they were.
            x: clean images.
            y: their classes.
            classes: C.
            span: the least and the greatest value of each channel.
            seed: of the start and of the order of images.
            deadline: where `time.perf_counter` is past it, no further step is made.

        Raises:
            ConfigError: all clean images are of one class.
        """
        pools = others(y, classes)
        batch = min(self.batch, pools.shape[1])
        rng = torch.Generator().manual_seed(seed)
        low, high = (torch.tensor(end).to(x).view(1, -1, 1, 1) for end in span)
        shape = (classes, 1, *x.shape[2:])
        m = (0.1 * torch.randn(shape, generator=rng)).to(x).requires_grad_()
        p = (0.1 * torch.randn(classes, *x.shape[1:], generator=rng)).to(x).requires_grad_()
        target = torch.arange(classes, device=x.device)
        penalty = torch.full((classes,), self.penalty, device=x.device)
        made = _made(m, p, low, high)
        best = _Best(*made, torch.full((classes,), torch.inf, device=x.device), penalty * 0)
        optimiser = torch.optim.Adam([m, p], lr=self.lr, betas=BETAS)
        parameters = frozen(module)

        def logits(index: Int[Tensor, "k b"], mask: Tensor, pattern: Tensor) -> Tensor:
            stamped = (1 - mask[:, None]) * x[index] + (mask * pattern)[:, None]
            out = functional_call(module, parameters, (stamped.flatten(0, 1),))
            return torch.unflatten(out, 0, index.shape)

        order, at, done = pools, pools.shape[1], 0
        with evaluating(module):
            while done < self.steps and time.perf_counter() < deadline:
                if at + batch > pools.shape[1]:
                    drawn = torch.rand(pools.shape, generator=rng).argsort(dim=1).to(x.device)
                    order, at = pools.gather(1, drawn), 0
                index, at = order[:, at : at + batch], at + batch
                optimiser.zero_grad()
                for some in torch.split(target, max(MOST_AT_ONCE // batch, 1)):
                    mask, pattern = _made(m[some], p[some], low, high)
                    wanted = some[:, None].expand(-1, batch).flatten()
                    out = logits(index[some], mask, pattern).flatten(0, 1)
                    loss = functional.cross_entropy(out, wanted, reduction="sum") / batch
                    small = (penalty[some] * mask.sum(dim=(1, 2, 3))).sum()
                    torch.autograd.backward(loss + small)
                optimiser.step()
                done += 1
                if done % self.every == 0 or done == self.steps:
                    with torch.no_grad():
                        mask, pattern = _made(m, p, low, high)
                        found = [
                            logits(pools[some], mask[some], pattern[some]).argmax(dim=2)
                            for some in torch.split(target, max(MOST_AT_ONCE // pools.shape[1], 1))
                        ]
                        share = (torch.cat(found) == target[:, None]).float().mean(dim=1)
                        good = share >= self.success
                        best = best.or_smaller(mask, pattern, share, good)
                        penalty = torch.where(good, penalty * self.factor, penalty / self.factor)
        return best.triggers(done == self.steps)


@dataclass(frozen=True, slots=True)
class _Best:
    """The smallest masks that had the success asked for, infinite in size before there is one, with
    their patterns and shares; the last ones where there is none.
    """

    mask: Tensor
    pattern: Tensor
    size: Tensor
    share: Tensor

    def or_smaller(self, mask: Tensor, pattern: Tensor, share: Tensor, good: Tensor) -> _Best:
        size = mask.sum(dim=(1, 2, 3))
        better = good & (size < self.size)
        taken = better | self.size.isinf()
        wide = taken.view(-1, 1, 1, 1)
        return _Best(
            torch.where(wide, mask, self.mask),
            torch.where(wide, pattern, self.pattern),
            torch.where(better, size, self.size),
            torch.where(taken, share, self.share),
        )

    def triggers(self, complete: bool) -> Triggers:
        mask = self.mask.detach()
        size = torch.where(self.size.isinf(), mask.sum(dim=(1, 2, 3)), self.size)
        return Triggers(mask, self.pattern.detach(), size, self.share, ~self.size.isinf(), complete)


def anomaly_index(size: Float[Tensor, " C"], reached: Bool[Tensor, " C"]) -> Float[Tensor, " C"]:
    """How many deviations each mask is smaller than the median: (median - size) / (1.4826 MAD),
    median and MAD over the classes whose trigger was reached (the mean of the two middle ones of an
    even number); NaN for the others. Above 2 the paper calls a class infected.

    >>> anomaly_index(torch.tensor([60.0, 62.0, 12.0, 58.0]), torch.ones(4, dtype=torch.bool))
    tensor([-0.3372, -1.0117, 15.8505,  0.3372])
    """
    kept = size[reached]
    middle = median_of(kept)
    deviation = max(MAD_TO_DEVIATION * median_of((kept - middle).abs()), 1e-12)
    index = (middle - size) / deviation
    return torch.where(reached, index, torch.nan).to(size)


def median_of(values: Float[Tensor, " k"]) -> float:
    """The median, of an even number the mean of the two middle ones; NaN of none.

    >>> median_of(torch.tensor([1.0, 2.0, 4.0, 9.0]))
    3.0
    """
    return float(torch.quantile(values, 0.5)) if len(values) else math.nan


def others(y: Int[Tensor, " n"], classes: int) -> Int[Tensor, "C k"]:
    """For each class the positions of images of other classes, as many for each.

    Raises:
        ConfigError: all images are of one class.

    >>> others(torch.tensor([0, 1, 1, 2]), 3).tolist()
    [[1, 2], [0, 3], [0, 1]]
    """
    places = [(y != c).nonzero().flatten() for c in range(classes)]
    least = min(map(len, places))
    if least == 0:
        raise ConfigError(
            "all clean images are of one class, and a trigger is looked for on those of the other"
            " classes: give an inspection more samples."
        )
    return torch.stack([place[:least] for place in places])


def frozen(module: nn.Module) -> dict[str, Tensor]:
    """A module's parameters without gradients, with channels last where it convolves."""
    return {
        name: p.detach().contiguous(memory_format=torch.channels_last)
        if p.ndim == 4
        else p.detach()
        for name, p in module.named_parameters()
    }


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A module in evaluation mode for a block."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def _made(m: Tensor, p: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Mask and pattern of unbounded values."""
    return m.sigmoid(), low + (high - low) * p.sigmoid()
