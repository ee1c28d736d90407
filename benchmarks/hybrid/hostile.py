"""Hostile bytes over group sums and encrypted similarity: tiny rounds in which one party's mail is
changed at random, or is somebody else's, or an old one. No party crashes, blame meets nobody but
the liar, and what opens is exact.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.harness import Row, gain
from privfl.aggregators import CosineFilter
from privfl.core import (
    Bounded,
    Buffer,
    Context,
    Faults,
    Outcome,
    Party,
    PartyId,
    RoundPlan,
    client_party,
    drive,
    drive_all,
)
from privfl.crypto.enrolled import Enrolled
from privfl.hybrid import BucketedSecAgg, EncryptedCosine
from privfl.hybrid.bucketed_secagg.coin import CoinServer

N, D = 6, 12
ALONG = CosineFilter(-1.0, reference=lambda rows, context: torch.arange(1.0, D + 1))
CHANNELS: dict[str, BucketedSecAgg | EncryptedCosine] = {
    "groups": BucketedSecAgg(size=2, bits=8),
    "groups-active": BucketedSecAgg(size=3, bits=8, mode="active"),
    "groups-joint": BucketedSecAgg(size=2, bits=8, bucketing_seed=None),
    "cosine": EncryptedCosine(ALONG, norms="projections", projections=2, plain_bits=24),
}
CLOSE = 5e-3
"""How far rounding moves an entry of a result."""


class Hostile:
    """A party whose mail is changed by somebody who has seen all that it ever wrote."""

    def __init__(self, honest: Party, rng: random.Random, seen: list[bytes]) -> None:
        self.honest, self.rng, self.seen = honest, rng, seen

    def step(self, mail: Any) -> dict[PartyId, Buffer]:
        """The honest party's mail, some of it changed, doubled or dropped."""
        out: dict[PartyId, Buffer] = {}
        for to, body in self.honest.step(mail).items():
            if to == "server" and len(body) < 5:  # its own timer
                out[to] = body
                continue
            whole = bytes(body)
            self.seen.append(whole)
            changed = self._changed(whole) if self.rng.random() < 0.6 else whole
            if changed is not None:
                out[to] = changed
        return out

    def _changed(self, body: bytes) -> bytes | None:
        rng, at = self.rng, self.rng.randrange(max(len(body), 1))
        how = rng.randrange(8)
        if how == 0:
            return body[:at]
        if how == 1:
            return body + rng.randbytes(rng.randrange(1, 64))
        if how == 2:
            return rng.randbytes(len(body))
        if how == 3:
            return rng.choice(self.seen)
        if how == 4:
            return None
        if how == 5:
            return body[:at] + rng.randbytes(4) + body[at + 4 :]
        head = rng.randrange(min(len(body), 48) or 1)
        return body[:head] + bytes([rng.randrange(256)]) + body[head + 1 :]


class World:
    """One federation of a channel, in which one round after the other is played."""

    def __init__(self, name: str) -> None:
        self.channel, self.number = CHANNELS[name], 0
        self.members: dict[PartyId, Any] = dict(Enrolled.fresh(self.channel, range(N)).members)
        drive_all({who: member.set_up() for who, member in self.members.items()})
        rows = torch.randn(N, D, generator=torch.Generator().manual_seed(3)).abs() + 0.5
        self.rows = rows / rows.norm(dim=1, keepdim=True) * 0.99
        self.seen: dict[PartyId, list[bytes]] = {}

    def play(self, liar: PartyId, rng: random.Random) -> list[str]:
        """What went wrong in a round in which this party's mail is hostile, in sentences."""
        self.number += 1
        plan = RoundPlan(self.number, tuple(range(N)), D, l2=1.0, session=b"hostile")
        server = self.members["server"]
        if isinstance(self.channel, EncryptedCosine):
            server.inform(Context(plan, torch.zeros(D), torch.Generator()))
        parties = {
            client_party(i): self.members[client_party(i)].enter(plan, Bounded(i, row, 1.0))
            for i, row in enumerate(self.rows)
        }
        for helper in self.channel.helpers:
            parties[helper] = self.members[helper].enter(plan)
        opener = server.enter(plan)
        seen = self.seen.setdefault(liar, [])
        faults = Faults(byzantine={liar: lambda party: Hostile(party, rng, seen)})
        try:
            outcome = drive(opener, parties, faults)
        except Exception as crash:  # the finding itself: an honest party crashed
            return [f"crash: {crash!r}"]
        return self._wrong(liar, opener, outcome)

    def _wrong(self, liar: PartyId, opener: Any, outcome: Outcome[Any]) -> list[str]:
        wrong = [
            f"{who} blames {abort.blamed}: {abort}"
            for who, abort in outcome.aborts.items()
            if who != liar and abort.blamed not in (None, liar)
        ]
        opened = outcome.opened
        if opened is None or liar == "server":
            return wrong
        if isinstance(self.channel, EncryptedCosine):
            rows = self.rows[list(opened.survivors)]
            expected = (rows / rows.norm(dim=1, keepdim=True)).mean(dim=0)
            if float((opened.what.mean() - expected).abs().max()) > CLOSE:
                wrong.append("the weighted sum is another")
            if not set(opened.excluded) <= {liar}:
                wrong.append(f"excluded: {opened.excluded}")
            return wrong
        groups = groups_of(opener)
        for number, row in zip(
            opened.disclosed["groups"].tolist(), opened.what.values, strict=True
        ):
            group = groups[number]
            left = [c for c in group if c in opened.survivors]
            far = float((row - self.rows[left].mean(dim=0)).abs().max())
            if liar not in map(client_party, group) and far > 2 * CLOSE:
                wrong.append(f"the mean of group {group} is another, by {far:.3g}")
        return wrong


def groups_of(opener: Any) -> tuple[tuple[int, ...], ...]:
    """The groups of a round that is over."""
    party = opener.party if isinstance(opener, CoinServer) else opener
    groups: tuple[tuple[int, ...], ...] = party.groups
    return groups


def fuzz(name: str, rounds: int, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """Rounds with a hostile party each, in turn: how many opened by liar, and all that went
    wrong.
    """
    world, rng = World(name), random.Random(seed)  # noqa: S311 - chance that can be played again
    liars = ["server", *world.channel.helpers, "client/0", client_party(N - 1)]
    tally: Counter[str] = Counter()
    wrong: list[str] = []
    for number in range(rounds):
        liar = liars[number % len(liars)]
        found = world.play(liar, rng)
        tally["wrong" if found else "right"] += 1
        wrong += [f"{name}, round {number}, {liar}: {line}" for line in found]
    return tally, wrong


def hostile(quick: bool) -> Iterator[Row]:
    """Thousands of tiny rounds of each channel with a hostile party each."""
    for name in CHANNELS:
        rounds = 200 if quick else 2000
        tally, wrong = fuzz(name, rounds)
        for line in wrong[:5]:
            print(line)
        yield gain(name, "all rounds", "hostile rounds that end right", tally["right"], rounds)
