"""How a round's vectors leave, and what that costs. Charges of a round and released vectors are
made here and nowhere else; what costs beside a round's vectors is in `dp.charges`.

Each part of a round is a `PartRelease`: the stages that a client's row passes before noise meets
it, the rule, and the noise. Noise is calibrated to what the stages prove, and refused where one
proves nothing. What comes after the noise is post-processing and is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
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
    UserBounds,
    Vector,
)
from privfl.dp.charges import over_block, stepped
from privfl.dp.joint import farther, together
from privfl.dp.made import Made
from privfl.dp.memory import NoiseMemory
from privfl.dp.opening import Opens, always, for_everybody, hinges
from privfl.dp.part_release import PartRelease, name_of
from privfl.dp.refusals import (
    UNBOUNDED,
    noised,
    refuse_other_neighbours,
    refuse_personal_rates,
    refuse_seen_presence,
    refuse_unpriced_sample,
    refuse_users_over_rounds,
)

_POISSON = (
    "under Poisson sampling the number present varies, so noise needs the mean over a public"
    " denominator."
)


@dataclass(frozen=True)
class Pipeline:
    """All releases of a run's rounds, by part; whose neighbours the claim is about, how cohorts are
    drawn, and whether whom it is made against learns them (``sees_cohort``: nothing is then
    amplified, and charges name a cohort that is not everybody), and so do those who know the seed
    where ``coins`` are public. ``against`` is that adversary, with so many ``colluders``.

    ``samples`` are the neighbours of what training does to a client's own samples, of which it has
    as many in both worlds. ``repeatable`` says that the noise comes from a seed, which voids the
    claim; ``void`` says what else voids it, and ``void_samples`` what voids that of ``samples``.
    ``knows_batches``: the adversary knows the batches of private training too where a seed draws
    them. ``opens`` says which rounds are released at all. ``users`` are the bounds on what one of
    them has a part in, where neighbours are users: one who is at several clients moves so many
    rows, each as far as a client's own, and the vector so many times as far, by one client after
    the other (``sampling.group``), and in rows that are noised each on its own so many times
    (``copies``).

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
    samples: Neighbours = Neighbours("sample", "zero_out")
    repeatable: bool = False
    void: str = ""
    void_samples: str = ""
    knows_batches: bool = False
    opens: Opens = always
    users: UserBounds | None = None
    copies: int = 1

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
        refuse_other_neighbours(self.releases, self.neighbours, self.sampling)
        for part, release in self.releases.items():
            if not release.noised:
                raise ConfigError(
                    f"'{part}' would leave without noise beside {noised(self.releases)}: whoever"
                    " reads it needs no epsilon. Use a method that sends no such part, or noise"
                    " that covers it."
                )
            self.sensitivity(part, rows)
            central = release.central is not None or release.over is not None
            if central and self.sampling.scheme == "poisson":
                self._refuse_unless_linear(part)
        refuse_users_over_rounds(self.releases, self.sampling)
        refuse_personal_rates(self.releases, self.sampling, amplified=self._amplified)
        if self._amplified:
            refuse_unpriced_sample(self.releases, self.neighbours, self.sampling)
        refuse_seen_presence(
            self.neighbours, self.sampling, self.opens, sees_drawn=self.sees_cohort and self._drawn
        )

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
        return self.sampling.scheme in ("poisson", "fixed_size") and self.sampling.least_rate < 1

    @property
    def _at_several(self) -> bool:
        """Whether one of those who are protected may be at several clients."""
        return self.sampling.group > 1 or self.copies > 1

    @property
    def _amplified(self) -> bool:
        """Whether not being drawn makes a round cheaper."""
        return self._drawn and not self.sees_cohort

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
        # then there is no need to name them; of users at several clients nobody knows who was there
        everybody = plan.n >= self.sampling.population or self._at_several
        # of a round that tells coins, those who were not drawn may owe the amplified price: naming
        # the cohort would let them off, so everybody pays for it
        named = not told and (self.sees_cohort or self.coins == "public")
        charged = tuple(
            Charge(
                plan.number,
                event,
                self.sampling,
                unit=self.neighbours.unit,
                relation=self.neighbours.relation,
                subject=self.neighbours.unit,
                cohort_hidden=hidden,
                cohort=plan.cohort if named and not everybody else None,
                users=self.users,
                count=self.copies,
                repeatable_noise=self.repeatable,
                void=self.void,
                against=self.against,
                colluders=self.colluders,
                coins=self.coins,
            )
            for event in together(events)
        )
        if memory is None:
            return charged
        run = next(release.over for release in self.releases.values() if release.over is not None)
        return tuple(over_block(one, run, memory) for one in charged)

    def _hinges(self, n: int, survivors: Mapping[str, int] | None) -> bool:
        if survivors is None:  # anybody may drop out yet
            return not for_everybody(self.opens, self.sampling.population)
        counts = {survivors.get(part, 0) for part in self.releases}
        return any(hinges(self.opens, self.sampling, n, m) for m in counts)

    def trained(
        self, round: int, client: ClientId, steps: Collection[NoisySteps]
    ) -> tuple[Charge, ...]:
        """What the noisy steps of a client's training cost its samples: against the server as well,
        and against all other clients, for the noise is in everything that leaves the client. Of
        users, it is what all samples of one of them cost.

        Raises:
            ConfigError: nothing says how many samples a user has at most.
        """
        subject = f"{self.samples.unit} of client {client}"
        charged = stepped(round, steps, self.samples, subject, against="server_and_clients")
        charged = tuple(
            replace(
                one,
                void=self.void_samples,
                cohort_hidden=not (self.knows_batches and one.coins == "public"),
            )
            for one in charged
        )
        if self.users is None or not charged:
            return charged
        own = self.users.max_records_per_user
        if own is None:
            raise ConfigError(UNBOUNDED)
        return tuple(
            replace(one, users=self.users, sampling=replace(one.sampling, group=own))
            for one in charged
        )

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


def post_processed(released: Released, vector: Vector) -> Released:
    """What became of a released vector through something that read it, public facts and its own
    coins, and nothing else: it costs nothing more (Dwork, Roth 2014, Proposition 2.1).
    """
    return released if vector is released.vector else Released(vector)
