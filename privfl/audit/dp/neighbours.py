"""The search for neighbours through a run's own rounds: how far they come apart where noise meets
them, over what is claimed, and whether anything else tells them apart.

It refutes and proves nothing: what a stage declares is what proves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from privfl.audit.dp.evidence import Test
from privfl.audit.dp.play import Cohorts, NeighbourWorld, Play, Stage
from privfl.audit.dp.tape import Tape, differences
from privfl.core import Charge, ClientId, Seeds
from privfl.engine import RunState, Scenario

SLACK = 1 + 1e-4
"""Movements are computed in float32, over channels that round."""
INSIDE = 0.999
"""Rows at random end this much inside their bound: on its very edge a rounding error decides what
an adaptive bound's bit says.
"""
LONG = 10.0
"""Some rows are so many times as long as their bound, so that a bound that is left out shows."""
LENGTHS = (1.2, 1.7, 3.0, 6.0, LONG, 30.0, 1e3)
"""How many bounds long the rows are of clients who change one after the other: a bound may hold at
one length and not at another, and for one client and not for another.
"""
LONGEST = 20
"""Rounds of one pair of plays at most."""
Rows = Mapping[str, Tensor]


@dataclass(slots=True)
class Found:
    """What the search has found: the farthest that neighbours came apart over what is claimed
    (``worst``, at ``where``), how far they came apart in units of the sum where clients noise their
    shares (``moved``), what told them apart without noise, and how many pairs were tried.
    """

    worst: float = 0.0
    where: str = ""
    moved: float = 0.0
    leaks: dict[str, str] = field(default_factory=dict)
    beside: set[str] = field(default_factory=set)
    pairs: int = 0
    rounds: int = 0

    def tests(self, shares: bool) -> list[Test]:
        """Its part of the evidence."""
        told = [
            Test("tape", "", f"{path} differs: {where}", 0.0) for path, where in self.leaks.items()
        ]
        if not told:
            seen = f"{self.pairs} pairs of neighbours: all but the noised vectors is the same"
            told = [Test("tape", "", seen)]
        if shares:
            seen = f"neighbours {self.moved:.4g} apart in the sum (held against its noise)"
            return [*told, Test("neighbours", "", seen)]
        far = self.worst > SLACK
        seen = (
            f"{self.worst:.4f} of the claimed sensitivity after {self.pairs} pairs ({self.where}),"
            f" some of {self.rounds} rounds"
        )
        return [*told, Test("neighbours", "", seen, 0.0 if far else None)]


class Search:
    """Neighbouring worlds on two stages, in the relation of the run's claim."""

    def __init__(self, scenario: Scenario, seed: int = 0) -> None:
        self.stages = Stage(scenario, silent=True), Stage(scenario, silent=True)
        self.scenario = self.stages[0].scenario
        pipeline = self.scenario.pipeline()
        self.relation = pipeline.neighbours.relation
        self.clients = list(self.scenario.clients)
        d = self.scenario.workload.model.d
        self.lengths = {"delta": d, **self.scenario.workload.method.parts(d)}
        bound = self.scenario.in_round(0, None).bound
        self.l2 = {
            part: bound.l2 if part == "delta" else self.scenario.part_bound(part).l2
            for part in self.lengths
        }
        self.rounds = min(2, self.scenario.rounds)
        self.most_rounds = min(LONGEST, self.scenario.rounds)
        self.seeds = Seeds(seed)
        self.found = Found()
        self.drawn = [set(cohort) for cohort in self.stages[0].draw(self.most_rounds, seed)]

    # ---- the plays

    def compare(
        self, rows: Rows, other: Rows, at: int, words: str, rounds: int | None = None
    ) -> float:
        """Play two worlds that differ in the client at this position; what is found is noted."""
        rounds = rounds or self.rounds
        self.found.rounds = max(self.found.rounds, rounds)
        changed = self.clients[at]
        worlds = NeighbourWorld(rows), NeighbourWorld(other)
        if self.relation == "add_remove":
            worlds = NeighbourWorld(rows), NeighbourWorld(rows, absent=changed)
        elif self.relation == "zero_out":
            worlds = NeighbourWorld(rows), NeighbourWorld(other, zeroed=changed)
        cohorts, session = self._with(changed), self.seeds.derive("session", self.found.pairs)
        one, two = (
            stage.play(
                world,
                Tape("fixed"),
                rounds,
                session=session.to_bytes(8, "little"),
                cohorts=cohorts,
            )
            for stage, world in zip(self.stages, worlds, strict=True)
        )
        self.found.pairs += 1
        self._note_leaks(one, two, words)
        far = self._shares(one, two) if self.stages[0].shares else self._apart(one, two, words)
        if far > self.found.worst + 1e-6:
            self.found.worst, self.found.where = far, words
        return far

    def _with(self, changed: ClientId) -> Cohorts:
        """Cohorts as the run draws them, with the client that changes in each of them: noise is
        calibrated to what it moves where it is drawn. Where noise hangs together over rounds it is
        drawn in the first, and again as soon as that noise allows.
        """
        run = self.scenario.run_noise
        apart = 1 if run is None else run.participation.apart
        fixed = self.scenario.sampling.scheme == "fixed_size"

        def cohort(number: int) -> tuple[ClientId, ...]:
            drawn = set(self.drawn[number])
            if number % apart:
                drawn.discard(changed)
                return tuple(client for client in self.clients if client in drawn)
            if fixed and changed not in drawn:
                drawn.pop()
            drawn.add(changed)
            return tuple(client for client in self.clients if client in drawn)

        return cohort

    def _note_leaks(self, one: Play, two: Play, words: str) -> None:
        for number, (a, b) in enumerate(zip(one.states, two.states, strict=True)):
            for path in _server_side(a, b):
                self.found.leaks.setdefault(path, f"round {number}, {words}")
            charged = _anonymous(one.tape.charges[number]), _anonymous(two.tape.charges[number])
            if charged[0] != charged[1]:
                self.found.leaks.setdefault("charges", f"round {number}, {words}")
            self.found.beside |= {
                name
                for name in ("fired", "incidents")
                if one.beside[number][name] != two.beside[number][name]
            }

    def _apart(self, one: Play, two: Play, words: str) -> float:
        """The farthest that a part's releases came apart in any round, over what is claimed."""
        ours, theirs = one.tape.releases, two.tape.releases
        if [(t.round, t.part) for t in ours] != [(t.round, t.part) for t in theirs]:
            self.found.leaks.setdefault("whether a part is released", words)
            return math.inf
        squares: dict[tuple[int, str], float] = {}
        claimed: dict[tuple[int, str], float] = {}
        for a, b in zip(ours, theirs, strict=True):
            key = a.round, a.part
            if a.far != b.far:
                self.found.leaks.setdefault(f"the sensitivity of {a.part}", words)
            moved = float((a.before.double() - b.before.double()).square().sum())
            squares[key] = squares.get(key, 0.0) + moved
            claimed[key] = float(a.far.l2)
        ratios = [_over(math.sqrt(square), claimed[key]) for key, square in squares.items()]
        return max(ratios, default=0.0)

    def _shares(self, one: Play, two: Play) -> float:
        """The same where clients noise their shares, in units of the sum: there is no claim in
        these units, so it is the noise that is held against them.
        """
        if one.tape.opened.keys() != two.tape.opened.keys():
            self.found.leaks.setdefault("whether a round opens", "")
            return math.inf
        far = [float((one.tape.opened[t] - two.tape.opened[t]).norm()) for t in one.tape.opened]
        self.found.moved = max([self.found.moved, *far])
        return max(far, default=0.0)

    # ---- what is tried

    def run(self, pairs: int, climb: int, progress: Callable[[str], None] | None = None) -> Found:
        """Try so many structured and random pairs, climb from the worst, and play it for as many
        rounds as there are; then try every client, a third as many pairs at most.
        """
        best, worst = None, 0.0
        for number, (rows, other, at, words) in enumerate(self._pairs(pairs)):
            if progress is not None and number % 8 == 0:
                progress(f"neighbours: pair {number + 1} of {pairs}")
            far = self.compare(rows, other, at, words)
            if best is None or far > worst:
                best, worst = (rows, other, at), far
        if best is not None and worst < math.inf:
            best = self._climb(*best, worst, climb)
        if best is not None and self.most_rounds > self.rounds:
            self.compare(*best, "the farthest pair, in all rounds", self.most_rounds)
        for rows, other, at, words, rounds in self._everybody(max(pairs // 3, 1)):
            self.compare(rows, other, at, words, rounds)
        return self.found

    def _everybody(self, most: int) -> Iterator[tuple[Rows, Rows, int, str, int]]:
        """Clients in turn, each as far out as another length says, who become zero, or their own
        negative where neighbours may; the first of them in all rounds. Where there are more clients
        than turns, those who have one are drawn, so that none is safe from it.
        """
        n, rng = len(self.clients), self.seeds.generator("clients in turn")
        turns = (torch.arange(n) + 1) % n if n <= most else torch.randperm(n, generator=rng)
        for number in range(most):
            at = int(turns[number % n])
            length = LENGTHS[number % len(LENGTHS)]
            rows = {part: self._random(part, len(self.clients), 1) for part in self.lengths}
            rows = {part: values * self.l2[part] for part, values in rows.items()}
            other = {}
            for part, values in rows.items():
                values[at] *= length / INSIDE
                other[part] = values.clone()
                negated = self.relation == "replace_one" and (number // len(self.clients)) % 2
                other[part][at] = -values[at] if negated else 0.0
            words = f"client {self.clients[at]} {length:g} bounds long"
            yield rows, other, at, words, self.rounds if number else self.most_rounds

    def _pairs(self, most: int) -> Iterator[tuple[Rows, Rows, int, str]]:
        """The pairs of all kinds of rows in turn, one client that is drawn changed."""
        made = 0
        for words, unit, thorough in self._kinds():
            rows = {part: unit(part) * self.l2[part] for part in self.lengths}
            for at, change, new in self._changes(rows, thorough):
                if made == most:
                    return
                made += 1
                other = {part: rows[part].clone() for part in rows}
                for part, row in new.items():
                    other[part][at] = row
                yield rows, other, at, f"{words}, client {self.clients[at]} {change}"

    def _drawn_first(self, client: ClientId) -> bool:
        return client in self.drawn[0]

    def _changes(self, rows: Rows, thorough: bool) -> Iterator[tuple[int, str, Rows]]:
        """Who changes, how, and into which row: the last that is drawn, and the first as well."""
        drawn = sorted(range(len(self.clients)), key=self._place)[: self._many]
        for at in (drawn[-1], drawn[0]) if thorough else (drawn[-1],):
            apart = next((i for i in drawn if not rows["delta"][i].equal(rows["delta"][at])), None)
            joined = None
            if apart is not None:
                joined = {part: 0.999 * values[apart] for part, values in rows.items()}
            if self.relation != "replace_one":
                how = "becomes zero" if self.relation == "zero_out" else "is not there"
                yield at, how, {part: torch.zeros(n) for part, n in self.lengths.items()}
                continue
            if joined is not None:
                yield at, "joins the others", joined
            if thorough:
                yield at, "negated", {part: -values[at] for part, values in rows.items()}
                yield at, "turned", {part: values[at].roll(1) for part, values in rows.items()}

    @property
    def _many(self) -> int:
        """How many are drawn in the first round."""
        return max(sum(map(self._drawn_first, self.clients)), 1)

    def _place(self, at: int) -> tuple[bool, int]:
        """Who is drawn comes first."""
        return not self._drawn_first(self.clients[at]), at

    def _kinds(self) -> Iterator[tuple[str, Callable[[str], Tensor], bool]]:
        """Rows in units of the bound, of any part: names, what makes them, and whether more than
        one change is worth a try.

        Among them two camps of every size: a row that decides an order statistic moves all rows
        that follow it, and which size that takes hangs on the rule.
        """
        n, drawn = len(self.clients), self._many
        place = torch.empty(n, dtype=torch.long)
        place[torch.tensor(sorted(range(n), key=self._place))] = torch.arange(n)
        every = list(range(1, drawn))
        every.sort(key=lambda k: (abs(k - drawn / 2), k))
        telling = list(dict.fromkeys([*every[:1], *every[-2:]]))

        def camps(low: float, high: float, k: int) -> tuple[str, Callable[[str], Tensor]]:
            values = torch.where(place < k, low, high)
            words = f"camps of {k} and {drawn - k} at {low} and {high}"
            return words, lambda part: self._along(part, values)

        yield "long rows in every layer", lambda part: self._layers(part, n), True
        for k in telling:
            for low, high in ((-1.0, 1.0), (0.01, 1.0), (0.0, 1.0)):
                yield *camps(low, high, k), True
        yield "an axis each", lambda part: self._axes(part, n), True
        ladder = torch.linspace(-1, 1, n)[place]
        yield "a ladder", lambda part: self._along(part, ladder), True
        yield "at random", lambda part: self._random(part, n, 1), True
        for k in every:
            yield *camps(0.01, 1.0, k), False
        for k in every:
            yield *camps(-1.0, 1.0, k), False
        for number in range(2, 10_000):
            yield f"at random ({number})", partial(self._random, n=n, number=number), True

    def _along(self, part: str, values: Tensor) -> Tensor:
        rows = torch.zeros(len(values), self.lengths[part])
        rows[:, 0] = values
        return rows

    def _axes(self, part: str, n: int) -> Tensor:
        d = self.lengths[part]
        rows = torch.zeros(n, d)
        rows[torch.arange(n), torch.arange(n) % d] = 1.0
        return rows

    def _layers(self, part: str, n: int) -> Tensor:
        """Every row far too long, in every layer of the model."""
        rows = torch.zeros(n, self.lengths[part])
        slots = self.scenario.workload.model.slots
        starts = [slot.start for slot in slots] if part == "delta" else [0]
        rows[:, starts] = LONG
        return rows

    def _random(self, part: str, n: int, number: int) -> Tensor:
        rng = self.seeds.generator(f"rows of {part}", number)
        drawn = torch.randn(n, self.lengths[part], generator=rng)
        rows: Tensor = drawn * (INSIDE / drawn.norm(dim=1, keepdim=True))
        return rows

    def _climb(
        self, rows: Rows, other: Rows, at: int, worst: float, tries: int
    ) -> tuple[Rows, Rows, int]:
        """A (1 + 1) climb in the ball, whose step shrinks where it fails."""
        step = 0.5
        for number in range(tries):
            moved = {part: self._stepped(part, rows[part], step, number) for part in rows}
            new = {part: moved[part].clone() for part in moved}
            for part, values in new.items():
                values[at] = 0.0
                if self.relation == "replace_one":
                    beside = self._stepped(part, other[part][at : at + 1], step, tries + number)
                    values[at] = beside[0]
            far = self.compare(moved, new, at, "found by climbing")
            if far > worst:
                worst, rows, other = far, moved, new
            else:
                step *= 0.93
        return rows, other, at

    def _stepped(self, part: str, rows: Tensor, step: float, number: int) -> Tensor:
        rng, l2 = self.seeds.generator(f"climb of {part}", number), self.l2[part]
        drawn = torch.randn(rows.shape, generator=rng) / rows.shape[1] ** 0.5
        moved = rows + step * l2 * drawn
        inside: Tensor = moved * (
            INSIDE * l2 / moved.norm(dim=1, keepdim=True).clamp(min=INSIDE * l2)
        )
        return inside


def _over(moved: float, claimed: float) -> float:
    if claimed > 0:
        return moved / claimed
    return math.inf if moved else 0.0


def _anonymous(charges: tuple[Charge, ...]) -> list[Charge]:
    """Charges without the cohort, which is as public as the claim says."""
    return [replace(charge, cohort=None) for charge in charges]


def _server_side(one: RunState, two: RunState) -> list[str]:
    """Which of the server's data differ; clients' own memories, and the ledger, which is compared
    round by round, are not of it.
    """
    empty: dict[int, Any] = {}
    same = replace(one, ledger=two.ledger, clients=empty, client_seats=empty, attacks=empty)
    other = replace(two, clients=empty, client_seats=empty, attacks=empty)
    return differences(same, other, "state")
