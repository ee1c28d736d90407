"""What holds of every rule: pure, symmetric as declared, hard to move as declared, and no more than
declared to one client.
"""

from __future__ import annotations

import copy
import inspect
import math
import typing
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from privfl.aggregators import ToleratesByzantine
from privfl.core import (
    BadUpdate,
    NeighbourRelation,
    PrivflError,
    Reads,
    Rows,
    Rule,
    RuleWithMemory,
    TooManyByzantine,
    Total,
)
from privfl.engine.compatibility import AnyRule
from privfl.testing.building import Subject, checks_of
from privfl.testing.check import Broken, Check, expect, run_all
from privfl.testing.rows import (
    D,
    N,
    aggregate,
    context,
    crowd,
    liars,
    of,
    opened_for,
    stands,
)
from privfl.testing.rule_search import farthest, widest_gap
from privfl.testing.rule_symmetries import all_declared, declared_symmetries, symmetries_hold
from privfl.testing.stability import declared_sensitivity
from privfl.testing.verdicts import told

RELATIONS: tuple[NeighbourRelation, ...] = typing.get_args(NeighbourRelation)
NEAR, FAR = 1.5, 100.0
"""Of a rule that liars move by a bounded distance none may be seen farther out than the first, in
units of how far honest rows reach; one that breaks must be seen beyond the second.
"""


def check_rule(rule: Any) -> None:
    """Check a rule: an object, a class (each of its ``examples``), or a function that makes one.

    Raises:
        ConformanceError: the first property that does not hold, with what was tried, what came of
            it, and what to change.

    >>> from privfl.aggregators import Median
    >>> check_rule(Median)
    >>> class Sum(Median):
    ...     def __call__(self, opened):
    ...         return opened.values.mul_(2).mean(dim=0)
    >>> check_rule(Sum)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    privfl.testing.check.ConformanceError: Sum: it does not hold that ...
    """
    run_all(rule_checks(rule))


def rule_checks(rule: Any) -> Iterator[Check]:
    """The single checks of `check_rule`, as callables for a test runner.

    >>> from privfl.aggregators import Mean
    >>> [str(check) for check in rule_checks(Mean(weighted=False))][0]
    'Mean: it declares what it reads, needs and fills, as its types and methods say'
    """
    yield from checks_of(rule, _checks, "rule")
    if isinstance(rule, type):
        yield Check(
            rule.__name__,
            "every symmetry that all its settings have is declared",
            partial(all_declared, rule),
        )


def _checks(subject: Subject) -> Iterator[Check]:
    rule: AnyRule = subject.made
    properties: list[tuple[str, Callable[[AnyRule], None]]] = [
        ("it declares what it reads, needs and fills, as its types and methods say", _declares),
        ("it makes one finite vector [d] of n rows, the same of the same rows", _one_vector),
        ("the rows and the state that go in stay as they were", _pure),
        ("it does not look at names of clients unless it declares that", _ids),
        ("declared symmetries hold", symmetries_hold),
        ("rows that are not finite are dropped or refused by name", _not_finite),
        ("more bad rows than it stands are refused", _too_many),
        ("equal, zero and single rows give finite results", _degenerate),
        ("no rows at all are refused", _none),
        ("liars move it by a bounded distance, unless it says why not", _robust),
        ("what it did can be read beside the result", told),
    ]
    for says, run in properties:
        yield Check(subject.name, says, partial(run, rule))
    for relation in RELATIONS:
        yield Check(
            subject.name,
            f"one client moves it no farther than it declares, under {relation}",
            partial(_sensitivity, rule, relation),
        )


def _declares(rule: AnyRule) -> None:
    there = set(dir(rule))
    told = _TOLD if "judges" in there and rule.judges else ()
    missing = [name for name in (*_DECLARED, *told) if name not in there]
    expect(
        not missing,
        f"it declares no {', '.join(missing)}",
        "declare them on the class, or inherit privfl.aggregators.RowRule or MemoryRule",
    )
    protocol: Any = RuleWithMemory if rule.remembers else Rule
    expect(
        isinstance(rule, protocol),
        f"remembers is {rule.remembers}, and it has not the methods of core.{protocol.__name__}",
        "write the methods, or declare remembers as it is",
    )
    kind: Any = type(rule)
    expect(
        ("init" in dir(kind)) == rule.remembers,
        f"remembers is {rule.remembers}, and it has {'an' if not rule.remembers else 'no'} init()",
        "declare remembers as it is",
    )
    expect("rule" in rule.seats, f"its seats are {sorted(rule.seats)}", 'add "rule" to seats')
    said = _typed_reads(kind.step if rule.remembers else kind.__call__)
    expect(
        said == rule.reads,
        f"reads is {rule.reads!r}, and the annotation of what it is given says {said!r}",
        "make the two equal",
    )
    unknown = set(rule.needs) - set(inspect.signature(kind).parameters)
    expect(
        not unknown,
        f"needs names {sorted(unknown)}, which its constructor does not take",
        "name arguments of the constructor in needs",
    )


_DECLARED = ("seats", "reads", "needs_ids", "needs", "judges", "remembers", "public_denominator")
_TOLD = ("accuses", "told_f", "suspects")
"""What a rule declares beside, where it tells what it did."""


def _typed_reads(method: Callable[..., Any]) -> Reads:
    parameter = list(inspect.signature(method).parameters)[1]
    hint = typing.get_type_hints(method).get(parameter)
    expect(
        hint is not None,
        f"{method.__qualname__} does not say what it is given",
        "annotate its first argument as Rows, Total, or Rows | Total",
    )
    arms = set(typing.get_args(hint)) or {hint}
    if {Rows, Total} <= arms:
        return "either"
    return "total" if Total in arms else "rows"


def _one_vector(rule: AnyRule) -> None:
    rows = of(crowd())
    once = aggregate(rule, rows)
    aggregate(rule, of(crowd(seed=1)))
    again = aggregate(rule, rows)
    expect(
        once.shape == (D,) and bool(torch.isfinite(once).all()),
        f"of {N} rows of {D} finite values it made {tuple(once.shape)}: {once.tolist()}",
        "return one finite vector as long as a row",
    )
    expect(
        torch.equal(once, again),
        f"the same {N} rows, with other rows in between and the same coins, gave another result",
        "draw chance from context.rng only, and keep no state in the object",
    )


def _pure(rule: AnyRule) -> None:
    values, weights = crowd().float(), torch.full((N,), 2.0)
    rows, state = Rows(values, weights, tuple(range(N))), None
    before = values.clone()
    opened: Any = opened_for(rule, rows)
    if rule.remembers:
        _, state = rule.step(opened, rule.init(), context(D))
        expect(
            rule.memory != "none" or repr(state) == repr(rule.init()),
            f"memory is 'none', and a step left the state {state!r}",
            "declare memory = 'released' or 'private', as what it is made of",
        )
        kept = copy.deepcopy(state)
        rule.step(opened_for(rule, of(crowd(seed=1).float())), state, context(D))
        expect(
            repr(kept) == repr(state),
            "a second step changed the state that the first one handed out",
            "make a new state in step and leave the one that came in",
        )
    else:
        out = rule(opened)
        out += 1
    expect(
        torch.equal(values, before) and bool((weights == 2).all()),
        f"aggregating {N} rows (or adding 1 to the result) changed the rows",
        "work on copies, and return no view of what came in",
    )


def _ids(rule: AnyRule) -> None:
    values = crowd()
    anonymous = Rows(values, torch.ones(N), None)
    if rule.reads == "total":
        return
    if rule.needs_ids:
        try:
            aggregate(rule, anonymous)
        except PrivflError:
            return
        raise Broken(
            "needs_ids is True, and it aggregated rows without ids",
            "declare needs_ids = False, or refuse with BadUpdate",
        )
    named = aggregate(rule, of(values, tuple(range(100, 100 + N))))
    for rows, what in ((of(values), "other ids"), (anonymous, "no ids")):
        expect(
            torch.equal(aggregate(rule, rows), named),
            f"needs_ids is False, and rows with {what} give another result",
            "declare needs_ids = True, or do not look at ids",
        )


def _not_finite(rule: AnyRule) -> None:
    for bad in (math.nan, math.inf, -math.inf):
        values = crowd()
        values[4, 2] = bad
        try:
            out = aggregate(rule, of(values))
        except BadUpdate as refusal:
            expect(
                stands(rule, N) == 0 and (rule.reads == "total" or "4" in str(refusal)),
                f"with {bad} in row 4 it refused ({refusal}), and max_byzantine({N}) is"
                f" {stands(rule, N)}",
                "drop rows that are not finite where the rule stands bad rows; else name them",
            )
            continue
        expect(
            bool(torch.isfinite(out).all()),
            f"{bad} in one row of {N} came out as {out.tolist()}",
            "drop such rows and count them in f, or refuse them (privfl.aggregators.cleaned)",
        )


def _too_many(rule: AnyRule) -> None:
    values, bad = crowd(), stands(rule, N) + 1
    values[:bad] = math.nan
    try:
        out = aggregate(rule, of(values))
    except (TooManyByzantine, BadUpdate):
        return
    raise Broken(
        f"{bad} rows of {N} were NaN, it stands {bad - 1}, and it answered {out.tolist()}",
        "raise TooManyByzantine",
    )


def _degenerate(rule: AnyRule) -> None:
    row = torch.tensor([0.5, -1.0, 0.0, 2.0, 3.0])
    lonely, with_zero = row[None], crowd().float()
    with_zero[2] = 0.0
    for values, what in (
        (row.repeat(N, 1), f"{N} equal rows"),
        (torch.zeros(N, D), f"{N} zero rows"),
        (with_zero, "a zero row among others"),
        (lonely, "a single row"),
    ):
        try:
            out = aggregate(rule, of(values))
        except TooManyByzantine:
            expect(len(values) < N, f"{what} were refused", "work on equal and zero rows")
            continue
        expect(
            bool(torch.isfinite(out).all()),
            f"{what} gave {out.tolist()}",
            "divide by no distance or length that can be zero",
        )
    if {"T", "S"} <= set(declared_symmetries(type(rule))):
        out = aggregate(rule, of(row.repeat(N, 1)))
        expect(
            torch.allclose(out, row.to(out), rtol=1e-5, atol=1e-6),
            f"{N} times the row {row.tolist()} gave {out.tolist()}",
            "keep what all clients agree on",
        )


def _none(rule: AnyRule) -> None:
    try:
        out = aggregate(rule, of(torch.zeros(0, D)))
    except PrivflError:
        return
    raise Broken(f"of no rows it made {out.tolist()}", "raise BadUpdate")


def _robust(rule: AnyRule) -> None:
    f = liars(rule)
    if f == 0 or not isinstance(rule, ToleratesByzantine):
        return
    reached, where = farthest(rule)
    if rule.breaks:
        expect(
            reached > FAR,
            f"breaks says '{rule.breaks}', and {f} liars of {N} moved it {reached:.2g} at most",
            "take breaks out",
        )
        return
    expect(
        reached < NEAR,
        f"{f} liars of {N}, {where}, moved it {reached:.3g} times as far as honest rows reach",
        "lower max_byzantine, or say in breaks why it can be moved",
    )


def _sensitivity(rule: AnyRule, relation: NeighbourRelation) -> None:
    declared = declared_sensitivity(rule, N, relation)
    expect(declared >= 0, f"it declares {declared}", "declare a distance, or inf")
    if math.isinf(declared):
        return
    found = widest_gap(rule, N, relation)
    expect(
        found <= declared * (1 + 1e-6) and declared > 0,
        f"it declares {declared:.4g} for {N} rows in the unit ball, and two neighbouring worlds"
        f" gave results {found:.4g} apart",
        "prove a larger bound, or return inf",
    )
