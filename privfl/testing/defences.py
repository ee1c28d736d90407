"""What holds of every defence beside the rule: it acts in the seats that it declares, and leaves
what it was given as it was.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from privfl.core import (
    BadUpdate,
    Context,
    Defence,
    DefenceSeat,
    Neighbours,
    OsNoise,
    Released,
    RoundPlan,
    Rows,
    Sampling,
    TooManyByzantine,
    Update,
    after_the_rule,
    at_the_client,
    before_the_rule,
)
from privfl.dp.made import Made
from privfl.dp.part_release import PartRelease
from privfl.dp.pipeline import Pipeline
from privfl.testing.building import Subject, checks_of
from privfl.testing.check import Check, expect, run_all
from privfl.testing.rows import D, N, crowd, of

METHODS: dict[DefenceSeat, str] = {"client": "at_client", "before": "before", "after": "after"}
"""By seat, the method that a defence in it has."""


def check_defence(defence: Any) -> None:
    """Check a defence at the client, before or after the rule: an object, a class (each of its
    ``examples``), or a function that makes one.

    Raises:
        ConformanceError: the first property that does not hold, with what was tried, what came of
            it, and what to change.

    >>> from privfl.aggregators import Clipping
    >>> check_defence(Clipping)
    """
    run_all(defence_checks(defence))


def defence_checks(defence: Any) -> Iterator[Check]:
    """The single checks of `check_defence`, as callables for a test runner.

    >>> from privfl.aggregators import Clipping
    >>> str(next(defence_checks(Clipping)))
    'Clipping: it declares the seats whose methods it has'
    """
    yield from checks_of(defence, _checks, "defence")


def _checks(subject: Subject) -> Iterator[Check]:
    seats: list[tuple[DefenceSeat, str, Callable[[Any], None]]] = [
        ("before", "rows before the rule stay as they were, and keep their clients", _before),
        ("before", "rows that are not finite pass, or are dropped, before the rule", _not_finite),
        ("after", "a change of the model is one finite vector [d]", _after),
        ("client", "an update at the client is one finite vector [d] of that client", _client),
    ]
    says = "it declares the seats whose methods it has"
    yield Check(subject.name, says, partial(_declares, subject.made))
    for seat, says, run in seats:
        if seat in subject.made.seats:
            yield Check(subject.name, says, partial(run, subject.made))


def _context(seed: int = 0) -> Context:
    plan = RoundPlan(0, tuple(range(N)), D, math.inf)
    return Context(plan, torch.linspace(1, 2, D), torch.Generator().manual_seed(seed))


def _declares(defence: Any) -> None:
    expect(
        isinstance(defence, Defence),
        "it declares no seats, needs or judges",
        "inherit privfl.aggregators.Before or After, or declare them",
    )
    kind: Any = type(defence)
    has = {seat for seat, method in METHODS.items() if method in dir(kind)}
    expect(
        has == set(defence.seats) - {"rule"},
        f"seats is {sorted(defence.seats)}, and it has the methods of {sorted(has)}",
        "declare the seats whose methods it has, and no others",
    )
    unknown = set(defence.needs) - set(inspect.signature(kind).parameters)
    expect(
        not unknown,
        f"needs names {sorted(unknown)}, which its constructor does not take",
        "name arguments of the constructor in needs",
    )


def _before(defence: Any) -> None:
    if not before_the_rule(defence):
        return
    values = crowd()
    kept, state = values.clone(), defence.init()
    rows, after = defence.before(of(values), state, _context())
    again, _ = defence.before(of(values), defence.init(), _context())
    expect(
        rows.d == D and rows.n <= defence.passes(N) <= N,
        f"of {N} rows it handed on {rows.n} of {rows.d} values, and passes({N}) is"
        f" {defence.passes(N)}",
        "say in passes how many rows it hands on at most",
    )
    expect(
        torch.equal(rows.values, again.values),
        "the same rows, state and coins gave other rows",
        "draw chance from context.rng only, and keep no state in the object",
    )
    expect(
        (rows.ids is not None and set(rows.ids) <= set(range(N))) == defence.keeps_ids,
        f"keeps_ids is {defence.keeps_ids}, and its rows have ids {rows.ids}",
        "declare keeps_ids as it is",
    )
    remembered = copy.deepcopy(after)
    defence.before(of(crowd(seed=1)), after, _context(1))
    expect(
        repr(remembered) == repr(after) and torch.equal(values, kept),
        "the rows or the state that went in changed",
        "return new ones",
    )
    if defence.keeps_ids:
        _order(defence, values, rows)


def _order(defence: Any, values: torch.Tensor, plain: Rows) -> None:
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    moved, _ = defence.before(of(values).take(order), defence.init(), _context())
    one = dict(zip(plain.ids or (), plain.values, strict=True))
    other = dict(zip(moved.ids or (), moved.values, strict=True))
    expect(
        one.keys() == other.keys()
        and all(torch.allclose(row, other[client], atol=1e-9) for client, row in one.items()),
        "another order of rows gave a client another row",
        "treat rows alike wherever they stand, or declare keeps_ids = False",
    )


def _not_finite(defence: Any) -> None:
    if not before_the_rule(defence):
        return
    for bad in (math.nan, math.inf):
        values = crowd()
        values[4, 1] = bad
        try:
            rows, _ = defence.before(of(values), defence.init(), _context())
        except (BadUpdate, TooManyByzantine):
            continue
        lost = int((~torch.isfinite(rows.values).all(dim=1)).sum())
        expect(
            lost <= 1,
            f"one row of {N} was {bad}, and {lost} rows come out that are not finite",
            "hand such a row on as it is, or drop it: spread it over no other",
        )


def _after(defence: Any) -> None:
    if not after_the_rule(defence):
        return
    vector = torch.linspace(-1, 1, D)
    kept = vector.clone()
    out, state = defence.after(_released(vector), defence.init(), _context())
    remembered = copy.deepcopy(state)
    defence.after(_released(2 * vector), state, _context(1))
    expect(
        out.shape == kept.shape and bool(torch.isfinite(out).all()) and torch.equal(vector, kept),
        f"of a vector of {D} values it made {out.tolist()}, or changed it",
        "return one finite vector [d]",
    )
    expect(repr(remembered) == repr(state), "the state that went in changed", "return a new one")


def _client(defence: Any) -> None:
    if not at_the_client(defence):
        return
    update = Update(3, torch.linspace(-1, 1, D))
    kept = update.delta.clone()
    out, state = defence.at_client(update, defence.init_client(), _context())
    remembered = copy.deepcopy(state)
    defence.at_client(Update(3, 2 * kept), state, _context(1))
    expect(
        out.client == 3
        and out.delta.shape == kept.shape
        and bool(torch.isfinite(out.delta).all())
        and torch.equal(update.delta, kept),
        f"of client 3's update it made {out.delta.tolist()} of client {out.client}, or changed it",
        "return a new Update of the same client",
    )
    expect(repr(remembered) == repr(state), "the state that went in changed", "return a new one")


def _released(vector: Tensor) -> Released:
    """A vector [d] as it leaves a run that claims nothing."""
    everybody = Sampling("all", 1.0, N)
    pipeline = Pipeline({"delta": PartRelease(())}, Neighbours("client", "replace_one"), everybody)
    plans = {"delta": _context().plan}
    return pipeline.release(plans, {"delta": Made(vector, N, N)}, OsNoise())[0]["delta"]
