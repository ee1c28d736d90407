"""Private rounds for a Flower app that exists already: a mod around its training, and a grid around
the server's.

    @app.train(mods=[private(LAYER, keys="keys/{party}")])
    def train(msg, context): ...            # as it was

    strategy.start(grid=PrivateGrid(grid, strategy, LAYER, keys="keys/server"), ...)

The mod lets the app train, takes the model that came from the one that went out, clips, and plays
its party of the channel; the grid plays the server's, and hands the strategy ONE reply, the mean.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from privfl.core import (
    Abort,
    Buffer,
    ConfigError,
    KeepsSecrets,
    Member,
    Party,
    PartyId,
    PlanRefused,
    PrivflError,
    RoundPlan,
    SealedState,
    StateKey,
    client_of,
    seal_state,
    unseal_state,
)
from privfl.crypto.post import Post, round_scene, set_up_scene
from privfl.crypto.primitives import Directory, Identity, private_file
from privfl.engine.files import append_synced
from privfl.engine.journal import Journal
from privfl.flower.grid import PrivateGrid
from privfl.flower.layer import PrivateLayer, make_keys, read_keys
from privfl.flower.mail import BadEnvelope, Envelope, read
from privfl.flower.records import (
    NAME,
    arrays_of,
    content_of,
    envelope_in,
    named,
    only_arrays,
    weight_in,
)
from privfl.flower.talk import SERVER
from privfl.wrapper.tree import UpdateLayout

__all__ = ["PrivateGrid", "PrivateLayer", "make_keys", "private"]

Mod: TypeAlias = Callable[[Any, Any, Callable[[Any, Any], Any]], Any]
"""Flower's: (message, context, what is called next) to the reply."""


def private(
    layer: PrivateLayer,
    keys: Path | str,
    *,
    drop: Collection[str] = (),
    weighted_by: str = "num-examples",
) -> Mod:
    """The mod of a train function whose updates leave through the layer's channel.

    The function stays as it was: it gets the model in one ArrayRecord, and replies with the trained
    one. Nothing else in its reply leaves the client. It is not called unless the server of the
    directory signed the round, for this node, for the model that came with it, and never twice for
    one round. Between messages its party lies in ``context.state``, sealed under a key of this
    machine (``rest.key`` beside the identity). What each round that it takes part in may cost is in
    a ledger of its own (``ledger.jsonl`` there) before it trains.

    Guarantee: that of ``layer.channel``, with signed mail, while this code runs at the node. A
    stock SuperNode runs whatever app the SuperLink ships: there it holds against an honest
    SuperLink only.

    Args:
        layer: what the server's `PrivateGrid` is given too.
        keys: this node's folder (`make_keys`); names in braces are filled from the node's config,
            as in ``"keys/{party}"`` (``party="client-0"``; a helper's ``"server-1"``).
        drop: metrics of the reply that stay at the client; any other is refused.
        weighted_by: the metric that is the client's weight.

    Raises:
        ConfigError: (of the mod) there are no keys in the folder; a server without `PrivateGrid`.
        BadUpdate: several ArrayRecords, whole numbers, running statistics, metrics.
    """

    def mod(message: Any, context: Any, call_next: Callable[[Any, Any], Any]) -> Any:
        from flwr.app import Message

        folder = _filled(str(keys), context.node_config)
        identity, directory = read_keys(folder)
        held = message.content.get(NAME)
        if held is not None and "hello" in held:
            return Message(named(identity.who), reply_to=message)
        raw = envelope_in(message.content)
        if raw is None:
            raise ConfigError(
                "the server asks this node to train without PrivateGrid, and its update would"
                " leave unprotected: nothing was trained."
            )
        envelope = read(raw, identity.who, directory)
        if envelope.sender != SERVER:
            raise BadEnvelope(f"{envelope.sender} asks, and only the server does.")
        node = _Node(layer, identity, directory, folder, context)

        def trained() -> Any:
            del message.content[NAME]
            return call_next(message, context)

        try:
            answer = node.answer(envelope, message.content, trained, drop, weighted_by)
        except _Failed as failed:
            return failed.reply
        except PrivflError as refused:
            answer = envelope.answer("refusal", {"why": str(refused)})
        return Message(content_of(answer.write(identity)), reply_to=message)

    return mod


def _filled(keys: str, config: Mapping[str, Any]) -> Path:
    """A path with the names in its braces filled from a node's config."""
    try:
        return Path(keys.format_map(config))
    except KeyError as missing:
        raise ConfigError(
            f"the keys are at '{keys}', and this node's config holds no {missing}: start it with"
            f" --node-config '{missing.args[0]}=...'."
        ) from None


class _Failed(Exception):
    """The app's own training replied with an error."""

    def __init__(self, reply: Any) -> None:
        super().__init__()
        self.reply = reply


def _rest_key(folder: Path) -> StateKey:
    path = folder / "rest.key"
    if not path.exists():
        private_file.write(path, secrets.token_bytes(32))
    return StateKey(private_file.read(path))


@dataclass(repr=False)
class AtRest(KeepsSecrets):
    """A node between two messages: its session of keys, its member, the party of the round under
    way, and the last round that it took part in.
    """

    session: bytes
    member: Member
    party: Party | None = None
    played: int = -1


@dataclass
class _Node:
    """One node while it answers one message."""

    layer: PrivateLayer
    identity: Identity
    directory: Directory
    folder: Path
    context: Any

    def answer(
        self,
        envelope: Envelope,
        content: Any,
        trained: Callable[[], Any],
        drop: Collection[str],
        weighted_by: str,
    ) -> Envelope:
        """The answer to an envelope of the server's.

        Raises:
            PrivflError: it is refused.
            BadEnvelope: no question.
        """
        if envelope.kind == "set up":
            return self._set_up(envelope)
        state = self._woken(envelope.session)
        if envelope.kind == "mail":
            letters = {name: body for name, body in envelope.bodies.items() if body is not None}
            return self._stepped(envelope, state, letters)
        if envelope.kind != "order":
            raise BadEnvelope(f"a server sends no '{envelope.kind}'.")
        client = client_of(self.identity.who)
        number = _whole(envelope.head, "number")
        if number <= state.played:
            raise PlanRefused(f"round {number} was played in this session already.")
        member: Any = state.member
        if client is None:
            plan = self._told(envelope, number)
            party = member.enter(plan)
        else:
            before = arrays_of(only_arrays(content, f"round {number}")[1])
            layout: UpdateLayout[Any] = UpdateLayout.of(before, "the model")
            start = layout.read(before, "the model")
            plan = self.layer.plan(number, _cohort(envelope.head), _session(envelope.head), start)
            if self._told(envelope, number) != plan:
                raise PlanRefused(
                    f"round {number}: the plan is about another model than the one that came with"
                    " it, or another bound than this node's."
                )
            pipeline = self.layer.admit(client, plan)  # before any training
            charges = pipeline.charges({"delta": plan}, released=True)
            Journal(self.folder / "ledger.jsonl").enter(charges)
            state.played = number
            self._sleep(state)  # whatever comes of the training, it is not done again
            reply = trained()
            if reply.has_error():
                raise _Failed(reply)
            whose = f"the reply of {self.identity.who}"
            weight = weight_in(reply.content, weighted_by, drop, whose)
            after = layout.read(arrays_of(only_arrays(reply.content, whose)[1]), whose)
            party = member.enter(plan, self.layer.sent(client, plan, layout, after - start, weight))
        state.played = number
        state.party = Post(self.identity, self.directory, round_scene([plan]), party)
        return self._stepped(envelope, state, {})

    def _told(self, envelope: Envelope, number: int) -> RoundPlan:
        """The plan that the server tells."""
        d, model = _whole(envelope.head, "d"), str(envelope.head.get("model"))
        cohort, session = _cohort(envelope.head), _session(envelope.head)
        return self.layer.plan_of(number, cohort, session, d, model)

    def _set_up(self, envelope: Envelope) -> Envelope:
        """A member of a new session, which ends the one before."""
        self._take_once(envelope.session)
        channel, who = self.layer.channel, self.identity.who
        client = client_of(who)
        member: Member
        if client is None:
            member = channel.helper(who, self.identity, self.directory)
        else:
            member = channel.client(client, self.identity, self.directory)
        scene = set_up_scene(envelope.session)
        party = Post(self.identity, self.directory, scene, member.set_up())
        return self._stepped(envelope, AtRest(envelope.session, member, party), {})

    def _take_once(self, session: bytes) -> None:
        """Note a session, on disk, before anything is said in it.

        Raises:
            PlanRefused: it was set up before, in this run of Flower's or another: who carries
                letters could play it again, and have a round trained twice.
        """
        path = self.folder / "sessions"
        known = path.read_text(encoding="ascii").split() if path.exists() else []
        if session.hex() in known:
            raise PlanRefused("this session was set up here before: another one has other keys.")
        append_synced(path, f"{session.hex()}\n".encode())

    def _stepped(
        self, envelope: Envelope, state: AtRest, letters: Mapping[PartyId, Buffer]
    ) -> Envelope:
        out: Mapping[PartyId, Buffer] = {}
        head: dict[str, Any] = {}
        if state.party is not None:
            try:
                out = state.party.step(letters)
            except Abort as abort:
                state.party = None
                head = {"abort": str(abort), "blamed": abort.blamed}
        self._sleep(state)
        return envelope.answer("answer", head, out)

    def _woken(self, session: bytes) -> AtRest:
        held = self.context.state.get(NAME, {}).get("sealed")
        if isinstance(held, bytes):
            state = unseal_state(
                SealedState(held), _rest_key(self.folder), AtRest, lent=self.directory
            )
            if state.session == session:
                return state
        raise PlanRefused("this node has no keys of that session: it needs a key set-up.")

    def _sleep(self, state: AtRest) -> None:
        from flwr.app import ConfigRecord

        sealed = seal_state(state, _rest_key(self.folder)).body
        self.context.state[NAME] = ConfigRecord({"sealed": sealed})


def _whole(head: Mapping[str, Any], key: str) -> int:
    value = head.get(key)
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise BadEnvelope(f"an order has no '{key}' that is a whole number.")
    return value


def _cohort(head: Mapping[str, Any]) -> tuple[int, ...]:
    value = head.get("cohort")
    if not isinstance(value, list) or not all(type(one) is int and one >= 0 for one in value):
        raise BadEnvelope("an order has no 'cohort' of clients.")
    return tuple(value)


def _session(head: Mapping[str, Any]) -> bytes:
    try:
        return bytes.fromhex(str(head.get("session")))
    except ValueError:
        raise BadEnvelope("an order has no 'session' in hex.") from None
