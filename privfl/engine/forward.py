"""The public recipe of a run, as every participant is told it: what an adaptive attack
simulates.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from privfl.attacks import Forward
from privfl.core import BUFFERS, CPU, Bound, FlatModel, Loss, Mechanism, Sensitivity, WithMemory
from privfl.core.dataset import Dataset
from privfl.engine.encoding import seat_facts
from privfl.engine.scenario import Scenario
from privfl.engine.session import MAIL
from privfl.training import Method, WithStatistics


def forward_in(scenario: Scenario) -> Forward:
    """The forward model of a scenario's run."""
    work = scenario.workload
    made = forward_of(
        work.model, work.loss, work.method, work.data, scenario.bound, scenario.mechanism
    )
    return replace(
        made,
        buffers_l2=float(scenario.part_bound(BUFFERS).l2),
        data_seats=tuple(scenario.data_seats),
    )


def facts_in(scenario: Scenario) -> dict[str, Any]:
    """What everybody is told of a run beside its own facts: whose word a letter's label is, the
    forward model, and what data seats are worth.
    """
    facts = {"mail": MAIL[scenario.mail], "forward": forward_in(scenario)}
    return facts | seat_facts(scenario)


def forward_of(
    model: FlatModel,
    loss: Loss,
    method: Method,
    data: Dataset,
    bound: Bound,
    mechanism: Mechanism | WithMemory | None,
) -> Forward:
    """The forward model of a run, on the CPU, where views are. Features' range is that which the
    data set says is public (`Dataset.span`), and unknown where it says none: the data themselves
    are not looked at.

    Noise that each client adds is known by its mechanism and the clip.
    """
    recipe = method.recipe
    low, high = data.span or ((), ())
    local = 0.0
    if mechanism is not None and not mechanism.remembers and bound.l2 < float("inf"):
        local = mechanism.local_deviation(Sensitivity(2 * bound.l2))
    made = Forward(
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
        buffers=method.policy if isinstance(method, WithStatistics) else None,
    )
    return made.to(CPU)
