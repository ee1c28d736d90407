"""Letters between parties: what goes wrong with them, what is noted of them, and those that are
under way.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from privfl.core.protocol import Party
from privfl.core.streaming import Folds
from privfl.core.types import Buffer, Mail, PartyId, client_of


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong on the way. Exchanges are counted from 0, the one in which everybody speaks
    first.

    ``silent_from``: a party says nothing from this exchange on. ``late``: what a party sends
    arrives this many exchanges late (and is lost where a timely message of its own overtakes it).
    ``duplicated``: each message of these parties arrives again in the next exchange. ``malformed``:
    what a party sends is changed on the way. ``byzantine``: a party is replaced by one that runs
    its own code. ``relayed``: whoever carries the mail stands between a party and the others, is
    handed what they write to it and speaks in its name; it holds none of the party's keys, so where
    mail is signed it is this that the signature meets.
    """

    silent_from: Mapping[PartyId, int] = field(default_factory=dict)
    late: Mapping[PartyId, int] = field(default_factory=dict)
    duplicated: Collection[PartyId] = frozenset()
    malformed: Mapping[PartyId, Callable[[Buffer], Buffer]] = field(default_factory=dict)
    byzantine: Mapping[PartyId, Callable[[Party], Party]] = field(default_factory=dict)
    relayed: Mapping[PartyId, Callable[[Party], Party]] = field(default_factory=dict)

    @property
    def silence_alone(self) -> bool:
        """Whether everything that is sent arrives in time, once, and as an honest party wrote it.

        >>> Faults(silent_from={"client/1": 2}).silence_alone
        True
        >>> Faults(late={"client/1": 1}).silence_alone
        False
        """
        lies = self.late or self.malformed or self.byzantine or self.relayed
        return not lies and not self.duplicated


NO_FAULTS = Faults()


@dataclass(frozen=True, slots=True)
class Message:
    """One message: who to whom, in which exchange, how long; the body only where an audit asked for
    it, its SHA-256 (hex) where the run's transcript is chained.
    """

    exchange: int
    sender: PartyId
    receiver: PartyId
    size: int
    body: bytes | None = field(default=None, repr=False)
    digest: str | None = None

    @classmethod
    def of(
        cls,
        exchange: int,
        sender: PartyId,
        receiver: PartyId,
        body: Buffer,
        *,
        keep_bodies: bool = False,
        digests: bool = False,
    ) -> Message:
        """A record of ``body`` on its way."""
        kept = bytes(body) if keep_bodies else None
        digest = hashlib.sha256(body).hexdigest() if digests else None
        return cls(exchange, sender, receiver, len(body), kept, digest)


class UnderWay:
    """Mail under way, by the exchange in which it arrives.

    A receiver that can fold letters (`Folds`) is handed each of them when it is written, if
    ``folding``, and what is under way is what it handed back.
    """

    def __init__(
        self,
        faults: Faults,
        cast: Mapping[PartyId, Party],
        noted: Callable[[int, PartyId, PartyId, Buffer], Message],
        *,
        folding: bool,
    ) -> None:
        self.faults, self.cast, self.noted = faults, cast, noted
        self.folding = folding and faults.silence_alone
        self.timely: dict[PartyId, dict[PartyId, Buffer]] = {}
        self.delayed: dict[int, list[tuple[PartyId, PartyId, Buffer]]] = {}
        self.folded: dict[tuple[PartyId, PartyId], Message] = {}
        self.seconds: dict[PartyId, float] = {}
        self._folds: dict[PartyId, Folds | None] = {}

    def send(self, exchange: int, sender: PartyId, mail: Mail) -> None:
        """Take what a party wrote in this exchange."""
        by = self.faults.late.get(sender, 0)
        for to, sent in mail.items():
            body = self.faults.malformed[sender](sent) if sender in self.faults.malformed else sent
            if by:
                self.delayed.setdefault(exchange + 1 + by, []).append((sender, to, body))
            else:
                folds = self._folding(to) if self.folding else None
                if folds is not None:
                    body = self._into(folds, exchange, sender, to, body)
                self.timely.setdefault(to, {})[sender] = body
            if sender in self.faults.duplicated:
                self.delayed.setdefault(exchange + 2 + by, []).append((sender, to, bytes(body)))

    def _folding(self, to: PartyId) -> Folds | None:
        if to not in self._folds:
            party = self.cast[to]
            self._folds[to] = party if isinstance(party, Folds) else None
        return self._folds[to]

    def _into(
        self, folds: Folds, exchange: int, sender: PartyId, to: PartyId, body: Buffer
    ) -> Buffer:
        """What is under way of a letter once its receiver took in what it could of it."""
        began = time.thread_time()
        left = folds.fold(sender, body)
        self.seconds[to] = self.seconds.get(to, 0.0) + time.thread_time() - began
        if left is None:  # what a client's lies in may be written anew before it is delivered
            return body if client_of(sender) is None else bytes(body)
        self.folded[sender, to] = self.noted(exchange + 1, sender, to, body)
        return left

    def note(self, exchange: int, sender: PartyId, to: PartyId, body: Buffer) -> Message:
        """The record of a letter that arrives: of the whole of one that was folded."""
        whole = self.folded.pop((sender, to), None) if self.folded else None
        return self.noted(exchange, sender, to, body) if whole is None else whole

    def deliver(self, exchange: int) -> dict[PartyId, dict[PartyId, Buffer]]:
        """What arrives in this exchange, by receiver and sender."""
        arriving, self.timely = self.timely, {}
        for sender, to, body in self.delayed.pop(exchange, ()):
            arriving.setdefault(to, {}).setdefault(sender, body)
        return arriving

    @property
    def empty(self) -> bool:
        """Whether nothing is under way."""
        return not self.timely and not self.delayed
