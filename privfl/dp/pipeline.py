"""How a round's vectors leave, and what that costs. Charges and released vectors are made here and
nowhere else.

Each part of a round is a `PartRelease`: the stages that a client's row passes before noise meets
it, the rule, and the noise. Noise is calibrated to what the stages prove, and refused where one
proves nothing. What comes after the noise is post-processing and is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from privfl.core import (
    Against,
    Charge,
    ClientId,
    Coins,
    ConfigError,
    DpEvent,
    Moves,
    NeighbourRelation,
    Neighbours,
    NoiseSource,
    NoisySteps,
    Released,
    RoundPlan,
    Sampling,
    Sensitivity,
    Vector,
)
from privfl.dp.joint import farther, together
from privfl.dp.memory import NoiseMemory
from privfl.dp.opening import Opens, always, fewest_of, for_everybody, hinges
from privfl.dp.part_release import PartRelease, name_of

_POISSON = (
    "under Poisson sampling the number present varies, so noise needs the mean over a public"
    " denominator."
)


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
    amplified, and charges name a cohort that is not everybody), and so do those who know the seed
    where ``coins`` are public. ``against`` is that adversary, with so many ``colluders``.

    ``samples`` are the neighbours of what training does to a client's own samples, and
    ``repeatable`` says that the noise comes from a seed, which voids the claim; ``void`` says what
    else voids it. ``opens`` says which rounds are released at all.

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
    coins: Coins = "secret"
    against: Against = "model_recipients"
    colluders: int = 0
    samples: Neighbours = Neighbours("sample", "add_remove")
    repeatable: bool = False
    void: str = ""
    opens: Opens = always

    @property
    def private(self) -> bool:
        """Whether any part is noised, so that the run claims something about its clients."""
        return any(release.noised for release in self.releases.values())

    # ---- what is refused

    def check(self, rows: int) -> None:
        """Refuse what no claim could be made of, before any training; ``rows`` are what the channel
        opens of a whole cohort.

        Raises:
            ConfigError: a part without noise beside one with it; a stage, seat or rule that proves
                nothing, or claims that nothing moves; neighbours whose presence is seen, or who
                differ in another way than the sampling prices; several releases of one sampled
                cohort whose joint cost is not known.
        """
        if not self.private:
            return
        if (self.neighbours.relation, self.sampling.scheme) == ("add_remove", "fixed_size"):
            raise ConfigError(
                "a cohort of a fixed size has no neighbour with a client more or less: claim"
                " replace_one."
            )
        self._check_over()
        for part, release in self.releases.items():
            if not release.noised:
                raise ConfigError(
                    f"'{part}' would leave without noise beside {self._noised()}: whoever reads it"
                    " needs no epsilon. Use a method that sends no such part, or noise that"
                    " covers it."
                )
            self.sensitivity(part, rows)
            central = release.central is not None or release.over is not None
            if central and self.sampling.scheme == "poisson":
                self._refuse_unless_linear(part)
        if self._amplified and not self._all_gaussian:
            self._refuse_sampled()
        population = self.sampling.population
        if self.neighbours.relation == "add_remove" and not for_everybody(self.opens, population):
            least = max(fewest_of(self.opens, population), 2)
            raise ConfigError(
                f"of {population} clients a round is released with {least} contributions or more,"
                " so that it is, or is not, tells whether a client is there: claim zero_out (it is"
                " there and sends zero) or replace_one."
            )
        if self.sees_cohort and self.neighbours.relation == "add_remove" and self._drawn:
            raise ConfigError(
                "whom the claim is made against sees who takes part, and so whether a client is"
                " there at all: claim zero_out (it is there and sends zero) or replace_one."
            )

    def _check_over(self) -> None:
        """Refuse neighbours of whom correlated noise proves nothing."""
        over = any(release.over is not None for release in self.releases.values())
        if over and self.neighbours.relation == "add_remove":
            raise ConfigError(
                "correlated noise is made for who takes part in which round, and a client that"
                " comes or goes may change that for others: claim zero_out (it is there and sends"
                " zero) or replace_one."
            )

    def _noised(self) -> str:
        return " and ".join(f"'{part}'" for part, one in self.releases.items() if one.noised)

    def _refuse_unless_linear(self, part: str) -> None:
        """Refuse neighbours who stay drawn where to be absent is another thing than to send zero:
        what is known of Poisson samples holds where a client adds its row to a sum, and nothing
        else.
        """
        if self.neighbours.relation == "add_remove":
            return
        if not 2 * self._under("add_remove", part) <= self._under("replace_one", part) * (1 + 1e-9):
            raise ConfigError(_POISSON)

    def _under(self, relation: NeighbourRelation, part: str) -> float:
        return replace(self, neighbours=Neighbours("client", relation)).reach(part)

    @property
    def _drawn(self) -> bool:
        """Whether there is anybody who is not drawn."""
        return self.sampling.scheme in ("poisson", "fixed_size") and self.sampling.rate < 1

    @property
    def _amplified(self) -> bool:
        """Whether not being drawn makes a round cheaper."""
        return self._drawn and not self.sees_cohort

    @property
    def _all_gaussian(self) -> bool:
        events = [
            None if release.mechanism is None else release.mechanism.event(1)
            for release in self.releases.values()
            if release.over is None
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

    # ---- how far one neighbour moves a part

    def moved(self, part: str, rows: int | None = None) -> Moves:
        """`PartRelease.moved`; the number of rows is private where neighbours differ in it, or
        where it hangs on who was drawn.
        """
        return self.releases[part].moved(self.neighbours, self._public(rows))

    def reach(self, part: str, rows: int | None = None) -> float:
        """`PartRelease.reach`, with the number of rows where that is public."""
        return self.releases[part].reach(self.neighbours, self._public(rows))

    def _public(self, rows: int | None) -> int | None:
        private = self.neighbours.relation == "add_remove" or self.sampling.scheme == "poisson"
        return None if private else rows

    def sensitivity(self, part: str, rows: int | None = None) -> float:
        """`reach`, where noise can be calibrated to it.

        Raises:
            ConfigError: it is not above 0 and finite: what does not prove it is named; or the noise
                is in each client's row, and neighbours differ in who is there.
        """
        release, far = self.releases[part], self.reach(part, rows)
        if release.rule is None and self.neighbours.relation == "add_remove":
            raise ConfigError(
                f"relation add_remove cannot be claimed: every client's row of the part '{part}'"
                " carries noise, which leaves together with the client, so that who comes or goes"
                " is seen. Set relation to zero_out (the client is there and sends zero) or"
                " replace_one."
            )
        if far == math.inf or math.isnan(far):
            raise ConfigError(self._unproved(part, rows))
        if not far > 0:
            raise ConfigError(
                f"{name_of(release.rule)} claims that one client moves '{part}' by {far}, and noise"
                " of that size hides nobody: its sensitivity must be above 0."
            )
        return far

    def _unproved(self, part: str, rows: int | None) -> str:
        release = self.releases[part]
        rows_known = self.moved(part, rows).total < math.inf
        if self.sampling.scheme == "poisson" and release.forgets and rows_known:
            return _POISSON
        return release.why_unproved(part, self.neighbours, self._public(rows))

    def norms(self, part: str, d: int, rows: int | None = None) -> Sensitivity:
        """`sensitivity` in every norm, of a vector [d]."""
        far = self.sensitivity(part, rows)
        return Sensitivity(far, l1=far * d**0.5, linf=far)

    # ---- what is charged

    def noise_alone(self, n: int) -> bool:
        """Whether a round of a cohort of n of whom nobody got through is released, as noise alone:
        where it is noised on the aggregate, and over a channel that needs nobody.
        """
        noised = any(one.central or one.over for one in self.releases.values())
        return noised and self.opens(n, 0)

    def charges(
        self,
        plans: Mapping[str, RoundPlan],
        survivors: Mapping[str, int] | None = None,
        memory: NoiseMemory | None = None,
        *,
        released: bool = True,
    ) -> tuple[Charge, ...]:
        """What a round costs its clients: at most, before it is played, and with the ``survivors``
        of each part (0 where it did not open) afterwards. Fewer shares of noise cost more, so a
        round that has not been played is charged for the fewest that could open it.

        What sampling saves is not counted in a round whose being released hangs on one client
        (`opening.hinges`), nor in one that was not (not ``released``): that tells who was drawn.
        Nothing left of the latter, so it costs nothing where sampling saves nothing.

        Where noise hangs together over rounds it is what all rounds of the ``memory`` cost so far:
        the charge takes the place of that of the round before.
        """
        if not self.private or not (released or self._amplified):
            return ()
        came, plan = survivors or {}, next(iter(plans.values()))
        told = self._amplified and (not released or self._hinges(plan.n, survivors))
        hidden = not self.sees_cohort and not told and not (memory and memory.shared)
        events = [
            self._event(part, plans[part], came.get(part) or None, memory, hidden)
            for part, release in self.releases.items()
            if release.noised
        ]
        everybody = plan.n >= self.sampling.population  # then there is no need to name them
        # of a round that tells coins, those who were not drawn may owe the amplified price: naming
        # the cohort would let them off, so everybody pays for it
        named = not told and (self.sees_cohort or self.coins == "public")
        charged = tuple(
            Charge(
                plan.number,
                event,
                self._against_colluders,
                unit=self.neighbours.unit,
                relation=self.neighbours.relation,
                cohort_hidden=hidden,
                cohort=plan.cohort if named and not everybody else None,
                repeatable_noise=self.repeatable,
                void=self.void,
                against=self.against,
                colluders=self.colluders,
                coins=self.coins,
            )
            for event in together(events)
        )
        return charged if memory is None else tuple(self._over(one, memory) for one in charged)

    def _over(self, charge: Charge, memory: NoiseMemory) -> Charge:
        """The charge of a round as that of all rounds of its block."""
        run = next(release.over for release in self.releases.values() if release.over is not None)
        spans = replace(charge, round=memory.first, last=charge.round, cohort=None)
        drawn = run.sampled(memory.rows(charge.round)) if charge.cohort_hidden else None
        if drawn is None:
            return replace(spans, sampling=Sampling("all", 1.0, self.sampling.population))
        turns = Sampling("poisson", run.participation.rate, self.sampling.population)
        return replace(spans, sampling=turns, count=drawn[1])

    def _hinges(self, n: int, survivors: Mapping[str, int] | None) -> bool:
        if survivors is None:  # anybody may drop out yet
            return not for_everybody(self.opens, self.sampling.population)
        counts = {survivors.get(part, 0) for part in self.releases}
        return any(hinges(self.opens, self.sampling, n, m) for m in counts)

    @property
    def _against_colluders(self) -> Sampling:
        """How a client is drawn for those who collude: of a sample of fixed size they know which
        places are not theirs.
        """
        drawn, others = self.sampling, max(self.sampling.population - self.colluders, 1)
        if drawn.scheme != "fixed_size" or not self.colluders:
            return drawn
        return replace(drawn, rate=min(1.0, drawn.rate * drawn.population / others))

    def trained(
        self, round: int, client: ClientId, steps: Collection[NoisySteps]
    ) -> tuple[Charge, ...]:
        """What the noisy steps of a client's training cost its samples: against the server as well,
        and against all other clients, for the noise is in everything that leaves the client.
        """
        subject = f"sample of client {client}"
        return stepped(round, steps, self.samples, subject, against="server_and_clients")

    def _event(
        self,
        part: str,
        plan: RoundPlan,
        survivors: int | None,
        memory: NoiseMemory | None,
        hidden: bool,
    ) -> DpEvent:
        release = self.releases[part]
        event: DpEvent | None = None
        if release.over is not None:
            rows = self._remembered(memory).rows(plan.number)
            drawn = release.over.sampled(rows) if hidden else None
            return release.over.event(rows) if drawn is None else drawn[0]
        if release.shares is not None:
            moves = self.moved(part)
            event = release.shares.noise_event(plan, survivors, self.colluders)
            if event is not None:  # the channel accounts for one contribution that becomes zero
                event = farther(event, moves.total / moves.longest)
        elif release.mechanism is not None:
            event = release.mechanism.event(plan.d)
        if event is None:
            raise ConfigError(f"nothing accounts for the noise on '{part}': its event is None.")
        return event

    @staticmethod
    def _remembered(memory: NoiseMemory | None) -> NoiseMemory:
        if memory is None:
            raise ConfigError(
                "correlated noise hangs together over a run, and nothing here keeps it from round"
                " to round: run it in a Federation."
            )
        return memory

    # ---- what is released

    def release(
        self,
        plans: Mapping[str, RoundPlan],
        made: Mapping[str, Made],
        noise: NoiseSource,
        memory: NoiseMemory | None = None,
    ) -> tuple[Mapping[str, Released], tuple[Charge, ...]]:
        """The parts of a round as they leave, noised where the server does that, and what they cost
        its clients. A part that nothing was made of, for it did not open, is zero: there is nothing
        of anybody in it.

        Raises:
            ConfigError: as `sensitivity`, for the rows that came; a mechanism whose event is
                another than was charged.
        """
        released = {
            part: Released(torch.zeros(plans[part].d)) for part in plans.keys() - made.keys()
        }
        for part, one in made.items():
            vector, central = one.vector, self.releases[part].central
            over = self.releases[part].over
            if over is not None:
                far, kept = self.norms(part, vector.numel(), one.rows), self._remembered(memory)
                vector = kept.release(plans[part], over, vector, far, noise)
            elif central is not None:
                d = vector.numel()
                far, promised = self.norms(part, d, one.rows), central.event(d)
                vector, event = central.release(vector, far, one.survivors, noise)
                if event != promised:
                    raise ConfigError(
                        f"{name_of(central)} was charged for {promised} before the round, and says"
                        f" that it drew {event}: its event must not hang on what it noises."
                    )
            released[part] = Released(vector)
        came = {part: one.survivors for part, one in made.items()}
        return released, self.charges(plans, came, memory)


def stepped(
    round: int,
    steps: Collection[NoisySteps],
    neighbours: Neighbours,
    subject: str = "",
    *,
    against: Against = "model_recipients",
) -> tuple[Charge, ...]:
    """What noisy steps outside of a round's vectors cost whoever ``neighbours`` are about, in the
    eyes of the adversary that ``against`` names: a client's training, votes, a fitted model.

    >>> once = NoisySteps(DpEvent("gaussian", {"noise_multiplier": 2.0}), Sampling("all", 1.0, 9))
    >>> [charge] = stepped(0, (once,), Neighbours("client", "replace_one"))
    >>> charge.subject, charge.count
    ('client', 1)
    """
    return tuple(
        Charge(
            round,
            step.event,
            step.sampling,
            unit=neighbours.unit,
            relation=step.relation or neighbours.relation,
            subject=subject or neighbours.unit,
            repeatable_noise=step.repeatable,
            count=step.count,
            against=against,
            coins=step.coins,
        )
        for step in steps
    )


def post_processed(released: Released, vector: Vector) -> Released:
    """What became of a released vector through something that read it, public facts and its own
    coins, and nothing else: it costs nothing more (Dwork, Roth 2014, Proposition 2.1).
    """
    return released if vector is released.vector else Released(vector)


def played_again(
    before: Sequence[Charge], now: Sequence[Charge], *, redrawn: bool = False
) -> tuple[Charge, ...]:
    """What a round costs altogether that was charged with ``before`` and is played again, ``now``,
    on the samples that were drawn for it the first time, with fresh noise.

    Sampled releases compose when each draws a sample of its own. These share theirs: Gaussians are
    one Gaussian of both attempts, and anything else is charged as if everybody saw the sample.
    ``redrawn``: secret coins were forgotten after the first attempt, and this one drew samples of
    its own with others, so each is charged as it is.

    >>> drawn = Sampling("poisson", 0.1, 100)
    >>> noise = DpEvent("gaussian", {"noise_multiplier": 2.0})
    >>> one = Charge(0, noise, drawn, "client", "add_remove")
    >>> [both] = played_again((one,), (one,))
    >>> round(both.event.parameters["noise_multiplier"], 4)
    1.4142
    """
    left, made = list(before), []
    for charge in now:
        shared = _amplifies(charge) and not (redrawn and charge.coins == "secret")
        same = [i for i, one in enumerate(left) if shared and _of(one) == _of(charge)]
        alike = [i for i in same if replace(left[i], event=charge.event) == charge]
        joint = together((left[alike[0]].event, charge.event)) if alike else ()
        if len(joint) == 1:
            del left[alike[0]]
            made.append(replace(charge, event=joint[0]))
            continue
        for i in same:
            left[i] = replace(left[i], cohort_hidden=False)
        made.append(replace(charge, cohort_hidden=False) if same else charge)
    return (*left, *made)


def _of(charge: Charge) -> tuple[int, str, str]:
    """Whom a charge is about, and when."""
    return charge.round, charge.unit, charge.subject


def _amplifies(charge: Charge) -> bool:
    """Whether a charge is cheaper for those who were not drawn."""
    drawn = charge.sampling.scheme in ("poisson", "fixed_size") and charge.sampling.rate < 1
    return drawn and charge.cohort_hidden
