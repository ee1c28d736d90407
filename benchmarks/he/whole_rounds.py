"""Whole rounds of every channel that adds what nobody reads, as it is set by itself: CPU time by
role, and bytes to the server, to decryptors and back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.harness import Row, cost, say
from benchmarks.he.peer import Peer
from benchmarks.he.values import TOP, rows
from privfl.core import Bounded, Mail, Party, RoundPlan, client_of, client_party, drive, drive_all
from privfl.crypto import BFV, CKKS, MultiPartyRLWE, OneTimeRLWE, Paillier, Plain, SecAgg
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.he.paillier.packing import Slots

N, D = 10, 200_000
CHANNELS: dict[str, Any] = {
    "plain": Plain(),
    "secagg": SecAgg(),
    "one_time_rlwe": OneTimeRLWE(),
    "mp_rlwe": MultiPartyRLWE(),
    "bfv": BFV(),
    "bfv, shared key, seeded": BFV(keys="shared", encryption="seeded"),
    "ckks": CKKS(),
    "ckks, shared key, seeded": CKKS(keys="shared", encryption="seeded"),
}
FEW = 12_700
"""Values of the rounds under Paillier keys of the default length."""
PAILLIER: dict[str, Any] = {
    "paillier": Paillier(),
    "paillier, threshold": Paillier(keys="threshold"),
}


@dataclass
class Timed:
    """A party, and the CPU seconds that it takes."""

    honest: Party
    seconds: float = 0.0

    def step(self, mail: Mail) -> Mail:
        began = time.process_time()
        try:
            return self.honest.step(mail)
        finally:
            self.seconds += time.process_time() - began


@dataclass
class Cost:
    """CPU seconds of one client, the server and all decryptors; bytes of one client to the server,
    of all to decryptors, and of those back.
    """

    client: float = float("inf")
    server: float = float("inf")
    helpers: float = float("inf")
    up: float = 0.0
    handed: float = 0.0
    back: float = 0.0

    @property
    def total(self) -> float:
        return N * self.client + self.server + self.helpers


@dataclass
class Rounds:
    """The members of a channel, set up; a round costs what the cheapest of some does, by role."""

    channel: Any
    d: int = D
    members: dict[str, Any] = field(default_factory=dict)

    def played(self, repeats: int) -> Cost:
        everybody = Enrolled.fresh(self.channel, range(N))
        self.members = dict(everybody.members)
        drive_all({who: member.set_up() for who, member in self.members.items()})
        row = torch.randn(self.d, generator=torch.Generator().manual_seed(0))
        row = 0.9 * row / row.norm()
        found = Cost()
        for number in range(repeats + 1):
            self._round(number, row, found, warm=number > 0)
        return found

    def _round(self, number: int, row: torch.Tensor, found: Cost, *, warm: bool) -> None:
        plan = RoundPlan(number, tuple(range(N)), self.d, l2=1.0, session=b"b")
        parties = {}
        entering = time.process_time()
        for i in range(N):
            who = client_party(i)
            parties[who] = Timed(self.members[who].enter(plan, Bounded(i, row, 1.0)))
        entered = (time.process_time() - entering) / N
        helpers = {w: Timed(self.members[w].enter(plan)) for w in self.channel.helpers}
        server = self.members["server"].enter(plan)
        asked = Timed(server)
        server_party = _Served(server, asked)
        outcome = drive(server_party, {**parties, **helpers})
        assert outcome.opened is not None, outcome.aborts
        if not warm:
            return
        client = sum(p.seconds for p in parties.values()) / N + entered
        found.client = min(found.client, client)
        found.server = min(found.server, asked.seconds)
        found.helpers = min(found.helpers, sum(p.seconds for p in helpers.values()))
        sizes = [(m.sender, m.receiver, m.size) for m in outcome.messages]
        found.up = sum(s for a, b, s in sizes if client_of(a) is not None and b == "server") / N
        found.handed = sum(s for _, b, s in sizes if b in helpers)
        found.back = sum(s for a, b, s in sizes if a in helpers and b == "server")


@dataclass
class _Served:
    """The server's party, timed, with its result."""

    honest: Any
    timed: Timed

    def step(self, mail: Mail) -> Mail:
        return self.timed.step(mail)

    @property
    def result(self) -> Any:
        return self.honest.result


def nvflare_round(quick: bool, d: int = D) -> Cost:
    """The same by NVFlare's settings through TenSEAL, keys shared, no mail and no signatures."""
    peer = Peer(8192, [60, 40, 40], symmetric=True)
    peer.values = peer.values[:d]
    peer.body = peer.encrypt()
    peer.total = peer.tenseal.ckks_vector_from(peer.context, peer.body)
    found = Cost(helpers=0.0, up=len(peer.body))
    for _ in range(1 if quick else 3):
        began = time.process_time()
        peer.encrypt()
        done = time.process_time()
        for _ in range(N):
            peer.add()
        added = time.process_time()
        peer.decrypt()
        opened = time.process_time()
        found.client = min(found.client, done - began + (opened - added) / N)
        found.server = min(found.server, added - done)
    return found


def told(name: str, found: Cost, d: int) -> None:
    say(
        f"{name}: client {found.client:.3f} s, server {found.server:.3f} s, decryptors"
        f" {found.helpers:.3f} s, in all {found.total:.3f}; bytes a value and client: up"
        f" {found.up / d:.2f}, to decryptors {found.handed / d / N:.2f}, back"
        f" {found.back / d / N:.2f}"
    )


def phe_round(d: int = FEW) -> Cost:
    """The same by python-paillier with a key of 3,072 bits, values packed as we pack them (FATE's
    way; the library takes one number at a time), no mail and no signatures.
    """
    import phe

    public, secret = phe.generate_paillier_keypair(n_length=3072)
    plan = RoundPlan(0, tuple(range(N)), d - 1, l2=1.0)
    values, _ = rows(d)
    slots = Slots.of(TOP, N, public.n.bit_length() - 1)
    found = Cost(helpers=0.0)
    began = time.process_time()
    sent = [
        [public.encrypt(m) for m in slots.pack(values)]  # signed integers of up to n / 3
        for _ in range(N)
    ]
    done = time.process_time()
    total = sent[0]
    for body in sent[1:]:
        total = [a + b for a, b in zip(total, body, strict=True)]
    added = time.process_time()
    opened = slots.unpack([secret.decrypt(c) for c in total], plan.d + 1, N)
    found.client, found.server = (done - began) / N, added - done
    found.helpers = time.process_time() - added
    found.up = len(sent[0]) * public.nsquare.bit_length() / 8
    if not (opened == N * values).all():
        raise RuntimeError("python-paillier opened another sum")
    return found


def paillier_rounds(quick: bool) -> Iterator[Row]:
    """Ten clients, 12,700 values, keys of 3,072 bits; one-time-pad RLWE beside them at the same
    size, where its dealing weighs most, and python-paillier, packed.
    """
    peer = Rounds(OneTimeRLWE(), FEW).played(1 if quick else 3)
    told("one_time_rlwe, 12,700 values", peer, FEW)
    theirs = phe_round()
    told("python-paillier, packed, no mail, 12,700 values", theirs, FEW)
    for name, channel in PAILLIER.items():
        found = Rounds(channel, FEW).played(1)
        told(f"{name}, 12,700 values", found, FEW)
        case = f"round-{name}"
        yield cost(case, "one_time_rlwe", "CPU s of a round", found.total, peer.total)
        yield cost(case, "one_time_rlwe", "bytes a value up", found.up / FEW, peer.up / FEW)
        yield cost(case, "phe, packed", "CPU s of a round", found.total, theirs.total)
        yield cost(case, "phe, packed", "bytes a value up", found.up / FEW, theirs.up / FEW)


def whole_rounds(quick: bool) -> Iterator[Row]:
    """Ten clients, 200,000 values."""
    peer = nvflare_round(quick)
    say(f"NVFlare's settings: {peer}, CPU s in all {peer.total:.2f}, {peer.up / D:.1f} B/value up")
    for name, channel in CHANNELS.items():
        found = Rounds(channel).played(1 if quick else 3)
        told(name, found, D)
        case = f"round-{name}"
        yield cost(case, "NVFlare's CKKS", "CPU s of a round", found.total, peer.total)
        yield cost(case, "NVFlare's CKKS", "bytes a value up", found.up / D, peer.up / D)
