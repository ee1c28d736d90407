"""What is charged beside a round's own vectors: noisy steps of other things, rounds that are played
again, blocks of rounds whose noise hangs together; and how colluders see a sample drawn.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from privfl.core import Against, Charge, Neighbours, NoisySteps, RunNoise, Sampling
from privfl.dp.joint import together
from privfl.dp.memory import NoiseMemory


def stepped(
    round: int,
    steps: Collection[NoisySteps],
    neighbours: Neighbours,
    subject: str = "",
    *,
    against: Against = "model_recipients",
) -> tuple[Charge, ...]:
    """What noisy steps outside of a round's vectors cost whoever ``neighbours`` are about, in the
    eyes of the adversary that ``against`` names: a client's training, votes, a fitted model.

    >>> from privfl.core import DpEvent
    >>> once = NoisySteps(DpEvent("gaussian", {"noise_multiplier": 2.0}), Sampling("all", 1.0, 9))
    >>> [charge] = stepped(0, (once,), Neighbours("client", "replace_one"))
    >>> charge.subject, charge.count
    ('client', 1)
    """
    return tuple(
        Charge(
            round,
            step.event,
            step.sampling,
            unit=neighbours.unit,
            relation=step.relation or neighbours.relation,
            subject=subject or neighbours.unit,
            repeatable_noise=step.repeatable,
            count=step.count,
            against=against,
            coins=step.coins,
        )
        for step in steps
    )


def played_again(
    before: Sequence[Charge], now: Sequence[Charge], *, redrawn: bool = False
) -> tuple[Charge, ...]:
    """What a round costs altogether that was charged with ``before`` and is played again, ``now``,
    on the samples that were drawn for it the first time, with fresh noise.

    Sampled releases compose when each draws a sample of its own. These share theirs: Gaussians are
    one Gaussian of both attempts, and anything else is charged as if everybody saw the sample.
    ``redrawn``: secret coins were forgotten after the first attempt, and this one drew samples of
    its own with others, so each is charged as it is.

    >>> from privfl.core import DpEvent
    >>> drawn = Sampling("poisson", 0.1, 100)
    >>> noise = DpEvent("gaussian", {"noise_multiplier": 2.0})
    >>> one = Charge(0, noise, drawn, "client", "add_remove")
    >>> [both] = played_again((one,), (one,))
    >>> round(both.event.parameters["noise_multiplier"], 4)
    1.4142
    """
    left, made = list(before), []
    for charge in now:
        shared = _amplifies(charge) and not (redrawn and charge.coins == "secret")
        same = [i for i, one in enumerate(left) if shared and _of(one) == _of(charge)]
        alike = [i for i in same if replace(left[i], event=charge.event) == charge]
        joint = together((left[alike[0]].event, charge.event)) if alike else ()
        if len(joint) == 1:
            del left[alike[0]]
            made.append(replace(charge, event=joint[0]))
            continue
        for i in same:
            left[i] = replace(left[i], cohort_hidden=False)
        made.append(replace(charge, cohort_hidden=False) if same else charge)
    return (*left, *made)


def over_block(charge: Charge, run: RunNoise[Any], memory: NoiseMemory) -> Charge:
    """The charge of a round of correlated noise as that of all rounds of its block."""
    spans = replace(charge, round=memory.first, last=charge.round, cohort=None)
    drawn = run.sampled(memory.rows(charge.round)) if charge.cohort_hidden else None
    if drawn is None:
        return replace(spans, sampling=Sampling("all", 1.0, charge.sampling.population))
    turns = Sampling("poisson", run.participation.rate, charge.sampling.population)
    return replace(spans, sampling=turns, count=drawn[1])


def _of(charge: Charge) -> tuple[int, str, str]:
    """Whom a charge is about, and when."""
    return charge.round, charge.unit, charge.subject


def _amplifies(charge: Charge) -> bool:
    """Whether a charge is cheaper for those who were not drawn."""
    drawn = charge.sampling.scheme in ("poisson", "fixed_size") and charge.sampling.rate < 1
    return drawn and charge.cohort_hidden
