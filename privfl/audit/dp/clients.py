"""The audit at client level: canary clients through a run's own rounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from privfl.audit.dp.claim import Claim, Scored, claim_of, refusal_of
from privfl.audit.dp.evidence import Test
from privfl.audit.dp.neighbours import LONG, Search
from privfl.audit.dp.play import NeighbourWorld, Play, Stage
from privfl.audit.dp.replay import draws_for, inclusion_tests, source_test
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
from privfl.audit.dp.settings import Settings
from privfl.audit.dp.tape import Tape
from privfl.core import Charge, ClientId, Ledger, Seeds
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
    refused = refusal_of("client", made, delta)
    if refused is not None:
        return refused
    tests = found.tests(searched.stages[0].shares)
    tests += plays.noise_tests(found.moved)
    tests += plays.charge_tests()
    first = plays.charges[0]
    if first.cohort_hidden:
        tests += _replayed(scenario, searched.stages[0], first, settings.inclusions)
    lost = plays.incidents
    beside = ", ".join(sorted(found.beside))
    why = [
        f"{lost} canaries did not get through the run's own checks." if lost else "",
        f"What differs between neighbours beside the model and is not noised: {beside}."
        if beside
        else "",
    ]
    return claim_of(
        "client",
        made,
        played,
        tests,
        settings,
        delta,
        scored=plays.scored,
        scored_on=Ledger(plays.charges),
        seed=scenario.seed,
        why=" ".join(filter(None, why)),
    )


def _replayed(scenario: Scenario, stage: Stage, charge: Charge, inclusions: int) -> list[Test]:
    """Cohorts drawn again, under other seeds, against what is charged."""
    draws, tape = draws_for(len(scenario.clients), inclusions), Tape("drawn")
    drawn: list[tuple[ClientId, ...]] = []
    for start in range(0, draws, scenario.rounds):
        seed = Seeds(scenario.seed).derive("replay", start)
        drawn += stage.draw(min(scenario.rounds, draws - start), seed, tape)
    tests = inclusion_tests(drawn, charge.sampling, "client")
    return [*tests, *source_test(bool(tests), charge.coins, tape.asked, "client")]


def _first(ledger: Ledger, rounds: int) -> Ledger:
    """What clients were charged in the first rounds."""
    return Ledger(tuple(c for c in ledger.charges if c.unit == "client" and c.round < rounds))


@dataclass(slots=True)
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
        stage, seeds = Stage(scenario), Seeds(scenario.seed)
        silent = searched.stages[0] if stage.shares else None
        axes = _axes(scenario, n)
        for number in range(plays):
            if progress is not None and number % 10 == 0:
                progress(f"client level: play {number + 1} of {plays}, {made.rounds} rounds")
            made.play(stage, silent, seeds, axes, number)
        return made

    def play(
        self, stage: Stage, silent: Stage | None, seeds: Seeds, axes: Tensor, number: int
    ) -> None:
        """One play, and the same without noise where clients noise their shares."""
        n = len(axes)
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
        played = stage.play(
            NeighbourWorld(rows),
            Tape("drawn"),
            self.rounds,
            session=session,
            cohorts=drawn.__getitem__,
        )
        self.tapes.append(played.tape)
        if silent is not None:
            quiet = silent.play(
                NeighbourWorld(rows),
                Tape("drawn"),
                self.rounds,
                session=session,
                cohorts=drawn.__getitem__,
            )
            self.quiet.append(quiet.tape)
        self.incidents += sum(len(said["incidents"]) for said in played.beside)
        if not self.charges:
            self.charges = played.states[-1].ledger.charges
        scorable = torch.arange(n) < self.scenario.workload.model.d
        scores = self._scores(played, axes)
        self.scored.add(scores[scorable], coins[scorable])

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

    def noise_tests(self, moved: float) -> list[Test]:
        """Tests of every value of noise, part by part. ``moved`` is how far neighbours were found
        apart in the sum, where clients noise their shares.
        """
        runs = self._share_noise(moved) if self.quiet else self._noise()
        tests = []
        for part, (shape, plays, given) in runs.items():
            if shape is None:
                tests.append(Test("noise variance", part, "noise of a kind that is not covered"))
                continue
            noise = [vector for play in plays for vector in play]
            optional = (
                repeat_test([v for v in noise if len(v) >= FEW][:MOST_VECTORS], part),
                None if self.scenario.local_noise else drift_test(plays, part),
                aligned_test(noise, given, part),
            )
            tests += [variance_test(noise, shape, part), mean_test(noise, shape, part)]
            tests += [test for test in optional if test is not None]
        if not self.quiet and all(not tape.asked for tape in self.tapes):
            seen = "the run's noise source was never asked"
            tests.append(Test("noise source", "", seen, 0.0))
        return tests

    def _noise(self) -> dict[str, tuple[str | None, list[list[Noise]], list[Noise]]]:
        """Noise in units of what is claimed, by part and play, and what it was added to."""
        found: dict[str, tuple[str | None, list[list[Noise]], list[Noise]]] = {}
        for tape in self.tapes:
            mine: dict[str, list[Noise]] = {}
            for one in tape.releases:
                shape = claimed(one.event, one.far, len(one.before))
                family = None if shape is None or not shape.scale > 0 else shape.family
                _, plays, given = found.setdefault(one.part, (family, [], []))
                if shape is None or family is None:
                    found[one.part] = (None, plays, given)
                    continue
                if one.part not in mine:
                    mine[one.part] = []
                    plays.append(mine[one.part])
                mine[one.part].append((one.noise / shape.scale).cpu().numpy())
                given.append(one.before.double().cpu().numpy())
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
        tape = self.tapes[0]
        if self.quiet or self.scenario.local_noise:
            cheap = [
                charge
                for charge in self.charges
                if charge.cohort_hidden and charge.sampling.scheme != "all"
            ]
            words = "noise of the clients is charged with amplification" if cheap else ""
            return [Test("charges", "", words or "nothing is amplified", 0.0 if cheap else None)]
        for number, charges in tape.charges.items():
            events = [one.event for one in tape.releases if one.round == number]
            said = together([event for event in events if event is not None])
            charged = [charge.event for charge in charges if charge.unit == "client"]
            if list(said) != charged:
                seen = f"round {number} is charged for {charged}, and drew {list(said)}"
                return [Test("charges", "", seen, 0.0)]
        return [Test("charges", "", "every round is charged for what was drawn")]


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
