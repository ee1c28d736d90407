"""From what a channel opened to what the server releases and applies: seats before, the rule,
noise, seats after, and what they did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch

from privfl.aggregators import Verdict, judges, judges_after, judges_before, judges_with_memory
from privfl.aggregators.verdict import Accuses
from privfl.core import (
    Charge,
    Context,
    Judgement,
    Opened,
    Released,
    Rows,
    Total,
    Vector,
    after_the_rule,
    before_the_rule,
)
from privfl.dp.made import Made
from privfl.dp.memory import NoiseMemory
from privfl.dp.pipeline import post_processed
from privfl.engine.client import BITS
from privfl.engine.judging import Whose, disclosed_by, handed_on, judged, whose
from privfl.engine.order import Order
from privfl.engine.scenario import Scenario
from privfl.engine.state import RunState

T = TypeVar("T")


@dataclass(slots=True)
class Aggregate:
    """What was released by part, the parts of those that carry something (noise alone, where that
    hides that nobody came), the parts that the channel opened, the change of the model [d]
    that seats after it made of the delta, the server-side memory after it, what was charged, where
    an adaptive bound has got to, what fired, and what defences made of each client.
    """

    released: Mapping[str, Released] = field(default_factory=dict)
    made: tuple[str, ...] = ()
    opened: tuple[str, ...] = ()
    change: Released | None = None
    rules: dict[str, Any] = field(default_factory=dict)
    seats: dict[int, Any] = field(default_factory=dict)
    charges: tuple[Charge, ...] = ()
    fired: dict[str, str] = field(default_factory=dict)
    judgements: list[Judgement] = field(default_factory=list)
    bound: float | None = None

    @property
    def applied(self) -> Mapping[str, Released]:
        """What the server's half of the method is given, by part."""
        return self.released if self.change is None else {**self.released, "delta": self.change}


def aggregate(
    order: Order,
    opened: Mapping[str, Opened[Any] | None],
    state: RunState,
    memory: NoiseMemory | None = None,
) -> Aggregate:
    """One round's aggregation; ``memory`` is that of noise that hangs together over rounds.

    Raises:
        TooManyByzantine: too few rows for the rule.
        BadUpdate: rows that the rule cannot use.
    """
    scenario, number = order.scenario, order.plan.number
    rng = scenario.seeds.generator("rule", number)
    context = Context(order.plan, state.parameters, rng, state.released)
    done = Aggregate(rules=dict(state.rules), seats=dict(state.seats))
    made: dict[str, Made] = {}
    for part, plan in order.plans.items():
        main = opened[part]
        if main is None:
            if order.pipeline.noise_alone(plan.n):  # nobody came, which noise hides
                made[part] = Made(torch.zeros(plan.d), rows=0, survivors=0)
            continue
        here = _about(order, context, part)
        if part == BITS:
            vector = _sum(main.what)
        elif part == "delta":
            what, clients = _before(scenario, main, here, done)
            vector = _decide(scenario, what, clients, here, done)
        else:
            vector = _decide(scenario, main.what, whose(plan, main), here, done)
        rows = main.what.n if isinstance(main.what, Rows) else len(main.survivors)
        made[part] = Made(vector, rows, len(main.survivors))
    done.made = tuple(made)
    done.opened = tuple(part for part, one in made.items() if one.survivors)
    done.released, done.charges = order.pipeline.release(order.plans, made, scenario.noise, memory)
    _after(scenario, context, done)
    return done


def _about(order: Order, context: Context, part: str) -> Context:
    """What a rule may use for a part: of one that is no change of the parameters, the server's own
    vector in their place, which is zero where it keeps none.
    """
    plan = order.plans[part]
    if plan.d == len(context.parameters):
        return replace(context, plan=plan)
    own = order.base.aux.get(part)
    if own is None or len(own) != plan.d:
        own = torch.zeros(plan.d)
    return replace(context, plan=plan, parameters=own)


def _sum(what: Rows | Total) -> Vector:
    """The sum of the bits that got through."""
    return what.weights.to(what.values) @ what.values if isinstance(what, Rows) else what.value


def _before(
    scenario: Scenario, opened: Opened[Any], context: Context, done: Aggregate
) -> tuple[Any, Whose | None]:
    """What the rule is given, and whose rows these are."""
    inside, n = scenario.channel.able.hosts, context.plan.n
    what, clients = opened.what, whose(context.plan, opened)
    if inside is not None:
        if isinstance(what, Total) and what.count < n:
            done.fired[f"{type(inside).__name__} inside the channel"] = (
                f"counted {what.count} of {n} updates"
            )
        hidden = disclosed_by(inside, opened, context.plan.part)
        done.judgements += [] if hidden is None else [hidden]
    for i, defence in enumerate(scenario.defences):
        if not before_the_rule(defence):
            continue
        if judges_before(defence):
            verdict, done.seats[i] = defence.judge_before(what, done.seats[i], context)
            name = _name(scenario, i)
            _judged(done, defence, verdict, clients, name)
            clients = handed_on(verdict, clients)
            what = _told(done, name, verdict, what)
        else:
            what, done.seats[i] = defence.before(what, done.seats[i], context)
            clients = whose(context.plan, replace(opened, what=what, disclosed={}))
    return what, clients


def _decide(
    scenario: Scenario, what: Any, clients: Whose | None, context: Context, done: Aggregate
) -> Vector:
    rule, part = scenario.aggregator, context.plan.part
    name = _name(scenario, len(scenario.defences))
    if rule.remembers:
        if judges_with_memory(rule):
            verdict, done.rules[part] = rule.judge_step(what, done.rules[part], context)
            _judged(done, rule, verdict, clients, name, part)
            return _told(done, name, verdict, what, part)
        vector, done.rules[part] = rule.step(what, done.rules[part], context)
        return vector
    if judges(rule):
        verdict = rule.judge(what)
        _judged(done, rule, verdict, clients, name, part)
        return _told(done, name, verdict, what, part)
    plain: Vector = rule(what)
    return plain


def _name(scenario: Scenario, seat: int) -> str:
    """The class of a seat, by its place among the defences and the rule, which is last; numbered
    from the second of its class on, so that no two seats are taken for one.
    """
    names = [type(one).__name__ for one in (*scenario.defences, scenario.aggregator)]
    place = names[: seat + 1].count(names[seat])
    return names[seat] if place == 1 else f"{names[seat]} {place}"


def _judged(
    done: Aggregate,
    seat: Accuses,
    verdict: Verdict[Any],
    clients: Whose | None,
    name: str,
    part: str = "delta",
) -> None:
    one = judged(seat, verdict, clients, part, name)
    done.judgements += [] if one is None else [one]


def _told(
    done: Aggregate, name: str, verdict: Verdict[T], rows: Rows | None, part: str = "delta"
) -> T:
    if verdict.fired:
        done.fired[name if part == "delta" else f"{name} ({part})"] = verdict.words(
            None if rows is None else rows.ids
        )
    return verdict.out


def _after(scenario: Scenario, context: Context, done: Aggregate) -> None:
    """The seats after the rule read what was released, and nothing from before it."""
    change = done.released["delta"]
    for i, defence in enumerate(scenario.defences):
        if not after_the_rule(defence):
            continue
        if judges_after(defence):
            verdict, done.seats[i] = defence.judge_after(change, done.seats[i], context)
            vector = _told(done, _name(scenario, i), verdict, None)
        else:
            vector, done.seats[i] = defence.after(change, done.seats[i], context)
        change = post_processed(change, vector)
    done.change = change


def merged(state: RunState, done: Aggregate, remembers: bool) -> RunState:
    """The state with the aggregation's memory in it. Noise alone is remembered as what it hides
    would be: else what is remembered tells whether anybody was drawn.
    """
    rules = done.rules if remembers else state.rules
    released = {**state.released, **{part: done.released[part] for part in done.made}}
    return replace(state, seats=done.seats, rules=rules, released=released)
