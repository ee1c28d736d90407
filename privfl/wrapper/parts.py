"""What a layer is made of, and how its rounds leave."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from privfl.aggregators import Mean
from privfl.core import (
    Bound,
    Channel,
    ClientId,
    ConfigError,
    Mechanism,
    NeighbourRelation,
    NoiseSource,
    Rule,
    Sampling,
    Threat,
)
from privfl.core.field_values import field_values
from privfl.dp import delta_protects_nobody
from privfl.dp.pipeline import Pipeline
from privfl.engine import rule_reads_channel, unreadable
from privfl.engine.releases import pipeline_of, refuse_asking
from privfl.wrapper.refusals import refuse_unbounded
from privfl.wrapper.saved import words
from privfl.wrapper.tree import Float64
from privfl.wrapper.weights import weighable


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a layer (`PrivateAggregation` says what each is); ``own_rule``: its caller chose
    the rule.

    Raises:
        ConfigError: parts that do not go together.
    """

    bound: Bound
    channel: Channel[Any]
    rule: Rule[Any]
    mechanism: Mechanism | None
    sampling: Sampling | None
    delta: float
    relation: NeighbourRelation | None
    threat: Threat
    noise: NoiseSource
    max_weight: float | None
    float64: Float64
    own_rule: bool

    def __post_init__(self) -> None:
        public = isinstance(self.rule, Mean) and self.rule.denominator is not None
        if self.channel.able.groups is not None and public:
            raise ConfigError(
                "a mean over groups divides by the clients in them: leave denominator out, or use a"
                " channel that sums."
            )
        if not rule_reads_channel(self.rule, self.channel):
            raise ConfigError(
                f"{unreadable(self.rule, self.channel)} Use Mean, the plain channel, or a hybrid."
                " See 'privfl list --compat'."
            )
        refuse_unbounded(self.bound, self.channel, noised=self.mechanism is not None)

    @property
    def local(self) -> bool:
        """Whether every client noises its own row."""
        return self.mechanism is not None and self.mechanism.local

    @property
    def noised(self) -> bool:
        """Whether there is any noise, at the clients, in shares or on the aggregate."""
        return self.mechanism is not None or self.channel.able.noise is not None

    def noised_by(self, mechanism: Mechanism | None, channel: Channel[Any]) -> Parts:
        """With this noise on the aggregate, or in the shares of this channel."""
        return replace(self, mechanism=mechanism, channel=channel)

    def mean(self) -> Mean:
        """The mean in which rows are weighted; see `weighable`."""
        return weighable(
            self.rule, self.channel, self.max_weight, own=self.own_rule, noised=self.noised
        )

    def pipeline(self, d: int, n: int, rule: Rule[Any]) -> Pipeline:
        """How the vector [d] of a cohort of n leaves, by this rule."""
        return pipeline_of(
            {"delta": self.bound},
            {"delta": d},
            channel=self.channel,
            rule=rule,
            sampling=self.sampling or Sampling("all", 1.0, n),
            mechanism=self.mechanism,
            relation=self.relation,
            threat=self.threat,
            repeatable=self.noise.repeatable,
        )

    def checked(self, d: int, cohort: Collection[ClientId], rule: Rule[Any]) -> Pipeline:
        """The pipeline of a cohort, of which a claim can be made where there is noise.

        Raises:
            ConfigError: none can be made.
        """
        pipeline = self.pipeline(d, len(cohort), rule)
        if pipeline.private:
            refuse_asking((rule,))
            refused = delta_protects_nobody(self.delta, pipeline.sampling.population)
            if refused is not None:
                raise ConfigError(refused)
        groups = self.channel.able.groups
        pipeline.check(max(len(cohort) if groups is None else groups.rows(len(cohort)), 1))
        return pipeline

    def described(self) -> dict[str, str]:
        """Each part in words that another process says of the same parts."""
        return {name: words(part) for name, part in field_values(self).items()}
