"""The public recipe of a run, as every participant is told it: what an adaptive attack
simulates.
"""

from __future__ import annotations

from typing import Any

from privfl.attacks import Forward
from privfl.core import Bound, FlatModel, LocalPlan, Loss, Mechanism
from privfl.core.dataset import Dataset


def forward_of(
    model: FlatModel,
    loss: Loss,
    method: Any,
    data: Dataset,
    bound: Bound,
    mechanism: Mechanism | None,
) -> Forward:
    """The forward model of a run. Features' range is that of the data set by channel, which is
    public (pixels, scaled columns).

    Noise that each client adds is known by its multiplier and the clip; mechanisms without a
    multiplier add none that is modelled.
    """
    plan: LocalPlan = getattr(method, "plan", LocalPlan(batch_size=32))
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    if data.x.is_floating_point() and data.n:
        by_channel = data.x.transpose(0, 1).flatten(1) if data.x.ndim > 1 else data.x[None]
        low, high = tuple(by_channel.amin(dim=1).tolist()), tuple(by_channel.amax(dim=1).tolist())
    kind = type(mechanism).__name__.lower()
    z = float(getattr(mechanism, "noise_multiplier", 0.0))
    local = 2 * z * bound.l2 if "local" in kind and bound.l2 < float("inf") else 0.0
    return Forward(
        module=model.module,
        loss=loss,
        shape=tuple(data.x.shape[1:]),
        classes=data.classes,
        lr=float(getattr(method, "lr", 1.0)),
        low=low,
        high=high,
        batch_size=plan.batch_size,
        epochs=plan.epochs,
        steps=plan.steps,
        momentum=float(getattr(method, "momentum", 0.0)),
        nesterov=bool(getattr(method, "nesterov", False)),
        weight_decay=float(getattr(method, "weight_decay", 0.0)),
        prox=float(getattr(method, "prox", 0.0)),
        decay=float(getattr(method, "decay", 1.0)),
        weighted=getattr(method, "weighting", "samples") == "samples",
        l2=float(bound.l2),
        local_noise=local,
    )
