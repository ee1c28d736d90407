"""The audit at sample level: canary samples through the run's own model, loss and private gradient,
at the client whose samples pay most.

Canaries are drawn at random in the shape of the client's data, so an audit spends no privacy. The
parameters stay as they are: every step is one release of the same sum.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from privfl.audit.dp.claim import Claim, Scored, claim_of, missing_test
from privfl.audit.dp.dependence import dependence_tests
from privfl.audit.dp.evidence import Test
from privfl.audit.dp.neighbours import SLACK
from privfl.audit.dp.replay import draws_for, inclusion_tests, participation_test, source_test
from privfl.audit.dp.residual import (
    Noise,
    aligned_test,
    claimed,
    drift_test,
    mean_test,
    repeat_test,
    variance_test,
)
from privfl.audit.dp.settings import Settings
from privfl.audit.dp.tape import CountedNoise, Tape
from privfl.audit.dp.weakest import weakest_test
from privfl.audit.dp.whitening import movement, whitened
from privfl.core import (
    BadUpdate,
    Charge,
    FlatModel,
    Ledger,
    Loss,
    PrivateGradient,
    Seeds,
    Sensitivity,
)
from privfl.dp import DPGradient, PrivacyWarning
from privfl.dp.mechanisms.correlated import CorrelatedRun
from privfl.dp.sgd.ordered import run_of
from privfl.dp.strategies import Strategy
from privfl.engine import Scenario

MOST_CANARIES = 256
"""Canary samples in one play: as many as still have directions of their own."""
MAGNITUDES = (1e-2, 1.0, 1e2, 1e4)
MOST_COMPANY = 128
COMPANY = 6
"""How many other samples are in the batch of the one that comes and goes."""


@dataclass(frozen=True, slots=True)
class Canaries:
    """Random samples in the shape of a client's own, with the model and loss that they go
    through.
    """

    x: Tensor
    y: Tensor
    model: FlatModel
    loss: Loss

    @classmethod
    def like(cls, scenario: Scenario, n: int, seeds: Seeds) -> Canaries:
        """So many, with labels at random."""
        work = scenario.workload
        rng = seeds.generator("sample canaries")
        shape, like = (n, *work.data.x.shape[1:]), work.data.x
        if like.is_floating_point():
            x = torch.randn(shape, generator=rng).to(like)
        else:
            x = torch.randint(int(like.max()) + 1, shape, generator=rng).to(like)
        labels = (n, *work.data.y.shape[1:])
        if work.data.y.is_floating_point():
            y = torch.randn(labels, generator=rng).to(work.data.y)
        else:
            y = torch.randint(max(work.data.classes, 1), labels, generator=rng).to(work.data.y)
        return cls(x, y, work.model, work.loss)

    def release(self, gradient: PrivateGradient, at: Tensor) -> Tensor:
        """What one step releases of the samples at these positions [d], in float64."""
        return self.step(gradient, self.x[at], self.y[at])

    def step(self, gradient: PrivateGradient, x: Tensor, y: Tensor) -> Tensor:
        """What one step releases of these samples [d], in float64."""
        gradient(self.model, self.loss, x, y)
        return self.model.grad.detach().cpu().double().clone()


def audit_samples(
    scenario: Scenario,
    gradient: PrivateGradient,
    recorded: Ledger | None,
    settings: Settings,
    delta: float,
    progress: Callable[[str], None] | None,
) -> Claim:
    """Audit the claim of the client whose samples pay most: the one with the fewest."""
    plan, seeds = scenario.workload.method.recipe.plan, Seeds(scenario.seed)
    client = min(scenario.clients, key=lambda c: len(scenario.clients[c]))
    n = len(scenario.clients[client])
    joined = math.ceil(scenario.sampling.rate * scenario.rounds)
    canaries = Canaries.like(scenario, n, seeds)
    steps = gradient.steps(n, plan)
    noisy = gradient.noisy(n, plan, steps)
    pipeline = scenario.pipeline()
    charges: list[Charge] = []
    for number in range(joined):
        charges += pipeline.trained(number, client, noisy)
    subject, played = charges[0].subject, Ledger(tuple(charges))
    made = played if recorded is None else _of(recorded, subject)

    # ---- what is known without noise, if this gradient can do without
    silent = replace(gradient, noise_multiplier=0.0) if isinstance(gradient, DPGradient) else None
    tests = []
    if silent is None:
        kind = type(gradient).__name__
        tests.append(Test("neighbours", "sample", f"a {kind} is not searched: its noise stays"))
    else:
        if progress is not None:
            progress("sample level: neighbours")
        tests.append(_neighbours(canaries, silent))

    ordered = isinstance(gradient, DPGradient) and gradient.strategy is not None
    drawn: list[Tensor] = []
    looked = min(
        max(math.ceil(settings.values / scenario.workload.model.d), 6), settings.most_rounds
    )
    wanted = max(draws_for(n, settings.inclusions), looked)
    scored, kept = Scored(), _Kept([], [])
    watched = _watched(canaries, gradient, silent, n, seeds) if settings.canaries else None
    for positions in _batches(gradient, n, scenario, wanted, seeds):
        if progress is not None and len(drawn) % 50 == 0:
            progress(f"sample level: step {len(drawn) + 1} of {wanted}")
        drawn.append(positions)
        if len(drawn) > looked:
            continue
        here = positions if watched is None else positions[watched.present[positions]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PrivacyWarning)
            out = canaries.release(gradient, here)
            exact = None if silent is None else canaries.release(silent, here)
        if exact is not None:
            kept.noise.append((out - exact).numpy())
            kept.given.append(exact.numpy())
        if watched is not None:
            watched.total += out
        if exact is not None and not ordered and len(drawn) == 1:  # noise that follows from it
            again = canaries.release(gradient, here) - exact
            kept.noise.append(again.numpy())
            kept.given.append(exact.numpy())
    unseen = f"the noise of a {type(gradient).__name__} cannot be told from what it is added to"
    if isinstance(gradient, DPGradient) and kept.noise:
        noise, unseen = _noise_tests(kept, gradient, charges[0], n, steps)
        tests += noise
        if gradient.strategy is not None:
            allowed = _run_noise(gradient, gradient.strategy, n, steps).participation
            sets = [set(positions.tolist()) for positions in drawn]
            trainings = [sets[at : at + steps] for at in range(0, len(sets), steps)]
            tests.append(participation_test(trainings, allowed, "sample"))
    everybody = scenario.sampling
    if recorded is not None and everybody.scheme == "all":
        tests += missing_test("sample", made, everybody, hidden=False)
    replayed = inclusion_tests(
        [set(positions.tolist()) for positions in drawn], charges[0].sampling, "sample"
    )
    tests += replayed
    tests += dependence_tests([[set(p.tolist()) for p in drawn]], charges[0].sampling, "sample")
    if isinstance(gradient, DPGradient):
        tape = Tape("drawn")
        counted = replace(gradient, noise=CountedNoise(gradient.noise, tape))
        list(counted.batches(n, plan, seeds.generator("canary training", -1)))
        tests += source_test(bool(replayed), charges[0].coins, tape.asked, "sample")
    if watched is not None:
        watched.score(scored)
    releases = math.ceil(looked / steps) if ordered else looked
    first = Ledger((replace(charges[0], count=releases),))
    return claim_of(
        "sample",
        made,
        played,
        tests,
        settings,
        delta,
        scored=scored,
        scored_on=first,
        seed=scenario.seed,
        independent=False,  # the directions of canaries are not orthogonal
        unseen=unseen,
    )


def _run_noise(gradient: DPGradient, strategy: Strategy, n: int, steps: int) -> CorrelatedRun:
    """The noise of one training whose steps hang together."""
    apart = math.ceil(n / gradient.batch_size)
    return run_of(strategy, gradient.noise_multiplier, steps, apart)


def _of(recorded: Ledger, subject: str) -> Ledger:
    return Ledger(tuple(one for one in recorded.charges if one.subject == subject))


def _batches(
    gradient: PrivateGradient, n: int, scenario: Scenario, wanted: int, seeds: Seeds
) -> Iterator[Tensor]:
    """Batches as the run's own training draws them, round by round."""
    plan, made, number = scenario.workload.method.recipe.plan, 0, 0
    while made < wanted:
        rng = seeds.generator("canary training", number)
        for positions in gradient.batches(n, plan, rng):
            yield positions
            made += 1
        number += 1


# ---- neighbours


def _neighbours(canaries: Canaries, silent: PrivateGradient) -> Test:
    """How far one sample, or one of zero gradient in its place, moves a step's sum, over its clip:
    samples of all sizes in every kind of company.
    """
    x, y = canaries.x, canaries.y
    worst, where, pairs = 0.0, "", 0
    batch = silent.batch_size if isinstance(silent, DPGradient) else COMPANY
    for at in range(min(3, len(x))):
        for magnitude in MAGNITUDES if x.is_floating_point() else (1.0,):
            for words, others, labels in _company(x, y, at, batch):
                own = (x[at : at + 1] * magnitude).to(x.dtype)
                moved = _moved(canaries, silent, own, y[at : at + 1], others, labels)
                pairs += 1
                if moved > worst + 1e-6:
                    worst, where = moved, f"a sample x {magnitude:g}, {words}"
    seen = f"{worst:.4f} of a clip after {pairs} pairs ({where})"
    return Test("neighbours", "sample", seen, 0.0 if worst > SLACK else None)


def _company(x: Tensor, y: Tensor, at: int, batch: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Who else is in the batch: nobody, its like, others, others that are all alike, with labels of
    one kind, nothing but zeros; a whole batch of others, and all that there are.
    """
    rest = [i for i in range(len(x)) if i != at]
    yield "alone", x[:0], y[:0]
    yield "among its like", x[[at] * COMPANY], y[[at] * COMPANY]
    other = rest[:COMPANY]
    if not other:
        return
    yield "among others", x[other], y[other]
    alike = [other[0]] * COMPANY
    yield "the odd one out", x[alike], y[alike]
    yield "with a label of its own", x[other], y[alike[: len(other)]]
    yield "among zeros", torch.zeros_like(x[other]), y[other]
    for words, many in (("in a whole batch", rest[:batch]), ("among all", rest[:MOST_COMPANY])):
        if len(many) > COMPANY:
            yield words, x[many], y[many]


def _moved(
    canaries: Canaries,
    silent: PrivateGradient,
    x: Tensor,
    y: Tensor,
    others: Tensor,
    labels: Tensor,
) -> float:
    if not isinstance(silent, DPGradient):
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrivacyWarning)
        try:
            without = canaries.step(silent, others, labels)
            together = canaries.step(silent, torch.cat([x, others]), torch.cat([y, labels]))
        except BadUpdate:  # refused: nothing is released
            return 0.0
    return float((together - without).norm()) * silent.batch_size / float(silent.l2)


# ---- noise


@dataclass(slots=True)
class _Kept:
    """The noise of every step, and the sum without it."""

    noise: list[Noise]
    given: list[Noise]


def _noise_tests(
    kept: _Kept, gradient: DPGradient, charge: Charge, n: int, steps: int
) -> tuple[list[Test], str]:
    """Tests of every value of noise, and in words what could not be looked at."""
    far = Sensitivity(float(gradient.l2) / gradient.batch_size)
    shape = claimed(charge.event, far, len(kept.noise[0]))
    if shape is None or not shape.scale > 0:
        unseen = f"this audit cannot look at the noise of {charge.event.mechanism}"
        return [Test("noise variance", "sample", f"{charge.event.mechanism}: not covered")], unseen
    runs = [[vector / shape.scale for vector in kept.noise]]
    if gradient.strategy is not None:
        run = _run_noise(gradient, gradient.strategy, n, steps)
        matrix, unit = run.matrix.dense(), movement(run.matrix, run.participation, steps)
        trainings = (runs[0][at : at + steps] for at in range(0, len(runs[0]), steps))
        runs = [[row / unit for row in whitened(rows, matrix)] for rows in trainings]
    noise = [vector for run in runs for vector in run]
    optional = (
        repeat_test(noise[:200], "sample"),
        drift_test(runs, "sample"),
        aligned_test(noise, kept.given, "sample"),
    )
    tests = [variance_test(noise, shape.family, "sample"), mean_test(noise, shape.family, "sample")]
    tests.append(weakest_test(runs, shape.family, "sample"))
    return tests + [test for test in optional if test is not None], ""


# ---- the black box


@dataclass(slots=True)
class _Watched:
    """Canaries that are there by a fair coin (all others always are), the direction [m, d] that
    tells each from all others, and the sum [d] of all that was released.
    """

    present: Tensor
    coins: Tensor
    directions: Tensor
    total: Tensor

    def score(self, scored: Scored) -> None:
        """Scores: what was released along each canary's direction."""
        scored.add(self.directions @ self.total, self.coins)


def _watched(
    canaries: Canaries,
    gradient: PrivateGradient,
    silent: PrivateGradient | None,
    n: int,
    seeds: Seeds,
) -> _Watched | None:
    """Directions in which no canary but one has a part: the dual basis of their clipped gradients,
    which need no secret. None where gradients cannot be had without noise.
    """
    m = min(n, MOST_CANARIES, canaries.model.d // 2)
    if silent is None or m < 8:
        return None
    rows = torch.stack([canaries.release(silent, torch.tensor([i])) for i in range(m)])
    dual = torch.from_numpy(np.linalg.pinv(rows.numpy(), rcond=1e-6)).T
    directions = dual / dual.norm(dim=1, keepdim=True).clamp(min=1e-300)
    coins = torch.rand(m, generator=seeds.generator("sample coins")) < 0.5
    present = torch.cat([coins, torch.ones(n - m, dtype=torch.bool)])
    return _Watched(present, coins, directions, torch.zeros(canaries.model.d, dtype=torch.float64))
