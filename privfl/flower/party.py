"""ONE party of a run on a machine of its own, as a function from envelope to envelope: a client
that trains, bounds and enters its party, or a helper. It reads no mail of the network itself, so it
runs in a resident node, in a process that lives for one envelope, and in a test.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from privfl import assembly
from privfl.core import (
    Abort,
    BadUpdate,
    Broadcast,
    Buffer,
    Bundle,
    ClientId,
    ClientMember,
    ConfigError,
    Context,
    Dataset,
    HelperMember,
    Ledger,
    Party,
    PartyId,
    PlanRefused,
    PrivflError,
    RoundPlan,
    client_of,
    client_party,
    is_private,
)
from privfl.crypto.post import Post, round_scene, set_up_scene
from privfl.crypto.primitives import Directory, Identity
from privfl.dp.memory import NoiseMemory
from privfl.engine import Budget, Journal, Scenario, check_scenario, over_network
from privfl.engine.client import BITS, nothing_of
from privfl.engine.encoding import encoded
from privfl.engine.order import Order, plans_of, side_of
from privfl.engine.spending import Spending
from privfl.flower.disk import Awake, NodeDisk, Remembered
from privfl.flower.heads import (
    Answer,
    RoundHead,
    Terms,
    bound_to,
    frames_in,
    frames_out,
    read_model,
)
from privfl.flower.mail import BadEnvelope, Envelope, read
from privfl.flower.policy import Policy, PolicyRefused
from privfl.training import Failed, Sequential, Task

LOG = logging.getLogger("privfl.node")
SERVER: PartyId = "server"


class NoSession(PrivflError):
    """A node without the keys of the session that it is asked about: it needs a key set-up."""


@dataclass(frozen=True)
class _AtWork:
    """A run as this node plays it."""

    terms: Terms
    scenario: Scenario


@dataclass
class NodeParty:
    """A node. ``own`` gives its samples, asked for once, when it first trains; helpers have none.

    Nothing of an envelope is believed that the directory's ``server`` did not sign for this node.
    Its policy is asked before anything is built of the server's words, and again for each round,
    before training. A round is played once in its session, whoever asks again. ``asleep``: between
    two envelopes everything is on the disk, sealed, and nothing in memory, as where each envelope
    gets a process of its own.
    """

    identity: Identity
    directory: Directory
    policy: Policy
    disk: NodeDisk
    own: Callable[[], Dataset] | None = None
    asleep: bool = False
    _awake: Awake | None = field(default=None, init=False)
    _work: _AtWork | None = field(default=None, init=False)
    _noise: dict[bytes, NoiseMemory] = field(default_factory=dict, init=False)

    @property
    def who(self) -> PartyId:
        """Whose node it is."""
        return self.identity.who

    @property
    def client(self) -> ClientId | None:
        """Which client it is, if it is one."""
        return client_of(self.who)

    def answer(self, raw: Buffer) -> bytes:
        """The answer to an envelope; empty where it is none from the server to this node."""
        try:
            envelope = self._question(raw)
        except BadEnvelope as bad:
            LOG.warning("refused an envelope: %s", bad)
            return b""
        try:
            return self._answered(envelope).write(self.identity)
        except Exception as error:  # whatever a server signs, its node lives on and says so
            return self._refusal(envelope, error).write(self.identity)
        finally:
            if self.asleep:
                self._awake = self._work = None

    def _question(self, raw: Buffer) -> Envelope:
        envelope = read(raw, self.who, self.directory)
        if envelope.sender != SERVER:
            raise BadEnvelope(f"{envelope.sender} asks, and only the server does.")
        return envelope

    def _refusal(self, envelope: Envelope, error: Exception) -> Envelope:
        """Why this node does not do what it was asked. What is not privfl's own sentence may tell
        of its data, and stays in its log.
        """
        LOG.warning("refused to %s: %s: %s", envelope.kind, type(error).__name__, error)
        stage: Mapping[type, str] = {
            PolicyRefused: "policy",
            PlanRefused: "plan",
            NoSession: "keys",
        }
        why = str(error) if isinstance(error, PrivflError) else type(error).__name__
        head = {
            "stage": stage.get(type(error), "node"),
            "why": why,
            "lost": isinstance(error, NoSession),
        }
        return envelope.answer("refusal", head)

    def _answered(self, envelope: Envelope) -> Envelope:
        match envelope.kind:
            case "ping":
                return envelope.answer("answer", Answer().head())
            case "set up":
                return self._set_up(envelope)
            case "order":
                return self._ordered(envelope)
            case "mail":
                awake = self._of(envelope)
                return self._stepped(envelope, awake, Answer(), frames_in(envelope.bodies))
            case _:
                raise BadEnvelope(f"a server sends no '{envelope.kind}'.")

    # ---- sessions

    def _set_up(self, envelope: Envelope) -> Envelope:
        if self.disk.played(envelope.session) >= 0:
            raise BadEnvelope("this session was set up before: another one has other keys.")
        work = self._work_of(envelope.head)
        channel = work.scenario.channel
        member: ClientMember | HelperMember
        if self.client is not None:
            member = channel.client(self.client, self.identity, self.directory)
        else:
            member = channel.helper(self.who, self.identity, self.directory)
        scene = bound_to(set_up_scene(envelope.session), envelope.head)
        post = Post(self.identity, self.directory, scene, member.set_up())
        self.disk.play(envelope.session, 0)
        self._awake = Awake(envelope.session, dict(envelope.head), member, post, False)
        return self._stepped(envelope, self._awake, Answer(), {})

    def _work_of(self, head: Mapping[str, Any]) -> _AtWork:
        """The run that these terms describe, once the policy allows it."""
        terms = Terms.read(head)
        for client in range(terms.clients):
            if not self.directory.keys(client_party(client)):
                raise ConfigError(
                    f"a run of {terms.clients} clients, and the directory does not know"
                    f" {client_party(client)}: enter its keys, or ask for fewer clients."
                )
        if self._work is not None and self._work.terms == terms:
            return self._work
        self.policy.admit_config(terms.config)
        own = self.own() if self.own is not None and self.client is not None else None
        held = assembly.held_by_one(terms.clients, terms.shape, terms.classes, self.client, own)
        scenario = over_network(assembly.scenario(terms.config, held))
        check_scenario(scenario)
        self.policy.admit_scenario(scenario)
        self._work = _AtWork(terms, scenario)
        return self._work

    def _of(self, envelope: Envelope) -> Awake:
        """The session that an envelope is about."""
        if self._awake is None:
            self._awake = self.disk.wake(self.directory)
        if self._awake is None or self._awake.session != envelope.session:
            raise NoSession("this node has no keys of that session: it needs a key set-up.")
        return self._awake

    def _stepped(
        self, envelope: Envelope, awake: Awake, answer: Answer, mail: Mapping[PartyId, Buffer]
    ) -> Envelope:
        """Let the party take its mail, put the node to rest, and answer. Empty mail means "begin"
        to a party, so one that has begun is not called without any.
        """
        out: Mapping[PartyId, Buffer] = {}
        party = awake.party
        if isinstance(party, Post) and (mail or not awake.begun):
            awake.begun = True
            try:
                out = party.step(mail)
            except Abort as abort:
                answer.aborts, awake.party = {"": abort}, None
            inner = party.inner
            if isinstance(inner, Bundle):
                answer.aborts |= inner.aborts
            answer.refused = party.refused[awake.told :]
            awake.told = len(party.refused)
        self.disk.sleep(awake)
        return envelope.answer("answer", answer.head(), frames_out(out))

    # ---- a round

    def _ordered(self, envelope: Envelope) -> Envelope:
        awake, told = self._of(envelope), RoundHead.read(envelope.head)
        work = self._work_of(awake.terms)
        scenario, number = work.scenario, told.number
        plans = plans_of(scenario, told.l2, number, told.cohort, told.session, told.models)
        plan = plans["delta"]
        bounds = {part: one.l2 for part, one in plans.items() if part not in ("delta", BITS)}
        bounds["delta"] = scenario.in_round(number, told.l2).bound.l2
        self.policy.admit_round(scenario, plan, bounds)
        if not set(told.cohort) <= scenario.clients.keys():
            raise PlanRefused(f"round {number}: somebody is in the cohort who is not in the run.")
        if told.cohort != tuple(client for client in scenario.clients if client in told.cohort):
            raise PlanRefused(
                f"round {number}: the cohort is not in the order of the run's clients."
            )
        if told.claims and not is_private(scenario.workload.method.gradient):
            raise PlanRefused("how many samples a client has is claimed for its noise alone.")
        if self.disk.played(told.session) >= number + 1:
            raise PlanRefused(f"round {number} was played in this session already.")
        answer = Answer()
        parties: Mapping[str, Party]
        if self.client is None:
            self.disk.play(told.session, number + 1)
            parties = {part: self._helper(awake).enter(one) for part, one in plans.items()}
        else:
            parties = self._trained(self.client, awake, work, told, plans, envelope, answer)
        inner: Party = Bundle(parties) if len(parties) > 1 else parties["delta"]
        scene = bound_to(round_scene(plans.values()), awake.terms)
        awake.party = Post(self.identity, self.directory, scene, inner)
        awake.begun, awake.told = False, 0
        if told.claims and self.client is not None:
            self.disk.sleep(awake)
            answer.samples = self._own_samples(scenario)
            return envelope.answer("answer", answer.head())
        return self._stepped(envelope, awake, answer, {})

    def _helper(self, awake: Awake) -> HelperMember:
        member: Any = awake.member
        helper: HelperMember = member
        return helper

    def _own_samples(self, scenario: Scenario) -> int:
        return 0 if self.client is None else len(scenario.clients[self.client])

    def _trained(
        self,
        client: ClientId,
        awake: Awake,
        work: _AtWork,
        told: RoundHead,
        plans: Mapping[str, RoundPlan],
        envelope: Envelope,
        answer: Answer,
    ) -> Mapping[str, Party]:
        """Train, bound, charge, and make the parties. All that is refused is refused before."""
        scenario, number = work.scenario, told.number
        base = read_model(number, envelope.head, envelope.bodies)
        _refuse_other_model(base, scenario)
        order = self._order(scenario, told, plans, base)
        order.side.agreed(plans, base.digest)
        if client not in told.cohort:
            raise PlanRefused(f"round {number}: client {client} is not in the cohort.")
        before = self._recalled(work, told, answer)
        spending = self._spending(told.run, order)
        if not scenario.workload.method.gradient.private:
            spending.enter({})
        task = Task(client, scenario.clients[client], before.state)
        task = encoded(task, scenario, order.side.seeds, number)
        out = torch.empty(1, order.plan.d)
        (result,) = Sequential(scenario.workload).train(base, [task], out, order.side.seeds)
        if scenario.workload.method.gradient.private:
            spending.enter({client: result.noisy})
        update, after = nothing_of(plans, client), replace(before, round=number)
        private = order.pipeline.private
        if isinstance(result, Failed):
            LOG.error("training failed: %s", result.why)
            if not private:
                raise PrivflError("training failed; why is in the node's log.")
        else:
            update = result.update(out[0])
            after = replace(after, state=result.state)
            side, start = order.side, base.parameters
            update, seats, _ = side.prepared(update, before.seats, order.plan, start)
            after = replace(after, seats={**before.seats, **seats})
        try:
            sent = order.side.bounded(plans, update, base.digest)
        except BadUpdate as bad:
            LOG.error("the update cannot be sent: %s", bad)
            if not private:  # else a client's data would decide whether it is there
                raise PrivflError("its update cannot be sent; why is in the node's log.") from bad
            sent = order.side.bounded(plans, nothing_of(plans, client), base.digest)
        extra = {part: one.delta for part, one in sent.items() if part != "delta"}
        self.disk.play(told.session, number + 1)
        self.disk.remember(told.run, replace(after, sent=extra))
        member: Any = awake.member
        return order.side.entered(member, plans, sent)

    def _order(
        self,
        scenario: Scenario,
        told: RoundHead,
        plans: Mapping[str, RoundPlan],
        base: Broadcast,
    ) -> Order:
        number, seeds = told.number, scenario.seeds
        pipeline = scenario.pipeline(number, told.l2)
        side = side_of(scenario, told.l2, number, pipeline, seeds)
        rng = seeds.generator("rule in channel", number)
        context = Context(plans["delta"], base.parameters, rng)
        return Order(plans, base, side, context, scenario.in_round(number, told.l2), pipeline)

    def _recalled(self, work: _AtWork, told: RoundHead, answer: Answer) -> Remembered:
        """What is remembered from before a round, once it is told what arrived."""
        found = self.disk.recall(told.run, told.number)
        if told.arrived is None:
            return found or Remembered(told.number)
        number, parts = told.arrived
        if found is None or found.round < number:
            answer.notes.append(f"it remembers nothing of round {number}, and begins anew")
            return Remembered(told.number)
        if found.round > number:
            return found
        arrived = {part: found.sent[part] for part in parts if part in found.sent}
        method = work.scenario.workload.method
        return replace(found, state=method.arrived(found.state, arrived))

    def _spending(self, run: bytes, order: Order) -> Spending:
        """The node's own ledger, which is ahead of all that it sends: of this run, and of all runs
        on its data where the policy limits them.
        """
        journal = Journal(self.disk.run(run) / "ledger.jsonl")
        memory = None
        over = order.pipeline.releases["delta"].over
        if over is not None:
            memory = self._noise.setdefault(run, NoiseMemory())
            memory.enter(order.plan, over)
        account = None
        if self.policy.epsilon is not None:
            ledger = self.disk.path / "budget.jsonl"
            account = Budget(self.policy.epsilon, self.policy.delta, ledger).opened()
        return Spending(order, journal, Ledger(), memory, account, present=True)


def _refuse_other_model(base: Broadcast, scenario: Scenario) -> None:
    """Refuse vectors that are not of this run's model.

    Raises:
        BadEnvelope: they are of other lengths or other numbers, or not those that the method sends.
    """
    model, method = scenario.workload.model, scenario.workload.method
    aux = method.broadcast(method.init(model.d))
    due = {"": model.flat, **aux}
    came = {"": base.parameters, **base.aux}
    if due.keys() != came.keys():
        raise BadEnvelope("an order holds other vectors than its training needs.")
    for name, vector in due.items():
        if vector.shape != came[name].shape or vector.dtype != came[name].dtype:
            raise BadEnvelope(
                f"an order holds a vector{f' {name}' if name else ''} of {len(came[name])} numbers"
                f" of {came[name].dtype}, where the model has {len(vector)} of {vector.dtype}."
            )
