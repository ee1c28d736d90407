"""From what a channel opened to the change that the server applies: seats before, the rule, noise,
seats after, and what they did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch

from privfl.aggregators import Verdict, judges, judges_after, judges_before, judges_with_memory
from privfl.core import (
    Charge,
    Context,
    DpEvent,
    Opened,
    RoundPlan,
    Rows,
    Sampling,
    Seeds,
    Total,
    Vector,
    after_the_rule,
    before_the_rule,
)
from privfl.engine.scenario import Scenario
from privfl.engine.state import RunState

T = TypeVar("T")


@dataclass(slots=True)
class Aggregate:
    """The change [d], the extra vectors' aggregates, the server-side memory after it, what was
    charged, and what fired.
    """

    vector: Vector
    aux: dict[str, Vector] = field(default_factory=dict)
    rules: dict[str, Any] = field(default_factory=dict)
    seats: dict[int, Any] = field(default_factory=dict)
    charges: list[Charge] = field(default_factory=list)
    fired: dict[str, str] = field(default_factory=dict)
    bound: float | None = None


def aggregate(
    scenario: Scenario,
    plan: RoundPlan,
    opened: Mapping[str, Opened[Any] | None],
    parts: Mapping[str, int],
    state: RunState,
    local: DpEvent | None,
) -> Aggregate:
    """One round's aggregation. ``parts`` are the lengths of the extra vectors, ``local`` the event
    of the clients' own noise.

    Raises:
        TooManyByzantine: too few rows for the rule.
        BadUpdate: rows that the rule cannot use.
    """
    context = Context(plan, state.parameters, Seeds(scenario.seed).generator("rule", plan.number))
    done = Aggregate(torch.zeros(plan.d), rules=dict(state.rules), seats=dict(state.seats))
    main = opened["delta"]
    if main is not None:
        inside = scenario.channel.able.hosts
        if isinstance(main.what, Total) and inside is not None and main.what.count < plan.n:
            done.fired[f"{type(inside).__name__} inside the channel"] = (
                f"counted {main.what.count} of {plan.n} updates"
            )
        what = _before(scenario, main.what, context, done)
        done.vector = _decide(scenario, "delta", what, context, done)
    for part, length in parts.items():
        seen = opened[part]
        done.aux[part] = (
            torch.zeros(length)
            if seen is None
            else _decide(scenario, part, seen.what, context, done)
        )
    _noise(scenario, plan, main, done, local)
    for i, defence in enumerate(scenario.defences):
        if not after_the_rule(defence):
            continue
        if judges_after(defence):
            verdict, done.seats[i] = defence.judge_after(done.vector, done.seats[i], context)
            done.vector = _told(done, defence, verdict, None)
        else:
            done.vector, done.seats[i] = defence.after(done.vector, done.seats[i], context)
    return done


def _before(scenario: Scenario, what: Any, context: Context, done: Aggregate) -> Any:
    for i, defence in enumerate(scenario.defences):
        if not before_the_rule(defence):
            continue
        if judges_before(defence):
            verdict, done.seats[i] = defence.judge_before(what, done.seats[i], context)
            what = _told(done, defence, verdict, what)
        else:
            what, done.seats[i] = defence.before(what, done.seats[i], context)
    return what


def _decide(scenario: Scenario, part: str, what: Any, context: Context, done: Aggregate) -> Vector:
    rule = scenario.aggregator
    if rule.remembers:
        if judges_with_memory(rule):
            verdict, done.rules[part] = rule.judge_step(what, done.rules[part], context)
            return _told(done, rule, verdict, what, part)
        vector, done.rules[part] = rule.step(what, done.rules[part], context)
        return vector
    if judges(rule):
        return _told(done, rule, rule.judge(what), what, part)
    plain: Vector = rule(what)
    return plain


def _told(
    done: Aggregate, who: object, verdict: Verdict[T], rows: Rows | None, part: str = "delta"
) -> T:
    if verdict.fired:
        name = type(who).__name__ if part == "delta" else f"{type(who).__name__} ({part})"
        done.fired[name] = verdict.words(None if rows is None else rows.ids)
    return verdict.out


def _noise(
    scenario: Scenario,
    plan: RoundPlan,
    opened: Opened[Any] | None,
    done: Aggregate,
    local: DpEvent | None,
) -> None:
    survivors = 0 if opened is None else len(opened.survivors)
    population = len(scenario.clients)
    sampling = scenario.sampler.sampling(population)
    shares = scenario.channel.able.noise
    if shares is not None and survivors:
        _charge(scenario, plan, shares.noise_event(plan, survivors), sampling, done)
    if scenario.mechanism is None:
        return
    if scenario.local_noise:
        if (
            local is not None
        ):  # everybody's own release, seen by the server round by round: no sampling hides it
            done.charges.append(
                Charge(
                    plan.number,
                    local,
                    Sampling("all", 1.0, population),
                    unit="client",
                    relation="replace_one",
                    cohort_hidden=False,
                    cohort=plan.cohort,
                    repeatable_noise=scenario.noise.repeatable,
                )
            )
        return
    rows = opened.what.n if opened is not None and isinstance(opened.what, Rows) else survivors
    done.vector, event = scenario.mechanism.release(
        done.vector, scenario.sensitivity(rows), survivors, scenario.noise
    )
    _charge(scenario, plan, event, sampling, done)


def _charge(
    scenario: Scenario, plan: RoundPlan, event: DpEvent | None, sampling: Sampling, done: Aggregate
) -> None:
    if event is not None:
        done.charges.append(
            Charge(
                plan.number,
                event,
                sampling,
                unit="client",
                relation=scenario.relation(),
                uniform=plan.max_weight == 1.0,
                public_denominator=scenario.aggregator.public_denominator is not None,
                repeatable_noise=scenario.noise.repeatable,
            )
        )


def merged(state: RunState, done: Aggregate, remembers: bool) -> RunState:
    """The state with the aggregation's memory in it."""
    return replace(state, seats=done.seats, rules=done.rules if remembers else state.rules)
