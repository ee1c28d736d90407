"""DP-SGD as the gradient seat of local training: Poisson batches, clipped per-sample gradients,
noise, and what they cost.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from privfl.core import (
    BadUpdate,
    Coins,
    ConfigError,
    DpEvent,
    FlatModel,
    LocalPlan,
    Loss,
    NoiseSource,
    NoisySteps,
    OsNoise,
    PrivflError,
    Sampling,
    cross_entropy,
    exact_products,
    keep_freed_pages,
    norm,
    require,
    unknown,
)
from privfl.dp.mechanisms.correlated import CorrelatedRun
from privfl.dp.noise import uniforms, write_normals
from privfl.dp.sgd.bookkeeping import bookkeeping
from privfl.dp.sgd.coupling import Checked, WatchedLoss, check_model
from privfl.dp.sgd.engine import Engine
from privfl.dp.sgd.hooks import opacus
from privfl.dp.sgd.ordered import Ongoing, in_order, run_of
from privfl.dp.sgd.rowwise import rowwise
from privfl.dp.sgd.vmapped import vmapped
from privfl.dp.strategies import Strategy

EngineName: TypeAlias = Literal["bookkeeping", "opacus", "vmap"]
ENGINES: Mapping[str, Engine] = {"bookkeeping": bookkeeping, "opacus": opacus, "vmap": vmapped}
_KEEP = 1 - 1e-6
"""Clipped gradients end this much under the clip, so that float32 rounding cannot lift them above
it.
"""


class _NotFinite(Exception):
    """Some gradients are NaN or infinite: nothing has been added yet, so the batch can run again
    without them.
    """

    def __init__(self, norms: Tensor) -> None:
        super().__init__()
        self.norms = norms


class _Raised(Exception):
    """The model or the loss raised, before anything was added."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class PrivacyWarning(UserWarning):
    """Something that a private training survives, and that its owner should know."""


@dataclass(frozen=True)
class DPGradient:
    """DP-SGD (Abadi et al. 2016, algorithm 1): each sample's gradient is clipped to ``l2``, summed,
    noised and divided by ``batch_size``.

    Guarantee: sample-level DP of everything that leaves the client, against anybody who does not
    know the sampling randomness, under zero_out: a sample of this client, or one of zero gradient
    in its place. How many samples n the client holds stays known, and is no part of the claim: a
    batch's rate is ``batch_size`` / n and an epoch has n / ``batch_size`` steps, so a sample that
    comes or goes would change the rate of all others. Batches are Poisson samples of expected size
    ``batch_size`` and the sum is divided by that public number, never by the batch's own size. An
    empty batch is a step of pure noise. The loss must be a mean over the batch's samples.

    With a ``strategy`` the noise of the steps hangs together (DP-FTRL: Kairouz et al. 2021;
    Choquette-Choo et al. 2023), and no batch is drawn: all of a training goes through the samples
    in one order, pass by pass, and costs ONE Gaussian of ``noise_multiplier``, unamplified (a
    sample of zero gradient in the place of another keeps the order). Each training, as of a round,
    begins anew and is charged anew.

    Args:
        l2: the clip.
        noise_multiplier: sigma over the clip; 0 adds nothing, and epsilon is then infinite.
        batch_size: the expected size of a batch: that of the training plan.
        engine: ``"bookkeeping"`` (fast: Linear, Conv, GroupNorm, LayerNorm, RMSNorm, Embedding,
            LSTM, MultiheadAttention, weights that are shared), ``"opacus"`` (what Opacus supports),
            ``"vmap"`` (anything that torch.func traces).
        clipping: ``"flat"`` shortens what is longer than ``l2``; ``"normalised"`` brings every
            gradient to nearly ``l2`` (Bu et al. 2023, automatic clipping).
        microbatch: the most samples whose gradients are held at once; a batch is cut into such
            virtual batches. None: never cut.
        sampling: ``"secret"``: batches are drawn from ``noise``, so nobody can draw them again;
            ``"public"``: from the run's seed, with which anybody can, and what sampling saves is
            what it would save with secret coins.
        strategy: how the noise of the steps hangs together (`dp.strategies`); None: not at all.
        noise: where noise comes from; a seeded source voids the guarantee, and charges say so.

    Raises:
        ConfigError: a setting out of range.

    >>> DPGradient(l2=1.0, noise_multiplier=1.1, batch_size=64).engine
    'bookkeeping'
    """

    private: ClassVar[bool] = True

    l2: int | float
    noise_multiplier: int | float
    batch_size: int
    engine: EngineName = "bookkeeping"
    clipping: Literal["flat", "normalised"] = "flat"
    microbatch: int | None = None
    sampling: Coins = "public"
    strategy: Strategy | None = None
    noise: NoiseSource = field(default_factory=OsNoise)
    ongoing: Ongoing = field(default_factory=Ongoing, init=False, repr=False, compare=False)
    checked: Checked = field(default_factory=Checked, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require.positive(l2=self.l2)
        require.finite(l2=self.l2)
        require.multiplier(noise_multiplier=self.noise_multiplier)
        require.at_least(1, batch_size=self.batch_size, microbatch=self.microbatch or 1)
        if self.engine not in ENGINES:
            raise ConfigError(unknown("gradient engine", self.engine, ENGINES))
        if self.clipping not in ("flat", "normalised"):
            raise ConfigError(unknown("clipping", self.clipping, ("flat", "normalised")))
        if self.sampling not in get_args(Coins):
            raise ConfigError(unknown("sampling", self.sampling, get_args(Coins)))
        if self.sampling == "secret" and self.noise.repeatable:
            raise ConfigError(
                "sampling is 'secret', and a seed repeats this gradient's noise: use OsNoise, or"
                " sampling='public'."
            )

    def batches(self, n: int, plan: LocalPlan, rng: torch.Generator) -> Iterator[Tensor]:
        """Positions of each Poisson batch: every sample is in it with probability ``batch_size`` /
        n. Batches may be empty. With a strategy: of each batch in one order, pass by pass.

        Raises:
            ConfigError: the plan has another batch size.
        """
        rate = self._rate(n, plan)
        if self.strategy is not None:
            steps = self.steps(n, plan)
            self.ongoing.begin(self._run_noise(self.strategy, n, steps))
            yield from in_order(n, self.batch_size, steps, rng)
            return
        for _ in range(self.steps(n, plan)):
            if self.sampling == "secret":
                coins = torch.from_numpy(uniforms(n, self.noise)) - 2.0**-53  # in [0, 1)
            else:
                coins = torch.rand(n, generator=rng, dtype=torch.float64)
            yield torch.nonzero(coins < rate).flatten()

    def steps(self, n: int, plan: LocalPlan) -> int:
        """How many steps a plan has: its own number, or as many as draw n samples an epoch on
        average.
        """
        if self.strategy is not None and plan.steps is None:
            return plan.epochs * math.ceil(n / self.batch_size)
        return (
            plan.steps
            if plan.steps is not None
            else max(1, round(plan.epochs * n / self.batch_size))
        )

    def _run_noise(self, strategy: Strategy, n: int, steps: int) -> CorrelatedRun:
        """The noise of a training of so many steps on n samples."""
        return run_of(strategy, self.noise_multiplier, steps, math.ceil(n / self.batch_size))

    def _rate(self, n: int, plan: LocalPlan) -> float:
        if plan.batch_size != self.batch_size:
            raise ConfigError(
                f"DPGradient divides by batch_size={self.batch_size}, and the plan draws batches of"
                f" {plan.batch_size}: give both the same."
            )
        return min(1.0, self.batch_size / n)

    def __call__(self, model: FlatModel, loss: Loss, x: Tensor, y: Tensor) -> float:
        """Write the step's private gradient into ``model.grad``; the batch's mean loss, 0 for an
        empty batch.

        The returned loss is NOT private: it is for the simulation's own curves.

        Raises:
            BadUpdate: the model is NaN or infinite, and every sample's gradient with it. Samples
                with such a gradient, and samples that make the model or the loss raise, are else
                left out, all of them where need be: what one sample brings
                never stops a step.
            Exception: what the model or the loss raises of a batch, and of no one of its samples.
            UnsupportedModel: a layer that the engine cannot do, named with the engine that can; or
                a model or loss that couples samples.
        """
        self._add_noise(model.grad)
        mean = 0.0
        size = self.microbatch or max(len(x), 1)
        with exact_products():  # rounded ones would let a gradient be longer than its clip
            for start in range(0, len(x), size):
                part = slice(start, start + size)
                of = self._add_clipped(model, loss, x[part], y[part])
                mean += of * min(size, len(x) - start) / len(x)
        return mean

    def _add_noise(self, grad: Tensor) -> None:
        """Begin the step with its noise alone, already divided by the batch size."""
        deviation = self.noise_multiplier * self.l2 / self.batch_size
        if not deviation:
            grad.zero_()
        elif self.strategy is not None:
            self.ongoing.write(grad, self.l2 / self.batch_size, self.noise)
        else:
            write_normals(grad, deviation, self.noise)

    def _add_clipped(self, model: FlatModel, loss: Loss, x: Tensor, y: Tensor) -> float:
        try:
            return self._run(model, loss, x, y)
        except _NotFinite as found:
            good, words = torch.isfinite(found.norms), "have a NaN or infinite gradient"
        except _Raised as found:
            good = ~self._raising(model, loss, x, y)
            if bool(good.all()):
                raise found.error from None
            words = "make the model or the loss raise"
        bad = len(good) - int(good.sum())
        # to stop where data alone are to blame would tell of the one sample that a batch was
        if bad == len(x) and not math.isfinite(norm(model.flat)):
            raise BadUpdate(
                f"all {bad} gradients of a batch are NaN or infinite, and so is the model: it has"
                " diverged; lower the learning rate."
            )
        warnings.warn(
            f"{bad} of {len(x)} samples {words}, and count as zero.",
            PrivacyWarning,
            stacklevel=4,
        )
        # others may be so when they run again, for dropout is drawn anew
        return self._add_clipped(model, loss, x[good], y[good]) if bad < len(x) else 0.0

    def _raising(self, model: FlatModel, loss: Loss, x: Tensor, y: Tensor) -> Tensor:
        """Which samples [b] make a run raise where each is alone, and where it fills the batch:
        what a batch's size brings about is no one sample's. Nothing is added.
        """
        found = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for at in range(len(x)):
            found[at] = all(
                self._raises(model, loss, x[[at] * size], y[[at] * size])
                for size in dict.fromkeys((1, len(x)))
            )
        return found

    def _raises(self, model: FlatModel, loss: Loss, x: Tensor, y: Tensor) -> bool:
        def stop(norms: Tensor) -> Tensor:
            raise _NotFinite(norms)  # before anything is added

        try:
            ENGINES[self.engine](model.module, loss, x, y, stop, model.grad)
        except _NotFinite:
            return False
        except (PrivflError, MemoryError):
            raise
        except Exception:
            return True
        return False

    def _run(self, model: FlatModel, loss: Loss, x: Tensor, y: Tensor) -> float:
        """One run of the engine, whose samples are seen not to be coupled before any is added."""
        engine, module, begun = ENGINES[self.engine], model.module, False
        alone = self.engine == "vmap"  # each sample runs alone, whatever the loss couples
        watched = None if alone else WatchedLoss(loss)

        def factors(norms: Tensor) -> Tensor:
            nonlocal begun
            if not math.isfinite(norms.sum().item()) and not bool(torch.isfinite(norms).all()):
                raise _NotFinite(norms)
            if watched is not None and not watched.check(module, x, y):
                check_model(engine, module, loss, x, y)
            begun = True
            return self._factors(norms)

        try:
            if not alone:
                self._check_once(module, loss, x, y)
            return engine(module, watched or loss, x, y, factors, model.grad).mean_loss
        except (_NotFinite, PrivflError, MemoryError):
            raise  # what is refused is refused of all samples alike
        except Exception as error:
            if begun:  # and something may have been added
                raise
            raise _Raised(error) from error

    def _check_once(self, module: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> None:
        chain = loss is cross_entropy  # which hands x to the module as it is
        if module in self.checked.modules or (chain and module in self.checked.chains):
            return
        keep_freed_pages()
        if chain and rowwise(module, x):
            self.checked.chains.add(module)
        elif check_model(ENGINES[self.engine], module, loss, x, y):
            self.checked.modules.add(module)

    def _factors(self, norms: Tensor) -> Tensor:
        """What each gradient is multiplied by, the division by the batch size in it; a zero
        gradient stays zero.
        """
        target = self.l2 * _KEEP / self.batch_size
        if self.clipping == "normalised":
            return target / (norms + 0.01)
        return target / norms.clamp(min=self.l2 * _KEEP)

    def noisy(self, n: int, plan: LocalPlan, steps: int) -> tuple[NoisySteps, ...]:
        """All steps alike: a Poisson-sampled Gaussian each, of this client's samples, whose number
        is in the rate, so that neighbours have as many. With a strategy: one Gaussian of all steps
        together.
        """
        if self.strategy is not None:
            run = self._run_noise(self.strategy, n, self.steps(n, plan))
            return (
                NoisySteps(
                    run.event(max(steps, 1)),
                    Sampling("all", 1.0, n),
                    repeatable=self.noise.repeatable,
                    relation="zero_out",
                ),
            )
        return (
            NoisySteps(
                DpEvent("gaussian", {"noise_multiplier": self.noise_multiplier}),
                Sampling("poisson", self._rate(n, plan), n),
                count=steps,
                repeatable=self.noise.repeatable,
                coins=self.sampling,
                relation="zero_out",
            ),
        )
