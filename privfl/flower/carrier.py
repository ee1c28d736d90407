"""A round over a network, in terms of bytes: the server's side.

The server's own parties run here; everybody else is a node. In each exchange every node that has
mail is handed one envelope and gives one back; letters between nodes go through the server, signed
and sealed (`crypto.post`), so that it only carries them. Whoever has not answered by the deadline
is out of the round, and is not waited for again before it gives a sign of life.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from privfl.core import (
    Abort,
    Buffer,
    Bundle,
    Channel,
    ClientId,
    ConfigError,
    InformedServer,
    Mail,
    Member,
    Message,
    Party,
    PartyId,
    RoundFailed,
    ServerMember,
    client_of,
    client_party,
    is_private,
)
from privfl.crypto.post import Post, round_scene, set_up_scene
from privfl.crypto.primitives import Directory, Identity
from privfl.engine.carrier import Charging, Noisy, Returned
from privfl.engine.notes import Notes
from privfl.engine.order import Order
from privfl.engine.scenario import Scenario
from privfl.engine.state import RunState
from privfl.flower.heads import (
    Answer,
    RoundHead,
    Terms,
    bound_to,
    frames_in,
    frames_out,
    model_bodies,
    words,
)
from privfl.flower.mail import BadEnvelope, Envelope, read
from privfl.flower.talk import SERVER, Talk, carried, gave_up, routed, so_far
from privfl.flower.wire import Patience, Wire

O = TypeVar("O")
MAX_EXCHANGES = 200


class Networked(Generic[O]):
    """A `Carrier` over a wire. The members of the session are on the nodes; here is the server's.

    Args:
        scenario: the server's, whose clients are elsewhere.
        terms: what nodes are told of the run.
        identity: the keys of ``server``.
        directory: who is who.
        wire: what carries envelopes.
        patience: how long to wait for answers.

    Raises:
        ConfigError: the directory does not know a party of this run.
    """

    def __init__(
        self,
        scenario: Scenario,
        terms: Terms,
        identity: Identity,
        directory: Directory,
        wire: Wire,
        patience: Patience | None = None,
    ) -> None:
        self.scenario, self.terms = scenario, terms
        self.identity, self.directory, self.wire = identity, directory, wire
        self.patience = patience or Patience()
        self.channel: Channel[O] = scenario.channel
        self.nodes = (*map(client_party, scenario.clients), *self.channel.helpers)
        for who in (*self.nodes, SERVER):
            if not directory.keys(who):
                raise ConfigError(
                    f"the directory does not know {who}, which takes part in this run: enter its"
                    " keys, or ask for fewer clients (data.clients)."
                )
        self.silent: set[PartyId] = set()
        self._sessions: dict[PartyId, bytes] = {}
        self._server: ServerMember[O] | None = None
        self._number = 0
        self._expected: dict[PartyId, tuple[bytes, int]] = {}

    @property
    def members(self) -> Mapping[PartyId, Member]:
        """The server's own, once there is a session."""
        return {} if self._server is None else {SERVER: self._server}

    # ---- sessions

    def ready(self, clients: Iterable[ClientId], notes: Notes) -> None:
        """Set up whoever has no keys of this session and is not silent; see `Carrier.ready`.

        A channel whose key set-up binds all sets up anew for everybody when somebody comes.

        Raises:
            RoundFailed: a helper does not answer, or no client.
        """
        self._look_for_the_silent(notes)
        missing = [w for w in self.nodes if w not in self._sessions and w not in self.silent]
        if not missing and self._server is not None:
            return
        with notes.stage("key set-up"):
            anew = self._server is None or not self.channel.able.joins
            asked = [w for w in self.nodes if w not in self.silent] if anew else missing
            self._set_up(asked, notes, anew=anew)
        lost = [who for who in self.channel.helpers if who not in self._sessions]
        if lost or not any(client_of(who) is not None for who in self._sessions):
            raise RoundFailed(
                f"{lost[0] if lost else 'every client'} is missing from the key set-up."
                f" {so_far(notes)}Start its node, and go on with the run (resume)."
            )

    def _set_up(self, asked: Sequence[PartyId], notes: Notes, *, anew: bool) -> None:
        session = secrets.token_bytes(16)
        if anew:
            self._server, self._sessions = self.channel.server(self.identity, self.directory), {}
        member = self._here
        scene = bound_to(set_up_scene(session), self.terms.head())
        post = Post(self.identity, self.directory, scene, member.set_up())
        first = {w: Envelope("set up", SERVER, w, session, 0, self.terms.head()) for w in asked}
        talk = self._drive(post, first, self.patience.joining, notes)
        notes.refused(talk.refused)
        for who, aborts in talk.aborts.items():
            for abort in aborts.values():
                if client_of(who) is None:
                    raise abort
                notes.wrong("channel", f"{who} gave up in the key set-up: {abort}", client_of(who))
        there = talk.answered.keys() - talk.aborts.keys()
        self._sessions |= {who: session for who in asked if who in there}

    @property
    def _here(self) -> ServerMember[O]:
        if self._server is None:
            raise RoundFailed("nobody is set up yet: a round begins with the key set-up.")
        return self._server

    def _look_for_the_silent(self, notes: Notes) -> None:
        """Ask who was silent for a sign of life, without waiting for it; who has given one since
        the last time is asked again.
        """
        for who, raw in self.wire.collect(0.0):
            self._alive(who, raw)
        pings = {w: Envelope("ping", SERVER, w, bytes(16), 0) for w in sorted(self.silent)}
        if pings:
            self.wire.send(self._numbered(pings), self.patience.mail)

    def _alive(self, who: PartyId, raw: bytes) -> None:
        try:
            self.silent.discard(read(raw, SERVER, self.directory).sender)
        except BadEnvelope:
            return

    # ---- a round

    def play(
        self,
        order: Order,
        state: RunState,
        notes: Notes,
        charge: Charging,
        *,
        keep: bool = False,
        digests: bool = False,
    ) -> Returned[O]:
        """One round; see `Carrier.play`.

        Raises:
            RoundFailed: every client refused, failed or was silent.
        """
        private = is_private(self.scenario.workload.method.gradient)
        cohort = [client_party(client) for client in order.plan.cohort]
        asked = [who for who in cohort if who in self._sessions and who not in self.silent]
        told = {incident.client for incident in notes.incidents}  # in the key set-up, say
        for who in cohort:
            if who not in asked and client_of(who) not in told:
                notes.wrong("network", f"{who} is not there", client_of(who))
        first = self._orders(order, state, asked, private=private)
        noisy: Noisy = {}
        if private:
            with notes.stage("train", foreign=True):
                first, noisy = self._claimed(first, notes)
        charge(noisy)
        self._inform(order)  # a party may ask for it on entry
        openers = {part: self._here.enter(plan) for part, plan in order.plans.items()}
        bundle: Party = Bundle(openers) if len(openers) > 1 else openers["delta"]
        scene = bound_to(round_scene(order.plans.values()), self.terms.head())
        post = Post(self.identity, self.directory, scene, bundle)
        with notes.stage("channel", foreign=True):
            wait = self.patience.mail if private else self.patience.training
            talk = self._drive(post, first, wait, notes, digests=digests)
        if not any(client_of(who) is not None for who in talk.answered) and cohort:
            raise RoundFailed(f"round {order.plan.number}: no client took part. {so_far(notes)}")
        inner = bundle.aborts if isinstance(bundle, Bundle) else {}
        aborts = {part: gave_up(talk.aborts, part, inner) for part in openers}
        return Returned(carried(openers, aborts, talk))

    def _orders(
        self, order: Order, state: RunState, asked: Collection[PartyId], *, private: bool
    ) -> dict[PartyId, Envelope]:
        """What each node is told of a round."""
        plan = order.plan
        told = RoundHead(
            state.name, plan.number, plan.cohort, plan.session, plan.models, state.bound
        )
        kinds, bodies = model_bodies(order.base)
        found: dict[PartyId, Envelope] = {}
        for who in asked:
            arrived = state.arrived.get(client_of(who) or 0)
            head = replace(told, arrived=arrived, claims=private).head() | kinds
            found[who] = Envelope("order", SERVER, who, self._sessions[who], 0, head, bodies)
        for who in self.channel.helpers:
            head = told.head()
            found[who] = Envelope("order", SERVER, who, self._sessions[who], 0, head)
        return found

    def _claimed(
        self, orders: Mapping[PartyId, Envelope], notes: Notes
    ) -> tuple[dict[PartyId, Envelope], Noisy]:
        """Private training: what each client says that it trained on, and from it the noisy steps
        that are charged before anything that hangs on data is sent. Then it is told to begin.
        """
        method = self.scenario.workload.method
        gradient, clients = method.gradient, [w for w in orders if client_of(w) is not None]
        talk = Talk()
        answers = self._ask({w: orders[w] for w in clients}, self.patience.training, talk, notes)
        begin: dict[PartyId, Envelope] = {}
        noisy: dict[ClientId, tuple[object, ...]] = {}
        for who in answers:
            client, samples = client_of(who), talk.answered[who].samples
            if client is None or not samples or not is_private(gradient):
                notes.wrong("network", f"{who} claims no samples and is out of the round", client)
                continue
            plan = method.recipe.plan
            noisy[client] = gradient.noisy(samples, plan, gradient.steps(samples, plan))
            begin[who] = Envelope("mail", SERVER, who, self._sessions[who], 0)
        helpers = {who: one for who, one in orders.items() if who not in clients}
        return begin | helpers, noisy  # type: ignore[return-value]

    def _inform(self, order: Order) -> None:
        if not self.channel.able.informed:
            return
        member = self._here
        if not isinstance(member, InformedServer):
            raise ConfigError(
                f"{type(self.channel).__name__} declares an informed server, and its server's"
                " member has no inform(context)."
            )
        member.inform(order.context)

    # ---- the drive

    def _drive(
        self,
        post: Post,
        first: Mapping[PartyId, Envelope],
        seconds: float,
        notes: Notes,
        *,
        digests: bool = False,
    ) -> Talk:
        """Carry mail until nobody has any; the first questions open the talk, and have these
        seconds.
        """
        talk = Talk()
        order = [*first, SERVER]
        arriving: dict[PartyId, dict[PartyId, Buffer]] = {who: {} for who in order}
        sessions = {who: one.session for who, one in first.items()}
        lost: set[PartyId] = set()
        for exchange in range(MAX_EXCHANGES):
            for who, inbox in arriving.items():
                for sender, body in inbox.items():
                    talk.messages.append(Message.of(exchange, sender, who, body, digests=digests))
            if exchange == 0:
                questions = dict(first)
            else:
                questions = {
                    w: Envelope("mail", SERVER, w, sessions[w], 0, {}, frames_out(inbox))
                    for w, inbox in arriving.items()
                    if w != SERVER
                }
            self._send(questions, seconds)
            said: dict[PartyId, Mail] = {}
            if SERVER in arriving:
                said[SERVER] = self._own_step(post, arriving[SERVER], talk)
            said |= self._await(questions, seconds, talk, notes)
            lost |= {who for who in questions if who not in said}
            arriving = routed(said, order, lost, talk)
            if not arriving:
                talk.refused += post.refused
                return talk
            seconds = self.patience.mail
        for who in {sender for inbox in arriving.values() for sender in inbox}:
            without_end = Abort(f"{who} was still talking after {MAX_EXCHANGES} exchanges")
            talk.aborts.setdefault(who, {}).setdefault("", without_end)
        talk.refused += post.refused
        return talk

    def _own_step(self, post: Post, inbox: Mail, talk: Talk) -> Mail:
        if SERVER in talk.aborts:
            return {}
        try:
            return post.step(inbox)
        except Abort as abort:
            talk.aborts[SERVER] = {"": abort}
            return {}

    def _ask(
        self, questions: Mapping[PartyId, Envelope], seconds: float, talk: Talk, notes: Notes
    ) -> dict[PartyId, Mail]:
        self._send(questions, seconds)
        return self._await(questions, seconds, talk, notes)

    def _send(self, questions: Mapping[PartyId, Envelope], seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self.wire.send(self._numbered(questions), seconds)

    def _numbered(self, envelopes: Mapping[PartyId, Envelope]) -> dict[PartyId, bytes]:
        """The envelopes as bytes, each under a number of its own, which its answer must carry."""
        written = {}
        for who, envelope in envelopes.items():
            self._number += 1
            self._expected[who] = envelope.session, self._number
            written[who] = replace(envelope, number=self._number).write(self.identity)
        return written

    def _await(
        self, questions: Mapping[PartyId, Envelope], seconds: float, talk: Talk, notes: Notes
    ) -> dict[PartyId, Mail]:
        """The letters of those who answered in time, by who they are; the others are silent."""
        said: dict[PartyId, Mail] = {}
        waiting = set(questions)
        while waiting:
            left = max(self._deadline - time.monotonic(), 0.0)
            came = self.wire.collect(left)
            for claimed, raw in came:
                try:
                    envelope = read(raw, SERVER, self.directory)
                except BadEnvelope as bad:
                    notes.wrong("mail", f"an answer in the name of {claimed}: {bad}")
                    waiting.discard(claimed)
                    continue
                who = envelope.sender
                self.silent.discard(who)
                if self._expected.get(who) != (envelope.session, envelope.number):
                    continue  # the answer to an earlier question
                if who in waiting:
                    waiting.discard(who)
                    self._take(envelope, said, talk, notes)
            if not left:  # whatever still comes: a relay could bring old answers for ever
                break
        for who in sorted(waiting):
            self.silent.add(who)
            notes.wrong(
                "network",
                f"{who} did not answer within {seconds:g} s and is out of the round",
                client_of(who),
            )
        return said

    def _take(
        self, envelope: Envelope, said: dict[PartyId, Mail], talk: Talk, notes: Notes
    ) -> None:
        who, client = envelope.sender, client_of(envelope.sender)
        try:
            if envelope.kind == "refusal":
                why = words(envelope.head, "why")
                notes.wrong(words(envelope.head, "stage"), f"{who} refused: {why}", client)
                if envelope.head.get("lost") is True:  # it has no keys of this session
                    self._sessions.pop(who, None)
                return
            answer = Answer.read(envelope.head, who)
        except BadEnvelope as bad:
            notes.wrong("mail", f"an answer of {who}: {bad}", client)
            return
        for note in answer.notes:
            notes.wrong("network", f"{who}: {note}", client)
        talk.refused += answer.refused
        if answer.aborts:
            talk.aborts.setdefault(who, {}).update(answer.aborts)
        talk.answered[who] = answer
        said[who] = frames_in(envelope.bodies)
