"""Adversarial training: every sample is moved within an L-infinity ball to where the loss is
larger, and the step is taken there (Madry, Makelov, Schmidt, Tsipras, Vladu 2018, eq. 2.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from privfl.core import ConfigError, Loss, Presenting, require


@dataclass(frozen=True, slots=True)
class PGD:
    """``steps`` steps of projected gradient ascent from a random start (Madry et al. 2018): the
    inner maximum of adversarial training.

    Every sample is moved by its own gradient and its own random start, so clipping bounds what one
    sample changes: DP-SGD takes it. No accuracy under attack is guaranteed.

    Args:
        eps: the radius, in the units of the features, in every entry.
        steps: of ascent.
        alpha: a step; 2.5 eps / steps where it is None.
        low: the least value of a feature, everywhere.
        high: the largest.

    Raises:
        ConfigError: a setting out of range.

    >>> module, x = nn.Linear(2, 2), torch.rand(3, 2)
    >>> loss = lambda module, x, y: nn.functional.cross_entropy(module(x), y)
    >>> moved = next(PGD(eps=0.1).begin()(module, loss, x, torch.tensor([0, 1, 0])))
    >>> bool(((moved - x).abs() <= 0.1 + 1e-6).all())
    True
    """

    alone: ClassVar[bool] = True

    eps: int | float
    steps: int = 7
    alpha: float | None = None
    low: int | float = -math.inf
    high: int | float = math.inf

    def __post_init__(self) -> None:
        _checked(self.eps, self.low, self.high)
        require.at_least(1, steps=self.steps)
        if self.alpha is not None:
            require.positive(alpha=self.alpha)

    def begin(self) -> Presenting:
        """No memory: each batch is moved anew."""
        return self._present

    def _present(self, module: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        alpha = 2.5 * self.eps / self.steps if self.alpha is None else self.alpha
        yield ascent(module, loss, x, y, Ball(self.eps, self.low, self.high), self.steps, alpha)


@dataclass(frozen=True, slots=True)
class FGSM:
    """One step of the gradient's sign from a random start ("fast": Wong, Rice, Kolter 2020,
    algorithm 3; without the start Goodfellow, Shlens, Szegedy 2015).

    As `PGD` with one step of ``alpha`` eps; cheaper, and known to overfit to itself at once in long
    trainings with large radii (same paper, section 5.2): measure with `robust_accuracy`.

    Args:
        eps: the radius, in the units of the features, in every entry.
        alpha: the step over eps.
        low: the least value of a feature, everywhere.
        high: the largest.

    Raises:
        ConfigError: a setting out of range.

    >>> FGSM(eps=0.1).alpha
    1.25
    """

    alone: ClassVar[bool] = True

    eps: int | float
    alpha: float = 1.25
    low: int | float = -math.inf
    high: int | float = math.inf

    def __post_init__(self) -> None:
        _checked(self.eps, self.low, self.high)
        require.positive(alpha=self.alpha)

    def begin(self) -> Presenting:
        """No memory: each batch is moved anew."""
        return PGD(self.eps, 1, self.alpha * self.eps, self.low, self.high).begin()


@dataclass(frozen=True, slots=True)
class FreeAdversarial:
    """Adversarial training "for free" (Shafahi, Najibi, Ghiasi, Xu, Dickerson, Studer, Davis,
    Taylor, Goldstein 2019, algorithm 1): a batch is stepped on ``replays`` times, and the same
    backward pass that moves the model moves the perturbation, which the next batch begins with.

    So the perturbation of one sample begins where another sample of the batch before left it: a
    sample changes the gradients of others, which clipping does not bound, and a batch that is drawn
    once is used ``replays`` times, which no accounting of sampled batches counts. A private
    gradient refuses it. Divide the epochs by ``replays`` for equal cost.

    Args:
        eps: the radius, in the units of the features, in every entry, and the step.
        replays: of a batch (m in the paper).
        low: the least value of a feature, everywhere.
        high: the largest.

    Raises:
        ConfigError: a setting out of range.

    >>> FreeAdversarial(eps=0.1).replays
    4
    """

    alone: ClassVar[bool] = False

    eps: int | float
    replays: int = 4
    low: int | float = -math.inf
    high: int | float = math.inf

    def __post_init__(self) -> None:
        _checked(self.eps, self.low, self.high)
        require.at_least(1, replays=self.replays)

    def begin(self) -> Presenting:
        """A perturbation of zeros, which then lives as long as the training."""
        return _Free(self)


class _Free:
    def __init__(self, setting: FreeAdversarial) -> None:
        self.setting = setting
        self.moved: Tensor | None = None

    def __call__(self, module: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        eps, ball = self.setting.eps, Ball(self.setting.eps, self.setting.low, self.setting.high)
        if self.moved is None or len(self.moved) < len(x):
            fresh = torch.zeros_like(x)
            if self.moved is not None:
                fresh[: len(self.moved)] = self.moved
            self.moved = fresh
        moved = self.moved[: len(x)]
        for _ in range(self.setting.replays):
            inner = ball.around(x, x + moved).requires_grad_()
            yield inner
            if inner.grad is not None:
                moved.add_(inner.grad.sign(), alpha=eps).clamp_(-eps, eps)


@dataclass(frozen=True, slots=True)
class Ball:
    """All that is within ``eps`` of a sample in every entry, and in the range of the features, or
    no further out of it than the sample itself.

    >>> Ball(0.5, 0.0, 1.0).around(torch.tensor([0.2]), torch.tensor([-3.0]))
    tensor([0.])
    """

    eps: float
    low: float = -math.inf
    high: float = math.inf

    def around(self, x: Tensor, moved: Tensor) -> Tensor:
        """The nearest points to ``moved`` [b, ...] in the balls around x [b, ...]."""
        least = torch.maximum(x - self.eps, x.clamp(max=self.low))
        most = torch.minimum(x + self.eps, x.clamp(min=self.high))
        return torch.minimum(torch.maximum(moved, least), most).detach()

    def start(self, x: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Uniform in the balls around x [b, ...]."""
        coins = torch.rand(x.shape, generator=rng, dtype=x.dtype)
        return self.around(x, x + self.eps * (2 * coins.to(x.device) - 1))


def ascent(
    module: nn.Module,
    loss: Loss,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    steps: int,
    alpha: float,
    rng: torch.Generator | None = None,
) -> Tensor:
    """Samples [b, ...] moved by the sign of each one's own gradient from a random start; the module
    in evaluation mode, and as it was afterwards.

    A sample that makes the model or the loss raise stays where it is, and moves no other: a good
    one stands in its place, so that all others are computed as they would be beside any sample.

    Raises:
        ConfigError: samples are no numbers with a slope, such as tokens.
    """
    if not x.is_floating_point():
        raise ConfigError(
            f"adversarial training moves features, and these are {x.dtype}: leave it out."
        )
    if not len(x):
        return x
    start, training = ball.start(x, rng), module.training
    module.eval()
    try:
        return _ascended(module, loss, x, y, start, ball, steps, alpha)
    except Exception:
        good = [
            not _raises(module, loss, x[[at] * len(x)], y[[at] * len(x)]) for at in range(len(x))
        ]
        if all(good) or not any(good):
            return x
        place = torch.arange(len(x))
        place[~torch.tensor(good)] = good.index(True)
        stood, moved_from = x[place], start[place]
        moved = _ascended(module, loss, stood, y[place], moved_from, ball, steps, alpha)
        keep = torch.tensor(good, device=x.device).view(-1, *[1] * (x.dim() - 1))
        return torch.where(keep, moved, x)
    finally:
        module.train(training)


def _ascended(
    module: nn.Module,
    loss: Loss,
    x: Tensor,
    y: Tensor,
    moved: Tensor,
    ball: Ball,
    steps: int,
    alpha: float,
) -> Tensor:
    for _ in range(steps):
        inner = moved.detach().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(loss(module, inner, y), inner)
        moved = ball.around(x, moved + alpha * slope.sign())
    return moved


def _raises(module: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> bool:
    inner = x.detach().requires_grad_()
    try:
        with torch.enable_grad():
            torch.autograd.grad(loss(module, inner, y), inner)
    except Exception:
        return True
    return False


def _checked(eps: float, low: float, high: float) -> None:
    require.positive(eps=eps)
    require.finite(eps=eps)
    if not low < high:
        raise ConfigError(f"low={low} must be less than high={high}.")
