"""FL-WBC: at the client, noise where the gradient hardly changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from privfl.core import Context, DefenceSeat, Needs, Update, Vector, require


@dataclass(frozen=True, slots=True)
class LastUpdate:
    """A client's update before its defence perturbed it [d], None before the first round."""

    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class FLWBC:
    """FL-WBC (Sun et al. 2021, Algorithm 1), at the client: perturb where the gradient hardly
    changes, for there backdoors live on.

    Where |g - g_prev| <= |v|, v ~ Laplace(0, ``scale``) is added, times ``rate`` (the paper's
    learning rate). ``scale`` is the Laplace scale; the standard deviation is sqrt(2) of it. Works
    on the round's update as on one step, against the client's own last update before it was
    perturbed; in a client's first round there is none and nothing is added. Noise is from the run's
    simulation randomness.

    >>> defence, context = (
    ...     FLWBC(scale=0.1),
    ...     Context(None, torch.zeros(4), torch.Generator().manual_seed(0)),
    ... )
    >>> _, state = defence.at_client(Update(0, torch.ones(4)), defence.init_client(), context)
    >>> (defence.at_client(Update(0, torch.ones(4)), state, context)[0].delta != 1).all()
    tensor(True)
    """

    seats: ClassVar[frozenset[DefenceSeat]] = frozenset({"client"})
    needs: ClassVar[Needs] = {}
    judges: ClassVar[bool] = False

    scale: float = 0.1
    rate: float = 1.0

    def __post_init__(self) -> None:
        require.positive(scale=self.scale, rate=self.rate)

    def init_client(self) -> LastUpdate:
        """None."""
        return LastUpdate()

    def at_client(
        self, update: Update, state: LastUpdate, context: Context
    ) -> tuple[Update, LastUpdate]:
        """The update, perturbed where it stayed as it was."""
        if state.vector is None:
            return update, LastUpdate(update.delta)
        uniform = torch.rand(len(update.delta), generator=context.rng, dtype=torch.float64) - 0.5
        noise = (-self.scale * uniform.sign() * torch.log1p(-2 * uniform.abs())).to(update.delta)
        still = (update.delta - state.vector).abs() <= noise.abs()
        return replace(update, delta=update.delta + self.rate * noise * still), LastUpdate(
            update.delta
        )
