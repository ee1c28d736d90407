"""The one driver: it carries mail between parties in lock-step, lets some fall silent, lie or come
late, and counts every byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

from privfl.core.bundle import Bundle, MalformedBundle, unpack_parts
from privfl.core.letters import NO_FAULTS, Faults, Message, UnderWay
from privfl.core.opened import Opened
from privfl.core.protocol import Abort, Opener, Party
from privfl.core.types import Buffer, Mail, PartyId, Received

O = TypeVar("O")
O_co = TypeVar("O_co", covariant=True)
MAX_EXCHANGES = 1000
_NO_MAIL: Mail = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Refusal:
    """A letter that its receiver did not take for its sender's: it was signed by somebody else, for
    another round or receiver, or changed; ``again``: it came before, as a network can double it.

    ``sender`` is the name that the letter carries. It accuses nobody: anybody can write a name.
    """

    receiver: PartyId
    sender: PartyId
    why: str
    again: bool = False

    def __str__(self) -> str:
        return f"{self.receiver} refused a letter in the name of {self.sender}: {self.why}"


Opening: TypeAlias = Callable[[Message, Collection[PartyId]], Buffer | None]
"""What can be read of a message with the keys of these parties; None where that is nothing."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[O_co]):
    """What came of one protocol run: what was opened, who gave up and whom they blame, every
    message, CPU seconds by party.

    Where mail is signed and sealed, ``refused`` are the letters that were not taken for their
    sender's, and ``opening`` takes the post off the kept bodies.
    """

    opened: Opened[O_co] | None
    aborts: Mapping[PartyId, Abort]
    messages: tuple[Message, ...]
    seconds: Mapping[PartyId, float]
    refused: tuple[Refusal, ...] = ()
    opening: Opening | None = field(default=None, repr=False, compare=False)

    def bytes_sent(self, sender: PartyId | None = None) -> int:
        """All bytes that travelled, or those of one sender."""
        return sum(message.size for message in self.messages if sender in (None, message.sender))

    @property
    def exchanges(self) -> int:
        """How many exchanges carried mail."""
        return len({message.exchange for message in self.messages})

    def received(
        self, parties: Collection[PartyId], keys: Collection[PartyId] | None = None
    ) -> Received:
        """What these parties were handed, exchange by exchange; empty where bodies were not kept.

        Where mail is sealed, what can be read of it with the keys of ``keys``: of the parties
        themselves unless said; of nobody for who only taps their wires.
        """
        return _received(self, parties, keys, lambda body: body)


@dataclass(frozen=True, slots=True)
class Carried(Generic[O_co]):
    """What came of a round, whose parts travelled together: what was opened and who gave up, by
    part, every message, CPU seconds by party; ``refused`` and ``opening`` as in `Outcome`.
    """

    opened: Mapping[str, Opened[O_co] | None]
    aborts: Mapping[str, Mapping[PartyId, Abort]]
    messages: tuple[Message, ...]
    seconds: Mapping[PartyId, float]
    refused: tuple[Refusal, ...] = ()
    opening: Opening | None = field(default=None, repr=False, compare=False)

    def bytes_sent(self) -> int:
        """All bytes that travelled."""
        return sum(message.size for message in self.messages)

    def received(
        self, parties: Collection[PartyId], part: str, keys: Collection[PartyId] | None = None
    ) -> Received:
        """What these parties were handed of one part, exchange by exchange; empty where bodies were
        not kept. ``keys`` as in `Outcome.received`.
        """
        if len(self.opened) == 1:
            return _received(self, parties, keys, lambda body: body)

        def of_part(frame: Buffer) -> Buffer | None:
            try:
                return unpack_parts(frame).get(part)
            except MalformedBundle:
                return None

        return _received(self, parties, keys, of_part)


def _received(
    run: Outcome[O] | Carried[O],
    parties: Collection[PartyId],
    keys: Collection[PartyId] | None,
    read: Callable[[Buffer], Buffer | None],
) -> Received:
    mails: dict[PartyId, dict[int, dict[PartyId, Buffer]]] = {who: {} for who in parties}
    for message in run.messages:
        if message.receiver not in mails or message.body is None:
            continue
        body: Buffer | None = message.body
        if run.opening is not None:
            body = run.opening(message, parties if keys is None else keys)
        body = None if body is None else read(body)
        if body is not None:
            mails[message.receiver].setdefault(message.exchange, {})[message.sender] = body
    return {
        who: [by_exchange[e] for e in sorted(by_exchange)] for who, by_exchange in mails.items()
    }


@runtime_checkable
class Driver(Protocol):
    """What carries mail between parties, as `drive_all` does; another one may sign it on the
    way.
    """

    def __call__(
        self,
        parties: Mapping[PartyId, Party],
        faults: Faults,
        *,
        keep_bodies: bool,
        digests: bool = False,
    ) -> Outcome[None]:
        """One run, in which nothing is opened."""
        ...


def drive(
    server: Opener[O],
    others: Mapping[PartyId, Party],
    faults: Faults = NO_FAULTS,
    *,
    keep_bodies: bool = False,
    driver: Driver | None = None,
) -> Outcome[O]:
    """Carry mail until nobody has any. An abort ends one party, not the run.

    Args:
        server: the party named ``"server"``, which learns the outcome.
        others: everybody else, by name.
        faults: who is silent, late, doubled, garbled, or replaced by a liar.
        keep_bodies: keep a copy of every message, as audits need; otherwise only its size.
        driver: what carries the mail: `drive_all` unless said.

    Raises:
        PrivflError: mail is addressed to nobody, or parties talk without end.
    """
    run = (driver or drive_all)({**others, "server": server}, faults, keep_bodies=keep_bodies)
    return Outcome(server.result, run.aborts, run.messages, run.seconds, run.refused, run.opening)


def drive_parts(
    openers: Mapping[str, Opener[O]],
    others: Mapping[PartyId, Mapping[str, Party]],
    faults: Faults = NO_FAULTS,
    *,
    keep_bodies: bool = False,
    digests: bool = False,
    driver: Driver | None = None,
) -> Carried[O]:
    """`drive` for a round of several parts, which travel together.

    Args:
        openers: the server's party in each part.
        others: everybody else's parties, by name and part; who takes part in none is left out.
        faults: as in `drive`; a Byzantine party runs its own code in each part.
        keep_bodies: as in `drive`.
        digests: note the SHA-256 of every message.
        driver: as in `drive`.
    """
    carry = driver or drive_all
    cast: dict[PartyId, Mapping[str, Party]] = {**others, "server": openers}
    if len(openers) == 1:
        (part,) = openers
        alone = {who: parties[part] for who, parties in cast.items() if part in parties}
        one = carry(alone, faults, keep_bodies=keep_bodies, digests=digests)
        return _carried(one, {part: openers[part].result}, {part: one.aborts})
    bundles = {who: Bundle(parties) for who, parties in cast.items()}
    liars = {
        who: Bundle({part: lie(party) for part, party in cast[who].items()}, lying=True)
        for who, lie in faults.byzantine.items()
        if who in cast
    }
    bundles |= liars  # whatever the driver puts around a bundle, it knows whose it is
    told = replace(faults, byzantine=dict.fromkeys(liars, _as_it_is))
    outcome = carry(bundles, told, keep_bodies=keep_bodies, digests=digests)
    aborts = {
        part: {
            **outcome.aborts,
            **{who: b.aborts[part] for who, b in bundles.items() if part in b.aborts},
        }
        for part in openers
    }
    opened = {part: opener.result for part, opener in openers.items()}
    return _carried(outcome, opened, aborts)


def _as_it_is(liar: Party) -> Party:
    return liar


def _carried(
    run: Outcome[None],
    opened: Mapping[str, Opened[O] | None],
    aborts: Mapping[str, Mapping[PartyId, Abort]],
) -> Carried[O]:
    return Carried(opened, aborts, run.messages, run.seconds, run.refused, run.opening)


def drive_all(
    parties: Mapping[PartyId, Party],
    faults: Faults = NO_FAULTS,
    *,
    keep_bodies: bool = False,
    digests: bool = False,
    between: Callable[[], object] | None = None,
) -> Outcome[None]:
    """`drive` for a run that opens nothing, such as a key set-up; ``between`` is called after each
    exchange.
    """
    cast = {
        who: faults.byzantine[who](party) if who in faults.byzantine else party
        for who, party in parties.items()
    }
    cast |= {who: between(cast[who]) for who, between in faults.relayed.items() if who in cast}
    lying = faults.byzantine.keys() | faults.relayed.keys()
    aborts: dict[PartyId, Abort] = {}
    messages: list[Message] = []
    noted = partial(Message.of, keep_bodies=keep_bodies, digests=digests)
    seconds = dict.fromkeys(cast, 0.0)
    post = UnderWay(faults, cast, noted, folding=not keep_bodies)
    arriving: dict[PartyId, Mail] = dict.fromkeys(cast, _NO_MAIL)

    def turn(exchange: int, who: PartyId, inbox: Mail) -> None:
        for sender, body in inbox.items():
            messages.append(post.note(exchange, sender, who, body))
        if who in aborts or faults.silent_from.get(who, exchange + 1) <= exchange:
            return
        began = time.thread_time()
        answer = _step(cast[who], who, inbox, aborts, lying=who in lying)
        seconds[who] += time.thread_time() - began
        strangers = [to for to in answer if to not in cast]
        if strangers:
            aborts[who] = Abort(
                f"{who} wrote to {sorted(strangers)[0]}, who takes no part", blamed=who
            )
            return
        post.send(exchange, who, answer)

    for exchange in range(MAX_EXCHANGES):
        for who in tuple(arriving):
            turn(exchange, who, arriving.pop(who))  # once it is read, its reader alone holds it
        if post.empty:
            for who, folding in post.seconds.items():
                seconds[who] += folding
            return Outcome(None, aborts, tuple(messages), seconds)
        arriving = {**post.deliver(exchange + 1)}
        if between is not None:
            between()
    without_end = f"was still talking after {MAX_EXCHANGES} exchanges"
    if not lying:  # honest parties end: that they do not is our fault
        raise Abort(f"everybody {without_end}")
    for who in lying:
        aborts.setdefault(who, Abort(f"{who} {without_end}"))
    return Outcome(None, aborts, tuple(messages), seconds)


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
