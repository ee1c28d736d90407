"""An attack tuned where the truth is known: on updates that the adversary makes of its own samples
as the deployment would, at the model that was broadcast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.inference import Observed
from privfl.attacks.inversion.simulate import Simulator, frozen
from privfl.attacks.inversion.statistics import listening
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.result import Reconstruction
from privfl.core import BUFFERS

Setting = TypeVar("Setting")


@dataclass(frozen=True, slots=True)
class Victim:
    """An update that the adversary made itself, the samples [n, ...] in it, and which of its own
    they are [n].
    """

    observed: Observed
    samples: Tensor
    picked: Tensor


def victims(
    observed: Observed, forward: Forward, knowledge: Knowledge, size: int, count: int
) -> list[Victim]:
    """So many shadow victims of ``size`` auxiliary samples: through the recipe's local steps, clip
    and noise, from the broadcast model; none where there are too few samples that fit it.
    """
    held = fitting(knowledge, forward).auxiliary
    if held is None or held.n < size:
        return []
    rng = knowledge.generator(41)
    view = observed.view
    simulator = Simulator(
        forward,
        observed.base,
        round=view.plan.number,
        clients=observed.clients,
        statistics=frozen(view, forward),
    )
    made = []
    for _ in range(count):
        pick = torch.randperm(held.n, generator=rng)[:size]
        with listening(simulator.norms) as heard:
            delta = simulator.update(held.x[pick], held.y[pick]).detach()
        delta = delta + observed.noise * torch.randn(delta.shape, generator=rng)
        moved = None
        if observed.buffers is not None and simulator.norms:
            start = view.extra[BUFFERS]
            moved = heard.change(start, observed.clients, forward.buffers_l2).detach()
        seen = replace(observed, delta=delta, samples=size, buffers=moved)
        made.append(Victim(seen, held.x[pick], pick))
    return made


def fitting(knowledge: Knowledge, forward: Forward) -> Knowledge:
    """What is known, with those own samples alone that the model takes: finite, and of its classes
    (none where all are of another shape or type).
    """
    held = knowledge.auxiliary
    if held is None or forward.tokens:
        return knowledge
    if tuple(held.x.shape[1:]) != forward.shape or held.x.dtype != torch.float32:
        return replace(knowledge, auxiliary=None)
    fits = held.x.flatten(1).isfinite().all(dim=1)
    if held.y.ndim == 1 and not held.y.is_floating_point():
        fits &= (held.y >= 0) & (held.y < forward.classes)
    if bool(fits.all()):
        return knowledge
    return replace(knowledge, auxiliary=held.take(fits.nonzero().squeeze(1)))


def apart(knowledge: Knowledge, practice: Sequence[Victim]) -> Knowledge:
    """What is known at a rehearsal: no labels, and own samples but those that are looked for, so
    that a prior made of own samples is tried on others (none where hardly any are left, or those
    are all alike).
    """
    held = knowledge.auxiliary
    if held is not None and practice:
        others = torch.ones(held.n, dtype=torch.bool)
        others[torch.cat([victim.picked for victim in practice])] = False
        left = held.take(others.nonzero().squeeze(1))
        held = left if bool((left.x != left.x[:1]).any()) else None
    return replace(knowledge, labels=None, auxiliary=held)


def best(
    settings: Sequence[Setting],
    practice: Sequence[Victim],
    attack: Callable[[Setting, Observed], Reconstruction],
    span: Float[Tensor, "..."],
) -> Setting:
    """The setting with the greatest mean PSNR over the shadow victims: the worse half of what is
    left is dropped after each of them, until two are (successive halving, Jamieson and Talwalkar
    2016).
    """
    told: dict[int, list[float]] = {at: [] for at in range(len(settings))}
    left = list(told)
    for victim in practice:
        for at in left:
            found = attack(settings[at], victim.observed).samples
            told[at].append(psnr(found / span, victim.samples / span))
        left.sort(key=lambda at: -sum(told[at]) / len(told[at]))
        left = left[: max(2, -(-len(left) // 2))]
    return settings[left[0]] if practice else settings[0]


def psnr(found: Tensor, true: Tensor) -> float:
    """Mean PSNR in dB at a peak of 1 after matching (Hungarian, on squared error).

    >>> round(psnr(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.1], [0.1]])), 3)
    20.0
    """
    from scipy.optimize import linear_sum_assignment

    if len(found) < len(true):
        found = torch.cat([found, found[-1:].expand(len(true) - len(found), *found.shape[1:])])
    errors = torch.cdist(true.flatten(1).double(), found.flatten(1).double()).square()
    rows, columns = linear_sum_assignment(errors.numpy())
    mse = errors[torch.from_numpy(rows), torch.from_numpy(columns)] / true[0].numel()
    return float(-10 * mse.clamp(min=1e-14).log10().mean())
