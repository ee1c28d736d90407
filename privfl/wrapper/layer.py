"""The layer: it keeps a session, a journal and what failed from round to round."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import torch

from privfl.aggregators import Mean
from privfl.core import (
    BadUpdate,
    Bound,
    Bounded,
    Channel,
    Charge,
    ClientId,
    ConfigError,
    Context,
    Ledger,
    Mechanism,
    NeighbourRelation,
    NoiseSource,
    OsNoise,
    PrivflError,
    RoundFailed,
    RoundPlan,
    Rows,
    Rule,
    Sampling,
    Threat,
)
from privfl.crypto import Plain
from privfl.dp import NoBound, delta_protects_nobody
from privfl.dp.charges import played_again
from privfl.dp.pipeline import Made, Pipeline
from privfl.engine import MAIL, Budget, MailMode, Session, rule_reads_channel, too_few, unreadable
from privfl.engine.journal import Journal
from privfl.engine.releases import pipeline_of, refuse_asking
from privfl.wrapper.asked import Noises, asked_of, expected, require_mechanism
from privfl.wrapper.receipt import Receipt, of_nobody, of_round
from privfl.wrapper.refusals import refuse_parts, refuse_unbounded
from privfl.wrapper.sampled import require_drawn, require_known
from privfl.wrapper.spent import spent_of, statement_of
from privfl.wrapper.updates import V, finite, flat_vector, like, require_real

O = TypeVar("O")


class PrivateAggregation(Generic[O]):
    """Clip, protect, aggregate and noise the updates of any federated training loop.

    ``bound`` clips each update, ``channel`` carries it (`Plain` shows every update to the server;
    others a sum, group means or an aggregate, to a server that follows the protocol: their
    ``guarantee`` says what one that lies can do), ``rule`` makes one vector, ``mechanism`` adds
    noise (or the channel's clients do, in shares). A rule that reads what the channel hides does
    not type-check, and is refused. What a round costs is charged by `dp.Pipeline`, exactly as an
    engine's round would be, under ``relation`` (None: what `engine.pipeline_of` says). Without
    ``sampling`` (how each round's clients were drawn) every client pays for every round; ``threat``
    says against whom, and whether the caller drew them with coins that nobody can repeat. A public
    ``denominator`` is what the mean divides by, in place of the number present: without it nothing
    is claimed of clients that come and go, nor of Poisson samples. Each round is charged before its
    first message, to the ``budget`` of the data where there is one, and in ``ledger_file`` where
    one is given: a layer that starts anew with that file goes on from it. Noise is from the
    operating system unless ``noise`` says otherwise. ``mail="signed"`` signs and seals every letter
    between the parties (`crypto.post`), all in this process.

    ``epsilon`` with ``rounds`` stands in place of a noise multiplier: ``mechanism`` is then its
    class (or a function of a multiplier), the noise the least with which so many rounds claim at
    most that much at ``delta``, and what would pass it is refused. Receipts then state the smaller
    of RDP and PLD, in up to a second a round.

    Where ``sampling`` is Poisson, whether a round is played must not tell that somebody was drawn:
    give the rounds for which nobody was drawn too, as ``aggregate({})``. Their aggregate is noise
    alone. A claim under ``add_remove`` does not hold for a caller who leaves them out.

    Raises:
        ConfigError: a rule that reads what the channel hides, noise without a finite bound, a
            denominator beside a rule, mail that is neither "bare" nor "signed".

    >>> import numpy as np
    >>> layer = PrivateAggregation(channel=Plain())
    >>> mean, receipt = layer.aggregate({1: np.array([1.0, 2.0]), 2: np.array([3.0, 4.0])})
    >>> mean, receipt.server_reads
    (array([2., 3.]), 'every update')
    """

    @overload
    def __init__(
        self: PrivateAggregation[Rows],
        *,
        bound: Bound | None = None,
        channel: None = None,
        mechanism: Mechanism | Noises | None = None,
        epsilon: float | None = None,
        rounds: int | None = None,
        rule: Rule[Rows] | None = None,
        sampling: Sampling | None = None,
        denominator: float | None = None,
        delta: float = 1e-5,
        relation: NeighbourRelation | None = None,
        threat: Threat | None = None,
        budget: Budget | None = None,
        ledger_file: Path | str | None = None,
        noise: NoiseSource | None = None,
        mail: MailMode = "bare",
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        bound: Bound | None = None,
        channel: Channel[O],
        mechanism: Mechanism | Noises | None = None,
        epsilon: float | None = None,
        rounds: int | None = None,
        rule: Rule[O] | None = None,
        sampling: Sampling | None = None,
        denominator: float | None = None,
        delta: float = 1e-5,
        relation: NeighbourRelation | None = None,
        threat: Threat | None = None,
        budget: Budget | None = None,
        ledger_file: Path | str | None = None,
        noise: NoiseSource | None = None,
        mail: MailMode = "bare",
    ) -> None: ...

    def __init__(
        self,
        *,
        bound: Bound | None = None,
        channel: Channel[Any] | None = None,
        mechanism: Mechanism | Noises | None = None,
        epsilon: float | None = None,
        rounds: int | None = None,
        rule: Rule[Any] | None = None,
        sampling: Sampling | None = None,
        denominator: float | None = None,
        delta: float = 1e-5,
        relation: NeighbourRelation | None = None,
        threat: Threat | None = None,
        budget: Budget | None = None,
        ledger_file: Path | str | None = None,
        noise: NoiseSource | None = None,
        mail: MailMode = "bare",
    ) -> None:
        refuse_parts(bound, rule, denominator)
        self.bound = bound or NoBound()
        self.channel: Channel[Any] = channel or Plain()
        self._asked = asked_of(mechanism, self.channel, epsilon, rounds)
        if self._asked is not None:  # until the first round says how long updates are
            mechanism, self.channel = self._asked.noised(1.0)
        self.mechanism: Mechanism | None = require_mechanism(mechanism)
        able = self.channel.able
        grouped = able.groups is not None  # its rows weigh as many clients as they stand for
        self.rule: Rule[Any] = rule or Mean(
            weighted=grouped or able.hosts is not None, denominator=denominator
        )
        self.sampling, self.denominator, self.delta = sampling, denominator, delta
        self.noise = noise or OsNoise()
        self.relation, self.threat = relation, threat or Threat()
        self._local = self.mechanism is not None and self.mechanism.local
        if budget is not None:
            budget.require_delta("delta", delta)
        self._account = None if budget is None else budget.opened()
        self._held: dict[frozenset[ClientId], str] = {}
        self._journal = Journal(None if ledger_file is None else Path(ledger_file))
        if grouped and denominator is not None:
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
        self._session: Session[Any] = Session(self.channel, mail)
        self._id = secrets.token_bytes(16)
        self._failed: dict[frozenset[ClientId], tuple[str, tuple[Charge, ...]]] = {}
        self._seen: set[ClientId] = set()
        self._round = 0
        self._last: Any = None

    def aggregate(
        self, updates: Mapping[ClientId, V], example: V | None = None
    ) -> tuple[V, Receipt]:
        """One round, in float32: the aggregate, of the kind and type of the updates (float32 where
        they are whole numbers: a mean is none), and the receipt.

        Args:
            updates: flat vectors [d] by client, numpy or torch, all of one kind, length and type;
                none where a Poisson sample has nobody in it.
            example: a vector of that kind, length and type, for a first round of nobody.

        Raises:
            BadUpdate: no updates, where that is no round of noise alone; different lengths, values
                or names of clients that are no numbers, NaN where nothing is claimed (else zero).
            ConfigError: more clients than ``sampling`` draws, in this round or in all together.
            BudgetSpent: the round would pass the budget; nothing was sent.
            RoundFailed: the protocol opened nothing. Its charge stays: another try with the same
                clients is no fresh draw of a sample, and is charged so.
        """
        if not isinstance(updates, Mapping):
            raise BadUpdate(
                "updates are vectors by client, as in {0: vector, 1: vector}, and these are a"
                f" {type(updates).__name__}."
            )
        if not updates:
            return self._of_nobody(self._last if example is None else example)
        began = time.perf_counter()
        first = self._last = next(iter(updates.values()))
        vectors = {
            client: flat_vector(client, update, len(first)) for client, update in updates.items()
        }
        d, cohort = len(first), tuple(updates)
        pipeline = self._pipeline(d, cohort)  # refuses before anything is sent
        self._seen |= set(cohort)
        why_not = too_few(self.channel, len(cohort))
        sent_l2 = float("inf") if self._local else self.bound.l2
        bounded: dict[ClientId, Bounded] = {}
        for client, vector in vectors.items():
            delta = finite(client, self.bound(vector), pipeline.private)
            if self.mechanism is not None and self._local:
                Bounded(client, delta, self.bound.l2)  # refuse NaN before noise hides it
                far = pipeline.norms("delta", d)
                delta, _ = self.mechanism.share(delta, far, len(cohort), self.noise)
            bounded[client] = Bounded(client, delta, sent_l2)
        plan = RoundPlan(self._round, cohort, d, sent_l2, session=self._id)
        plans = {"delta": plan}
        self._round += 1  # a round that fails has used its number up
        again, failed = self._failed.get(frozenset(cohort), ("", ()))
        before = [replace(charge, round=plan.number) for charge in failed]
        charged = played_again(before, pipeline.charges(plans, released=not why_not))
        if self._asked is not None:
            self._asked.refuse_beyond(self._journal, charged, again, self.delta)
        if self._account is not None:
            held = self._account.hold(charged, self._held.get(frozenset(cohort), ""))
            self._held[frozenset(cohort)] = held
        entry = self._journal.enter(charged, again)
        self._failed[frozenset(cohort)] = entry, charged  # until this round has ended well
        if why_not:
            raise RoundFailed(f"round {plan.number} opened nothing: {why_not}")
        self._session.enrol(cohort)
        self._session.inform(
            Context(plan, torch.zeros(d), torch.Generator().manual_seed(plan.number))
        )
        outcome = self._session.play(plan, bounded)
        opened = outcome.opened
        if opened is None:
            why = (
                "; ".join(f"{who}: {abort}" for who, abort in outcome.aborts.items())
                or "too few clients answered"
            )
            raise RoundFailed(f"round {plan.number} opened nothing: {why}.")
        rows = opened.what.n if isinstance(opened.what, Rows) else len(opened.survivors)
        try:
            made = Made(self.rule(opened.what), rows, len(opened.survivors))
        except PrivflError:
            untold = pipeline.charges(plans, released=False)
            if untold:
                self._failed[frozenset(cohort)] = entry, played_again(before, untold)
                self._journal.settle(entry, played_again(before, untold))
            raise
        released, spent = pipeline.release(plans, {"delta": made}, self.noise)
        self._journal.settle(entry, played_again(before, spent))
        if self._account is not None:
            self._account.settle(self._held.pop(frozenset(cohort)), played_again(before, spent))
        del self._failed[frozenset(cohort)]
        receipt = of_round(
            plan,
            self.channel.guarantee,
            MAIL[self._session.mail],
            outcome,
            opened,
            seconds=time.perf_counter() - began,
            event=spent[0].event if spent else None,
            epsilon=self._spent(),
            statement=self._statement(),
        )
        return like(first, released["delta"].vector), receipt

    def _of_nobody(self, example: V | None) -> tuple[V, Receipt]:
        """A round of a Poisson sample with nobody in it: noise alone, and what rounds cost."""
        drawn = self.sampling is not None and self.sampling.scheme == "poisson"
        if not drawn or self.mechanism is None or self._local:
            raise BadUpdate("there are no updates to aggregate: give at least one client's vector.")
        if example is None:
            raise BadUpdate(
                "nobody was drawn, and no round before says what updates look like: give"
                " example=..., a vector of their kind and length."
            )
        require_real("example", example)
        d = len(example)
        pipeline = self._pipeline(d, ())
        if not pipeline.noise_alone(0):
            raise BadUpdate(
                "there are no updates, and no round of nobody here: channel or rule need some."
            )
        plan = RoundPlan(self._round, (), d, self.bound.l2, session=self._id)
        self._round += 1
        charged = pipeline.charges({"delta": plan})
        if self._asked is not None:
            self._asked.refuse_beyond(self._journal, charged, "", self.delta)
        held = "" if self._account is None else self._account.hold(charged)
        entry = self._journal.enter(charged)
        nothing = {"delta": Made(torch.zeros(d), rows=0, survivors=0)}
        released, spent = pipeline.release({"delta": plan}, nothing, self.noise)
        self._journal.settle(entry, spent)
        if self._account is not None:
            self._account.settle(held, spent)
        receipt = of_nobody(
            plan,
            self.channel.guarantee,
            MAIL[self._session.mail],
            event=spent[0].event,
            epsilon=self._spent(),
            statement=self._statement(),
        )
        return like(example, released["delta"].vector), receipt

    def _rows(self, contributions: int) -> int:
        groups = self.channel.able.groups
        return contributions if groups is None else groups.rows(contributions)

    def _pipeline(self, d: int, cohort: Sequence[ClientId]) -> Pipeline:
        """How this round's vector leaves, with the noise that was asked for.

        Raises:
            ConfigError: noise that cannot be calibrated, or accounted for; a cohort that cannot
                have been drawn as ``sampling`` says.
        """
        if self.sampling is not None:
            require_drawn(len(cohort), self.sampling)
            require_known(self._seen | set(cohort), self.sampling)
        if self._asked is not None and self._asked.found is None:
            n = len(cohort) if self.sampling is None else expected(self.sampling)
            plans = {"delta": RoundPlan(0, tuple(range(n)), d, self.bound.l2)}
            self.mechanism, self.channel = self._asked.settled(
                lambda *noised: self._noised(d, n, *noised).charges(plans), self.delta
            )
            self._session = Session(self.channel, self._session.mail)
        pipeline = self._noised(d, len(cohort), self.mechanism, self.channel)
        if pipeline.private:
            refuse_asking((self.rule,))
            refused = delta_protects_nobody(self.delta, pipeline.sampling.population)
            if refused is not None:
                raise ConfigError(refused)
        pipeline.check(max(self._rows(len(cohort)), 1))
        return pipeline

    def _noised(
        self, d: int, n: int, mechanism: Mechanism | None, channel: Channel[Any]
    ) -> Pipeline:
        """The pipeline of a cohort of n, with this noise on the aggregate or in shares."""
        sampling = self.sampling or Sampling("all", 1.0, n)
        return pipeline_of(
            {"delta": self.bound},
            {"delta": d},
            channel=channel,
            rule=self.rule,
            sampling=sampling,
            mechanism=mechanism,
            relation=self.relation,
            threat=self.threat,
            repeatable=self.noise.repeatable,
        )

    @property
    def ledger(self) -> Ledger:
        """All that was charged, rounds that failed included."""
        return self._journal.ledger()

    def _spent(self) -> tuple[float | None, str]:
        return spent_of(self.ledger, self.delta, tight=self._asked is not None)

    def _statement(self) -> str:
        return statement_of(self.ledger, self.delta, tight=self._asked is not None)
