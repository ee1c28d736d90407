"""Everything that a run is made of, as objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from privfl.core import (
    Bound,
    Channel,
    ClientDataSeat,
    ClientId,
    CoinSource,
    ConfigError,
    Dataset,
    Defence,
    Knows,
    Ledger,
    Mechanism,
    NeighbourRelation,
    NoiseSource,
    OsNoise,
    Participation,
    Rule,
    RuleWithMemory,
    RunNoise,
    Sampling,
    Seeds,
    Threat,
    Unit,
    UserBounds,
    WithMemory,
    before_the_rule,
)
from privfl.dp import Clip, NoBound
from privfl.dp.pipeline import Pipeline
from privfl.engine.attackers import Attacker
from privfl.engine.before import void_start
from privfl.engine.pace import Pace, Synchronous
from privfl.engine.releases import pipeline_of
from privfl.engine.samplers import All, Sampler
from privfl.engine.seams import AdaptiveBound, adapts
from privfl.engine.session import MailMode
from privfl.engine.stopping import EarlyStopping, Metric
from privfl.training import FedAvg, ServerOptimizer, Workload


@dataclass(frozen=True)
class Scenario:
    """A run's parts. ``clients`` gives each client's positions in ``workload.data``;
    ``part_bounds`` the L2 bound of extra vectors.

    ``attackers_know`` is the most that attackers may know: nothing, their own updates, the honest
    updates, the rule. ``relation`` is that of the neighbours of whom noise claims privacy (None:
    what `pipeline_of` says), ``threat`` against whom, and where cohorts are drawn from. ``facts``
    are public words and numbers about the run that views and reports show. ``mail`` says whether
    letters are signed and sealed (`crypto.post`) or believed by their label, as they may be where
    one process plays everybody.

    ``coins`` are where batches and lots are drawn from (and cohorts, unless the threat says that
    these are secret); None: from ``seed``, as one process that plays everybody draws them.
    ``repeatable`` says that everybody is told that seed: then nothing is claimed that rests on
    coins, and nothing is amplified.

    ``start`` is what is known of the model before the first round: "public", that it holds nothing
    of these clients; a ledger, all that was charged for it; None, nothing was said. ``uncharged``
    names what was taken from clients' data before the run, which no epsilon counts. With ``users``
    privacy is claimed for each of them, with all its samples, instead of for clients or samples.

    ``max_weight`` is the public bound on a contribution's weight (None: the most samples that a
    client has). ``elsewhere``: clients hold their data on machines of their own, and their
    positions here are empty.

    ``pace`` says when updates are put together. Where it is not synchronous, who is ready takes
    part, and the sampler takes everybody.

    ``data_seats`` make of each client's samples what it trains on, drawn anew in each round.

    With ``validation`` data models are measured on these after each round, and on ``test`` once, at
    the end; ``early_stopping`` chooses the end on these. ``metrics`` are further figures by name.
    """

    workload: Workload
    clients: Mapping[ClientId, Tensor]
    test: Dataset
    bound: Bound
    channel: Channel[Any]
    aggregator: Rule[Any] | RuleWithMemory[Any, Any]
    rounds: int
    sampler: Sampler = All()
    defences: Sequence[Defence] = ()
    mechanism: Mechanism | WithMemory | None = None
    attackers: Sequence[Attacker] = ()
    server_optimizer: ServerOptimizer = FedAvg()
    part_bounds: Mapping[str, float] = field(default_factory=dict)
    mail: MailMode = "bare"
    attackers_know: Knows = "rule"
    relation: NeighbourRelation | None = None
    threat: Threat = Threat()
    seed: int = 0
    coins: CoinSource | None = None
    repeatable: bool = False
    noise: NoiseSource = field(default_factory=OsNoise)
    facts: Mapping[str, Any] = field(default_factory=dict)
    start: Literal["public"] | Ledger | None = None
    uncharged: Sequence[str] = ()
    users: UserBounds | None = None
    validation: Dataset | None = None
    early_stopping: EarlyStopping | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    max_weight: float | None = None
    elsewhere: bool = False
    pace: Pace = Synchronous()
    data_seats: Sequence[ClientDataSeat] = ()

    @property
    def seeds(self) -> CoinSource:
        """Where batches and lots are drawn from."""
        return Seeds(self.seed) if self.coins is None else self.coins

    @cached_property
    def people(self) -> int | None:
        """How many users there are, where privacy is claimed for users."""
        ids = self.user_ids
        if ids is None:
            return None
        return len({user for index in self.clients.values() for user in ids[index.cpu()].tolist()})

    @property
    def measured_on(self) -> Dataset:
        """What a round's model is measured on."""
        return self.test if self.validation is None else self.validation

    @property
    def user_ids(self) -> Tensor | None:
        """Whose each sample [n] of the data is, where privacy is claimed for users.

        Raises:
            ConfigError: the data do not say, or not in whole numbers.
        """
        if self.users is None:
            return None
        attributes = self.workload.data.attributes
        if self.users.ids not in attributes:
            known = ", ".join(attributes) or "none at all"
            raise ConfigError(
                f"users.ids is '{self.users.ids}', and these data have no such attribute: nothing"
                f" is claimed for users where nobody knows whose a sample is. Attributes: {known}."
            )
        return self.users.told_apart(attributes[self.users.ids])

    def in_round(self, number: int, l2: float | None) -> Scenario:
        """The scenario with a round's own bound and noise where they change; ``l2`` is where an
        adaptive bound has got to.
        """
        if adapts(self.bound):
            bound = self.bound.bound(self.bound.init() if l2 is None else l2)
        else:
            bound = self.bound.at(number)
        mechanism = self.mechanism
        if mechanism is not None and not mechanism.remembers:
            mechanism = mechanism.at(number)
        sampler = self.sampler.at(number)
        noise = self.noise.at(number)
        same = bound is self.bound and mechanism is self.mechanism and noise is self.noise
        if same and sampler is self.sampler:
            return self
        facts = dict(self.facts)
        if "forward" in facts and bound is not self.bound:
            facts["forward"] = replace(facts["forward"], l2=float(bound.l2))
        return replace(
            self, bound=bound, mechanism=mechanism, sampler=sampler, noise=noise, facts=facts
        )

    @property
    def sampling(self) -> Sampling:
        """How a round's cohort comes about. Who arrives is not drawn, whatever the pace is: it is
        not asked.
        """
        n = len(self.clients)
        if self.pace.synchronous:
            return self.sampler.sampling(n)
        return Sampling("arrival", min(self.pace.k / n, 1.0), n)

    @property
    def participation(self) -> Participation:
        """How often one client takes part in the run at most, and how far apart; what a pace says
        of coins does not count.
        """
        if self.pace.synchronous:
            return self.sampler.participation(self.rounds)
        return replace(self.pace.participation(self.rounds, len(self.clients)), rate=1.0)

    @property
    def expected_cohort(self) -> float:
        """How many clients take part in a round, on average."""
        return float(self.sampling.expected)

    @property
    def local_noise(self) -> bool:
        """Whether every client adds noise of its own, so that what it sends has no bound."""
        return self.mechanism is not None and self.mechanism.local

    @property
    def sent_l2(self) -> float:
        """The bound on what clients send: infinite where they add noise of their own."""
        return float("inf") if self.local_noise else self.bound.l2

    @property
    def weighs_at_most(self) -> float:
        """The public bound on a contribution's weight."""
        if self.workload.method.weighting == "uniform":
            return 1.0
        if self.max_weight is not None:
            return self.max_weight
        return float(max(len(index) for index in self.clients.values()))

    def rows(self, contributions: int) -> int:
        """How many rows the rule reads of so many contributions."""
        groups = self.channel.able.groups
        return contributions if groups is None else groups.rows(contributions)

    @property
    def expected_rows(self) -> int:
        """How many rows the rule reads of a whole cohort, on average."""
        return max(self.rows(round(self.expected_cohort)), 1)

    @property
    def adaptive(self) -> AdaptiveBound | None:
        """The bound that follows the clients' norms, for cohorts of this scenario's size."""
        return self.bound.among(self.expected_cohort) if adapts(self.bound) else None

    def part_bound(self, part: str) -> Bound:
        """The bound of an extra vector of the method."""
        return Clip(self.part_bounds[part]) if part in self.part_bounds else NoBound()

    def pipeline(self, number: int = 0, l2: float | None = None) -> Pipeline:
        """How a round's vectors leave: what one neighbour moves, what is noised, what it costs;
        ``l2`` is where an adaptive bound has got to.
        """
        now = self.in_round(number, l2)
        return self._in_all_rounds if now is self else self._leaves(now)

    @cached_property
    def _in_all_rounds(self) -> Pipeline:
        """How vectors leave where nothing changes from round to round, which is made once."""
        return self._leaves(self)

    def _leaves(self, now: Scenario) -> Pipeline:
        method, d = self.workload.method, self.workload.model.d
        lengths = method.parts(d)
        made = pipeline_of(
            {"delta": now.bound, **{part: self.part_bound(part) for part in lengths}},
            {"delta": d, **lengths},
            channel=self.channel,
            rule=self.aggregator,
            sampling=self.sampling,
            seats=[defence for defence in self.defences if before_the_rule(defence)],
            mechanism=now.round_noise,
            over=self.run_noise,
            uniform=method.weighting == "uniform",
            relation=self.relation,
            adaptive=self.adaptive,
            repeatable=self.noise.repeatable,
            void=self._void,
            threat=self._threat,
            users=self.users,
            people=self.people,
        )
        return replace(
            made,
            void=void_start(self.start, made.neighbours.unit, self.users) or made.void,
            knows_batches=self.repeatable,
            void_samples=void_start(self.start, made.samples.unit, self.users),
        )

    @property
    def noised_units(self) -> frozenset[Unit]:
        """Whom the noise of this run protects."""
        pipeline = self.pipeline()
        trained = self.workload.method.gradient.private
        return frozenset(
            unit
            for unit, noised in (
                (pipeline.neighbours.unit, pipeline.private),
                (pipeline.samples.unit, trained),
            )
            if noised
        )

    @property
    def round_noise(self) -> Mechanism | None:
        """The mechanism whose rounds are noised each on its own, if there is one."""
        if self.mechanism is None or self.mechanism.remembers:
            return None
        return self.mechanism

    @property
    def run_noise(self) -> RunNoise[Any] | None:
        """The noise that hangs together over this run, if its mechanism's does."""
        if self.mechanism is None or not self.mechanism.remembers:
            return None
        return self.mechanism.over(self.participation)

    @property
    def _threat(self) -> Threat:
        """The adversary; attackers among the clients know their own shares of distributed noise,
        and whoever looks may be told. Where a seed is everybody's, so is every cohort.
        """
        threat = replace(self.threat, sees_cohort=True) if self.repeatable else self.threat
        among = (one.clients for one in self.attackers if one.attack.seats - {"broadcast"})
        liars = len(frozenset[ClientId]().union(*among))
        if self.channel.able.noise is None or liars <= threat.colluders:
            return threat
        recipients = threat.adversary == "model_recipients"
        adversary = threat.adversary if recipients else "server_and_clients"
        return replace(threat, adversary=adversary, colluders=liars)

    @property
    def _void(self) -> str:
        """What makes a claim about clients void, in words: somebody sees their rows before any
        noise, and moves rows of its own with them.
        """
        for attacker in self.attackers:
            if "update" in attacker.attack.seats and attacker.attack.knows in ("benign", "rule"):
                return (
                    f"attack '{attacker.name}' is handed the honest clients' updates and moves its"
                    " own rows with them, so one client moves more than one row. Lower"
                    " attackers_know, or read the epsilon of the same run without attackers."
                )
        return ""
