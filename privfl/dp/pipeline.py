"""How a round's vectors leave: how far one neighbour moves each on its way from a client's row to
its noise, and what that costs. Charges and released vectors are made here and nowhere else.

A vector is described by a `PartRelease`: the stages that a client's row passes before noise meets
it, in order, the rule, and the noise. Each stage says how far one neighbour moves what leaves it
(`Stable`); one that says nothing moves without bound, and noise is then refused, never guessed.
What comes after the noise is post-processing and is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from privfl.core import (
    UNPROVED,
    BeforeSeat,
    CarriesNoise,
    Charge,
    ClientId,
    ConfigError,
    DpEvent,
    Mechanism,
    Moves,
    Neighbours,
    NoiseSource,
    NoisySteps,
    Released,
    RoundPlan,
    Rule,
    RuleWithMemory,
    Sampling,
    Sensitivity,
    Stable,
    Vector,
)

AnyRule: TypeAlias = Rule[Any] | RuleWithMemory[Any, Any]
_POISSON = (
    "under Poisson sampling the number present varies, so noise needs the mean over a public"
    " denominator."
)


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights that travel beside updates, as a stage: of one for everybody, or clients' counts.

    A weight multiplies its row, and a count is private and unbounded: with counts nothing is
    proved. Weights of one change nothing, and tell nothing.
    """

    uniform: bool

    def stability(self, moves: Moves, neighbours: Neighbours) -> Moves:
        """What entered, where every weight is one."""
        return moves if self.uniform else UNPROVED


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum of all rows, as a rule: a channel's own sum, such as that of an adaptive bound's
    bits.
    """

    def sensitivity(self, moves: Moves, neighbours: Neighbours) -> float:
        """How far all rows move together."""
        return moves.total


@dataclass(frozen=True, slots=True)
class PartRelease:
    """How one vector of a round leaves: its ``stages`` from the bound on, the ``seats`` that change
    rows once the channel has opened them, the ``rule``, and the noise.

    ``mechanism`` noises what the rule makes; where ``rule`` is None it noises each client's row
    where the stages end, and so do ``shares``, which clients of a channel add to their integers:
    rule and seats are then post-processing. Neither: the vector leaves as it is.
    """

    stages: tuple[object, ...]
    rule: AnyRule | Sum | None = None
    seats: tuple[BeforeSeat[Any], ...] = ()
    mechanism: Mechanism | None = None
    shares: CarriesNoise | None = None

    @property
    def noised(self) -> bool:
        """Whether there is any noise."""
        return self.mechanism is not None or self.shares is not None

    @property
    def central(self) -> Mechanism | None:
        """The mechanism that noises what the rule makes, if one does."""
        return None if self.rule is None else self.mechanism


@dataclass(frozen=True, slots=True)
class Made:
    """What a rule made of one part: the vector [d], how many rows it read, and how many clients'
    contributions are in them.
    """

    vector: Vector
    rows: int
    survivors: int


@dataclass(frozen=True)
class Pipeline:
    """All releases of a run's rounds, by part; whose neighbours the claim is about, how cohorts are
    drawn, and whether whom it is made against learns them (``sees_cohort``: nothing is then
    amplified, and charges name the cohort).

    ``samples`` are the neighbours of what training does to a client's own samples, and
    ``repeatable`` says that the noise comes from a seed, which voids the claim.

    >>> from privfl.aggregators import Mean
    >>> from privfl.dp import Clip, Gaussian
    >>> delta = PartRelease((Clip(1.0),), Mean(weighted=False), mechanism=Gaussian(1.0))
    >>> each = Neighbours("client", "replace_one")
    >>> Pipeline({"delta": delta}, each, Sampling("all", 1.0, 10)).sensitivity("delta", rows=10)
    0.2
    """

    releases: Mapping[str, PartRelease]
    neighbours: Neighbours
    sampling: Sampling
    sees_cohort: bool = False
    samples: Neighbours = Neighbours("sample", "add_remove")
    repeatable: bool = False

    @property
    def private(self) -> bool:
        """Whether any part is noised, so that the run claims something about its clients."""
        return any(release.noised for release in self.releases.values())

    def check(self, rows: int) -> None:
        """Refuse what no claim could be made of, before any training; ``rows`` are what the channel
        opens of a whole cohort.

        Raises:
            ConfigError: a part without noise beside one with it; a stage, seat or rule that proves
                nothing, or claims that nothing moves; shares of noise under add_remove; several
                releases of one sampled cohort whose joint cost is not known.
        """
        if not self.private:
            return
        for part, release in self.releases.items():
            if not release.noised:
                raise ConfigError(
                    f"'{part}' would leave without noise beside {self._noised()}: whoever reads it"
                    " needs no epsilon. Use a method that sends no such part, or noise that"
                    " covers it."
                )
            self.sensitivity(part, rows)
            if release.central is not None and self.sampling.scheme == "poisson":
                self._refuse_unless_linear(part)
        if self._amplified and not self._all_gaussian:
            self._refuse_sampled()

    def _refuse_unless_linear(self, part: str) -> None:
        """Refuse neighbours who stay drawn where to be absent is another thing than to send zero:
        what is known of Poisson samples holds where a client adds its row to a sum, and nothing
        else.
        """
        if self.neighbours.relation == "add_remove":
            return
        absent = replace(self, neighbours=Neighbours("client", "add_remove")).reach(part)
        replaced = replace(self, neighbours=Neighbours("client", "replace_one")).reach(part)
        if not 2 * absent <= replaced * (1 + 1e-9):
            raise ConfigError(_POISSON)

    @property
    def _amplified(self) -> bool:
        """Whether not being drawn makes a round cheaper."""
        drawn = self.sampling.scheme in ("poisson", "fixed_size") and self.sampling.rate < 1
        return drawn and not self.sees_cohort

    @property
    def _all_gaussian(self) -> bool:
        events = [
            None if release.mechanism is None else release.mechanism.event(1)
            for release in self.releases.values()
        ]
        return all(event is not None and event.mechanism == "gaussian" for event in events)

    def _refuse_sampled(self) -> None:
        """Refuse samples whose price is known for Gaussian noise alone."""
        if len(self.releases) > 1:
            raise ConfigError(
                f"a round releases {self._noised()} of one sampled cohort, whose joint cost is"
                " known for Gaussian noise only: use gaussian, or a sampler that takes everybody."
            )
        if self.sampling.scheme == "fixed_size" and self.neighbours.relation == "zero_out":
            raise ConfigError(
                "a fixed-size sample has another client in the place of one that is not drawn,"
                " which zero_out prices for Gaussian noise only: claim replace_one."
            )

    def _noised(self) -> str:
        return " and ".join(f"'{part}'" for part, one in self.releases.items() if one.noised)

    def moved(self, part: str, rows: int | None = None) -> Moves:
        """How far one neighbour moves the rows of a part where its rule reads them (where its noise
        meets them, without a rule); ``rows`` is how many the channel opened.
        """
        release = self.releases[part]
        moves = Moves.of_one_row()
        for stage in release.stages:
            moves = _through(stage, moves, self.neighbours)
        moves = replace(moves, rows=None if self._rows_are_private else rows)
        for seat in release.seats:
            moves = _seated(seat, moves, self.neighbours)
        return moves

    @property
    def _rows_are_private(self) -> bool:
        """Whether the number of rows differs between neighbours, or hangs on who was drawn."""
        return self.neighbours.relation == "add_remove" or self.sampling.scheme == "poisson"

    def reach(self, part: str, rows: int | None = None) -> float:
        """How far, in L2, one neighbour moves a part where its noise meets it; infinite where a
        stage, seat or rule proves nothing, or remembers something private.
        """
        rule, moves = self.releases[part].rule, self.moved(part, rows)
        if rule is None:
            return moves.total
        return math.inf if _private(rule) else rule.sensitivity(moves, self.neighbours)

    def sensitivity(self, part: str, rows: int | None = None) -> float:
        """`reach`, where noise can be calibrated to it.

        Raises:
            ConfigError: it is not above 0 and finite: what does not prove it is named.
        """
        release, far = self.releases[part], self.reach(part, rows)
        if release.shares is not None and self.neighbours.relation == "add_remove":
            raise ConfigError(
                f"'{part}' carries its noise in shares, and a client's share leaves together with"
                " the client: claim zero_out (it is there and sends zero) or replace_one."
            )
        if far == math.inf or math.isnan(far):
            raise ConfigError(self._unproved(part, rows))
        if not far > 0:
            raise ConfigError(
                f"{_name(release.rule)} claims that one client moves '{part}' by {far}, and noise"
                " of that size hides nobody: its sensitivity must be above 0."
            )
        return far

    def _unproved(self, part: str, rows: int | None) -> str:
        """Which stage, seat or rule proves nothing, in words."""
        release, moves = self.releases[part], Moves.of_one_row()
        for stage in release.stages:
            moves = _through(stage, moves, self.neighbours)
            if not moves.total < math.inf:
                return _why(stage, part, self.neighbours)
        moves = replace(moves, rows=None if self._rows_are_private else rows)
        for seat in release.seats:
            moves = _seated(seat, moves, self.neighbours)
            if seat.memory == "private":
                return _remembers(seat)
            if not moves.total < math.inf:
                return _why(seat, part, self.neighbours)
        if _private(release.rule):
            return _remembers(release.rule)
        if self.sampling.scheme == "poisson":
            return _POISSON
        return (
            f"{_name(release.rule)} has no proved sensitivity under {self.neighbours.relation} as"
            " it is set, so no noise can be calibrated to it. Use the mean with weighted: false and"
            " training weighting: uniform."
        )

    def norms(self, part: str, d: int, rows: int | None = None) -> Sensitivity:
        """`sensitivity` in every norm, of a vector [d]."""
        far = self.sensitivity(part, rows)
        return Sensitivity(far, l1=far * d**0.5, linf=far)

    # ---- what is charged
    # ---------------------------------------------------------------------------------------------

    def charges(
        self, plans: Mapping[str, RoundPlan], survivors: Mapping[str, int] | None = None
    ) -> tuple[Charge, ...]:
        """What a round costs its clients: at most, before it is played, and with the ``survivors``
        of each part (0 where it did not open) afterwards. Fewer shares of noise cost more, so a
        round that has not been played is charged for the fewest that could open it.
        """
        if not self.private:
            return ()
        came = survivors or {}
        events = [
            self._event(part, plans[part], came.get(part) or None)
            for part, release in self.releases.items()
            if release.noised
        ]
        plan = next(iter(plans.values()))
        return tuple(
            Charge(
                plan.number,
                event,
                self.sampling,
                unit=self.neighbours.unit,
                relation=self.neighbours.relation,
                cohort_hidden=not self.sees_cohort,
                cohort=plan.cohort if self.sees_cohort else None,
                repeatable_noise=self.repeatable,
            )
            for event in _together(events)
        )

    def trained(
        self, round: int, client: ClientId, steps: Collection[NoisySteps]
    ) -> tuple[Charge, ...]:
        """What the noisy steps of a client's training cost its samples."""
        return tuple(
            Charge(
                round,
                step.event,
                step.sampling,
                unit=self.samples.unit,
                relation=self.samples.relation,
                subject=f"sample of client {client}",
                repeatable_noise=step.repeatable,
                count=step.count,
            )
            for step in steps
        )

    def _event(self, part: str, plan: RoundPlan, survivors: int | None) -> DpEvent:
        release = self.releases[part]
        event: DpEvent | None = None
        if release.shares is not None:
            moves = self.moved(part)
            event = release.shares.noise_event(plan, survivors)
            if event is not None:  # the channel accounts for one contribution that becomes zero
                event = _farther(event, moves.total / moves.longest)
        elif release.mechanism is not None:
            event = release.mechanism.event(plan.d)
        if event is None:
            raise ConfigError(f"nothing accounts for the noise on '{part}': its event is None.")
        return event

    # ---- what is released
    # ---------------------------------------------------------------------------------------------

    def release(
        self, plans: Mapping[str, RoundPlan], made: Mapping[str, Made], noise: NoiseSource
    ) -> tuple[Mapping[str, Released], tuple[Charge, ...]]:
        """The parts of a round as they leave, noised where the server does that, and what they cost
        its clients.

        Raises:
            ConfigError: as `check`, for the rows that came.
        """
        released: dict[str, Released] = {}
        for part, one in made.items():
            vector, central = one.vector, self.releases[part].central
            if central is not None:
                far = self.norms(part, vector.numel(), one.rows)
                promised = central.event(vector.numel())
                vector, event = central.release(vector, far, one.survivors, noise)
                if event != promised:
                    raise ConfigError(
                        f"{_name(central)} was charged for {promised} before the round, and says it"
                        f" drew {event}: its event must not hang on what it noises."
                    )
            released[part] = Released(vector)
        return released, self.charges(plans, {part: one.survivors for part, one in made.items()})


def post_processed(released: Released, vector: Vector) -> Released:
    """What became of a released vector through something that read it, public facts and its own
    coins, and nothing else: it costs nothing more (Dwork, Roth 2014, Proposition 2.1).
    """
    return released if vector is released.vector else Released(vector)


def _through(stage: object, moves: Moves, neighbours: Neighbours) -> Moves:
    return stage.stability(moves, neighbours) if isinstance(stage, Stable) else UNPROVED


def _private(rule: AnyRule | Sum | None) -> bool:
    """Whether a rule keeps something of clients' rows from before any noise."""
    if rule is None or isinstance(rule, Sum):
        return False
    return rule.remembers and rule.memory == "private"


def _seated(seat: BeforeSeat[Any], moves: Moves, neighbours: Neighbours) -> Moves:
    return UNPROVED if seat.memory == "private" else _through(seat, moves, neighbours)


def _name(part: object) -> str:
    return type(part).__name__


def _remembers(part: object) -> str:
    return (
        f"{_name(part)} remembers clients' rows from before any noise, so it has no proved"
        " sensitivity and no noise can be calibrated to it. What it keeps must be a function of"
        " what was released (`Context.released`)."
    )


def _why(stage: object, part: str, neighbours: Neighbours) -> str:
    """Why a stage leaves nothing proved."""
    no_noise = "so it has no proved sensitivity and no noise can be calibrated to it"
    if isinstance(stage, Weights):
        return (
            f"'{part}' is weighted by clients' own counts of their samples, {no_noise}: set"
            " training weighting: uniform."
        )
    if isinstance(stage, Stable):
        return (
            f"{_name(stage)} proves no bound on how far one client moves '{part}' under"
            f" {neighbours.relation}, {no_noise}."
        )
    return (
        f"{_name(stage)} does not declare how far one client moves what it makes of '{part}',"
        f" {no_noise}: leave it out, or give it a stability(moves, neighbours)."
    )


def _farther(event: DpEvent, factor: float) -> DpEvent:
    """The event of noise on a vector that moves ``factor`` times as far."""
    if factor == 1:
        return event
    numbers = dict(event.parameters)
    if "noise_multiplier" in numbers:
        return DpEvent(
            event.mechanism, {**numbers, "noise_multiplier": numbers["noise_multiplier"] / factor}
        )
    if "l2" not in numbers:
        raise ConfigError(
            f"an event '{event.mechanism}' must state the l2 that it accounts for, or a"
            f" noise_multiplier, and states {sorted(numbers)}."
        )
    return DpEvent(
        event.mechanism,
        {key: x * factor if key in ("l1", "l2") else x for key, x in numbers.items()},
    )


def _together(events: Collection[DpEvent]) -> tuple[DpEvent, ...]:
    """What several releases of ONE cohort cost: Gaussians are one Gaussian of all vectors, each in
    units of its own sensitivity; others are charged one by one.

    Sampled releases compose when each draws a sample of its own. These share one, so two charges
    with sampling each would understate epsilon.
    """
    if len(events) < 2 or any(event.mechanism != "gaussian" for event in events):
        return tuple(events)
    multipliers = [event.parameters["noise_multiplier"] for event in events]
    silent = any(z == 0 for z in multipliers)
    z = 0.0 if silent else sum(z**-2 for z in multipliers) ** -0.5
    return (DpEvent("gaussian", {"noise_multiplier": z}),)
