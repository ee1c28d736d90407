"""The audit at client level: canary clients through a run's own rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from privfl.audit.dp.claim import (
    Claim,
    Scored,
    claim_of,
    covers,
    missing_test,
    refusal_of,
)
from privfl.audit.dp.cohorts import cohort_tests
from privfl.audit.dp.evidence import Test
from privfl.audit.dp.neighbours import LONG, Search
from privfl.audit.dp.play import NeighbourWorld, Play, Stage
from privfl.audit.dp.residual import (
    FEW,
    Noise,
    aligned_test,
    claimed,
    drift_test,
    mean_test,
    repeat_test,
    variance_test,
)
from privfl.audit.dp.sent import selection_test, sent
from privfl.audit.dp.settings import Settings
from privfl.audit.dp.tape import Tape
from privfl.audit.dp.weakest import weakest_test
from privfl.audit.dp.whitening import event_of, matrix_of, movement, whitened
from privfl.core import Charge, ClientId, Ledger, RunNoise, Seeds
from privfl.dp.joint import together
from privfl.engine import Scenario

LONGEST = 20
"""Rounds of one play at most; a longer run is audited for its first rounds."""
MOST_VECTORS = 300
"""Vectors of noise that are compared pair by pair."""


def audit_clients(
    scenario: Scenario,
    recorded: Ledger | None,
    settings: Settings,
    delta: float,
    progress: Callable[[str], None] | None,
) -> Claim:
    """Search for neighbours, look at every value of noise, and replay the sampler; bound, channel,
    seats, rule, mechanism and sampler are the run's own.
    """
    searched = Search(scenario, scenario.seed)
    found = searched.run(settings.pairs, settings.climb, progress)
    plays = _Plays.of(scenario, settings, searched, progress)
    played = Ledger(plays.charges)
    made = played if recorded is None else _first(recorded, plays.rounds)
    if recorded is not None and plays.run is not None:
        played = _as_long(plays.charges[0], plays.run, made)
    refused = refusal_of("client", made, delta)
    if refused is not None:
        return refused
    tests = found.tests(searched.stages[0].shares)
    noise, unseen = plays.noise_tests(found.moved)
    tests += noise
    tests += plays.charge_tests()
    first = plays.charges[0]
    if first.cohort_hidden or plays.run is not None:
        tests += cohort_tests(scenario, searched.stages[0], first, settings.inclusions)
    if recorded is not None:
        sampling = scenario.sampling
        tests += missing_test("client", recorded, sampling, hidden=first.cohort_hidden)
    lost = plays.incidents
    beside = ", ".join(sorted(found.beside))
    why = [
        f"{lost} canaries did not get through the run's own checks." if lost else "",
        f"What differs between neighbours beside the model and is not noised: {beside}."
        if beside
        else "",
    ]
    claim = claim_of(
        "client",
        made,
        played,
        tests,
        settings,
        delta,
        scored=plays.scored if settings.canaries else None,
        scored_on=Ledger(plays.charges),
        seed=scenario.seed,
        why=" ".join(filter(None, why)),
        unseen=unseen,
    )
    return replace(claim, covers=covers(scenario.rounds, recorded, plays.rounds, delta))


def _as_long(charge: Charge, run: RunNoise[Any], made: Ledger) -> Ledger:
    """What a run's config costs over as many rows of noise as each charge of a ledger covers."""
    charges = []
    for one in made.charges:
        last = one.round if one.last is None else one.last
        event, count = event_of(run, last - one.round + 1, hidden=charge.cohort_hidden)
        charges.append(replace(charge, round=one.round, last=last, event=event, count=count))
    return Ledger(tuple(charges))


def _first(ledger: Ledger, rounds: int) -> Ledger:
    """What clients were charged in the first rounds."""
    return Ledger(tuple(c for c in ledger.charges if c.unit == "client" and c.round < rounds))


@dataclass
class _Plays:
    """Plays of canaries with the run's own noise: every value of it, and what canaries score.

    Canary i is ten bounds long along an axis of its own, in the layer with the most room where each
    layer is bounded; a fair coin decides whether it is there for a whole play.
    """

    scenario: Scenario
    rounds: int
    tapes: list[Tape] = field(default_factory=list)
    quiet: list[Tape] = field(default_factory=list)
    charges: tuple[Charge, ...] = ()
    scored: Scored = field(default_factory=Scored)
    incidents: int = 0

    @classmethod
    def of(
        cls,
        scenario: Scenario,
        settings: Settings,
        searched: Search,
        progress: Callable[[str], None] | None,
    ) -> _Plays:
        n, d = len(scenario.clients), scenario.workload.model.d
        rounds = min(scenario.rounds, LONGEST)
        wanted = max(6, math.ceil(settings.values / d))
        if scenario.local_noise:
            wanted = max(6, math.ceil(wanted / n))
        plays = max(math.ceil(wanted / rounds), math.ceil(settings.canaries / n))
        made = cls(scenario, max(1, min(rounds, settings.most_rounds // plays)))
        plays = min(plays, settings.most_rounds)
        if made.run is not None:  # what hangs together over rounds shows in plays of many
            plays = max(1, min(plays, settings.most_rounds // rounds))
            made.rounds = rounds
        stage, seeds = Stage(scenario), Seeds(scenario.seed)
        silent = searched.stages[0] if stage.shares else None
        axes = _axes(scenario, n)
        made.play(Stage(scenario), searched.stages[1] if silent else None, seeds, axes, None)
        for number in range(plays):
            if progress is not None and number % 10 == 0:
                progress(f"client level: play {number + 1} of {plays}, {made.rounds} rounds")
            made.play(stage, silent, seeds, axes, number)
        return made

    def play(
        self, stage: Stage, silent: Stage | None, seeds: Seeds, axes: Tensor, turn: int | None
    ) -> None:
        """One play, and the same without noise where clients noise their shares. Without a turn it
        is the first, played for its noise alone: noise that follows from what is played is then
        the same.
        """
        n, number = len(axes), turn or 0
        neighbours = self.scenario.pipeline().neighbours
        coins = torch.rand(n, generator=seeds.generator("client canaries", number)) < 0.5
        out = -1.0 if neighbours.relation == "replace_one" else 0.0
        signs = torch.where(coins, 1.0, out)  # who is replaced pulls the other way
        rows = {}
        for part, length in searched_lengths(self.scenario).items():
            at = axes if part == "delta" else torch.arange(n) % length
            rows[part] = torch.zeros(n, length)
            rows[part][torch.arange(n), at] = signs * LONG * self._l2(part)
        session = seeds.derive("canary session", number).to_bytes(8, "little")
        drawn = stage.draw(self.rounds, seeds.derive("canary play", number))
        played = self._played(stage, rows, session, drawn)
        self.tapes.append(played.tape)
        if silent is not None:
            self.quiet.append(self._played(silent, rows, session, drawn).tape)
        self.incidents += sum(len(said["incidents"]) for said in played.beside)
        if not self.charges:
            self.charges = played.states[-1].ledger.charges
        if turn is None:
            return
        scorable = torch.arange(n) < self.scenario.workload.model.d
        scores = self._scores(played, axes)
        self.scored.add(scores[scorable], coins[scorable])

    def _played(
        self,
        stage: Stage,
        rows: Mapping[str, Tensor],
        session: bytes,
        cohorts: Sequence[tuple[ClientId, ...]],
    ) -> Play:
        return stage.play(
            NeighbourWorld(rows),
            Tape("drawn"),
            self.rounds,
            session=session,
            cohorts=cohorts.__getitem__,
        )

    def _l2(self, part: str) -> float:
        now = self.scenario.in_round(0, None)
        return now.bound.l2 if part == "delta" else self.scenario.part_bound(part).l2

    def _scores(self, played: Play, axes: Tensor) -> Tensor:
        """What each canary's axis showed over all rounds."""
        total = torch.zeros(len(axes), dtype=torch.float64)
        at = {client: i for i, client in enumerate(self.scenario.clients)}
        for opened in played.tape.opened.values():
            total += opened.sum(0)[axes]
        number: dict[int, int] = {}
        for one in played.tape.releases:
            if one.part != "delta":
                continue
            if not self.scenario.local_noise:
                total += one.after.double()[axes]
                continue
            turn = number.get(one.round, 0)
            number[one.round] = turn + 1
            mine = at[played.cohorts[one.round][turn]]
            total[mine] += float(one.after[axes[mine]])
        return total

    # ---- the evidence

    @cached_property
    def run(self) -> RunNoise[Any] | None:
        """The noise that hangs together over the run, if its mechanism's does."""
        return self.scenario.run_noise

    def noise_tests(self, moved: float) -> tuple[list[Test], str]:
        """Tests of every value of noise, part by part, and in words what could not be looked at.
        ``moved`` is how far neighbours were found apart in the sum, where clients noise their
        shares.
        """
        if self.quiet:
            runs = self._share_noise(moved)
        else:
            runs = self._noise() if self.run is None else self._whitened(self.run)
        tests, unseen = [], ""
        if not runs:
            unseen = "no noise was drawn in the rounds that were played"
        for part, (shape, plays, given) in runs.items():
            if shape is None:
                tests.append(Test("noise variance", part, "noise of a kind that is not covered"))
                unseen = f"the noise on '{part}' is of a kind that this audit cannot look at"
                continue
            noise = [vector for play in plays for vector in play]
            optional = (
                repeat_test([v for v in noise if len(v) >= FEW][:MOST_VECTORS], part),
                None if self.scenario.local_noise else drift_test(plays, part),
                aligned_test(noise, given, part),
            )
            tests += [variance_test(noise, shape, part), mean_test(noise, shape, part)]
            tests.append(weakest_test(plays, shape, part))
            tests += [test for test in optional if test is not None]
        released = [one for tape in self.tapes for one in tape.releases]
        tests += selection_test(released, self.scenario.mechanism)
        if not self.quiet and all(not tape.asked for tape in self.tapes):
            seen = "the run's noise source was never asked"
            tests.append(Test("noise source", "", seen, 0.0))
        return tests, unseen

    def _noise(self) -> dict[str, tuple[str | None, list[list[Noise]], list[Noise]]]:
        """Noise in units of what is claimed, by part and play, and what it was added to."""
        found: dict[str, tuple[str | None, list[list[Noise]], list[Noise]]] = {}
        for tape in self.tapes:
            mine: dict[str, list[Noise]] = {}
            for one in tape.releases:
                here = sent(one, self.scenario.mechanism)
                shape = claimed(one.event, one.far, len(here))
                family = None if shape is None or not shape.scale > 0 else shape.family
                _, plays, given = found.setdefault(one.part, (family, [], []))
                if shape is None or family is None:
                    found[one.part] = (None, plays, given)
                    continue
                if one.part not in mine:
                    mine[one.part] = []
                    plays.append(mine[one.part])
                mine[one.part].append((one.noise[here] / shape.scale).cpu().numpy())
                given.append(one.before[here].double().cpu().numpy())
        return found

    def _whitened(
        self, run: RunNoise[Any]
    ) -> dict[str, tuple[str | None, list[list[Noise]], list[Noise]]]:
        """The same where noise hangs together over rounds: made independent again, and in units of
        what the charge of the rows that were played says of it.
        """
        found: dict[str, tuple[str | None, list[list[Noise]], list[Noise]]] = {}
        matrix, hidden = matrix_of(run), self.charges[0].cohort_hidden
        for tape in self.tapes:
            for part in dict.fromkeys(one.part for one in tape.releases):
                rows = [one for one in tape.releases if one.part == part]
                event, _ = event_of(run, len(rows), hidden=hidden)
                multiplier = event.parameters.get("noise_multiplier", 0.0)
                if matrix is None or event.mechanism != "gaussian" or not multiplier > 0:
                    found[part] = (None, [], [])
                    continue
                scale = multiplier * movement(matrix, run.participation, len(rows))
                _, plays, given = found.setdefault(part, ("gaussian", [], []))
                alone = [(one.noise / float(one.far.l2)).cpu().numpy() for one in rows]
                plays.append([row / scale for row in whitened(alone, matrix.dense())])
                given += [one.before.double().cpu().numpy() for one in rows]
        return found

    def _share_noise(
        self, moved: float
    ) -> dict[str, tuple[str | None, list[list[Noise]], list[Noise]]]:
        """Noise of shares, in units of the multiplier that is charged times how far neighbours were
        found apart: what was opened, less what is opened of the same rows without noise.
        """
        event = self.charges[0].event
        numbers = event.parameters
        if event.mechanism not in ("skellam", "discrete_gaussian") or not moved > 0:
            return {"delta": (None, [], [])}
        scale = math.sqrt(numbers["variance"]) / numbers["l2"] * moved
        plays: list[list[Noise]] = []
        given: list[Noise] = []
        for loud, quiet in zip(self.tapes, self.quiet, strict=True):
            plays.append([])
            for number in loud.opened.keys() & quiet.opened.keys():
                noise = loud.opened[number] - quiet.opened[number]
                for row, before in zip(noise, quiet.opened[number], strict=True):
                    plays[-1].append((row / scale).cpu().numpy())
                    given.append(before.cpu().numpy())
        return {"delta": ("gaussian", plays, given)}

    def charge_tests(self) -> list[Test]:
        """Whether what is charged is what the mechanisms say that they drew; and whether noise that
        is there against the server, which sees the cohort, is charged as if it did not.
        """
        tape, claim = self.tapes[0], self.scenario.pipeline().neighbours
        for charge in self.charges:
            if charge.unit == claim.unit and charge.relation != claim.relation:
                seen = f"relation {charge.relation} is claimed, and noise covers {claim.relation}"
                return [Test("charges", "", seen, 0.0)]
        if self.quiet or self.scenario.local_noise:
            cheap = [
                charge
                for charge in self.charges
                if charge.cohort_hidden and charge.sampling.scheme != "all"
            ]
            words = "noise of the clients is charged with amplification" if cheap else ""
            return [Test("charges", "", words or "nothing is amplified", 0.0 if cheap else None)]
        if self.run is not None:
            return [self._block_test(self.run)]
        for number, charges in tape.charges.items():
            events = [one.event for one in tape.releases if one.round == number]
            said = together([event for event in events if event is not None])
            charged = [charge.event for charge in charges if charge.unit == "client"]
            if list(said) != charged:
                seen = f"round {number} is charged for {charged}, and drew {list(said)}"
                return [Test("charges", "", seen, 0.0)]
        return [Test("charges", "", "every round is charged for what was drawn")]

    def _block_test(self, run: RunNoise[Any]) -> Test:
        """Whether each round's charge is that of all rows so far, of all parts together, and no
        round is charged beside it.
        """
        parts = len(dict.fromkeys(one.part for one in self.tapes[0].releases))
        for number, charges in self.tapes[0].charges.items():
            mine = [charge for charge in charges if charge.unit == "client"]
            hidden = all(charge.cohort_hidden for charge in mine)
            event, count = event_of(run, number + 1, hidden=hidden)
            due = [(one, 0, number, count) for one in together([event] * max(parts, 1))]
            if [(one.event, one.round, one.last, one.count) for one in mine] != due:
                seen = f"round {number} is charged for {mine}, and all rows to there cost {due}"
                return Test("charges", "", seen, 0.0)
        mine = [charge for charge in self.charges if charge.unit == "client"]
        if len(mine) != len(together([mine[0].event] * max(parts, 1))):
            return Test("charges", "", f"{len(mine)} charges of one block of rounds", 0.0)
        return Test("charges", "", "all rounds are charged as one block of what was drawn")


def searched_lengths(scenario: Scenario) -> dict[str, int]:
    """How long each part of a round is."""
    d = scenario.workload.model.d
    return {"delta": d, **scenario.workload.method.parts(d)}


def _axes(scenario: Scenario, n: int) -> Tensor:
    """Where each of n canaries lies: for a clip by layer, in the layer with the most room."""
    sizes, d = scenario.bound.parts, scenario.workload.model.d
    if sizes is None:
        return torch.arange(n) % d
    largest = max(range(len(sizes)), key=lambda i: sizes[i])
    return sum(sizes[:largest]) + torch.arange(n) % sizes[largest]
