"""Decryptors that are drawn among the clients: a coin that nobody steers, tossed once a session.

Every client commits to a random string, and shows it once it was told all commitments. The coin is
the hash of all strings that it was shown, its own among them, so that for every client who follows
the protocol it is uniform whatever the server and other clients do, even where the server tells
different clients different things (their boxes then do not open, and the round ends). A client
whose draw was broken off begins only a few more: whoever breaks off until a draw pleases it has as
many tries.
"""

from __future__ import annotations

import hmac
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256

from privfl.core import (
    Abort,
    Buffer,
    KeepsSecrets,
    KnownKeys,
    Mail,
    PartyId,
    RoundPlan,
    client_of,
    client_party,
)
from privfl.crypto.he.onetime.parameters import OneTimeSettings
from privfl.crypto.he.onetime.set_up import OCCASION

TRIES = 8
"""How many draws a client begins that are broken off."""
MISSED = 0.1
"""The fraction of a cohort that may have taken no part in the draw: where honest clients were kept
from it, corrupt ones weigh more.
"""
SIZE = 32


@dataclass(frozen=True, slots=True)
class DrawnSettings(OneTimeSettings):
    """A channel's settings with the decryptors that were drawn for a session, in order."""

    roster: tuple[PartyId, ...] = ()

    @property
    def decryptors(self) -> tuple[PartyId, ...]:
        """The clients that hold shares of the one-time keys; none before they are drawn."""
        return self.roster


class Draw(KeepsSecrets):
    """What a party knows of its session's draw: ``coin`` and ``drawn`` are empty before it ended,
    ``there`` is who took part.
    """

    def __init__(self) -> None:
        self.coin, self.broken_off = b"", 0
        self.drawn: tuple[PartyId, ...] = ()
        self.there: frozenset[PartyId] = frozenset()

    def begin(self) -> None:
        """Forget the session before."""
        self.broken_off = 0 if self.coin else self.broken_off + 1
        self.coin, self.drawn, self.there = b"", (), frozenset()

    def end(self, strings: Mapping[PartyId, bytes], count: int) -> None:
        """The coin that these strings make, and whom it draws."""
        self.coin = sha256(b"privfl/onetime/coin/1\x00" + written(strings)).digest()[:OCCASION]
        self.there = frozenset(strings)
        order = sorted(strings, key=lambda who: sha256(self.coin + who.encode()).digest())
        self.drawn = tuple(order[:count])

    def settings(self, settings: OneTimeSettings) -> OneTimeSettings:
        """The settings with the decryptors that were drawn; as they are where they are helpers."""
        if settings.committee == "helpers":
            return settings
        return DrawnSettings(
            settings.bits,
            settings.holders,
            settings.threshold,
            settings.corrupt,
            settings.min_clients,
            settings.secrets,
            settings.rounding,
            settings.committee,
            self.drawn,
        )

    def refusal(self, settings: OneTimeSettings, plan: RoundPlan) -> str | None:
        """Why a client takes no part in a round; None where it may."""
        if settings.committee == "helpers":
            return None
        if len(self.drawn) < settings.holders:
            return f"{len(self.drawn)} of {settings.holders} decryptors were drawn in the set-up"
        missing = [c for c in plan.cohort if client_party(c) not in self.there]
        if len(missing) > math.floor(MISSED * plan.n):
            return (
                f"{len(missing)} of {plan.n} clients of the round took no part in drawing the"
                f" decryptors, and {math.floor(MISSED * plan.n)} may be missing"
            )
        return None


class Draws(KeepsSecrets):
    """A client's set-up: commit, show, compute the coin."""

    def __init__(self, who: PartyId, draw: Draw, directory: KnownKeys, count: int) -> None:
        self.who, self.draw, self.directory, self.count = who, draw, directory, count
        self.own = secrets.token_bytes(SIZE)
        self.promised: dict[PartyId, bytes] | None = None
        self.spoke = False
        draw.begin()

    def step(self, mail: Mail) -> Mail:
        """What is due.

        Raises:
            Abort: the server shows something else than was committed to, names a stranger, or draws
                were broken off too often.
        """
        if not self.spoke:
            self.spoke = True
            if self.draw.broken_off > TRIES:
                raise self._abort(f"{TRIES} draws before were broken off")
            return {"server": committed(self.who, self.own)}
        if "server" not in mail or self.draw.coin:
            return {}
        told = read(mail["server"])
        if told is None:
            raise self._abort("the server's message is no list of clients")
        if self.promised is None:
            if told.get(self.who) != committed(self.who, self.own):
                raise self._abort("its own commitment is not among those that the server shows")
            unknown = [who for who in told if not self.directory.boxes(who)]
            if unknown:
                raise self._abort(f"the directory knows no {unknown[0]}")
            self.promised = told
            return {"server": self.own}
        if told.keys() != self.promised.keys() or not all(
            hmac.compare_digest(committed(who, told[who]), self.promised[who]) for who in told
        ):
            raise self._abort("the server shows other strings than were committed to, or not all")
        self.draw.end(told, self.count)
        return {}

    def _abort(self, why: str) -> Abort:
        return Abort(f"{self.who} draws no decryptors: {why}", blamed="server")


class CarriesLots(KeepsSecrets):
    """The server's set-up: it carries commitments, then strings, and learns what everybody does."""

    def __init__(self, draw: Draw, count: int) -> None:
        self.draw, self.count = draw, count
        self.promised: dict[PartyId, bytes] = {}
        draw.begin()

    def step(self, mail: Mail) -> Mail:
        """Carry to everybody what came of all."""
        came = {
            who: bytes(body)
            for who, body in mail.items()
            if client_of(who) is not None and len(body) == SIZE
        }
        if not came or self.draw.coin:
            return {}
        if not self.promised:
            self.promised = came
            return dict.fromkeys(came, written(came))
        shown = {
            who: body
            for who, body in came.items()
            if who in self.promised and committed(who, body) == self.promised[who]
        }
        if shown.keys() != self.promised.keys():
            missing = sorted(self.promised.keys() - shown.keys())
            raise Abort(f"no decryptors are drawn: {missing[0]} did not show what it committed to")
        self.draw.end(shown, self.count)
        return dict.fromkeys(shown, written(shown))


def committed(who: PartyId, string: bytes) -> bytes:
    """A client's commitment to its string [32 bytes]."""
    return sha256(b"privfl/onetime/lot/1\x00" + who.encode() + b"\x00" + string).digest()


def written(entries: Mapping[PartyId, bytes]) -> bytes:
    """32 bytes by client, in order of names.

    >>> read(written({"client/2": bytes(32)}))["client/2"] == bytes(32)
    True
    """
    return b"".join(
        len(who).to_bytes(1, "little") + who.encode() + entries[who] for who in sorted(entries)
    )


def read(body: Buffer) -> dict[PartyId, bytes] | None:
    """What `written` wrote; None where it is none."""
    raw, entries, at = bytes(body), dict[PartyId, bytes](), 0
    while at < len(raw):
        end = at + 1 + raw[at]
        name, string = raw[at + 1 : end], raw[end : end + SIZE]
        if not name.isascii() or len(string) != SIZE:
            return None
        entries[name.decode("ascii")] = string
        at = end + SIZE
    good = written(entries) == raw and all(client_of(who) is not None for who in entries)
    return entries if good else None


def chance(n: int, corrupt: float, drawn: int, least: int) -> float:
    """log2 of the probability that ``least`` of the decryptors drawn among n clients are corrupt,
    where as many as `MISSED` of the honest were kept from the draw.

    >>> chance(1000, 0.05, drawn=32, least=16) < -40
    True
    """
    there = n - math.floor(MISSED * n)
    bad = min(math.floor(corrupt * n + 1e-9), there)
    drawn = min(drawn, there)
    ways = sum(
        math.comb(bad, x) * math.comb(there - bad, drawn - x)
        for x in range(least, min(bad, drawn) + 1)
    )
    if not ways:
        return -math.inf
    share = Fraction(ways, math.comb(there, drawn))
    return math.log2(share.numerator) - math.log2(share.denominator)
