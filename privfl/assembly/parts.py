"""Parts of a config whose keys go to several objects: training, attackers, part bounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from privfl import catalog
from privfl.core import BUFFERS, Buffers, ClientId, ConfigError, LocalPlan, Seeds, unknown
from privfl.engine import Attacker, AttackSchedule, choose_clients
from privfl.training import Method

_PLAN_KEYS = ("batch_size", "epochs", "steps")
_BUFFERS = "buffers"
_SCHEDULE_KEYS = ("first", "last", "every", "rounds")
_TEAM_KEYS = ("clients", "fraction", "colluding")


def training(part: Mapping[str, Any]) -> Method:
    """A training method from its part; ``batch_size``, ``epochs``, ``steps`` and ``buffers`` stand
    beside its own keys.

    Raises:
        ConfigError: an unknown name or key, or a value out of range.

    >>> training({"name": "sgd", "lr": 0.5, "epochs": 2}).plan
    LocalPlan(batch_size=32, epochs=2, steps=None)
    """
    own = {key: value for key, value in part.items() if key not in (*_PLAN_KEYS, _BUFFERS)}
    gradient = own.get("gradient")
    if (
        isinstance(gradient, Mapping) and gradient.get("name") == "dp"
    ):  # it divides by the plan's batch size
        own["gradient"] = {"batch_size": part.get("batch_size", 32), **gradient}
    plan = {key: value for key, value in part.items() if key in _PLAN_KEYS}
    method: Method = catalog.build("training", catalog.TRAINING, own)
    if not plan:
        return method
    checked = catalog.build(
        "training", {part["name"]: LocalPlan}, {"name": part["name"], "batch_size": 32, **plan}
    )
    try:
        changed: Method = dataclasses.replace(method, plan=checked)  # type: ignore[type-var]
    except ConfigError as error:
        raise ConfigError(f"training '{part['name']}': {error}") from None
    return changed


def buffers(part: Mapping[str, Any]) -> Buffers | None:
    """What becomes of running statistics, from the part of a training method.

    Raises:
        ConfigError: none of the ways that there are.

    >>> buffers({"name": "sgd", "buffers": "frozen"})
    'frozen'
    """
    named = part.get(_BUFFERS)
    if named is not None and named not in get_args(Buffers):
        raise ConfigError(unknown("training.buffers", str(named), get_args(Buffers)))
    return named


def attacker(
    part: Mapping[str, Any], clients: Sequence[ClientId], seeds: Seeds, i: int
) -> Attacker:
    """Attacker number ``i``: its attack, which of the clients it has, and when it acts.

    Raises:
        ConfigError: an attack that only looks, an unknown name or key, or a value out of range.
    """
    own = {key: value for key, value in part.items() if key not in (*_SCHEDULE_KEYS, *_TEAM_KEYS)}
    when = {key: value for key, value in part.items() if key in _SCHEDULE_KEYS}
    if part["name"] in catalog.INFERENCE:
        raise ConfigError(
            f"attack '{part['name']}' only looks: it acts in no round. Run 'privfl audit' on the"
            " config, or its class on a run's view."
        )
    attack = catalog.build("attack", catalog.ATTACKS, own)
    schedule = catalog.build(
        "attack", {part["name"]: AttackSchedule}, {"name": part["name"], **when}
    )
    who = choose_clients(
        clients, seeds.generator("attackers", i), part.get("clients"), part.get("fraction")
    )
    return Attacker(part["name"], attack, who, schedule, part.get("colluding", True))


def part_bounds(given: Any, trained: Mapping[str, Any]) -> dict[str, float]:
    """The L2 bounds of a method's extra vectors, by part.

    Raises:
        ConfigError: a part that the method does not send, or a bound that is no number above 0.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"bound.parts gives an L2 bound to each part, and is {given!r}.")
    method = trained["name"]
    maker = catalog.TRAINING.get(method)
    known = [] if maker is None else list(training({"name": method}).parts(1))
    known += [BUFFERS] if buffers(trained) == "averaged" else []
    for part, l2 in given.items():
        if maker is not None and part not in known:
            sends = f"it sends {', '.join(known)}" if known else "it sends the delta alone"
            raise ConfigError(
                f"bound.parts bounds '{part}', which {method} does not send: {sends}."
            )
        if isinstance(l2, bool) or not isinstance(l2, int | float) or not l2 > 0:
            raise ConfigError(
                f"bound.parts: {part} needs a number above 0, its largest L2 norm, as in"
                f" {{{part}: 1.0}}, and is {l2!r}."
            )
    return {part: float(l2) for part, l2 in given.items()}
