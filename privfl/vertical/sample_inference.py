"""What a guest learns of a host's columns from activations (He et al. 2019): by matching where it
knows the bottom, by a decoder where it knows some rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from privfl.core import ConfigError, Seeds, require
from privfl.data import Holding
from privfl.vertical.view import GuestView, by_sample

Inputs = Float[Tensor, "m k"]


@dataclass(frozen=True, slots=True)
class Inversion:
    """The share of the variance of a host's columns that an attack explains on rows that it did
    not know, and what the same knowledge explains without activations (``blind``).
    """

    attack: str
    explained: float
    blind: float


def by_matching(
    activations: Float[Tensor, "m k"],
    bottom: nn.Module,
    columns: int,
    *,
    steps: int = 300,
    lr: float = 0.05,
) -> Float[Tensor, "m d"]:
    """Rows whose activations are these (He et al. 2019, white box): gradient descent on the
    distance, with a little weight on small values. It needs the host's bottom, which a guest does
    not have unless the host publishes or reuses it.

    >>> bottom = nn.Linear(2, 3)
    >>> x = torch.tensor([[0.5, -0.5]])
    >>> found = by_matching(bottom(x).detach(), bottom, 2)
    >>> bool((found - x).abs().max() < 0.05)
    True
    """
    x = torch.zeros(len(activations), columns, requires_grad=True)
    optimiser = torch.optim.Adam([x], lr=lr)
    for _ in range(steps):
        optimiser.zero_grad()
        apart = (bottom(x) - activations).square().sum() + 1e-4 * x.square().sum()
        (x.grad,) = torch.autograd.grad(apart, [x])
        optimiser.step()
    return x.detach()


def by_decoder(
    inputs: Inputs,
    known: Int[Tensor, " j"],
    columns: Float[Tensor, "j d"],
    *,
    steps: int = 300,
    seed: int = 0,
) -> Float[Tensor, "m d"]:
    """A host's columns from what it sent (He et al. 2019, black box, the shadow's decoder): a
    network from ``inputs`` to columns, learnt on the rows [j] that the guest knows of the host's
    (a quarter of them say when to stop), asked about all.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        last = nn.Linear(64, columns.shape[1])
        decoder = nn.Sequential(nn.Linear(inputs.shape[1], 64), nn.ReLU(), last)
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(columns.mean(dim=0))
    scaled = (inputs - inputs.mean(dim=0)) / inputs.std(dim=0).clamp(min=1e-6)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=0.005)
    held = max(len(known) // 4, 1)  # rows by which it stops
    best, found = float("inf"), columns.mean(dim=0).expand(len(inputs), -1)
    for step in range(steps):
        if step % 10 == 0:
            with torch.no_grad():
                asked: Tensor = decoder(scaled)
            error = float(nn.functional.mse_loss(asked[known[:held]], columns[:held]))
            if error < best:
                best, found = error, asked
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(decoder(scaled[known[held:]]), columns[held:])
        torch.autograd.backward([loss])
        optimiser.step()
    return found


def explained(guess: Float[Tensor, "m d"], truth: Float[Tensor, "m d"]) -> float:
    """The share of the variance: 1 for the truth, 0 for the columns' means.

    >>> truth = torch.tensor([[1.0], [3.0]])
    >>> explained(truth, truth), explained(torch.full((2, 1), 2.0), truth)
    (1.0, 0.0)
    """
    apart = (guess - truth).square().sum()
    spread = (truth - truth.mean(dim=0)).square().sum()
    return float(1 - apart / spread)


def sample_leaks(
    view: GuestView, host: Holding, *, known: int = 200, seed: int = 0
) -> tuple[Inversion, ...]:
    """Play the decoder on what came of each sample in all epochs, and score it by the
    host's columns.

    The guest knows ``known`` rows of the host's; they do not count. Blind is the decoder from the
    guest's own columns, so that what both parties' columns have in common is in it.

    Raises:
        ConfigError: not more rows than are known, fewer known than two, or columns that are
            the same in all rows.
    """
    require.at_least(2, known=known)
    rows, seen = by_sample(view.activations, view.rows, view.epochs)
    sent = seen.flatten(1)
    if len(rows) <= known:
        raise ConfigError(f"known: {known} rows of {len(rows)} leave none to score.")
    order = torch.randperm(len(rows), generator=Seeds(seed).generator("known rows"))
    told, rest = order[:known], order[known:]
    truth, own = host.x[rows], view.holding.x[rows]
    if bool((truth[rest] == truth[rest][0]).all()):
        raise ConfigError("the host's columns are the same in all rows: there is nothing to read.")

    def share(inputs: Inputs) -> float:
        guess = by_decoder(inputs, told, truth[told], seed=seed)
        return explained(guess[rest], truth[rest])

    blind = share(own)
    tried: tuple[tuple[str, Callable[[], Inputs]], ...] = (
        ("decoder of activations", lambda: sent),
        ("decoder of activations and own columns", lambda: torch.cat([sent, own], dim=1)),
    )
    return tuple(Inversion(f"{name}, {known} rows", share(made()), blind) for name, made in tried)
