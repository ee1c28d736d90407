"""What a run releases, put on tape: every noise of a round logs what it was given, and either draws
its own noise or says one fixed vector.

With fixed vectors two neighbouring worlds are told apart by what is not noised and by nothing else:
the model, the memory of the method, of rules and of seats, the bound and the charges must then be
the same in both, bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from privfl.core import (
    Charge,
    ClientId,
    DpEvent,
    Guarantee,
    KeepsSecrets,
    Mechanism,
    NoiseSource,
    Opened,
    Participation,
    RingNoise,
    Rows,
    RunNoise,
    Seeds,
    Sensitivity,
    Total,
    Vector,
)
from privfl.core.field_values import field_values
from privfl.dp.integers import Integers

Mode: TypeAlias = Literal["drawn", "fixed"]


@dataclass(frozen=True, slots=True)
class Taped:
    """One release: the vector [d] before its noise and after it, how far one neighbour is said to
    move it, and the event that accounts for the noise. ``run`` is given where that is a row of
    noise that hangs together over rounds, and the event then that of all rows so far.
    """

    round: int
    part: str
    before: Vector
    after: Vector
    far: Sensitivity
    event: DpEvent | None
    run: RunNoise[Any] | None = None

    @property
    def noise(self) -> Tensor:
        """What was added [d], in float64."""
        return self.after.double() - self.before.double()


@dataclass(slots=True)
class Tape:
    """All releases of one play, in order. ``asked`` is how many random bytes the run's own noise
    source gave; ``opened`` what a channel with noise in shares opened, by round, in units of the
    sum [rows, d].
    """

    mode: Mode
    seed: int = 0
    releases: list[Taped] = field(default_factory=list)
    opened: dict[int, Tensor] = field(default_factory=dict)
    charges: dict[int, tuple[Charge, ...]] = field(default_factory=dict)
    asked: int = 0

    def said(self, round: int, part: str, like: Tensor, size: float) -> Tensor:
        """The fixed vector of a release, of about this length and of this shape."""
        rng = Seeds(self.seed).generator(f"tape {part}", round, len(self.releases))
        drawn = torch.randn(like.shape, generator=rng, dtype=torch.float64)
        said: Tensor = (drawn * (size / like.shape[-1] ** 0.5)).to(like)
        return said


@dataclass(frozen=True)
class OnTape(Mechanism):
    """A mechanism whose releases are logged; with a fixed tape it says what the tape says."""

    inner: Mechanism
    tape: Tape
    round: int
    part: str

    @property
    def guarantee(self) -> Guarantee[Mechanism]:
        """That of the mechanism."""
        return self.inner.guarantee

    def event(self, d: int) -> DpEvent | None:
        """That of the mechanism."""
        return self.inner.event(d)

    def local_deviation(self, sensitivity: Sensitivity) -> float:
        """That of the mechanism."""
        return self.inner.local_deviation(sensitivity)

    def share(
        self, values: Vector, sensitivity: Sensitivity, among: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        """A client's half, logged."""
        if self.tape.mode == "fixed":
            return self._fixed(values, sensitivity)
        out, event = self.inner.share(values, sensitivity, among, noise)
        self._log(values, out, sensitivity, event)
        return out, event

    def release(
        self, vector: Vector, sensitivity: Sensitivity, survivors: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        """The server's half, logged."""
        if self.tape.mode == "fixed":
            return self._fixed(vector, sensitivity)
        out, event = self.inner.release(vector, sensitivity, survivors, noise)
        self._log(vector, out, sensitivity, event)
        return out, event

    def _fixed(self, vector: Vector, far: Sensitivity) -> tuple[Vector, DpEvent | None]:
        size = float(far.l2) if far.l2 < float("inf") else 1.0
        out, event = self.tape.said(self.round, self.part, vector, size), self.event(len(vector))
        self._log(vector, out, far, event)
        return out, event

    def _log(self, before: Vector, after: Vector, far: Sensitivity, event: DpEvent | None) -> None:
        one = Taped(self.round, self.part, before.detach().clone(), after.clone(), far, event)
        self.tape.releases.append(one)


class TapedRows(KeepsSecrets):
    """What a mechanism remembers of its noise, and how many rows it has drawn."""

    __slots__ = ("inner", "rows")

    def __init__(self, inner: Any) -> None:
        self.inner, self.rows = inner, 0


@dataclass(frozen=True)
class RunOnTape(RunNoise[TapedRows]):
    """Noise that hangs together over rounds, whose rows are logged; with a fixed tape each release
    is what the tape says.
    """

    inner: RunNoise[Any]
    tape: Tape
    round: int
    part: str

    @property
    def participation(self) -> Participation:
        """That of the noise."""
        return self.inner.participation

    def event(self, rows: int) -> DpEvent:
        """That of the noise."""
        return self.inner.event(rows)

    def sampled(self, rows: int) -> tuple[DpEvent, int] | None:
        """That of the noise."""
        return self.inner.sampled(rows)

    def init(self, d: int) -> TapedRows:
        """That of the noise, before its first row."""
        return TapedRows(self.inner.init(d))

    def release(
        self, vector: Vector, sensitivity: Sensitivity, state: TapedRows, noise: NoiseSource
    ) -> tuple[Vector, DpEvent, TapedRows]:
        """The aggregate with its row, logged."""
        if self.tape.mode == "fixed":
            out = self.tape.said(self.round, self.part, vector, float(sensitivity.l2))
            event = self.inner.event(state.rows + 1)
        else:
            out, event, state.inner = self.inner.release(vector, sensitivity, state.inner, noise)
        state.rows += 1
        before, after = vector.detach().clone(), out.clone()
        self.tape.releases.append(
            Taped(self.round, self.part, before, after, sensitivity, event, self.inner)
        )
        return out, event, state


@dataclass(frozen=True, slots=True)
class CountedNoise:
    """A noise source that counts on a tape how many bytes it was asked for."""

    inner: NoiseSource
    tape: Tape

    @property
    def repeatable(self) -> bool:
        """That of the source."""
        return self.inner.repeatable

    def random_bytes(self, n: int) -> bytes:
        """The source's own bytes."""
        self.tape.asked += n
        return self.inner.random_bytes(n)

    def at(self, round: int) -> CountedNoise:
        """The round's own source, counted."""
        return CountedNoise(self.inner.at(round), self.tape)


@dataclass(frozen=True, slots=True)
class SilentNoise:
    """Noise in shares that is left out, while everything that is planned for it stays: what a
    channel then opens is what the noise would have met.
    """

    inner: RingNoise

    @property
    def guarantee(self) -> Guarantee[RingNoise]:
        """That of the noise."""
        return self.inner.guarantee

    def add(
        self, integers: Integers, unit_l2: int | float, among: int, noise: NoiseSource
    ) -> Integers:
        """The integers as they are."""
        return integers.copy()

    def reach(self, unit_l2: int | float, among: int, contributors: int) -> int:
        """That of the noise."""
        return self.inner.reach(unit_l2, among, contributors)

    def event(self, unit_l2: int | float, d: int, among: int, survivors: int) -> DpEvent:
        """That of the noise."""
        return self.inner.event(unit_l2, d, among, survivors)


def open_on_tape(
    tape: Tape, round: int, opened: Mapping[str, Opened[Any] | None], l2: float
) -> Mapping[str, Opened[Any] | None]:
    """Log what a channel whose clients noise their shares opened of the delta, in units of the sum;
    with a fixed tape what the server reads is the tape's.
    """
    main = opened["delta"]
    if main is None:
        return opened
    what: Rows | Total = main.what
    if isinstance(what, Total):
        tape.opened[round] = what.value.detach().double().clone()[None]
    else:
        tape.opened[round] = what.values.double() * what.weights.double()[:, None]
    if tape.mode == "drawn":
        return opened
    if isinstance(what, Total):
        said: Rows | Total = replace(what, value=tape.said(round, "delta", what.value, l2))
    else:
        said = replace(what, values=tape.said(round, "delta", what.values, l2))
    return {**opened, "delta": replace(main, what=said)}


# ---- the same, bit by bit


def differences(one: Any, two: Any, where: str) -> list[str]:
    """Where two pieces of data are not the same bit by bit, by path; empty where they are.

    >>> differences({"a": torch.zeros(2)}, {"a": torch.zeros(2)}, "method")
    []
    >>> differences({"a": torch.zeros(2)}, {"a": torch.ones(2)}, "method")
    ['method.a']
    """
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        same = one.shape == two.shape and one.dtype == two.dtype
        return [] if same and one.detach().cpu().equal(two.detach().cpu()) else [where]
    if type(one) is not type(two):
        return [where]
    if isinstance(one, Mapping):
        if one.keys() != two.keys():
            return [where]
        return [path for key in one for path in differences(one[key], two[key], f"{where}.{key}")]
    if isinstance(one, Sequence) and not isinstance(one, str | bytes):
        if len(one) != len(two):
            return [where]
        pairs = enumerate(zip(one, two, strict=True))
        return [path for i, (a, b) in pairs for path in differences(a, b, f"{where}[{i}]")]
    if is_dataclass(one) and not isinstance(one, type):
        others = field_values(two)
        return [
            path
            for name, value in field_values(one).items()
            for path in differences(value, others[name], f"{where}.{name}")
        ]
    unknown = isinstance(one, float) and math.isnan(one) and math.isnan(two)
    return [] if unknown or one == two else [where]


def cohort_or(clients: Sequence[ClientId], absent: ClientId | None) -> tuple[ClientId, ...]:
    """The cohort without who is not there."""
    return tuple(client for client in clients if client != absent)
