"""The one driver: it carries mail between parties in lock-step, lets some fall silent, lie or come
late, and counts every byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Generic, TypeVar

from privfl.core.bundle import Bundle, MalformedBundle, unpack_parts
from privfl.core.opened import Opened
from privfl.core.protocol import Abort, Opener, Party
from privfl.core.types import Buffer, Mail, PartyId, Received

O = TypeVar("O")
O_co = TypeVar("O_co", covariant=True)
MAX_EXCHANGES = 1000
_NO_MAIL: Mail = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong on the way. Exchanges are counted from 0, the one in which everybody speaks
    first.

    ``silent_from``: a party says nothing from this exchange on. ``late``: what a party sends
    arrives this many exchanges late (and is lost where a timely message of its own overtakes it).
    ``duplicated``: each message of these parties arrives again in the next exchange. ``malformed``:
    what a party sends is changed on the way. ``byzantine``: a party is replaced by one that runs
    its own code.
    """

    silent_from: Mapping[PartyId, int] = field(default_factory=dict)
    late: Mapping[PartyId, int] = field(default_factory=dict)
    duplicated: Collection[PartyId] = frozenset()
    malformed: Mapping[PartyId, Callable[[Buffer], Buffer]] = field(default_factory=dict)
    byzantine: Mapping[PartyId, Callable[[Party], Party]] = field(default_factory=dict)


NO_FAULTS = Faults()


@dataclass(frozen=True, slots=True)
class Message:
    """One message: who to whom, in which exchange, how long; the body only where an audit asked for
    it.
    """

    exchange: int
    sender: PartyId
    receiver: PartyId
    size: int
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[O_co]):
    """What came of one protocol run: what was opened, who gave up and whom they blame, every
    message, CPU seconds by party.
    """

    opened: Opened[O_co] | None
    aborts: Mapping[PartyId, Abort]
    messages: tuple[Message, ...]
    seconds: Mapping[PartyId, float]

    def bytes_sent(self, sender: PartyId | None = None) -> int:
        """All bytes that travelled, or those of one sender."""
        return sum(message.size for message in self.messages if sender in (None, message.sender))

    @property
    def exchanges(self) -> int:
        """How many exchanges carried mail."""
        return len({message.exchange for message in self.messages})

    def received(self, parties: Collection[PartyId]) -> Received:
        """What these parties were handed, exchange by exchange; empty where bodies were not
        kept.
        """
        return _received(self.messages, parties, lambda body: body)


@dataclass(frozen=True, slots=True)
class Carried(Generic[O_co]):
    """What came of a round, whose parts travelled together: what was opened and who gave up, by
    part, every message, CPU seconds by party.
    """

    opened: Mapping[str, Opened[O_co] | None]
    aborts: Mapping[str, Mapping[PartyId, Abort]]
    messages: tuple[Message, ...]
    seconds: Mapping[PartyId, float]

    def bytes_sent(self) -> int:
        """All bytes that travelled."""
        return sum(message.size for message in self.messages)

    def received(self, parties: Collection[PartyId], part: str) -> Received:
        """What these parties were handed of one part, exchange by exchange; empty where bodies were
        not kept.
        """
        if len(self.opened) == 1:
            return _received(self.messages, parties, lambda body: body)

        def of_part(frame: Buffer) -> Buffer | None:
            try:
                return unpack_parts(frame).get(part)
            except MalformedBundle:
                return None

        return _received(self.messages, parties, of_part)


def _received(
    messages: Iterable[Message],
    parties: Collection[PartyId],
    read: Callable[[Buffer], Buffer | None],
) -> Received:
    mails: dict[PartyId, dict[int, dict[PartyId, Buffer]]] = {who: {} for who in parties}
    for message in messages:
        body = None if message.body is None else read(message.body)
        if message.receiver in mails and body is not None:
            mails[message.receiver].setdefault(message.exchange, {})[message.sender] = body
    return {
        who: [by_exchange[e] for e in sorted(by_exchange)] for who, by_exchange in mails.items()
    }


class _Post:
    """Mail under way, by the exchange in which it arrives."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.timely: dict[PartyId, dict[PartyId, Buffer]] = {}
        self.delayed: dict[int, list[tuple[PartyId, PartyId, Buffer]]] = {}

    def send(self, exchange: int, sender: PartyId, mail: Mail) -> None:
        by = self.faults.late.get(sender, 0)
        for to, sent in mail.items():
            body = self.faults.malformed[sender](sent) if sender in self.faults.malformed else sent
            if by:
                self.delayed.setdefault(exchange + 1 + by, []).append((sender, to, body))
            else:
                self.timely.setdefault(to, {})[sender] = body
            if sender in self.faults.duplicated:
                self.delayed.setdefault(exchange + 2 + by, []).append((sender, to, bytes(body)))

    def deliver(self, exchange: int) -> dict[PartyId, dict[PartyId, Buffer]]:
        arriving, self.timely = self.timely, {}
        for sender, to, body in self.delayed.pop(exchange, ()):
            arriving.setdefault(to, {}).setdefault(sender, body)
        return arriving

    @property
    def empty(self) -> bool:
        return not self.timely and not self.delayed


def drive(
    server: Opener[O],
    others: Mapping[PartyId, Party],
    faults: Faults = NO_FAULTS,
    *,
    keep_bodies: bool = False,
) -> Outcome[O]:
    """Carry mail until nobody has any. An abort ends one party, not the run.

    Args:
        server: the party named ``"server"``, which learns the outcome.
        others: everybody else, by name.
        faults: who is silent, late, doubled, garbled, or replaced by a liar.
        keep_bodies: keep a copy of every message, as audits need; otherwise only its size.

    Raises:
        PrivflError: mail is addressed to nobody, or parties talk without end.
    """
    outcome = drive_all({**others, "server": server}, faults, keep_bodies=keep_bodies)
    return Outcome(server.result, outcome.aborts, outcome.messages, outcome.seconds)


def drive_parts(
    openers: Mapping[str, Opener[O]],
    others: Mapping[PartyId, Mapping[str, Party]],
    faults: Faults = NO_FAULTS,
    *,
    keep_bodies: bool = False,
) -> Carried[O]:
    """`drive` for a round of several parts, which travel together.

    Args:
        openers: the server's party in each part.
        others: everybody else's parties, by name and part; who takes part in none is left out.
        faults: as in `drive`; a Byzantine party runs its own code in each part.
        keep_bodies: as in `drive`.
    """
    cast: dict[PartyId, Mapping[str, Party]] = {**others, "server": openers}
    if len(openers) == 1:
        (part,) = openers
        alone = {who: parties[part] for who, parties in cast.items() if part in parties}
        one = drive_all(alone, faults, keep_bodies=keep_bodies)
        return Carried({part: openers[part].result}, {part: one.aborts}, one.messages, one.seconds)
    bundles = {}
    for who, parties in cast.items():
        lying = who in faults.byzantine
        made = {
            part: faults.byzantine[who](party) if lying else party
            for part, party in parties.items()
        }
        bundles[who] = Bundle(made, lying)
    outcome = drive_all(bundles, replace(faults, byzantine={}), keep_bodies=keep_bodies)
    aborts = {
        part: {
            **outcome.aborts,
            **{who: b.aborts[part] for who, b in bundles.items() if part in b.aborts},
        }
        for part in openers
    }
    opened = {part: opener.result for part, opener in openers.items()}
    return Carried(opened, aborts, outcome.messages, outcome.seconds)


def drive_all(
    parties: Mapping[PartyId, Party], faults: Faults = NO_FAULTS, *, keep_bodies: bool = False
) -> Outcome[None]:
    """`drive` for a run that opens nothing, such as a key set-up."""
    cast = {
        who: faults.byzantine[who](party) if who in faults.byzantine else party
        for who, party in parties.items()
    }
    aborts: dict[PartyId, Abort] = {}
    messages: list[Message] = []
    seconds = dict.fromkeys(cast, 0.0)
    post = _Post(faults)
    arriving: Mapping[PartyId, Mail] = dict.fromkeys(cast, _NO_MAIL)
    for exchange in range(MAX_EXCHANGES):
        for who, inbox in arriving.items():
            for sender, body in inbox.items():
                messages.append(
                    Message(exchange, sender, who, len(body), bytes(body) if keep_bodies else None)
                )
            if who in aborts or faults.silent_from.get(who, exchange + 1) <= exchange:
                continue
            began = time.thread_time()
            answer = _step(cast[who], who, inbox, aborts, lying=who in faults.byzantine)
            seconds[who] += time.thread_time() - began
            strangers = [to for to in answer if to not in cast]
            if strangers:
                aborts[who] = Abort(
                    f"{who} wrote to {sorted(strangers)[0]}, who takes no part", blamed=who
                )
                continue
            post.send(exchange, who, answer)
        if post.empty:
            return Outcome(None, aborts, tuple(messages), seconds)
        arriving = post.deliver(exchange + 1)
    raise Abort(f"the parties were still talking after {MAX_EXCHANGES} exchanges")


def _step(
    party: Party, who: PartyId, inbox: Mail, aborts: dict[PartyId, Abort], *, lying: bool
) -> Mail:
    try:
        return party.step(inbox)
    except Abort as abort:
        aborts[who] = abort
    except Exception as crash:
        if not lying:  # an honest party that crashes is our fault: show it
            raise
        aborts[who] = Abort(f"the liar's own code failed: {crash!r}", blamed=who)
    return {}
