"""Labels from the last layer's gradient: the sign rule for one sample, counts by non-negative least
squares for batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.attacks.inference import Family, Lacking, Observed, Target, Targeted, observe, recipe
from privfl.attacks.inversion.batch_size import sizes
from privfl.attacks.inversion.simulate import Simulator, frozen
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.result import Counts
from privfl.core import ClientId, View

_BATCH = 512
_AS_GOOD = 1.5
"""Counts explain a gradient as well as others that leave so many times less of it."""


def last_bias(forward: Forward) -> tuple[int, int]:
    """Where the bias of the last layer, one entry a class, lies in the flat vector.

    Raises:
        Lacking: the model does not end with a linear layer of that size with a bias.
    """
    start, found, last = 0, (0, 0), ""
    for name, parameter in forward.module.named_parameters():
        if parameter.requires_grad:
            found = (start, start + parameter.numel())
            start += parameter.numel()
            last = name
    if start == 0 or not last.endswith("bias") or found[1] - found[0] != forward.classes:
        raise Lacking(
            "labels are read from the bias of a last linear layer, one entry a class, and this"
            " model does not end with one."
        )
    return found


def mean_gradient(observed: Observed, forward: Forward) -> Float[Tensor, " d"]:
    """The update as the sum of its steps' mean gradients [d]: exact for one plain step."""
    return -observed.delta / forward.rate(observed.view.plan.number)


@dataclass(frozen=True, slots=True)
class LabelCounts(Targeted):
    """How many samples of each class a batch held, from one update (after Wainakh et al. 2022, RLG;
    Yin et al. 2021, section 3.1).

    The last bias's gradient is the mean of softmax outputs less the share of each class. Softmax
    outputs of each class come from auxiliary samples at the broadcast model (from random inputs
    where there are none), and the shares that explain the gradient are found by non-negative least
    squares. Exact for early models; the more a model has learnt, the weaker. A clip scales the
    gradient: the scale is then found together with the shares, which the first rounds of training
    suffer well. Works on sums.

    >>> LabelCounts(target="sum").target
    'sum'
    """

    family: ClassVar[Family] = "inversion"
    target: Target = "client"
    client: ClientId | None = None

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Counts:
        """Counts from the first view.

        Raises:
            Lacking: the architecture is not known, or samples are text and there are no auxiliary
                ones.
        """
        forward = recipe(views[0], knowledge)
        observed = observe(views[0], knowledge, self.target, self.client)
        return Counts(type(self).__name__, views[0].adversary, counts(observed, forward, knowledge))


def counts(observed: Observed, forward: Forward, knowledge: Knowledge) -> Int[Tensor, " C"]:
    """Label counts [C] that sum to the number of samples; where that is not known, the least one
    whose counts explain the gradient about as well as any other's.

    Raises:
        Lacking: the model has no last bias.
    """
    start, stop = last_bias(forward)
    P = class_outputs(forward, observed, knowledge).double()
    if observed.samples is None:
        tried = sizes(observed, forward)
        told = [_counted(observed, forward, P, n, start, stop) for n in tried]
        least = min(off for _, off in told)
        return next(found for found, off in told if off <= _AS_GOOD * least + 1e-12)
    return _counted(observed, forward, P, observed.samples, start, stop)[0]


def _counted(
    observed: Observed, forward: Forward, P: Float[Tensor, "C C"], n: int, start: int, stop: int
) -> tuple[Int[Tensor, " C"], float]:
    """Label counts that sum to n, and how far what they explain is from what was seen, relative to
    it.
    """
    mean = mean_gradient(observed, forward)[start:stop].double()
    mean = mean / forward.steps_on(max(1, n // observed.clients))
    A = (
        P - torch.eye(forward.classes, dtype=torch.float64, device=P.device)
    ).T  # column c: what a sample of class c adds
    clipped = forward.l2 < float("inf") and (
        observed.clients > 1 or float(observed.delta.norm()) >= forward.l2 * 0.999
    )
    shares = _shares(A, mean, free_scale=clipped)
    found = _rounded(shares * n, n)
    explained = A @ (found / n).double()
    if clipped:
        explained = explained * (explained @ mean / explained.square().sum().clamp(min=1e-30))
    return found, float((explained - mean).norm() / mean.norm().clamp(min=1e-30))


def class_outputs(
    forward: Forward, observed: Observed, knowledge: Knowledge
) -> Float[Tensor, "C C"]:
    """Mean softmax outputs by class (row) at the broadcast model: of auxiliary samples, or of
    random inputs for all classes alike.

    Raises:
        Lacking: samples are text, and there are no auxiliary ones.
    """
    number, fixed = observed.view.plan.number, frozen(observed.view, forward)
    model = Simulator(forward, observed.base, round=number, statistics=fixed).module
    held = knowledge.auxiliary
    if held is None or held.n == 0:
        if forward.tokens:
            raise Lacking("no random input stands in for text: give Knowledge(auxiliary=...).")
        like = observed.base
        low, high = forward.span(like)
        rng = knowledge.generator(11)
        x = low + (high - low) * torch.rand((_BATCH, *forward.shape), generator=rng)
        with torch.no_grad():
            return torch.softmax(model(x), dim=-1).mean(dim=0).expand(forward.classes, -1)
    with torch.no_grad():
        outputs = torch.cat(
            [torch.softmax(model(part), dim=-1) for part in torch.split(held.x, _BATCH)]
        )
    overall = outputs.mean(dim=0)
    rows = [
        outputs[held.y == c].mean(dim=0) if bool((held.y == c).any()) else overall
        for c in range(forward.classes)
    ]
    return torch.stack(rows)


def _shares(A: Tensor, mean: Tensor, *, free_scale: bool) -> Tensor:
    """Non-negative shares that sum to one (where the scale is known) and explain the mean
    gradient.
    """
    from scipy.optimize import nnls

    if free_scale:
        solved, _ = nnls(A.numpy(), mean.numpy())
    else:
        heavy = 10.0 * max(float(A.abs().max()), 1e-12)
        solved, _ = nnls(
            np.vstack([A.numpy(), np.full((1, A.shape[1]), heavy)]), np.append(mean.numpy(), heavy)
        )
    shares = torch.from_numpy(solved)
    return shares / shares.sum().clamp(min=1e-12)


def _rounded(wanted: Tensor, n: int) -> Int[Tensor, " C"]:
    """Integers that sum to n, by largest remainders."""
    floor = wanted.floor().long()
    short = n - int(floor.sum())
    order = (wanted - floor).argsort(descending=True)
    for i in range(abs(short)):
        floor[order[i % len(order)]] += 1 if short > 0 else -1
    return floor.clamp_(min=0)


def labels_of(counted: Int[Tensor, " C"]) -> Int[Tensor, " n"]:
    """Labels in ascending order from their counts.

    >>> labels_of(torch.tensor([1, 0, 2]))
    tensor([0, 2, 2])
    """
    return torch.repeat_interleave(torch.arange(len(counted), device=counted.device), counted)


def labels(observed: Observed, forward: Forward, knowledge: Knowledge) -> Int[Tensor, " n"]:
    """The batch's labels: known ones, the sign rule of iDLG for one sample, or counts.

    Raises:
        Lacking: neither is possible.
    """
    if knowledge.labels is not None:
        return knowledge.labels
    if observed.samples == 1:
        start, stop = last_bias(forward)
        return (-observed.delta[start:stop]).argmin().reshape(1)
    return labels_of(counts(observed, forward, knowledge))
