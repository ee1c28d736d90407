"""What holds of every attack: it acts in the seats that it declares, knows no more than it says,
repeats with its seed, and leaves what it was shown as it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from privfl.core import (
    Attack,
    AttackSeat,
    ClientState,
    ConfigError,
    PrivflError,
    counts_itself,
    is_divided,
    is_measured,
    is_measured_by_client,
)
from privfl.testing import attack_seats
from privfl.testing import attack_world as world
from privfl.testing.attack_seats import LEVELS
from privfl.testing.attack_world import F, N
from privfl.testing.building import Subject, checks_of
from privfl.testing.check import Broken, Check, expect, run_all

METHODS: dict[AttackSeat, tuple[str, ...]] = {
    "data": ("poison_data",),
    "loss": ("objective",),
    "training": ("poison_training",),
    "update": ("poison_updates", "poison_and_remember"),
    "wire": ("poison_bounded",),
    "party": ("poison_party",),
    "broadcast": ("poison_broadcast",),
    "answer": ("poison_errors",),
}
"""By seat, the methods one of which an attack in that seat has."""


def check_attack(attack: Any) -> None:
    """Check an attack: an object, a class (each of its ``examples``), or a function that makes one.

    Raises:
        ConformanceError: the first property that does not hold, with what was tried, what came of
            it, and what to change.

    >>> from privfl.attacks import SignFlip
    >>> check_attack(SignFlip)
    >>> class InPlace(SignFlip):
    ...     def poison_updates(self, own, knowledge, rng):
    ...         return own.neg_()
    >>> check_attack(InPlace)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    privfl.testing.check.ConformanceError: InPlace: it does not hold that ...
    """
    run_all(attack_checks(attack))


def attack_checks(attack: Any) -> Iterator[Check]:
    """The single checks of `check_attack`, as callables for a test runner.

    >>> from privfl.attacks import SignFlip
    >>> str(next(attack_checks(SignFlip)))
    'SignFlip: it declares its seats and what it knows, as its methods say'
    """
    yield from checks_of(attack, _checks, "attack")


def _checks(subject: Subject) -> Iterator[Check]:
    attack: Any = subject.made
    seats: list[tuple[AttackSeat, str, Callable[[Any], None]]] = [
        ("data", "spoilt data is data, and the honest data stays as it was", attack_seats.data),
        ("loss", "the loss that it bends has a gradient", attack_seats.loss),
        ("training", "its training makes an update, and repeats", attack_seats.training),
        ("update", "its rows are its own, and repeat with their seed", attack_seats.update),
        ("update", "it knows no more than it says", attack_seats.knows),
        ("wire", "what it hands its party is of its own client", attack_seats.wire),
        ("party", "its party is a party, and nobody's round crashes", attack_seats.party),
        ("broadcast", "the model that it sends has the same length", attack_seats.broadcast),
        ("answer", "what it answers are error rates", attack_seats.answer),
    ]
    says = "it declares its seats and what it knows, as its methods say"
    yield Check(subject.name, says, partial(_declares, attack))
    for seat, says, run in seats:
        if seat in attack.seats:
            yield Check(subject.name, says, partial(run, attack))
    if attack.measured or attack.by_client:
        says = "measuring leaves the model as it was"
        yield Check(subject.name, says, partial(_measure, attack))
    if attack.divided or attack.counts:
        says = "parts and counts are what it declares"
        yield Check(subject.name, says, partial(_divided, attack))


def _declares(attack: Any) -> None:
    expect(
        isinstance(attack, Attack) and isinstance(attack.seats, frozenset),
        "it declares no seats, remembers, measured, by_client, divided, counts or knows",
        "inherit the protocols of its seats in privfl.core, or declare them",
    )
    unknown = attack.seats - set(METHODS)
    expect(not unknown, f"seats names {sorted(unknown)}", f"use {', '.join(METHODS)}")
    kind = type(attack)
    has = {name for name in dir(kind) if callable(inspect.getattr_static(kind, name, None))}
    for seat, methods in METHODS.items():
        expect(
            (seat in attack.seats) == bool(has.intersection(methods)),
            f"seats is {sorted(attack.seats)}, and it has"
            f" {'no ' * (seat in attack.seats)}{' or '.join(methods)}",
            "declare the seats whose methods it has, and no others",
        )
    for flag, method in (
        ("remembers", "poison_and_remember"),
        ("measured", "measure"),
        ("by_client", "measure_of"),
        ("counts", "among"),
    ):
        said = bool(inspect.getattr_static(kind, flag))
        expect(
            said == (method in has),
            f"{flag} is {said}, and it has {'no' if said else 'a'} method {method}",
            f"declare {flag} as it is",
        )
    expect(
        not attack.divided or "part" in has,
        "divided is True, and it has no part(position, of)",
        "write part, or declare divided = False",
    )
    expect(
        attack.knows in LEVELS,
        f"knows is {attack.knows!r}",
        f"say one of {', '.join(LEVELS)}",
    )


def _measure(attack: Any) -> None:
    trained = world.model()
    module, before = trained.module, trained.read()
    module.train()
    test = next(world.data_sets())[1]
    try:
        found = attack.measure(module, test) if is_measured(attack) else {}
        if is_measured_by_client(attack):
            found = {**found, **attack.measure_of(test, ClientState(), module, test)}
    except PrivflError:
        return
    except (RuntimeError, ValueError) as unfit:
        raise Broken(
            f"measuring on images raised {type(unfit).__name__}: {unfit}", "refuse with ConfigError"
        ) from unfit
    expect(
        torch.equal(trained.read(), before) and module.training,
        "measuring changed the parameters, or the mode of the module",
        "put both back",
    )
    expect(
        all(isinstance(name, str) and isinstance(value, float) for name, value in found.items()),
        f"it measured {found!r}",
        "return numbers by name",
    )


def _divided(attack: Any) -> None:
    if is_divided(attack):
        for position in range(F):
            part = attack.part(position, F)
            expect(
                part.seats == attack.seats and part.knows == attack.knows,
                f"part {position} of {F} acts at {sorted(part.seats)}, the whole at"
                f" {sorted(attack.seats)}",
                "divide into attacks of the same seats",
            )
    if counts_itself(attack):
        for n, f in ((N, F), (N, N - 1), (2, 1)):
            try:
                attack.among(n, f)
            except ConfigError as refusal:
                expect(bool(str(refusal)), "it refuses without a word", "say what is needed")
