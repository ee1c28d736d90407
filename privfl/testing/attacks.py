"""What holds of every attack: it acts in the seats that it declares, knows no more than it says,
repeats with its seed, and leaves what it was shown as it was.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from privfl.core import (
    Attack,
    AttackSeat,
    Bounded,
    Broadcast,
    ClientState,
    ConfigError,
    Dataset,
    Knows,
    PrivflError,
    RoundKnowledge,
    RoundPlan,
    Silent,
    bends_loss,
    counts_itself,
    is_divided,
    is_measured,
    poisons_and_remembers,
    poisons_bounded,
    poisons_broadcast,
    poisons_data,
    poisons_party,
    poisons_training,
    poisons_updates,
)
from privfl.testing import attack_world as world
from privfl.testing.attack_world import L2, F, N
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
}
"""By seat, the methods one of which an attack in that seat has."""
IGNORED = -100
"""The label of a token that no loss counts."""
LEVELS: tuple[Knows, ...] = typing.get_args(Knows)


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
        ("data", "spoilt data is data, and the honest data stays as it was", _data),
        ("loss", "the loss that it bends has a gradient", _loss),
        ("training", "its training makes an update, and repeats", _training),
        ("update", "its rows are its own, and repeat with their seed", _update),
        ("update", "it knows no more than it says", _knows),
        ("wire", "what it hands its party is of its own client", _wire),
        ("party", "its party is a party, and nobody's round crashes", _party),
        ("broadcast", "the model that it sends has the same length", _broadcast),
    ]
    says = "it declares its seats and what it knows, as its methods say"
    yield Check(subject.name, says, partial(_declares, attack))
    for seat, says, run in seats:
        if seat in attack.seats:
            yield Check(subject.name, says, partial(run, attack))
    if attack.measured:
        says = "measuring leaves the model as it was"
        yield Check(subject.name, says, partial(_measure, attack))
    if attack.divided or attack.counts:
        says = "parts and counts are what it declares"
        yield Check(subject.name, says, partial(_divided, attack))


def _declares(attack: Any) -> None:
    expect(
        isinstance(attack, Attack) and isinstance(attack.seats, frozenset),
        "it declares no seats, remembers, measured, divided, counts or knows",
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


def _same(one: Dataset, other: Dataset) -> bool:
    return (
        torch.equal(one.x, other.x)
        and torch.equal(one.y, other.y)
        and all(
            torch.equal(one.attributes[name], other.attributes[name]) for name in one.attributes
        )
    )


def _data(attack: Any) -> None:
    if not poisons_data(attack):
        return
    refused = []
    for what, held in world.data_sets():
        kept = copy.deepcopy(held)
        try:
            spoilt, again = (attack.poison_data(held, world.rng()) for _ in range(2))
        except PrivflError as refusal:
            refused.append(f"{what}: {refusal}")
            continue
        expect(
            _same(held, kept), f"poisoning {what} changed the client's own data", "work on a copy"
        )
        labels = spoilt.y[spoilt.y != IGNORED]
        expect(
            spoilt.x.shape[1:] == held.x.shape[1:]
            and spoilt.x.dtype == held.x.dtype
            and spoilt.y.shape[1:] == held.y.shape[1:]
            and spoilt.classes == held.classes
            and spoilt.n > 0
            and int(labels.min()) >= 0
            and int(labels.max()) < held.classes,
            f"of {what} {tuple(held.x.shape)} it made {tuple(spoilt.x.shape)} with labels in"
            f" [{int(labels.min())}, {int(labels.max())}] of {spoilt.classes} classes",
            "return samples of the same shape and classes",
        )
        expect(
            _same(spoilt, again),
            f"the same generator spoilt {what} in two ways",
            "draw chance from rng and from nothing else",
        )
    expect(
        len(refused) < 3,
        f"it refuses images, tables and text alike ({refused})",
        "work on one of them, or declare examples that do",
    )


def _loss(attack: Any) -> None:
    if not bends_loss(attack):
        return
    trained, held = world.model(), next(world.data_sets())[1]
    bent = attack.objective(world.loss, trained.read())
    value = bent(trained.module, held.x, held.y)
    torch.autograd.backward(value)
    expect(
        value.ndim == 0 and bool(torch.isfinite(trained.grad).all()),
        f"its loss on {held.n} images is {value}",
        "return a finite scalar with a gradient",
    )


def _training(attack: Any) -> None:
    if not poisons_training(attack):
        return
    held = next(world.data_sets())[1]
    kept = copy.deepcopy(held)
    before = world.model().read()
    made = []
    for _ in range(2):
        known = world.knowledge(attack.knows)
        trainer = attack.poison_training(known).on(world.model(), world.loss)
        sent = Broadcast(known.plan.number, before.clone())
        made.append(trainer(4, sent, held, ClientState(), world.rng())[0])
        expect(
            torch.equal(sent.parameters, before),
            "training changed the broadcast model",
            "work on a copy",
        )
    update, again = made
    expect(
        update.client == 4
        and update.delta.shape == before.shape
        and bool(torch.isfinite(update.delta).all()),
        f"client 4 of a model of {len(before)} parameters sent {tuple(update.delta.shape)} as"
        f" client {update.client}",
        "return an Update of that client with a finite delta [d]",
    )
    expect(
        torch.equal(update.delta, again.delta) and _same(held, kept),
        "a second training with the same generator differs, or the data was changed",
        "draw chance from rng and from nothing else, and leave the data",
    )


def _rows(attack: Any, own: Tensor, known: RoundKnowledge, seed: int = 5) -> Tensor:
    rows: Tensor
    if poisons_and_remembers(attack):
        rows, _ = attack.poison_and_remember(own, known, attack.init(), world.rng(seed))
    else:
        rows = attack.poison_updates(own, known, world.rng(seed))
    return rows


def _update(attack: Any) -> None:
    if not poisons_updates(attack) and not poisons_and_remembers(attack):
        return
    own, known = world.own_rows(), world.knowledge(attack.knows)
    kept, shown = own.clone(), None if known.benign is None else known.benign.values.clone()
    sent, again = (_rows(attack, own, known) for _ in range(2))
    expect(
        sent.shape == own.shape and sent.dtype == own.dtype,
        f"{F} attackers sent {sent.dtype} of shape {tuple(sent.shape)} for {tuple(own.shape)}",
        "return one row for each of its own clients",
    )
    expect(
        torch.equal(sent, again),
        "the same rows, knowledge and generator gave other rows the second time",
        "draw chance from rng, and keep memory in what goes in and out",
    )
    sent += 1
    same = shown is None or (known.benign is not None and torch.equal(known.benign.values, shown))
    expect(
        torch.equal(own, kept) and same,
        "what it was shown changed, or what it sent is a view of it",
        "work on copies",
    )
    if poisons_and_remembers(attack):
        _, memory = attack.poison_and_remember(own, known, attack.init(), world.rng())
        before = repr(memory)
        attack.poison_and_remember(
            own, world.knowledge(attack.knows, number=2), memory, world.rng()
        )
        expect(
            repr(memory) == before,
            "the memory that went into a round was changed by it",
            "return a new memory",
        )


def _knows(attack: Any) -> None:
    """More knowledge than it declares changes nothing, and other own rows change nothing where it
    says that it needs none.
    """
    if not poisons_updates(attack) and not poisons_and_remembers(attack):
        return
    own, level = world.own_rows(), attack.knows
    less = _rows(attack, own, world.knowledge(level))
    for more in LEVELS[LEVELS.index(level) + 1 :]:
        expect(
            torch.equal(less, _rows(attack, own, world.knowledge(more))),
            f"knows is '{level}', and it sent other rows when it was also told '{more}'",
            f"declare knows = '{more}', or do not look",
        )
    if level in ("nothing", "own"):
        other = dataclasses.replace(world.knowledge(level, seed=9))
        expect(
            torch.equal(less, _rows(attack, own, other)),
            f"knows is '{level}', and it sent other rows when honest clients sent others",
            "declare knows = 'benign'",
        )


def _wire(attack: Any) -> None:
    if not poisons_bounded(attack):
        return
    row = world.own_rows()[0]
    honest = Bounded(4, row.clone(), L2)
    made = attack.poison_bounded(honest, row * 3)
    expect(
        made.client == 4 and made.delta.shape == row.shape and torch.equal(honest.delta, row),
        f"client 4 handed over an update of client {made.client}, or changed the honest one",
        "return another Bounded of the same client (Bounded.claimed holds a lie)",
    )


def _party(attack: Any) -> None:
    if not poisons_party(attack):
        return
    plan = RoundPlan(0, tuple(range(N)), 5, L2)
    made = attack.poison_party(Silent(), plan, 4)
    try:
        answer = made.step({})
    except PrivflError:
        return
    expect(
        all(isinstance(to, str) for to in answer),
        f"its party answered {answer!r}",
        "answer a mapping of receivers to bytes",
    )


def _broadcast(attack: Any) -> None:
    if not poisons_broadcast(attack):
        return
    honest = Broadcast(1, world.model().read())
    kept = honest.parameters.clone()
    made, again = (attack.poison_broadcast(honest, 4, world.rng()) for _ in range(2))
    expect(
        made.version == 1
        and made.parameters.shape == kept.shape
        and torch.equal(honest.parameters, kept)
        and torch.equal(made.parameters, again.parameters),
        f"of a model of {len(kept)} parameters it sent {len(made.parameters)}, changed the honest"
        " one, or another the second time",
        "return a Broadcast with parameters of its own, drawn from rng",
    )


def _measure(attack: Any) -> None:
    if not is_measured(attack):
        return
    trained = world.model()
    module, before = trained.module, trained.read()
    module.train()
    test = next(world.data_sets())[1]
    try:
        found = attack.measure(module, test)
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
