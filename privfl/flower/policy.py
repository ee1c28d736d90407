"""What the operator of a node allows, checked before anything is computed on its data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from privfl.config import Config
from privfl.core import PrivflError, RoundPlan
from privfl.engine.scenario import Scenario


class PolicyRefused(PrivflError):
    """A run or a round that the policy of this node does not allow, and the key that says so."""


class Policy(BaseModel):
    """What a node takes part in; the section ``policy`` of its file.

    ``channels`` and ``training`` are names that a run's channel and training may have; a channel
    with settings (``{name: secagg, mode: active}``) is one that a run gives these very settings.
    ``quorum``
    is the fewest clients whose sum (or rows) a channel may open. ``l2`` is the largest bound on an
    update, ``epsilon`` the most that all runs on this node's data may spend at ``delta`` (None: no
    limit, and noise is not asked for). ``code`` are the names ``module:Class`` that a run may use:
    the server's words run no other code here. ``repeatable``: whether it takes part in runs whose
    coins follow from a seed that everybody is told, which is for tests.

    >>> Policy(channels=["secagg"], training=["sgd"]).quorum
    2
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    channels: list[str | dict[str, Any]]
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
            if ":" in word and word not in self.code:  # as the catalog tells code from names
                raise PolicyRefused(
                    f"the run names the code '{word}', and policy.code does not list it."
                )
        for key, part, allowed in (
            ("channels", config.channel, self.channels),
            ("training", config.training, self.training),
        ):
            if not any(_meets(part, one) for one in allowed):
                listed = ", ".join(map(_said, allowed)) or "none"
                known = any(_meets(one, part["name"]) for one in allowed if isinstance(one, dict))
                said = _said(part) if known else part["name"]
                raise PolicyRefused(f"'{said}' is not in policy.{key} ({listed}).")
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

    def admit_round(self, scenario: Scenario, plan: RoundPlan, bounds: Mapping[str, float]) -> None:
        """Refuse a round by its plan; ``bounds`` are those on each part before noise.

        Raises:
            PolicyRefused: it opens what too few clients sent, or lets them send too much.
        """
        for part, l2 in bounds.items():
            if self.l2 is not None and not l2 <= self.l2:
                whose = "" if part == "delta" else f" on {part}"
                raise PolicyRefused(f"the bound{whose} is {l2:g}, and policy.l2 is {self.l2:g}.")
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


def _meets(part: Mapping[str, Any], allowed: str | Mapping[str, Any]) -> bool:
    """Whether a part has a name, or a name and these settings; what it leaves out it has not."""
    due = {"name": allowed} if isinstance(allowed, str) else allowed
    return "name" in due and all(key in part and part[key] == due[key] for key in due)


def _said(part: str | Mapping[str, Any]) -> str:
    """A part in a sentence: its name, and its settings where there are any."""
    if isinstance(part, str):
        return part
    settings = ", ".join(f"{key}: {value}" for key, value in part.items() if key != "name")
    return f"{part.get('name')}" + (f" {{{settings}}}" if settings else "")
