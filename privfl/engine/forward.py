"""The public recipe of a run, as every participant is told it: what an adaptive attack
simulates.
"""

from __future__ import annotations

from privfl.attacks import Forward
from privfl.core import Bound, FlatModel, Loss, Mechanism, Sensitivity, WithMemory
from privfl.core.dataset import Dataset
from privfl.training import Method


def forward_of(
    model: FlatModel,
    loss: Loss,
    method: Method,
    data: Dataset,
    bound: Bound,
    mechanism: Mechanism | WithMemory | None,
) -> Forward:
    """The forward model of a run. Features' range is that of the data set by channel, which is
    public (pixels, scaled columns).

    Noise that each client adds is known by its mechanism and the clip.
    """
    recipe = method.recipe
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    if data.ranges is not None:
        low, high = data.ranges
    elif data.x.is_floating_point() and data.n:
        by_channel = data.x.transpose(0, 1).flatten(1) if data.x.ndim > 1 else data.x[None]
        low, high = tuple(by_channel.amin(dim=1).tolist()), tuple(by_channel.amax(dim=1).tolist())
    local = 0.0
    if mechanism is not None and not mechanism.remembers and bound.l2 < float("inf"):
        local = mechanism.local_deviation(Sensitivity(2 * bound.l2))
    return Forward(
        module=model.module,
        loss=loss,
        shape=tuple(data.x.shape[1:]),
        classes=data.classes,
        lr=recipe.lr,
        low=low,
        high=high,
        batch_size=recipe.plan.batch_size,
        epochs=recipe.plan.epochs,
        steps=recipe.plan.steps,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        prox=recipe.prox,
        decay=recipe.decay,
        weighted=method.weighting == "samples",
        l2=float(bound.l2),
        local_noise=local,
    )
