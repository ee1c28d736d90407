"""The joint coin that draws a round's groups: whoever takes part commits to 32 random bytes, and
opens them when everybody's commitments are there (Blum 1983).

A client opens its bytes once, to one list of commitments that was fixed before, so its groups are
uniform whatever the server and all other clients do: nobody knows them while the list can still
change. Who does not open ends the round before any update is masked. A server that ends rounds may
so wait for groups that it likes; each try costs it a round, which is seen.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from privfl.core import (
    Abort,
    Bounded,
    Buffer,
    ClientMember,
    KeepsSecrets,
    Mail,
    Opened,
    Party,
    PartyId,
    RoundPlan,
    Rows,
    ServerMember,
    Total,
    client_of,
    client_party,
)
from privfl.crypto.primitives import fields
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.bucketed_secagg.parameters import BucketedSettings
from privfl.hybrid.bucketed_secagg.server import BucketedServerParty

SIZE = 32
COMMIT, LIST, REVEAL, COINS = 1, 2, 3, 4
PRESENT = 0.75
"""The fraction of a cohort that must be there when groups are drawn."""
_MAGIC = b"PFB\x01"
_HEAD = len(_MAGIC) + 1 + 16


def tag_of(settings: BucketedSettings, plan: RoundPlan) -> bytes:
    """What every message of a coin is bound to: the round's public facts and the size of groups."""
    cohort = ",".join(map(str, plan.cohort)).encode()
    facts = fields.facts(plan) + settings.size.to_bytes(4, "little") + cohort
    return hashlib.sha256(b"privfl/1/buckets/coin|" + facts).digest()[:16]


def fewest_listed(settings: BucketedSettings, plan: RoundPlan) -> int:
    """The fewest clients among whom groups are drawn: a server that may leave out all others would
    put a client among its friends whatever the coin is.
    """
    return max(math.ceil(PRESENT * plan.n), 2 * settings.size)


def commitment(tag: bytes, position: int, secret: Buffer) -> bytes:
    """To the secret bytes of the client at this place of the cohort."""
    said = tag + position.to_bytes(4, "little") + bytes(secret)
    return hashlib.sha256(b"privfl/1/buckets/commitment|" + said).digest()


def coin_of(tag: bytes, opened: Mapping[int, Buffer]) -> bytes:
    """The coin, from what all have opened, by place in the cohort."""
    said = b"".join(i.to_bytes(4, "little") + bytes(opened[i]) for i in sorted(opened))
    return hashlib.sha256(b"privfl/1/buckets/joint|" + tag + said).digest()


def frame(kind: int, tag: bytes, content: bytes) -> bytes:
    """A message of the coin."""
    return _MAGIC + bytes([kind]) + tag + content


def is_frame(body: Buffer) -> bool:
    """Whether a message is one of the coin, and not one of the sums that follow."""
    return bytes(body[: len(_MAGIC)]) == _MAGIC


def read(body: Buffer, kind: int, tag: bytes) -> memoryview:
    """The content of a message of this kind and round.

    Raises:
        Malformed: it is another.
    """
    whole = memoryview(body)
    if bytes(whole[:_HEAD]) != frame(kind, tag, b""):
        raise Malformed("a message of another kind or round than the groups' coin is at")
    return whole[_HEAD:]


def _table(content: memoryview, n: int) -> dict[int, bytes]:
    rows, rest = fields.read_table(content, SIZE, n)
    fields.ends(rest)
    return {i: bytes(row) for i, row in rows.items()}


@dataclass(repr=False)
class CoinClient(KeepsSecrets):
    """A client of one round: commit, open once, then be a client of secure aggregation in the group
    that the coin draws. ``secret``: its bytes of the coin.
    """

    settings: BucketedSettings
    plan: RoundPlan
    update: Bounded
    inside: ClientMember
    position: int
    secret: bytes
    listed: dict[int, bytes] = field(default_factory=dict)
    heard: dict[int, bytes] = field(default_factory=dict)
    party: Party | None = None

    def step(self, mail: Mail) -> Mail:
        """Answer the server; everybody else's mail is ignored."""
        body = mail.get("server")
        if body is not None and is_frame(body):
            return self._coin(body)
        if self.party is not None:
            return self.party.step(mail)
        if body is not None:
            raise Abort("the server began a sum before the groups were drawn", "server")
        return self._says(COMMIT, commitment(self._tag, self.position, self.secret))

    def _coin(self, body: Buffer) -> Mail:
        kind, digest = bytes(body[4:5]), hashlib.sha256(body).digest()
        known = self.heard.setdefault(kind[0] if kind else 0, digest)
        if known is not digest:  # the network may double a message, the server may not change it
            if known != digest:
                raise Abort("the server sent two different messages of the groups' coin", "server")
            return {}
        try:
            if not self.listed:
                return self._open(_table(read(body, LIST, self._tag), self.plan.n))
            return self._enter(_table(read(body, COINS, self._tag), self.plan.n))
        except Malformed as malformed:
            raise Abort(f"the server's message cannot be used: {malformed}", "server") from None

    def _open(self, listed: dict[int, bytes]) -> Mail:
        if listed.get(self.position) != commitment(self._tag, self.position, self.secret):
            raise Abort("the server changed what this client committed to", "server")
        if len(listed) < fewest_listed(self.settings, self.plan):
            raise Abort(
                f"the server lists {len(listed)} of {self.plan.n} clients, and groups are drawn"
                f" among {fewest_listed(self.settings, self.plan)} at least",
                "server",
            )
        self.listed = listed
        return self._says(REVEAL, self.secret)

    def _enter(self, opened: dict[int, bytes]) -> Mail:
        if opened.keys() != self.listed.keys() or any(
            commitment(self._tag, i, secret) != self.listed[i] for i, secret in opened.items()
        ):
            raise Abort("the coin is not of what was committed to", "server")
        cohort = tuple(self.plan.cohort[i] for i in sorted(opened))
        groups = self.settings.drawn(coin_of(self._tag, opened), cohort)
        who = self.plan.cohort[self.position]
        number = next(i for i, group in enumerate(groups) if who in group)
        own = self.settings.plan_of(self.plan, groups[number], number)
        self.party = self.inside.enter(own, self.update)
        return self.party.step({})

    def _says(self, kind: int, content: bytes) -> Mail:
        return {"server": frame(kind, self._tag, content)}

    @property
    def _tag(self) -> bytes:
        return tag_of(self.settings, self.plan)


@dataclass(repr=False)
class CoinServer(KeepsSecrets):
    """The server of one round: it carries commitments and what opens them, and then is the server
    of the groups.
    """

    settings: BucketedSettings
    plan: RoundPlan
    inside: ServerMember[Total]
    listed: dict[int, bytes] = field(default_factory=dict)
    opened: dict[int, bytes] = field(default_factory=dict)
    excluded: dict[PartyId, str] = field(default_factory=dict)
    party: BucketedServerParty | None = None

    def step(self, mail: Mail) -> Mail:
        """Commitments, then what opens them, then the groups' sums."""
        sums = {who: body for who, body in mail.items() if not is_frame(body)}
        if self.party is not None:
            return self.party.step(sums) if sums else {}
        if not mail:
            return {}
        if not self.listed:
            return self._list(mail)
        self.opened |= self._said(mail, REVEAL)
        if 2 * len(self.opened.keys() & self.listed.keys()) <= len(self.listed):
            return {}  # one that speaks out of turn ends no round: the others are on their way
        return self._draw()

    @property
    def result(self) -> Opened[Rows] | None:
        """The means of the groups that got through, once there are any."""
        found = None if self.party is None else self.party.result
        if found is None:
            return None
        there = {client_party(client) for client in found.survivors}
        own = {who: why for who, why in self.excluded.items() if who not in there}
        return Opened(found.what, found.survivors, found.disclosed, {**found.excluded, **own})

    def _list(self, mail: Mail) -> Mail:
        self.listed = self._said(mail, COMMIT)
        for client in self.plan.cohort:
            if client_party(client) not in self._names(self.listed):
                why = "it committed to no part of the groups' coin"
                self.excluded.setdefault(client_party(client), why)
        if len(self.listed) < (least := fewest_listed(self.settings, self.plan)):
            raise Abort(
                f"{len(self.listed)} of {self.plan.n} clients committed to the groups' coin, and"
                f" groups are drawn among {least} at least"
            )
        return self._tell(LIST, self.listed)

    def _draw(self) -> Mail:
        for i, secret in self.opened.items():
            if i in self.listed and commitment(self._tag, i, secret) != self.listed[i]:
                who = client_party(self.plan.cohort[i])
                raise Abort(f"{who} opened another part of the coin than it committed to", who)
        missing = sorted(self._names(set(self.listed) - set(self.opened)))
        if missing:
            raise Abort(
                f"{', '.join(missing)} did not open what they committed to, and no other coin may"
                " be drawn from the rest: the round is over before any update was sent"
            )
        self.opened = {i: self.opened[i] for i in self.listed}
        cohort = tuple(self.plan.cohort[i] for i in sorted(self.opened))
        groups = self.settings.drawn(coin_of(self._tag, self.opened), cohort)
        servers = [
            self.inside.enter(self.settings.plan_of(self.plan, group, number))
            for number, group in enumerate(groups)
        ]
        self.party = BucketedServerParty(self.plan.cohort, groups, servers)
        return {**self._tell(COINS, self.opened), **self.party.step({})}

    def _said(self, mail: Mail, kind: int) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for sender, body in mail.items():
            client = client_of(sender)
            if client is None or client not in self.plan.cohort:
                continue
            try:
                content = bytes(read(body, kind, self._tag))
                if len(content) != SIZE:
                    raise Malformed(f"{len(content)} bytes where {SIZE} were due")
                found[self.plan.cohort.index(client)] = content
            except Malformed as malformed:
                self.excluded[sender] = str(malformed)
        return found

    def _tell(self, kind: int, table: Mapping[int, bytes]) -> dict[PartyId, Buffer]:
        body = frame(kind, self._tag, fields.table(table))
        return dict.fromkeys(self._names(table), body)

    def _names(self, positions: Mapping[int, bytes] | set[int]) -> list[PartyId]:
        return [client_party(self.plan.cohort[i]) for i in sorted(positions)]

    @property
    def _tag(self) -> bytes:
        return tag_of(self.settings, self.plan)
