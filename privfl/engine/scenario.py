"""Everything that a run is made of, as objects, and the checks that refuse impossible pairs before
any training.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from privfl.aggregators import ToleratesByzantine
from privfl.core import (
    Bound,
    Channel,
    ClientId,
    ConfigError,
    Dataset,
    Defence,
    Guarantee,
    Knows,
    Ledger,
    Mechanism,
    NeighbourRelation,
    NoiseSource,
    OsNoise,
    Rule,
    RuleWithMemory,
    RunNoise,
    Threat,
    TooManyByzantine,
    WithMemory,
    before_the_rule,
    counts_itself,
    is_private,
)
from privfl.dp import Clip, NoBound
from privfl.dp.pipeline import Pipeline
from privfl.engine.attackers import Attacker
from privfl.engine.compatibility import (
    check_declared,
    name_of,
    rule_reads_channel,
    unreadable,
)
from privfl.engine.opening import too_few
from privfl.engine.releases import pipeline_of, refuse_asking, refuse_turns, require_steady
from privfl.engine.samplers import All, Sampler
from privfl.engine.seams import AdaptiveBound, adapts
from privfl.engine.session import MailMode
from privfl.training import FedAvg, ServerOptimizer, Workload

_KNOWING = {
    "nothing": "nothing",
    "own": "its own updates",
    "benign": "the honest updates",
    "rule": "the server's rule",
}


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

    ``start`` is what is known of the model before the first round: "public", that it holds nothing
    of these clients; a ledger, all that was charged for it; None, nothing was said. ``uncharged``
    names what was taken from clients' data before the run, which no epsilon counts.
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
    noise: NoiseSource = field(default_factory=OsNoise)
    facts: Mapping[str, Any] = field(default_factory=dict)
    start: Literal["public"] | Ledger | None = None
    uncharged: Sequence[str] = ()

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            ConfigError: no clients, no rounds, an empty client, a rule that reads what the channel
                hides, integers without a clip, noise without a clip or without a proved
                sensitivity, an attack that acts nowhere or that needs to know what is withheld.
        """
        if not self.clients:
            raise ConfigError("there are no clients: the split left nobody with data.")
        empty = [client for client, index in self.clients.items() if len(index) == 0]
        if empty:
            raise ConfigError(
                f"client {empty[0]} has no data; give the split fewer clients or a min_size."
            )
        self.sampler.sampling(len(self.clients))
        check_declared(self.channel, "channel", "kind", "able", "guarantee")
        self._check_guaranteed(self.channel.guarantee, self.channel)
        self._check_enough()
        check_declared(self.bound, "bound", "adaptive", "parts", "at", "describe")
        if self.mechanism is not None:
            plain = ("local", "at", "local_deviation", "event")
            mechanism = ("over",) if self.mechanism.remembers else plain
            check_declared(self.mechanism, "mechanism", "guarantee", *mechanism)
            self._check_guaranteed(self.mechanism.guarantee, self.mechanism)
        check_declared(
            self.aggregator,
            "rule",
            "reads",
            "needs_ids",
            "remembers",
            "judges",
            "public_denominator",
        )
        for defence in self.defences:
            check_declared(defence, "defence", "seats", "judges")
        able = self.channel.able
        if not rule_reads_channel(self.aggregator, self.channel):
            raise ConfigError(
                f"{unreadable(self.aggregator, self.channel)} See 'privfl list --compat'."
            )
        if self.channel.kind.opens == "total":
            for defence in self.defences:
                if before_the_rule(defence):
                    raise ConfigError(
                        f"{name_of(defence)} reads individual updates, and {name_of(self.channel)}"
                        " opens only their sum."
                    )
        if not self.bound.l2 < float("inf") and able.encodes is not None:
            raise ConfigError(
                f"{name_of(self.channel)} computes on integers, whose scale comes from a clip: set"
                " bound to {name: clip, l2: ...}."
            )
        if able.groups is not None and self.aggregator.public_denominator is not None:
            raise ConfigError(
                f"{name_of(self.channel)} regroups everybody when a client comes or goes, so a mean"
                " over a fixed denominator makes no sense of its groups: leave denominator out, or"
                " use secagg (the same sum, with less shown)."
            )
        for attacker in self.attackers:
            self._check_attack(attacker)
        if self.bound.adaptive:
            self._check_adaptive()
        self._check_noise()
        self._check_rule()

    def _check_enough(self) -> None:
        """Refuse a run in which no cohort is large enough for the channel."""
        sampling = self.sampler.sampling(len(self.clients))
        drawn = 1.0 if sampling.scheme == "poisson" else sampling.rate
        why = too_few(self.channel, round(drawn * len(self.clients)))
        if why:
            raise ConfigError(f"no round could be opened: {why} Ask more clients.")

    @staticmethod
    def _check_guaranteed(guarantee: object, part: object) -> None:
        """Refuse a part of somebody's own whose record of who may lie is missing."""
        if not isinstance(guarantee, Guarantee):
            raise ConfigError(
                f"{name_of(part)} has no guarantee, the record of who may collude and who may lie,"
                " from which the report is made: see privfl.core.Guarantee."
            )

    def _check_attack(self, attacker: Attacker) -> None:
        attack = attacker.attack
        declared = ("seats", "remembers", "measured", "divided", "counts", "knows")
        check_declared(attack, "attack", *declared)
        if not attack.seats and not attack.divided:
            raise ConfigError(
                f"attack '{attacker.name}' ({name_of(attacker.attack)}) fills none of the seats of"
                " an attacker."
            )
        needs = attack.knows
        ladder = typing.get_args(Knows)
        if ladder.index(needs) > ladder.index(self.attackers_know):
            raise ConfigError(
                f"attack '{attacker.name}' needs to know {_KNOWING[needs]}, and this scenario lets"
                f" attackers know {_KNOWING[self.attackers_know]} at most."
            )
        if needs in ("benign", "rule") and attacker.clients.issuperset(self.clients):
            raise ConfigError(
                f"attack '{attacker.name}' needs to know the honest updates, and has all clients:"
                " leave some out."
            )
        if counts_itself(attack) and self.sampler.sampling(len(self.clients)).scheme == "all":
            for team in attacker.teams(sorted(attacker.clients)):
                attack.among(len(self.clients), len(team))
        if needs == "rule" and self.aggregator.reads == "total":
            raise ConfigError(
                f"attack '{attacker.name}' tries out the server's rule on rows, and"
                f" {name_of(self.aggregator)} reads none: give the attack a rule of its own to"
                " stand in for it."
            )

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
    def expected_cohort(self) -> float:
        """How many clients take part in a round, on average."""
        return float(self.sampler.sampling(len(self.clients)).rate * len(self.clients))

    @property
    def local_noise(self) -> bool:
        """Whether every client adds noise of its own, so that what it sends has no bound."""
        return self.mechanism is not None and self.mechanism.local

    @property
    def sent_l2(self) -> float:
        """The bound on what clients send: infinite where they add noise of their own."""
        return float("inf") if self.local_noise else self.bound.l2

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
        now, method, d = self.in_round(number, l2), self.workload.method, self.workload.model.d
        lengths = method.parts(d)
        return pipeline_of(
            {"delta": now.bound, **{part: self.part_bound(part) for part in lengths}},
            {"delta": d, **lengths},
            channel=self.channel,
            rule=self.aggregator,
            sampling=self.sampler.sampling(len(self.clients)),
            seats=[defence for defence in self.defences if before_the_rule(defence)],
            mechanism=now.round_noise,
            over=self.run_noise,
            uniform=method.weighting == "uniform",
            relation=self.relation,
            adaptive=self.adaptive,
            repeatable=self.noise.repeatable,
            void=self._void,
            threat=self._threat,
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
        return self.mechanism.over(self.sampler.participation(self.rounds))

    @property
    def _threat(self) -> Threat:
        """The adversary; attackers among the clients know their own shares of distributed noise,
        and whoever looks may be told.
        """
        liars = len(frozenset[ClientId]().union(*(one.clients for one in self.attackers)))
        if self.channel.able.noise is None or liars <= self.threat.colluders:
            return self.threat
        recipients = self.threat.adversary == "model_recipients"
        adversary = self.threat.adversary if recipients else "server_and_clients"
        return replace(self.threat, adversary=adversary, colluders=liars)

    @property
    def _void(self) -> str:
        """What makes a claim about clients void, in words: somebody sees their rows before any
        noise, and moves rows of its own with them; or the model that the run starts from was
        trained on them without noise.
        """
        if isinstance(self.start, Ledger) and not self.start.charges:
            return (
                "the model that this run starts from comes with a ledger that charges nothing, so"
                " it was trained without noise. Start from a public model, or from one with noise."
            )
        for attacker in self.attackers:
            if "update" in attacker.attack.seats and attacker.attack.knows in ("benign", "rule"):
                return (
                    f"attack '{attacker.name}' is handed the honest clients' updates and moves its"
                    " own rows with them, so one client moves more than one row. Lower"
                    " attackers_know, or read the epsilon of the same run without attackers."
                )
        return ""

    def _check_noise(self) -> None:
        if self.mechanism is not None and not self.bound.l2 < float("inf"):
            raise ConfigError(
                "noise needs a bound on each update: set bound to {name: clip, l2: ...}."
            )
        self._check_turns()
        if self.local_noise and self.channel.able.encodes is not None:
            raise ConfigError(
                f"noise at the clients has no bound, and {name_of(self.channel)} computes on"
                " integers that need one: use the plain channel."
            )
        for part in self.workload.method.parts(self.workload.model.d):
            if self.bound.l2 < float("inf") and part not in self.part_bounds:
                raise ConfigError(
                    f"the method also sends '{part}', which needs a bound of its own here: set"
                    f" bound.parts to {{{part}: ...}}."
                )
        self._check_coins()
        pipeline = self.pipeline()
        if pipeline.private or self.workload.method.gradient.private:
            refuse_asking((self.aggregator, *self.defences))
        if pipeline.private:
            remembering = [self.aggregator] if self.aggregator.remembers else []
            for one in (*remembering, *filter(before_the_rule, self.defences)):
                check_declared(one, "rule or seat that remembers", "memory")
        pipeline.check(self.expected_rows)

    def _check_turns(self) -> None:
        """Refuse a scale that changes under correlated noise, and turns that only that prices."""
        if self.mechanism is None:
            return
        if self.mechanism.remembers:
            require_steady(self.bound, self.rounds)
        elif self.sampler.participation(self.rounds).rate < 1:
            refuse_turns(self.sampler)

    def _check_coins(self) -> None:
        """Refuse secret coins that somebody can draw again."""
        if self.threat.sampling != "secret":
            return
        if self.noise.repeatable:
            raise ConfigError(
                "threat.sampling is secret, and a noise seed draws the cohorts again: leave"
                " noise_seed out, or set sampling to public."
            )
        gradient = self.workload.method.gradient
        if is_private(gradient) and gradient.sampling != "secret":
            raise ConfigError(
                "threat.sampling is secret, and the batches of private training are drawn from the"
                " run's seed: give its gradient sampling='secret'."
            )

    def _check_adaptive(self) -> None:
        """Refuse a channel that does not sum the bits, and noise beside which their count is not
        accounted for.
        """
        able = self.channel.able
        if able.hosts is not None or able.groups is not None:
            raise ConfigError(
                "an adaptive bound needs the sum of the clients' bits, which"
                f" {name_of(self.channel)} does not open: use secagg."
            )
        if able.noise is not None:
            raise ConfigError(
                "the count of an adaptive bound is noised by the server, and distributed noise does"
                " not trust it: use clip."
            )
        if self.local_noise:
            raise ConfigError(
                "the bits of an adaptive bound would reach the server without noise of their own:"
                " use clip under local noise."
            )
        mechanism = self.in_round(0, None).round_noise
        event = None if mechanism is None else mechanism.event(1)
        if mechanism is not None and (event is None or event.mechanism != "gaussian"):
            raise ConfigError(
                "an adaptive bound's count is accounted for beside Gaussian noise only:"
                f" {name_of(mechanism)} needs clip."
            )

    def _check_rule(self) -> None:
        """Refuse a rule or a seat before it that tolerates fewer Byzantine clients than its f among
        the rows that it gets, before any training.
        """
        sampling = self.sampler.sampling(len(self.clients))
        seats = [defence for defence in self.defences if before_the_rule(defence)]
        for seat in seats:
            if not seat.keeps_ids and self.aggregator.needs_ids:
                raise ConfigError(
                    f"{name_of(self.aggregator)} needs to know whose row is whose, and"
                    f" {name_of(seat)} makes rows anonymous."
                )
        deciding: tuple[object, ...] = (self.aggregator, self.channel.able.hosts)
        rules = [rule for rule in deciding if isinstance(rule, ToleratesByzantine)]
        for rule in rules:
            rule.admit(self.clients)
        if sampling.scheme == "poisson":  # how many come is not known
            return
        try:
            n = self.rows(round(sampling.rate * len(self.clients)))
            for seat in seats:
                n = seat.passes(n)
            for rule in rules:
                rule.max_byzantine(n)
        except TooManyByzantine as refused:
            raise ConfigError(str(refused)) from None
