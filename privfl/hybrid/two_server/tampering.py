"""Servers that run other steps than their recipe says, and steps that change their own shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from privfl.core import ClientId, ConfigError, Party, Vector
from privfl.core.field_values import field_values
from privfl.crypto.abort import StageAbort
from privfl.crypto.mpc import Exchange, Local, Shared
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.malicious.second_server import FixedSecondServer
from privfl.hybrid.two_server.malicious.server import FixedFirstServer
from privfl.hybrid.two_server.parameters import TwoServerParameters
from privfl.hybrid.two_server.recipe import Recipe
from privfl.hybrid.two_server.second_server import SecondServer
from privfl.hybrid.two_server.server import FirstServer

Took = dict[ClientId, Vector]
First = FirstServer | FixedFirstServer
Server = First | SecondServer | FixedSecondServer
Tamper = Callable[[Sequence[Step]], Sequence[Step]]


@dataclass(frozen=True, slots=True)
class TamperedRecipe(Recipe):
    """A recipe whose holder runs other steps than it says."""

    tamper: Tamper = tuple

    def program(self, now: TwoServerParameters, everyone: bool) -> tuple[Step, ...]:
        """The honest steps, tampered with."""
        return tuple(self.tamper(Recipe.program(self, now, everyone)))


def tampered(recipe: Recipe, tamper: Tamper) -> TamperedRecipe:
    """The same recipe with other steps."""
    return TamperedRecipe(**field_values(recipe), tamper=tamper)


def server_of(party: Party) -> Server:
    """One of the two servers.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(party, Server):
        raise ConfigError(f"{type(party).__name__} is no server of two.")
    return party


def after(steps: Sequence[Step], kind: type, inserted: Step) -> list[Step]:
    """These steps with one more after each of a kind."""
    out: list[Step] = []
    for step in steps:
        out += [step, inserted] if isinstance(step, kind) else [step]
    return out


def before(steps: Sequence[Step], kind: type, inserted: Step) -> list[Step]:
    """These steps with one more before each of a kind."""
    out: list[Step] = []
    for step in steps:
        out += [inserted, step] if isinstance(step, kind) else [step]
    return out


@dataclass(frozen=True, slots=True)
class Deaf:
    """An exchange that says what the honest one says, and lets any answer pass."""

    step: Exchange[Machine]

    def say(self, machine: Machine) -> bytes:
        """As the honest step."""
        return self.step.say(machine)

    def hear(self, machine: Machine, theirs: memoryview) -> bool:
        """Nothing is checked."""
        return True


@dataclass(frozen=True, slots=True)
class Careless:
    """A local step after which a liar goes on where the honest server would end the round."""

    step: Local[Machine]

    def act(self, machine: Machine) -> None:
        """As the honest step."""
        with suppress(StageAbort):
            self.step.act(machine)


def careless(steps: Sequence[Step], kind: type) -> list[Step]:
    """These steps, those local ones of a kind as `Careless`."""
    return [
        Careless(step) if isinstance(step, kind) and isinstance(step, Local) else step
        for step in steps
    ]


def deaf(steps: Sequence[Step], kind: type) -> list[Step]:
    """These steps, those exchanges of a kind as `Deaf`."""
    return [
        Deaf(step) if isinstance(step, kind) and isinstance(step, Exchange) else step
        for step in steps
    ]


@dataclass(frozen=True, slots=True)
class AddTo:
    """A step that adds to the own share of one entry of a register."""

    what: str
    position: int
    amount: int

    def act(self, machine: Machine) -> None:
        """Add it."""
        place = machine.positions.index(self.position)
        register = machine.shares[Shared(self.what)].copy()
        register[place : place + 1] += np.uint64(self.amount % (1 << 64))
        machine.shares[Shared(self.what)] = register
