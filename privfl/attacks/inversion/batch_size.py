"""How many samples an update was made of, where nobody says so: sizes are tried, and the least that
explains the update as well as it should is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.inference import Lacking, Observed
from privfl.attacks.inversion.first_layer import first_layer
from privfl.attacks.inversion.rehearsal import victims
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.result import Reconstruction

SIZES = (1, 2, 4, 8, 16, 32)
"""What is tried where nothing tells the number."""
_GAP = 10.0
"""A rank counts where the spectrum falls by so much behind it."""
_SHADOWS = 3
"""So many updates of known samples say how small the objective gets where the size is right."""


def rank(weight: Float[Tensor, "m inputs"], floor: float = 0.0) -> tuple[int, float]:
    """The numerical rank of a layer's update, and by how much its spectrum falls behind it.

    Values under the rounding of float32, or under ``floor``, are as good as zero: neurons that are
    dead leave exact zeros, and a gap between a rounding error and a zero says nothing.

    >>> rank(torch.diag(torch.tensor([1.0, 0.5, 1e-12, 0.0])))[0]
    2
    """
    values = torch.linalg.svdvals(weight.double())
    eps = torch.finfo(torch.float32).eps
    least = max(float(values[0]) * 4 * eps * math.sqrt(max(weight.shape)), floor, 1e-300)
    ratios = values[:-1].clamp(min=least) / values[1:].clamp(min=least)
    if not len(ratios):
        return 1, float("inf")
    full = float(values[-1]) / least
    at = int(ratios.argmax())
    return (at + 1, float(ratios[at])) if float(ratios[at]) > full else (len(values), full)


def sizes(observed: Observed, forward: Forward) -> tuple[int, ...]:
    """The numbers of samples to try, in ascending order: the public one; the rank of a linear
    first layer's update, which is the number of samples where they are fewer than the layer is
    wide; else powers of two from one sample a client.
    """
    if observed.samples is not None:
        return (observed.samples,)
    several = tuple(observed.clients * size for size in SIZES)
    try:
        weight, _, _ = first_layer(observed, forward)
    except Lacking:
        return several
    m, inputs = weight.shape
    width, gap = rank(weight, observed.noise * (math.sqrt(m) + math.sqrt(inputs)))
    if gap < _GAP or width >= min(m, inputs):
        return several
    return (width,)


def tried(
    observed: Observed,
    forward: Forward,
    knowledge: Knowledge,
    attack: Callable[[Observed], Reconstruction],
) -> Reconstruction:
    """What an attack finds at the size that explains the update.

    A size is accepted where the objective ends no higher than it does on updates that the adversary
    makes itself, of so many of its own samples, at the same model (a rehearsal; the worst of
    three); the least such size is the answer. Without auxiliary samples, or where none is accepted,
    it is the size whose objective is least.

    Raises:
        Lacking: at no size the attack applies.
    """
    shortlist = sizes(observed, forward)
    found: list[Reconstruction] = []
    refused: Lacking | None = None
    for size in shortlist:
        try:
            told = attack(replace(observed, samples=size))
        except Lacking as reason:
            refused = reason
            continue
        if len(shortlist) == 1:
            return told
        found.append(replace(told, notes={**told.notes, "samples, guessed": size}))
        if told.mismatch <= _expected(observed, forward, knowledge, attack, size):
            return found[-1]
    if not found:
        raise refused or Lacking("no number of samples was tried.")
    return min(found, key=lambda told: told.mismatch)


def _expected(
    observed: Observed,
    forward: Forward,
    knowledge: Knowledge,
    attack: Callable[[Observed], Reconstruction],
    size: int,
) -> float:
    """The objective that the attack ends with on updates of ``size`` auxiliary samples, at worst;
    minus infinity where there are none.
    """
    worst = -float("inf")
    for shadow in victims(observed, forward, knowledge, size, _SHADOWS):
        try:
            worst = max(worst, attack(shadow.observed).mismatch)
        except Lacking:
            continue
    return worst
