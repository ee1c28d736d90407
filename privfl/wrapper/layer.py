"""The layer: it keeps a session, its clients' names and what it has spent from round to round."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import torch
from torch import nn

from privfl.aggregators import Mean
from privfl.core import (
    BadUpdate,
    Bound,
    Bounded,
    Broadcast,
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
    Outcome,
    RoundFailed,
    RoundPlan,
    Rows,
    Rule,
    Sampling,
    Threat,
    Vector,
)
from privfl.crypto import Plain
from privfl.dp import NoBound
from privfl.dp.pipeline import Pipeline
from privfl.engine import MAIL, Budget, MailMode, Session, too_few
from privfl.engine.journal import Journal
from privfl.wrapper import saved
from privfl.wrapper.asked import Noises, asked_of, expected, require_mechanism
from privfl.wrapper.given import Given, given_of
from privfl.wrapper.model import parameters_of, require_model
from privfl.wrapper.names import Names
from privfl.wrapper.parts import Parts
from privfl.wrapper.receipt import Receipt, of_round
from privfl.wrapper.refusals import refuse_parts
from privfl.wrapper.round import bounded, ruled
from privfl.wrapper.sampled import Turns, require_drawn
from privfl.wrapper.spending import LayerSpending
from privfl.wrapper.tree import Float64, UpdateLayout
from privfl.wrapper.weights import RoundWeights, weights_of

O = TypeVar("O")
V = TypeVar("V")


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

    Clients have any names that can be hashed (`Names`), updates any shape (`UpdateLayout`).
    ``max_weight`` is a public bound on a weight: what weighs more counts as that; None: a round's
    largest, which its plan then tells everybody. ``float64="round"`` takes float64 values and
    rounds them to float32, in which a round computes.

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

    >>> layer = PrivateAggregation(channel=Plain())
    >>> mean, receipt = layer.aggregate(
    ...     {"ward 1": [torch.tensor([1.0, 2.0])], "ward 2": [torch.tensor([3.0, 8.0])]},
    ...     weights={"ward 1": 20, "ward 2": 10},
    ... )
    >>> mean, receipt.server_reads
    ([tensor([1.6667, 4.0000])], 'every update')
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
        max_weight: float | None = None,
        float64: Float64 = "refuse",
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
        max_weight: float | None = None,
        float64: Float64 = "refuse",
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
        max_weight: float | None = None,
        float64: Float64 = "refuse",
    ) -> None:
        refuse_parts(bound, rule, denominator, max_weight, float64)
        carrier: Channel[Any] = channel or Plain()
        asked = asked_of(mechanism, carrier, epsilon, rounds)
        if asked is not None:  # until the first round says how long updates are
            mechanism, carrier = asked.noised(1.0)
        hosted = carrier.able.groups is not None or carrier.able.hosts is not None
        self.parts = Parts(  # rows of groups weigh as many clients as they stand for
            bound=bound or NoBound(),
            channel=carrier,
            rule=rule or Mean(weighted=hosted, denominator=denominator),
            mechanism=require_mechanism(mechanism),
            sampling=sampling,
            delta=delta,
            relation=relation,
            threat=threat or Threat(),
            noise=noise or OsNoise(),
            max_weight=max_weight,
            float64=float64,
            own_rule=rule is not None,
        )
        self._made_of = {**self.parts.described(), "epsilon": repr(epsilon), "rounds": repr(rounds)}
        if budget is not None:
            budget.require_delta("delta", delta)
        self._lasting = "" if budget is None else "a budget"
        self._lasting = self._lasting if ledger_file is None else "a ledger file"
        journal = Journal(None if ledger_file is None else Path(ledger_file))
        account = None if budget is None else budget.opened()
        self._spending = LayerSpending(journal, delta, account, asked)
        self._session: Session[Any] = Session(carrier, mail)
        self._id = secrets.token_bytes(16)
        self._names, self._turns = Names(), Turns()
        self._round = 0
        self._last: UpdateLayout[Any] | None = None

    def aggregate(
        self,
        updates: Mapping[Any, V],
        example: V | None = None,
        *,
        weights: Mapping[Any, float] | None = None,
        dropped: Collection[Any] = (),
        model: V | nn.Module | None = None,
    ) -> tuple[V, Receipt]:
        """One round, in float32: the aggregate, in the shape and types of the updates, and the
        receipt.

        Args:
            updates: by client: flat vectors, state_dicts, lists or nested mappings of numpy arrays
                or torch tensors, all of one shape and type; none where a Poisson sample has nobody
                in it.
            example: an update of that shape and type, for a first round of nobody.
            weights: by client, who is in ``updates`` or ``dropped``; None weighs all alike. Under
                noise they need ``max_weight`` and ``denominator``, and one of 0 counts as nothing.
            dropped: clients that were drawn and sent nothing.
            model: what clients started from, a module or in the shape of updates: plans name its
                digest, and rules inside a channel may read it.

        Raises:
            BadUpdate: no updates, where that is no round of noise alone; different shapes, values
                that float32 does not hold, NaN where nothing is claimed (else zero); names or
                weights that are none.
            ConfigError: another number of clients than ``sampling`` draws; weights where no claim
                can be made of them.
            UnsupportedModel: a model with running statistics.
            BudgetSpent: the round would pass the budget; nothing was sent.
            RoundFailed: the protocol opened nothing. Its charge stays: another try with the same
                clients is no fresh draw of a sample, and is charged so.
        """
        began, parts = time.perf_counter(), self.parts
        known = (
            self._last if example is None else UpdateLayout.of(example, "example", parts.float64)
        )
        given: Given[V] = given_of(updates, dropped, self._names, known, parts.float64)
        if self._lasting:
            self._names.require_lasting(self._lasting)
        weighed = self._weights(weights, given)
        rule = parts.rule if weighed is None else weighed.rule(parts.mean())
        again = frozenset(given.cohort) in self._spending.failed
        pipeline = self._pipeline(given, rule, again=again)  # refuses before anything is sent
        if model is None:
            require_model(parts.channel)
        start = None if model is None else parameters_of(model, given.layout)
        plan = self._plan(given, weighed, start)
        sent = bounded(given, weighed, plan, pipeline, parts, self._names)
        self._last = given.layout
        self._round += 1  # a round that fails has used its number up
        if not again:
            self._turns.count(plan.cohort)
        why_not = too_few(self.parts.channel, plan.n) if plan.n else ""
        entered = self._spending.enter(pipeline, {"delta": plan}, opens=not why_not)
        if why_not:
            raise RoundFailed(f"round {plan.number} opened nothing: {why_not}")
        outcome = self._played(plan, sent, start) if plan.n else None
        made = ruled(plan, pipeline, rule, outcome, entered, self._names)
        released, spent = pipeline.release({"delta": plan}, {"delta": made}, parts.noise)
        entered.settle(spent)
        receipt = of_round(
            plan,
            self.parts.channel.guarantee,
            MAIL[self._session.mail],
            outcome,
            self._names,
            seconds=time.perf_counter() - began,
            event=spent[0].event if spent else None,
            ledger=self.ledger,
            delta=parts.delta,
        )
        return given.layout.write(released["delta"].vector), receipt

    def _weights(self, weights: Mapping[Any, float] | None, given: Given[V]) -> RoundWeights | None:
        """The weights of a round's updates, folded into rows where noise covers them."""
        parts, names = self.parts, self._names
        if weights is None:
            return None
        parts.mean()  # refuses
        return weights_of(weights, given, names, top=parts.max_weight, folded=parts.noised)

    def _pipeline(self, given: Given[V], rule: Rule[Any], *, again: bool) -> Pipeline:
        """How this round's vector leaves, with the noise that was asked for; ``again``: a cohort
        that failed before is no fresh draw.

        Raises:
            BadUpdate: nobody's updates, where that is no round of noise alone.
            ConfigError: noise that cannot be calibrated, or accounted for; a cohort that cannot
                have been drawn as ``sampling`` says.
        """
        sampling, asked, cohort = self.parts.sampling, self._spending.asked, given.cohort
        d, nobody = given.layout.d, "there are no updates to aggregate: give at least one client's."
        if not cohort and (sampling is None or sampling.scheme != "poisson"):
            raise BadUpdate(nobody)
        if sampling is not None:
            require_drawn(len(cohort), sampling)
            self._turns.require_known(cohort, sampling)
            if not again:
                self._turns.require_chance(cohort, sampling, self._names)
        if asked is not None and asked.found is None:
            n = len(cohort) if sampling is None else expected(sampling)
            plans = {"delta": RoundPlan(0, tuple(range(n)), d, self.parts.bound.l2)}

            def costs(mechanism: Mechanism | None, channel: Channel[Any]) -> tuple[Charge, ...]:
                return self.parts.noised_by(mechanism, channel).pipeline(d, n, rule).charges(plans)

            self._noise(*asked.settled(costs, self.parts.delta))
        pipeline = self.parts.checked(d, cohort, rule)
        if not cohort and not pipeline.noise_alone(0):
            raise BadUpdate(nobody)
        return pipeline

    def _noise(self, mechanism: Mechanism | None, channel: Channel[Any]) -> None:
        """Take the noise that was found for the epsilon that was asked for."""
        self.parts = self.parts.noised_by(mechanism, channel)
        self._session = Session(channel, self._session.mail)

    def _plan(
        self, given: Given[V], weighed: RoundWeights | None, start: Vector | None
    ) -> RoundPlan:
        """The public facts of the round."""
        own = self.parts.local and given.cohort  # what clients noise has no bound
        return RoundPlan(
            self._round,
            given.cohort,
            given.layout.d,
            float("inf") if own else self.parts.bound.l2,
            1.0 if weighed is None else weighed.most,
            session=self._id,
            models=() if start is None else (Broadcast(self._round, start).digest,),
        )

    def _played(
        self, plan: RoundPlan, sent: Mapping[ClientId, Bounded], start: Vector | None
    ) -> Outcome[Any]:
        """The protocol run; those of the cohort who send nothing do not show up in it."""
        self._session.enrol(plan.cohort)
        parameters = torch.zeros(plan.d) if start is None else start
        rng = torch.Generator().manual_seed(plan.number)
        self._session.inform(Context(plan, parameters, rng))
        return self._session.play(plan, sent)

    def save(self, path: Path | str) -> None:
        """Write what the layer has spent, whom it knows and where it has got to. Keys are not in
        it, and neither is what is played after it was saved: save after each round, or give a
        ``ledger_file``, which is written before each.

        Raises:
            ConfigError: it cannot be written; a client has a name that ends with this process.
        """
        self._names.require_lasting("a saved layer")
        body = {
            "parts": self._made_of,
            "round": self._round,
            "turns": self._turns.to_json(),
            "names": self._names.to_json(),
            **self._spending.to_json(),
        }
        saved.write(Path(path), body)

    def load(self, path: Path | str) -> None:
        """Go on from what `save` wrote, in a layer of the same parts that has played no round. The
        next round sets up new keys.

        Raises:
            ConfigError: other parts, rounds that were played, a ledger file that lacks charges.
            DataCorrupt: the file is damaged.
        """
        if self._round:
            raise ConfigError("load comes before the first round: begin a layer anew for it.")
        body = saved.read(Path(path), self._made_of)
        found = self._spending.take(body)
        if found is not None:
            self._noise(*found)
        self._names.take(body["names"])
        self._turns, self._round = Turns.from_json(body["turns"]), int(body["round"])

    @property
    def ledger(self) -> Ledger:
        """All that was charged, rounds that failed included. Clients are numbers in it: `clients`
        says whose each is.
        """
        return self._spending.ledger

    @property
    def clients(self) -> Mapping[Any, ClientId]:
        """The number that stands for each client in the ledger, by the client's name."""
        return self._names.known
