"""Edge-case backdoors in every round (Wang, Sreenivasan et al. 2020): poisoned data alone,
projected gradient descent inside of what a defence lets through, and the same with replacement.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.harness import Row, gain
from benchmarks.robustness.evading import FEW, TRAINING, Room
from benchmarks.robustness.workers import Experiment, Played, between, one_each
from privfl import aggregators, attacks
from privfl.attacks import EdgeCase

COHORT, ROUNDS = 10, 10
RULES: Mapping[str, Any] = {
    "no defence": lambda bound: {},
    "norm clipping": lambda bound: {"defences": [aggregators.NormClipping(bound=bound)]},
    "Krum": lambda bound: {"aggregator": aggregators.Krum(f=1)},
    "Multi-Krum": lambda bound: {"aggregator": aggregators.Krum(f=1, m=COHORT - 1)},
    "RFA": lambda bound: {"aggregator": aggregators.RFA()},
}
NOBODY = "nobody attacks"


def lies(tail: EdgeCase, bound: float) -> Mapping[str, Any]:
    """The attacks by name; ``bound`` is the median honest norm, which clipping has too."""
    return {
        NOBODY: None,
        "data alone": tail,
        "PGD": attacks.ProjectedGradient(tail, TRAINING, radius=bound),
        "PGD, a third": attacks.ProjectedGradient(tail, TRAINING, radius=bound / 3),
        "PGD and replacement": attacks.ProjectedGradient(
            tail, TRAINING, gamma=None, radius=bound / COHORT
        ),
    }


def tail_rounds(seed: int) -> dict[tuple[str, str], tuple[float, float]]:
    """Backdoor and main task after ten rounds of ten, in each of which the same client attacks."""
    room = Room.of(seed)
    unit = room.round(FEW, 0, room.tail, rows=True)["honest norm"]
    found = {}
    for rule, parts in RULES.items():
        for lie, attack in lies(room.tail, unit).items():
            one = room.round(COHORT, int(attack is not None), attack, rounds=ROUNDS, **parts(unit))
            found[rule, lie] = one["backdoor"], one["main"]
    return found


def tails(played: Played) -> Iterable[Row]:
    """What each defence lets in, of each attack, beside a model that nobody attacked."""
    each: Sequence[dict[tuple[str, str], tuple[float, float]]] = played.each
    for rule, lie in each[0]:
        for at, figure in enumerate(("backdoor", "main")):
            values = [found[rule, lie][at] for found in each]
            quiet = statistics.mean(found[rule, NOBODY][at] for found in each)
            what = f"{figure}, {rule}, {lie}"
            yield gain("tails", NOBODY, what, statistics.mean(values), quiet or 1e-3)
            yield between("tails", what, values)


TAILS = Experiment(tail_rounds, one_each, tails)
