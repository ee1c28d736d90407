"""What holds of every mechanism: noise and the event that accounts for it are born together, as
wide as they say, and repeatable only by a source that says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from privfl.core import (
    ConfigError,
    DpEvent,
    KeepsSecrets,
    Mechanism,
    NoiseSource,
    OsNoise,
    Participation,
    RingNoise,
    SeededNoise,
    Sensitivity,
    Vector,
    WithMemory,
)
from privfl.testing.building import Subject, checks_of
from privfl.testing.check import Broken, Check, expect, run_all
from privfl.testing.guarantees import what_noise_is_left

D, AMONG = 20_000, 10
UNIT = 50.0
"""The norm of a contribution to ring noise, in integers."""
RUN = Participation(rounds=6, most=2, apart=3)
"""The run that noise which hangs together over rounds is made for."""


def check_mechanism(mechanism: Any) -> None:
    """Check a mechanism or ring noise: an object, a class (each of its ``examples``), or a function
    that makes one.

    Raises:
        ConformanceError: the first property that does not hold, with what was tried, what came of
            it, and what to change.

    >>> from privfl.dp import Gaussian
    >>> check_mechanism(Gaussian(noise_multiplier=1.0))
    >>> class Thin(Gaussian):
    ...     def release(self, vector, sensitivity, survivors, noise):
    ...         out, event = super().release(vector, sensitivity, survivors, noise)
    ...         return vector + (out - vector) / 2, event
    >>> check_mechanism(Thin(noise_multiplier=1.0))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    privfl.testing.check.ConformanceError: Thin: it does not hold that ...
    """
    run_all(mechanism_checks(mechanism))


def mechanism_checks(mechanism: Any) -> Iterator[Check]:
    """The single checks of `check_mechanism`, as callables for a test runner.

    >>> from privfl.dp import Gaussian
    >>> str(next(mechanism_checks(Gaussian(1.0))))
    'Gaussian: one half of it makes noise, and its event with it'
    """
    yield from checks_of(mechanism, _checks, "mechanism")


def _checks(subject: Subject) -> Iterator[Check]:
    made: Any = subject.made
    properties: list[tuple[str, Callable[[Any], None]]] = [
        ("one half of it makes noise, and its event with it", _halves),
        ("what goes in stays as it was, and shape and type are kept", _shape),
        ("noise repeats with a seeded source, and with no other", _repeats),
        ("noise is as wide as its event says", _width),
        ("a sensitivity that nobody proved is refused", _unproved),
    ]
    if isinstance(made, RingNoise):
        properties = [
            ("shares of noise repeat with a seeded source, and with no other", _ring_repeats),
            ("shares add up to what the event says", _ring_width),
            ("noise stays within its reach", _ring_reach),
            ("fewer survivors leave less noise, and the event says so", _ring_survivors),
        ]
    if isinstance(made, WithMemory):
        properties = [
            ("what goes in stays as it was, and shape and type are kept", _run_shape),
            ("noise repeats with a seeded source, and with no other", _run_repeats),
            ("all rows together are as its one event says, however it hangs together", _run_width),
            ("what it has cost never falls from round to round", _run_grows),
            ("what it remembers is secret", _run_secret),
            ("a sensitivity that nobody proved is refused", _run_unproved),
        ]
    properties.append(("lies leave as much noise as its record says", _lies))
    for says, run in properties:
        yield Check(subject.name, says, partial(run, made))


def _lies(made: Any) -> None:
    for lie in made.guarantee.lies:
        met = what_noise_is_left(made, lie)
        expect(
            met == lie.can,
            f"{lie.who.describe()} {lie.does}: its record says '{lie.can}', and it was '{met}'",
            "say in guarantee what a liar can do",
        )


def _noised(
    made: Any, vector: Vector, sensitivity: Sensitivity, noise: NoiseSource
) -> tuple[Vector, DpEvent]:
    """The vector with whichever half of the noise the mechanism has, in the first round."""
    mechanism: Mechanism = made.at(0)
    shared, at_client = mechanism.share(vector, sensitivity, AMONG, noise)
    released, at_server = mechanism.release(vector, sensitivity, AMONG, noise)
    out = (released, at_server) if at_client is None else (shared, at_client)
    if out[1] is None:
        raise Broken("neither half of it has an event", "return the event beside the noise")
    return out[0], out[1]


def _halves(made: Any) -> None:
    expect(
        isinstance(made, Mechanism),
        "it has not the methods of core.Mechanism",
        "inherit core.Mechanism, and write share and release",
    )
    vector, sensitivity = torch.zeros(D), Sensitivity(l2=0.5, l1=0.5)
    mechanism = made.at(0)
    shared, at_client = mechanism.share(vector, sensitivity, AMONG, OsNoise())
    released, at_server = mechanism.release(vector, sensitivity, AMONG, OsNoise())
    for half, out, event in (("share", shared, at_client), ("release", released, at_server)):
        noisy = not torch.equal(out, vector)
        expect(
            noisy == (event is not None),
            f"{half} of {D} zeros {'adds' if noisy else 'adds no'} noise, and its event is {event}",
            "return the event where the noise is made, and nowhere else",
        )
    expect(
        (at_client is None) != (at_server is None),
        "both halves, or neither, have an event",
        "make the noise in one of them",
    )
    expect(
        made.local == (at_client is not None),
        f"local is {made.local}, and the noise is made in {'share' if at_client else 'release'}",
        "declare local as it is",
    )
    deviation = mechanism.local_deviation(sensitivity)
    expect(
        (deviation > 0) == made.local,
        f"local is {made.local}, and local_deviation is {deviation}",
        "say how wide a client's own noise is",
    )
    event = at_client or at_server
    expect(
        event is not None
        and all(math.isfinite(float(value)) for value in event.parameters.values()),
        f"its event is {event}",
        "write finite numbers into the event",
    )


def _shape(made: Any) -> None:
    for dtype in (torch.float32, torch.float64):
        vector = torch.linspace(-1, 1, 64, dtype=dtype)
        kept = vector.clone()
        out, _ = _noised(made, vector, Sensitivity(0.5, 0.5), OsNoise())
        expect(
            out.shape == kept.shape and out.dtype == dtype and torch.equal(vector, kept),
            f"of {dtype} [64] it made {out.dtype} {list(out.shape)}, or it changed what came in",
            "return a new vector of the same type",
        )


def _repeats(made: Any) -> None:
    vector, sensitivity = torch.zeros(64), Sensitivity(0.5, 0.5)
    seeded = [_noised(made, vector, sensitivity, SeededNoise(3))[0] for _ in range(2)]
    fresh = [_noised(made, vector, sensitivity, OsNoise())[0] for _ in range(2)]
    expect(
        torch.equal(*seeded),
        "the same seed gave other noise",
        "draw every bit from the source that is passed in",
    )
    expect(
        not torch.equal(*fresh) and not torch.equal(seeded[0], fresh[0]),
        "the operating system's source gave the same noise twice",
        "draw every bit from the source that is passed in, and seed nothing",
    )


def _width(made: Any) -> None:
    """Of Gaussian noise the deviation is multiplier times sensitivity, of Laplace noise sqrt(2) l1
    over epsilon; of the others twice the sensitivity must be twice the noise.
    """
    wide = []
    for l2 in (0.5, 1.0):
        out, event = _noised(
            made, torch.zeros(D, dtype=torch.float64), Sensitivity(l2, l2), SeededNoise(7)
        )
        wide.append(float(out.std()))
        said = None
        if event.mechanism == "gaussian":
            said = event.parameters["noise_multiplier"] * l2
        elif event.mechanism == "laplace":
            said = math.sqrt(2) * event.parameters["scale"] * l2
        expect(
            said is None or math.isclose(wide[-1], said, rel_tol=0.04),
            f"over the sensitivity {l2} its event says a deviation of {said or 0:.4g}, and it is"
            f" {wide[-1]:.4g}",
            "make the event of the numbers that the noise is made of",
        )
    expect(
        math.isclose(wide[1], 2 * wide[0], rel_tol=0.06),
        f"twice the sensitivity changed the deviation from {wide[0]:.4g} to {wide[1]:.4g}",
        "scale noise by the sensitivity",
    )


def _unproved(made: Any) -> None:
    try:
        out, event = _noised(made, torch.zeros(8), Sensitivity(math.inf), OsNoise())
    except ConfigError:
        return
    raise Broken(
        f"over an infinite sensitivity it made noise of {float(out.std()):.3g}, accounted for as"
        f" {event}",
        "refuse with ConfigError",
    )


def _rows(
    made: WithMemory, count: int, d: int, noise: NoiseSource, far: float = 0.5
) -> tuple[list[Vector], list[DpEvent]]:
    """The first rows that it makes of zeros in float64, and what it says of them."""
    run = made.over(RUN)
    state, out, events = run.init(d), [], []
    for _ in range(count):
        row, event, state = run.release(
            torch.zeros(d, dtype=torch.float64), Sensitivity(far, far), state, noise
        )
        out.append(row)
        events.append(event)
    return out, events


def _run_shape(made: WithMemory) -> None:
    run = made.over(RUN)
    for dtype in (torch.float32, torch.float64):
        vector, state = torch.linspace(-1, 1, 64, dtype=dtype), run.init(64)
        kept = vector.clone()
        for _ in range(2):
            out, _, state = run.release(vector, Sensitivity(0.5, 0.5), state, OsNoise())
            expect(
                out.shape == kept.shape and out.dtype == dtype and torch.equal(vector, kept),
                f"of {dtype} [64] it made {out.dtype} {list(out.shape)}, or changed what came in",
                "return a new vector of the same type",
            )


def _run_repeats(made: WithMemory) -> None:
    seeded = [torch.stack(_rows(made, 3, 64, SeededNoise(3))[0]) for _ in range(2)]
    fresh = [torch.stack(_rows(made, 3, 64, OsNoise())[0]) for _ in range(2)]
    expect(torch.equal(*seeded), "the same seed gave other noise", "draw from what is passed in")
    expect(
        not torch.equal(*fresh) and not torch.equal(seeded[0], fresh[0]),
        "the operating system's source gave the same noise twice",
        "draw every bit from the source that is passed in, and seed nothing",
    )


def _run_width(made: WithMemory) -> None:
    """The first k rows hide one participation of norm 1 in round i at most so well as their event
    says: 1 / z is at least sqrt(e' K^-1 e), K the rows' covariance, e the i-th unit vector.
    """
    rows, events = _rows(made, RUN.rounds, D, SeededNoise(7), far=1.0)
    drawn = torch.stack(rows)
    for count in range(1, RUN.rounds + 1):
        some = drawn[:count]
        precision = torch.linalg.inv(some @ some.T / D)
        told = float(precision.diagonal().max().sqrt())
        said = 1 / events[count - 1].parameters["noise_multiplier"]
        expect(
            told <= said * 1.05,
            f"its first {count} rows tell a contribution apart at 1 / {1 / told:.4g}, and its event"
            f" says 1 / {1 / said:.4g}",
            "make the event of the covariance that the rows have",
        )


def _run_grows(made: WithMemory) -> None:
    events = _rows(made, RUN.rounds, 4, OsNoise())[1]
    spent = [event.parameters["noise_multiplier"] for event in events]
    expect(
        all(a >= b > 0 for a, b in pairwise(spent)),
        f"its noise multiplier goes {spent}",
        "say what all rows so far cost together",
    )
    run = made.over(RUN)
    expect(
        events == [run.event(count) for count in range(1, RUN.rounds + 1)],
        "release says another event than event",
        "a round is charged before it is played: say the same",
    )


def _run_secret(made: WithMemory) -> None:
    state = made.over(RUN).init(4)
    expect(
        isinstance(state, KeepsSecrets),
        f"its state is a {type(state).__name__}, which anybody can write down",
        "inherit core.KeepsSecrets",
    )


def _run_unproved(made: WithMemory) -> None:
    try:
        _rows(made, 1, 8, OsNoise(), far=math.inf)
    except ConfigError:
        return
    raise Broken("over an infinite sensitivity it made noise", "refuse with ConfigError")


def _ring_repeats(made: RingNoise) -> None:
    zeros = np.zeros(256, dtype=np.int64)
    seeded = [made.add(zeros, UNIT, AMONG, SeededNoise(3)) for _ in range(2)]
    fresh = [made.add(zeros, UNIT, AMONG, OsNoise()) for _ in range(2)]
    expect(
        bool((seeded[0] == seeded[1]).all()) and bool((fresh[0] != fresh[1]).any()),
        "a seeded source gave other noise, or the operating system's the same",
        "draw every bit from the source that is passed in",
    )
    expect(
        not zeros.any() and seeded[0].dtype == np.int64,
        f"it changed what came in, or made {seeded[0].dtype}",
        "return new int64",
    )


def _ring_width(made: RingNoise) -> None:
    zeros, noise = np.zeros(D, dtype=np.int64), SeededNoise(7)
    total = sum(made.add(zeros, UNIT, AMONG, noise) for _ in range(AMONG))
    event = made.event(UNIT, D, AMONG, AMONG)
    said, found = event.parameters["variance"], float(np.var(total))
    expect(
        math.isclose(found, said, rel_tol=0.1),
        f"{AMONG} shares have the variance {found:.4g}, and the event says {said:.4g}",
        "make the event of the numbers that the shares are made of",
    )


def _ring_reach(made: RingNoise) -> None:
    zeros, noise = np.zeros(D, dtype=np.int64), SeededNoise(8)
    total = sum(made.add(zeros, UNIT, AMONG, noise) for _ in range(AMONG))
    far, reach = int(np.abs(total).max()), made.reach(UNIT, AMONG, AMONG)
    expect(
        far <= reach,
        f"of {D} integers one moved by {far}, and reach is {reach}",
        "bound the tail at 2^-40",
    )


def _ring_survivors(made: RingNoise) -> None:
    whole, left = (
        made.event(UNIT, D, AMONG, survivors).parameters["variance"] for survivors in (AMONG, 6)
    )
    expect(
        math.isclose(left, whole * 6 / AMONG, rel_tol=0.1),
        f"6 of {AMONG} shares have the variance {left:.4g} in the event, and all {whole:.4g}",
        "count the shares that arrived",
    )
