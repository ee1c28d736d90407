"""What holds of an attack in each seat that it acts in: it spoils its own, repeats with its seed,
knows no more than it says, and leaves what it was shown as it was.
"""

from __future__ import annotations

import copy
import dataclasses
import typing
from typing import Any

import torch
from torch import Tensor

from privfl.core import (
    Bounded,
    Broadcast,
    ClientState,
    Dataset,
    Knows,
    PrivflError,
    RoundKnowledge,
    RoundPlan,
    Silent,
    bends_loss,
    poisons_and_remembers,
    poisons_answers,
    poisons_bounded,
    poisons_broadcast,
    poisons_data,
    poisons_party,
    poisons_training,
    poisons_updates,
)
from privfl.testing import attack_world as world
from privfl.testing.attack_world import L2, F, N
from privfl.testing.check import expect

IGNORED = -100
"""The label of a token that no loss counts."""
LEVELS: tuple[Knows, ...] = typing.get_args(Knows)


def _same(one: Dataset, other: Dataset) -> bool:
    return (
        torch.equal(one.x, other.x)
        and torch.equal(one.y, other.y)
        and all(
            torch.equal(one.attributes[name], other.attributes[name]) for name in one.attributes
        )
    )


def data(attack: Any) -> None:
    """A client's data stays as it was, what is made of it is data, and repeats."""
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


def loss(attack: Any) -> None:
    """The bent loss is a finite scalar with a gradient."""
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


def training(attack: Any) -> None:
    """The training makes an update of its client, and repeats."""
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


def update(attack: Any) -> None:
    """Rows are the attackers' own and repeat; what was shown, and the memory, stays as it was."""
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


def knows(attack: Any) -> None:
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


def wire(attack: Any) -> None:
    """What a party is handed is another update of the same client."""
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


def party(attack: Any) -> None:
    """The party answers as parties do."""
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


def broadcast(attack: Any) -> None:
    """The model that is sent has the honest one's length, and repeats."""
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


def answer(attack: Any) -> None:
    """Reported error rates are rates of as many models and classes; the honest ones stay."""
    if not poisons_answers(attack):
        return
    honest = torch.rand(6, 4, generator=world.rng())
    kept = honest.clone()
    made = attack.poison_errors(honest)
    expect(
        made.shape == honest.shape
        and bool(((made >= 0) & (made <= 1)).all())
        and torch.equal(honest, kept),
        f"of rates {tuple(kept.shape)} it made {tuple(made.shape)}, some outside of [0, 1], or"
        " changed the honest ones",
        "return rates in [0, 1] of the same models and classes",
    )
