"""The server's side of private rounds in a Flower app: a grid around Flower's, which plays the
protocol and hands the strategy one reply, the mean.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from privfl.core import (
    Abort,
    Buffer,
    ConfigError,
    Context,
    InformedServer,
    Mail,
    Message,
    Outcome,
    PartyId,
    RoundFailed,
    RoundPlan,
    SecretCoins,
    ServerMember,
    client_of,
)
from privfl.crypto.post import Post, round_scene, set_up_scene
from privfl.engine import MAIL, too_few
from privfl.engine.journal import Journal
from privfl.flower.heads import Answer
from privfl.flower.internals import require_flower
from privfl.flower.layer import PrivateLayer, read_keys
from privfl.flower.mail import BadEnvelope, Envelope, read
from privfl.flower.records import (
    NAME,
    arrays_of,
    content_of,
    envelope_in,
    hello,
    only_arrays,
    record_of,
    replies_to,
)
from privfl.flower.strategies import refuse_strategy, weight_of
from privfl.flower.talk import SERVER, Talk, gave_up, routed
from privfl.wrapper.names import Names
from privfl.wrapper.receipt import Receipt, of_round
from privfl.wrapper.round import ruled
from privfl.wrapper.spending import LayerSpending
from privfl.wrapper.tree import UpdateLayout

LOG = logging.getLogger("privfl.flower")
MOST_EXCHANGES = 200
Evaluate: TypeAlias = Literal["refuse", "in the clear"]


class PrivateGrid:
    """A `flwr.serverapp.Grid` whose train messages are rounds of the layer's channel.

    ``strategy.start(grid=PrivateGrid(grid, strategy, layer, keys))`` is all that changes at the
    server. A strategy sees one reply a round: the model before plus what the layer released, with
    the weight of all who came. A round that opens nothing has no reply, and the model stays. Who
    does not answer in time is out of the round. ``receipts`` hold what each round cost and showed.

    Guarantee: of the channel, against whoever is not in its quorum; see `PrivateLayer`. Who is
    sampled is Flower's coins: no amplification is claimed.

    Args:
        grid: Flower's own.
        strategy: the one that will be started: FedAvg, FedAvgM, FedAdagrad, FedAdam or FedYogi.
        layer: what every node's `private` is given too.
        keys: the server's folder (`make_keys`).
        evaluate: whether evaluation's replies, each client's own metrics, may pass as they are.
        patience: seconds that nodes are waited for after their training.
        ledger_file: where charges are kept, across runs.

    Raises:
        ConfigError: another strategy, metrics that it aggregates its own way; keys of somebody
            else; Flower is not installed.
    """

    def __init__(
        self,
        grid: Any,
        strategy: Any,
        layer: PrivateLayer,
        keys: Path | str,
        *,
        evaluate: Evaluate = "refuse",
        patience: float = 60.0,
        ledger_file: Path | str | None = None,
    ) -> None:
        require_flower()
        refuse_strategy(strategy)
        self.grid, self.strategy, self.layer = grid, strategy, layer
        self.evaluate, self.patience = evaluate, patience
        self.identity, self.directory = read_keys(Path(keys))
        if self.identity.who != SERVER:
            raise ConfigError(f"'{keys}' holds the keys of {self.identity.who}, not the server's.")
        self.receipts: list[Receipt] = []
        journal = Journal(None if ledger_file is None else Path(ledger_file))
        self.spending = LayerSpending(journal, layer.delta)
        self._id, self._round, self._number = secrets.token_bytes(16), 0, 0
        self._nodes: dict[PartyId, int] = {}
        self._sessions: dict[PartyId, bytes] = {}
        self._strangers: set[tuple[int, str]] = set()
        self._member: ServerMember[Any] | None = None

    # ---- what strategies call

    @property
    def run(self) -> Any:
        """Flower's run."""
        return self.grid.run

    def set_run(self, run: Any) -> None:
        """As Flower's."""
        self.grid.set_run(run)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are clients; those that have not been asked before are asked who they are.

        Raises:
            ConfigError: two nodes that say they are the same party.
        """
        there = set(self.grid.get_node_ids())
        known = set(self._nodes.values())
        self._nodes = {who: node for who, node in self._nodes.items() if node in there}
        asked = [self._message(hello(), node, "train") for node in sorted(there - known)]
        for reply in replies_to(self.grid, asked, self.patience).values():
            if reply.has_error():  # a strategy may wait for ever for this node
                told = (reply.metadata.src_node_id, reply.error.reason)
                if told not in self._strangers:
                    LOG.warning("node %s does not say who it is: %s", *told)
                self._strangers.add(told)
                continue
            held = reply.content.get(NAME, {})
            who, node = str(held.get("who", "")), reply.metadata.src_node_id
            if not self.directory.keys(who):
                continue
            if self._nodes.get(who, node) != node:
                raise ConfigError(f"two nodes say that they are {who}: give each keys of its own.")
            self._nodes[who] = node
        return [node for who, node in self._nodes.items() if client_of(who) is not None]

    def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> Any:
        """A private round for messages that train; what else strategies send passes or is refused.

        Raises:
            ConfigError: evaluation, unless it may pass.
        """
        listed = list(messages)
        if not listed:
            return []
        kind = listed[0].metadata.message_type
        if kind.partition(".")[0] == "train":
            return self._trained(listed, timeout)
        if self.evaluate != "in the clear":
            raise ConfigError(
                f"the strategy sends '{kind}' messages, whose replies are each client's own metrics"
                " and would reach the server as they are: set fraction_evaluate=0 and evaluate at"
                " the server (evaluate_fn), or say PrivateGrid(..., evaluate='in the clear')."
            )
        return self.grid.send_and_receive(listed, timeout=timeout)

    # ---- a round

    def _trained(self, messages: Sequence[Any], timeout: float | None) -> list[Any]:
        from flwr.app import Message as Reply
        from flwr.app import MetricRecord, RecordDict

        began, number = time.perf_counter(), self._round
        self._round += 1
        by_node = {node: who for who, node in self._nodes.items()}
        asked = {by_node[m.metadata.dst_node_id]: m for m in messages}
        name, record = only_arrays(messages[0].content, "the strategy's message")
        arrays = arrays_of(record)
        layout: UpdateLayout[Any] = UpdateLayout.of(arrays, "the model")
        start = layout.read(arrays, "the model")
        clients = tuple(client for who in asked if (client := client_of(who)) is not None)
        plan = self.layer.plan(number, clients, self._id, start)
        parts, rule = self.layer.parts, self.layer.rule
        pipeline = parts.checked(plan.d, plan.cohort, rule)
        self._ready(list(asked), messages[0].metadata.message_type)
        why_not = too_few(self.layer.channel, plan.n)
        entered = self.spending.enter(pipeline, {"delta": plan}, opens=not why_not)
        names = Names()
        try:
            if why_not:
                raise RoundFailed(f"round {number} opened nothing: {why_not}")
            outcome = self._played(plan, asked, start, timeout)
            made = ruled(plan, pipeline, rule, outcome, entered, names)
        except RoundFailed as failed:
            LOG.warning("%s", failed)
            return []
        released, spent = pipeline.release({"delta": plan}, {"delta": made}, parts.noise)
        entered.settle(spent)
        self.receipts.append(
            of_round(
                plan,
                self.layer.channel.guarantee,
                MAIL["signed"],
                outcome,
                names,
                seconds=time.perf_counter() - began,
                event=spent[0].event if spent else None,
                ledger=self.spending.ledger,
                delta=self.layer.delta,
            )
        )
        after = record_of(layout, start + released["delta"].vector)
        weight = weight_of(outcome, plan, noised=parts.noised)
        metrics = MetricRecord({self.strategy.weighted_by_key: weight})
        return [Reply(RecordDict({name: after, "metrics": metrics}), reply_to=messages[0])]

    def _played(
        self,
        plan: RoundPlan,
        asked: Mapping[PartyId, Any],
        start: Any,
        timeout: float | None,
    ) -> Outcome[Any]:
        """The protocol run, over nodes."""
        head = {
            "number": plan.number,
            "cohort": list(plan.cohort),
            "session": plan.session.hex(),
            "d": plan.d,
            "model": plan.models[0],
        }
        kind = next(iter(asked.values())).metadata.message_type
        first = {
            who: (Envelope("order", SERVER, who, self._sessions[who], 0, head), asked.get(who))
            for who in (*asked, *self.layer.channel.helpers)
        }
        member = self._server()
        if self.layer.channel.able.informed and isinstance(member, InformedServer):
            coins = SecretCoins().generator("rule in channel")
            member.inform(Context(plan, start, coins))
        opener = member.enter(plan)
        post = Post(self.identity, self.directory, round_scene([plan]), opener)
        talk = self._drive(post, first, kind, timeout)
        aborts = gave_up(talk.aborts, "delta", {})
        refused = (*talk.refused, *post.refused)
        return Outcome(opener.result, aborts, tuple(talk.messages), {}, refused)

    # ---- keys

    def _server(self) -> ServerMember[Any]:
        if self._member is None:
            self._member = self.layer.channel.server(self.identity, self.directory)
        return self._member

    def _ready(self, cohort: Sequence[PartyId], kind: str) -> None:
        """Set up whoever has no keys of this session: everybody, where the channel needs that.

        Raises:
            ConfigError: a helper has no node.
        """
        helpers = self.layer.channel.helpers
        lacking = [who for who in helpers if who not in self._nodes]
        if lacking:
            raise ConfigError(
                f"no node says that it is {lacking[0]}, which {type(self.layer.channel).__name__}"
                " needs: start one with its keys."
            )
        wanted = [who for who in (*cohort, *helpers) if who not in self._sessions]
        if not wanted:
            return
        if self._member is None or not self.layer.channel.able.joins:
            wanted, self._member, self._sessions = [*self._nodes], None, {}
        session = secrets.token_bytes(16)
        scene = set_up_scene(session)
        post = Post(self.identity, self.directory, scene, self._server().set_up())
        first = {who: (Envelope("set up", SERVER, who, session, 0), None) for who in wanted}
        talk = self._drive(post, first, kind, self.patience)
        for abort in gave_up(talk.aborts, "delta", {}).values():
            LOG.warning("key set-up: %s", abort)
        self._sessions |= dict.fromkeys(talk.answered, session)

    # ---- mail

    def _drive(
        self,
        post: Post,
        first: Mapping[PartyId, tuple[Envelope, Any]],
        kind: str,
        seconds: float | None,
    ) -> Talk:
        """Carry mail until nobody has any, as `core.drive_all` does."""
        talk, order = Talk(), [*first, SERVER]
        arriving: dict[PartyId, dict[PartyId, Buffer]] = {who: {} for who in order}
        lost: set[PartyId] = set()
        for exchange in range(MOST_EXCHANGES):
            for who, inbox in arriving.items():
                talk.messages += [Message(exchange, by, who, len(b)) for by, b in inbox.items()]
            asked = {who: inbox for who, inbox in arriving.items() if who != SERVER}
            said: dict[PartyId, Mail] = {}
            if SERVER in arriving and SERVER not in talk.aborts:
                try:
                    said[SERVER] = post.step(arriving[SERVER])
                except Abort as abort:
                    talk.aborts[SERVER] = {"": abort}
            questions = {
                who: first[who]
                if exchange == 0
                else (Envelope("mail", SERVER, who, first[who][0].session, 0, {}, inbox), None)
                for who, inbox in asked.items()
            }
            said |= self._ask(questions, kind, seconds, talk)
            lost |= {who for who in asked if who not in said}
            arriving = routed(said, order, lost, talk)
            if not arriving:
                return talk
            seconds = self.patience
        raise RoundFailed(f"nodes were still talking after {MOST_EXCHANGES} exchanges.")

    def _ask(
        self,
        questions: Mapping[PartyId, tuple[Envelope, Any]],
        kind: str,
        seconds: float | None,
        talk: Talk,
    ) -> dict[PartyId, Mail]:
        """What nodes answer in time; who refuses or gives up is in ``talk.aborts``."""
        messages, due = [], dict[int, tuple[PartyId, Envelope]]()
        for who, (envelope, own) in questions.items():
            self._number += 1
            sent = Envelope(
                envelope.kind,
                SERVER,
                who,
                envelope.session,
                self._number,
                envelope.head,
                envelope.bodies,
            )
            beside = None if own is None else dict(own.content)
            content = content_of(sent.write(self.identity), beside)
            node = self._nodes[who]
            messages.append(self._message(content, node, kind, seconds))
            due[node] = (who, sent)
        said: dict[PartyId, Mail] = {}
        for node, reply in replies_to(self.grid, messages, seconds).items():
            who, sent = due[node]
            try:
                said[who], talk.answered[who] = self._read(reply, sent), Answer()
            except (Abort, BadEnvelope) as refused:
                blamed = refused.blamed if isinstance(refused, Abort) else None
                talk.aborts.setdefault(who, {"": Abort(f"{who}: {refused}", blamed)})
        for who in questions:
            if who not in said:
                talk.aborts.setdefault(who, {"": Abort(f"{who} did not answer in time")})
        return said

    def _read(self, reply: Any, sent: Envelope) -> Mail:
        """The letters in a node's answer.

        Raises:
            Abort: the node refused, failed or gave up.
            BadEnvelope: it is no answer of that node to this question.
        """
        if reply.has_error():
            raise Abort(f"its app failed: {reply.error.reason}")
        raw = envelope_in(reply.content)
        if raw is None:
            raise BadEnvelope("it answered without an envelope: its app has no private(...) mod.")
        answer = read(raw, SERVER, self.directory)
        if (answer.sender, answer.session, answer.number) != (
            sent.receiver,
            sent.session,
            sent.number,
        ):
            raise BadEnvelope("an answer to another question.")
        if answer.kind == "refusal":
            raise Abort(f"it refused: {answer.head.get('why')}")
        if "abort" in answer.head:
            raise Abort(str(answer.head["abort"]), answer.head.get("blamed"))
        return answer.bodies

    def _message(self, content: Any, node: int, kind: str, ttl: float | None = None) -> Any:
        from flwr.app import Message as Question

        return Question(content, dst_node_id=node, message_type=kind, ttl=ttl)
