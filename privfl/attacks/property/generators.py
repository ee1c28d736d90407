"""Generators that learn from a classifier's gradients: noise in, samples in the features' range
out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privfl.attacks.inference import Lacking
from privfl.attacks.inversion.simulate import Simulator, standing
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.core import BUFFERS, Vector, View

LATENT = 32
"""Coordinates of the noise that a sample is made of."""
_RATE, _BETAS = 2e-3, (0.5, 0.999)
"""Adam's rate and moments for generators, as in Radford, Metz, Chintala 2016 but for the rate,
which is higher because rounds leave few steps.
"""


class _Pictures(nn.Module):
    """Noise to images, a quarter of their size first and doubled twice."""

    def __init__(self, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        colours, self.height, self.breadth = shape
        self.base = (2 * width, -(-self.height // 4), -(-self.breadth // 4))
        self.first = nn.Linear(LATENT, self.base[0] * self.base[1] * self.base[2])
        self.rest = nn.Sequential(
            _norm(2 * width),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * width, width, 3, padding=1),
            _norm(width),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width, colours, 3, padding=1),
        )

    def forward(self, noise: Tensor) -> Tensor:
        made = self.rest(self.first(noise).view(-1, *self.base))
        cut: Tensor = made[..., : self.height, : self.breadth]
        return cut


class Generator(nn.Module):
    """A small generator of samples between ``low`` and ``high`` [*shape each], on their device:
    convolutions for images, one hidden layer for anything else. What it draws hangs on ``seed``
    alone.

    >>> low, high = torch.full((1, 8, 8), -1.0), torch.full((1, 8, 8), 2.0)
    >>> made = Generator(low, high, seed=0)(torch.zeros(3, LATENT))
    >>> tuple(made.shape), bool(((made >= low) & (made <= high)).all())
    ((3, 1, 8, 8), True)
    """

    def __init__(self, low: Tensor, high: Tensor, *, seed: int, width: int = 16) -> None:
        super().__init__()
        shape = tuple(low.shape)
        self.low, self.high = low, high
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.net: nn.Module = (
                _Pictures(shape, width)
                if len(shape) == 3
                else nn.Sequential(
                    nn.Linear(LATENT, 8 * width),
                    nn.ReLU(),
                    nn.Linear(8 * width, low.numel()),
                    nn.Unflatten(1, shape),
                )
            )
        self.net.to(low.device)

    def forward(self, noise: Float[Tensor, "n latent"]) -> Float[Tensor, "n *shape"]:
        """Samples of noise."""
        made: Tensor = self.low + (self.high - self.low) * torch.sigmoid(self.net(noise))
        return made

    def drawn(self, n: int, rng: torch.Generator) -> Float[Tensor, "n *shape"]:
        """So many samples, without a graph."""
        with torch.no_grad():
            made: Tensor = self(self.noise(n, rng))
        return made

    def noise(self, n: int, rng: torch.Generator) -> Float[Tensor, "n latent"]:
        """What so many samples are made of."""
        return torch.randn(n, LATENT, generator=rng).to(self.low.device)

    @property
    def vector(self) -> Vector:
        """All its parameters [g]."""
        return nn.utils.parameters_to_vector(self.parameters()).detach().clone()

    def write(self, vector: Vector) -> None:
        """Take over the parameters of another generator of the same shape."""
        nn.utils.vector_to_parameters(vector, self.parameters())


def descended(
    generator: Generator,
    objective: Callable[[Float[Tensor, "n *shape"]], Tensor],
    steps: int,
    batch_size: int,
    rng: torch.Generator,
    meanwhile: Callable[[Float[Tensor, "n *shape"]], None] | None = None,
) -> None:
    """So many steps of Adam on the mean objective of fresh samples; ``meanwhile`` is shown each
    batch after it (a discriminator that learns in turn).
    """
    adam = torch.optim.Adam(generator.parameters(), _RATE, _BETAS)
    for _ in range(steps):
        made = generator(generator.noise(batch_size, rng))
        grads = torch.autograd.grad(objective(made), list(generator.parameters()))
        for parameter, grad in zip(generator.parameters(), grads, strict=True):
            parameter.grad = grad
        adam.step()
        if meanwhile is not None:
            meanwhile(made.detach())


def fixed_copy(module: nn.Module, parameters: Vector) -> nn.Module:
    """A copy of a model at these parameters [d], as it is when it is measured, that no training
    reaches.
    """
    made = copy.deepcopy(module).eval()
    free = [p for p in made.parameters() if p.requires_grad]
    parts: Sequence[Tensor] = torch.split(parameters, [p.numel() for p in free])
    with torch.no_grad():
        for p, part in zip(free, parts, strict=True):
            p.copy_(part.view(p.shape))
            p.grad = None
    return made.requires_grad_(False)


def judge(forward: Forward, view: View, parameters: Vector, knowledge: Knowledge) -> nn.Module:
    """A model of a round as a discriminator: a copy that may be trained, as models are when they
    are measured. Where running statistics are not broadcast, those of the adversary's own samples
    stand in for them; where it has none, those of each batch.

    Raises:
        Lacking: the model is not finite, so that it judges nothing.
    """
    if not bool(parameters.isfinite().all()):
        raise Lacking(
            f"the model of round {view.plan.number} is not finite, and no generator learns from it:"
            " give views of rounds before it."
        )
    held = knowledge.auxiliary
    known = forward.buffers is None or BUFFERS in view.extra or held is not None
    x = torch.empty(0, *forward.shape) if held is None else held.x
    fixed = standing(view, forward, parameters, x) if known else None
    return Simulator(forward, parameters, round=view.plan.number, statistics=fixed).module


def noise_in(forward: Forward) -> str:
    """In words: whether released models have noise in them."""
    noisy = forward.central_noise or forward.local_noise
    return "with the noise that is in them" if noisy else "which no channel hides"


def _norm(width: int) -> nn.Module:
    """The batch's own statistics, remembered by nobody."""
    return nn.BatchNorm2d(width, track_running_stats=False)
