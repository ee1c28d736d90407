"""What the operator of a node allows, checked before anything is computed on its data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from privfl.config import Config
from privfl.core import PrivflError, RoundPlan
from privfl.engine.scenario import Scenario

_FOREIGN = re.compile(r"\s*[A-Za-z_][\w.]*:[A-Za-z_][\w.]*\s*")


class PolicyRefused(PrivflError):
    """A run or a round that the policy of this node does not allow, and the key that says so."""


class Policy(BaseModel):
    """What a node takes part in; the section ``policy`` of its file.

    ``channels`` and ``training`` are names that a run's channel and training may have. ``quorum``
    is the fewest clients whose sum (or rows) a channel may open. ``l2`` is the largest bound on an
    update, ``epsilon`` the most that all runs on this node's data may spend at ``delta`` (None: no
    limit, and noise is not asked for). ``code`` are the names ``module:Class`` that a run may use:
    the server's words run no other code here. ``repeatable``: whether it takes part in runs whose
    coins follow from a seed that everybody is told, which is for tests.

    >>> Policy(channels=["secagg"], training=["sgd"]).quorum
    2
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    channels: list[str]
    training: list[str]
    quorum: Annotated[int, Field(ge=1)] = 2
    l2: Annotated[float, Field(gt=0)] | None = None
    epsilon: Annotated[float, Field(gt=0)] | None = None
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    code: list[str] = []
    repeatable: bool = False

    def admit_config(self, config: Config) -> None:
        """Refuse a run by its config, before a part of it is built or code of its imported.

        Raises:
            PolicyRefused: a channel, a training or code that is not listed; noise that a seed
                repeats; another delta.
        """
        for word in _texts(config.model_dump()):
            if _FOREIGN.fullmatch(word) and word.strip() not in self.code:
                raise PolicyRefused(
                    f"the run names the code '{word.strip()}', and policy.code does not list it."
                )
        for key, name, allowed in (
            ("channels", config.channel["name"], self.channels),
            ("training", config.training["name"], self.training),
        ):
            if name not in allowed:
                listed = ", ".join(allowed) or "none"
                raise PolicyRefused(f"'{name}' is not in policy.{key} ({listed}).")
        if config.repeatable and not self.repeatable:
            raise PolicyRefused("the run is repeatable, and policy.repeatable does not allow it.")
        if config.noise_seed is not None:
            raise PolicyRefused(
                f"noise_seed is {config.noise_seed}: noise that a seed repeats protects nobody."
            )
        if self.epsilon is not None and config.audit.delta != self.delta:
            raise PolicyRefused(
                f"audit.delta is {config.audit.delta:g}, and policy.delta {self.delta:g}: their"
                " epsilons are of two claims."
            )

    def admit_scenario(self, scenario: Scenario) -> None:
        """Refuse a run by its parts.

        Raises:
            PolicyRefused: policy.epsilon is set, and nothing adds noise.
        """
        if self.epsilon is not None and not scenario.noised_units:
            raise PolicyRefused(
                f"policy.epsilon is {self.epsilon:g}, and nothing in the run adds noise."
            )

    def admit_round(self, scenario: Scenario, plan: RoundPlan, l2: float) -> None:
        """Refuse a round by its plan; ``l2`` is the bound on the update before noise.

        Raises:
            PolicyRefused: it opens what too few clients sent, or lets them send too much.
        """
        if self.l2 is not None and not l2 <= self.l2:
            raise PolicyRefused(f"the bound is {l2:g}, and policy.l2 is {self.l2:g}.")
        fewest = scenario.channel.able.fewest(plan.n)
        if plan.n < self.quorum or fewest < self.quorum:
            raise PolicyRefused(
                f"a cohort of {plan.n} is opened from {fewest} contributions on, and policy.quorum"
                f" is {self.quorum}."
            )


def _texts(value: Any) -> Iterator[str]:
    """Every text in a config, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _texts(item)
