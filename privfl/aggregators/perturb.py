"""Defences that clip, thin out or perturb: norm clipping with weak noise, FL-WBC at the client, sparsification."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators.seats import After, Before
from privfl.aggregators.verdict import Verdict
from privfl.core import Context, Rows, Update, Vector, require
from privfl.core.geometry import squared_norms


def clipped(rows: Rows, bound: float) -> Verdict[Rows]:
    """Rows no longer than ``bound``; those that are not finite stay as they are, to be met by the rule."""
    norms = squared_norms(rows.values).sqrt().cpu()
    scale = torch.where((norms > bound) & torch.isfinite(norms), bound / norms.clamp(min=1e-300), torch.ones(()).to(norms))
    if bool((scale == 1).all()):
        return Verdict(rows, scale=scale, scores={"norm": norms})
    return Verdict(Rows(rows.values * scale.to(rows.values)[:, None], rows.weights, rows.ids), scale=scale, scores={"norm": norms})


@dataclass(frozen=True, slots=True)
class NormClipping(Before[None], After[None]):
    """Norm clipping with weak noise (Sun, Kairouz, Suresh, McMahan 2019, Section 4): x / max(1, ||x|| / bound), then N(0, sigma^2) once.

    Fills two seats: it clips before the rule and adds the noise to the aggregate, once, from the run's simulation randomness. The noise is
    weak on purpose: no differential privacy follows (`privfl.dp` has mechanisms). Bounds what any liar moves a mean by to 2 bound / n.

    >>> context = Context(None, torch.zeros(2), torch.Generator())
    >>> NormClipping(bound=5.0).before(Rows.of([[30.0, 40.0], [3.0, 0.0]]), None, context)[0].values
    tensor([[3., 4.],
            [3., 0.]])
    """

    bound: float = 1.0
    sigma: float = 0.0

    def __post_init__(self) -> None:
        require.positive(bound=self.bound)
        require.at_least(0, sigma=self.sigma)

    def init(self) -> None:
        """Nothing is remembered."""
        return

    def judge_before(self, rows: Rows, state: None, context: Context) -> tuple[Verdict[Rows], None]:
        """The rows, clipped."""
        return clipped(rows, self.bound), None

    def judge_after(self, vector: Vector, state: None, context: Context) -> tuple[Verdict[Vector], None]:
        """The aggregate with the noise."""
        if self.sigma == 0:
            return Verdict(vector), None
        return Verdict(vector + torch.randn(len(vector), generator=context.rng).to(vector) * self.sigma, touched=len(vector)), None


@dataclass(frozen=True, slots=True)
class LastUpdate:
    """A client's update before its defence perturbed it [d], None before the first round."""

    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class FLWBC:
    """FL-WBC (Sun et al. 2021, Algorithm 1), at the client: perturb where the gradient hardly changes, for there backdoors live on.

    Where |g - g_prev| <= |v|, v ~ Laplace(0, ``scale``) is added, times ``rate`` (the paper's learning rate). ``scale`` is the Laplace
    scale; the standard deviation is sqrt(2) of it. Works on the round's update as on one step, against the client's own last update
    before it was perturbed; in a client's first round there is none and nothing is added. Noise is from the run's simulation randomness.

    >>> defence, context = FLWBC(scale=0.1), Context(None, torch.zeros(4), torch.Generator().manual_seed(0))
    >>> _, state = defence.at_client(Update(0, torch.ones(4)), defence.init_client(), context)
    >>> (defence.at_client(Update(0, torch.ones(4)), state, context)[0].delta != 1).all()
    tensor(True)
    """

    scale: float = 0.1
    rate: float = 1.0

    def __post_init__(self) -> None:
        require.positive(scale=self.scale, rate=self.rate)

    def init_client(self) -> LastUpdate:
        """None."""
        return LastUpdate()

    def at_client(self, update: Update, state: LastUpdate, context: Context) -> tuple[Update, LastUpdate]:
        """The update, perturbed where it stayed as it was."""
        if state.vector is None:
            return update, LastUpdate(update.delta)
        uniform = torch.rand(len(update.delta), generator=context.rng, dtype=torch.float64) - 0.5
        noise = (-self.scale * uniform.sign() * torch.log1p(-2 * uniform.abs())).to(update.delta)
        still = (update.delta - state.vector).abs() <= noise.abs()
        return replace(update, delta=update.delta + self.rate * noise * still), LastUpdate(update.delta)


@dataclass(frozen=True, slots=True)
class Residual:
    """What earlier rounds did not send [d], None for nothing."""

    vector: Vector | None = None


def largest(vector: Float[Tensor, " d"], count: int) -> Float[Tensor, " d"]:
    """The ``count`` entries of largest magnitude; the others zero."""
    out = torch.zeros_like(vector)
    chosen = vector.abs().topk(count).indices
    out[chosen] = vector[chosen]
    return out


@dataclass(frozen=True, slots=True)
class Sparsify(After[Residual]):
    """Send or apply only the share ``keep`` of entries with the largest magnitude, and carry the rest over to the next round.

    Top-k with error feedback (Stich, Cordonnier, Jaggi 2018); as a defence it starves small, spread-out perturbations; no paper is
    canonical for that use. Fills two seats: put it at the client, or after the rule. Moves along with a scale.

    >>> context = Context(None, torch.zeros(4), torch.Generator())
    >>> sent, left = Sparsify(keep=0.25).after(torch.tensor([1.0, -3.0, 2.0, 0.5]), Residual(), context)
    >>> sent, left.vector
    (tensor([ 0., -3.,  0.,  0.]), tensor([1.0000, 0.0000, 2.0000, 0.5000]))
    """

    keep: float = 0.1

    def __post_init__(self) -> None:
        require.positive(keep=self.keep)
        require.within(0, 1, keep=self.keep)

    def init(self) -> Residual:
        """Nothing is left over."""
        return Residual()

    def init_client(self) -> Residual:
        """Nothing is left over."""
        return Residual()

    def judge_after(self, vector: Vector, state: Residual, context: Context) -> tuple[Verdict[Vector], Residual]:
        """The largest entries of the vector and what was left over."""
        whole = vector if state.vector is None else vector + state.vector
        sent = largest(whole, max(round(self.keep * len(whole)), 1))
        return Verdict(sent, touched=int((sent != vector).sum())), Residual(whole - sent)

    def at_client(self, update: Update, state: Residual, context: Context) -> tuple[Update, Residual]:
        """The update's largest entries."""
        verdict, left = self.judge_after(update.delta, state, context)
        return replace(update, delta=verdict.out), left
