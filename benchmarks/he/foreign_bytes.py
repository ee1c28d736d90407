"""Ciphertexts that no honest client sends, in whole rounds of BFV and CKKS: every one ends with its
sender excluded by name, or with the exact sum of those who were taken.

SEAL's own serial form is among them, laid out here by hand: what its loader would be handed if a
client's bytes reached it.
"""

from __future__ import annotations

import itertools
import random
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import tenseal.sealapi as seal
import torch
import zstandard

from benchmarks.harness import Row, cost, gain, say
from privfl.core import Bounded, RoundPlan, client_party, drive, drive_all
from privfl.crypto import BFV, CKKS
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.he.lattice.seal import context, passage
from privfl.crypto.he.wire import pack

N, D, LIAR = 4, 5000, 1
CHANNELS: dict[str, BFV | CKKS] = {
    "bfv": BFV(),
    "bfv-seeded": BFV(keys="shared", encryption="seeded"),
    "ckks": CKKS(),
    "ckks-seeded": CKKS(keys="shared", encryption="seeded"),
}


@dataclass(frozen=True)
class Dictated:
    """A key whose holder sends these bytes as its ciphertext, and is honest in all else."""

    key: Any
    parts: tuple[bytes, ...]

    @property
    def key_id(self) -> bytes:
        return bytes(self.key.key_id)

    def to_bytes(self) -> bytes:
        return bytes(self.key.to_bytes())

    def encrypt(self, numbers: Any, plan: RoundPlan) -> tuple[bytes, ...]:
        return self.parts

    def add(self, ciphertexts: Any, plan: RoundPlan) -> Any:
        return self.key.add(ciphertexts, plan)

    def check(self, ciphertext: Any, plan: RoundPlan) -> None:
        self.key.check(ciphertext, plan)

    def decrypt(self, ciphertext: Any, plan: RoundPlan, count: int) -> Any:
        return self.key.decrypt(ciphertext, plan, count)


class Session:
    """The members of a channel for a few clients, set up, and their updates."""

    def __init__(self, channel: Any, n: int = N, d: int = D) -> None:
        self.channel, self.n, self.d, self.number = channel, n, d, 0
        self.members = dict(Enrolled.fresh(channel, range(n)).members)
        drive_all({who: member.set_up() for who, member in self.members.items()})
        rows = torch.randn(n, d, generator=torch.Generator().manual_seed(3))
        self.rows = 0.9 * rows / rows.norm(dim=1, keepdim=True)

    def plan(self) -> RoundPlan:
        self.number += 1
        return RoundPlan(self.number, tuple(range(self.n)), self.d, l2=1.0, session=b"s")

    def update(self, client: int) -> Bounded:
        return Bounded(client, self.rows[client], 1.0)

    def body(self, client: int, plan: RoundPlan) -> bytes:
        """What the client's honest party would send."""
        ring = self.members[client_party(client)].ring
        key = ring.public if ring.secret is None else ring.secret
        return bytes(key.encrypt(ring.scheme.encode(self.update(client), plan), plan)[0])

    def play(self, dictated: dict[int, tuple[bytes, ...]], plan: RoundPlan) -> Any:
        """One round in which these clients send these bytes as their ciphertexts."""
        parties = {}
        for client in range(self.n):
            member = self.members[client_party(client)]
            party = member.enter(plan, self.update(client))
            if client in dictated:
                ring = party.ring
                party.ring = replace(
                    ring,
                    public=Dictated(ring.public, dictated[client]),
                    secret=None if ring.secret is None else Dictated(ring.secret, dictated[client]),
                )
            parties[client_party(client)] = party
        parties |= {who: self.members[who].enter(plan) for who in self.channel.helpers}
        return drive(self.members["server"].enter(plan), parties)

    def off(self, opened: Any) -> float:
        """How far a sum is from that of its survivors' updates, in the largest value."""
        exact = self.rows[list(opened.survivors)].sum(dim=0)
        return float((opened.what.value - exact).abs().max())


def framed(body: bytes, compression: int = 0, length: int | None = None) -> bytes:
    """SEAL's head over these bytes."""
    with passage() as file:
        version = file.out(seal.Plaintext("1"))[3:5]
    size = 16 + len(body) if length is None else length
    return struct.pack("<HB2sBHQ", 0xA15E, 16, version, compression, 0, size) + body


def members(
    lattice: Any,
    words: bytes,
    count: int,
    *,
    size: int = 2,
    ntt: bool | None = None,
    scale: float | None = None,
) -> bytes:
    """The members of SEAL's ciphertext, with a size and a number of words that need not be true."""
    form = lattice.scheme == "ckks" if ntt is None else ntt
    own = 2.0**lattice.scale_bits if lattice.scheme == "ckks" else 1.0
    head = struct.pack(
        "<4Q?QQQdQ",
        *context(lattice).first_parms_id(),
        form,
        size,
        lattice.degree,
        len(lattice.primes) - 1,
        own if scale is None else scale,
        1,
    )
    return head + framed(struct.pack("<Q", count) + words, length=24 + len(words))


@lru_cache(maxsize=2)
def _compressed(lattice: Any) -> tuple[bytes, bytes]:
    zeros = members(lattice, bytes(1 << 28), 1 << 25, size=0)
    return zstandard.compress(zeros), zlib.compress(zeros, 1)


def bombs(lattice: Any) -> Iterator[tuple[str, bytes]]:
    """Objects that say that they are larger than they are, or that unzip to much more."""
    yield "size 0, 256 MB of words and no data", framed(members(lattice, b"", 1 << 25, size=0))
    yield "size 0, 16 GB of words and no data", framed(members(lattice, b"", 1 << 31, size=0))
    zstd, zipped = _compressed(lattice)
    yield "zstd of 256 MB", framed(zstd, compression=2)
    yield "zlib of 256 MB", framed(zipped, compression=1)
    count = 2 * (len(lattice.primes) - 1) * lattice.degree
    whole = framed(members(lattice, bytes(8 * count), count))
    yield "300 MB of zeros behind it", whole + zstandard.compress(bytes(300 << 20))


def objects(lattice: Any) -> Iterator[tuple[str, bytes]]:
    """SEAL's ciphertexts with one member changed, and bytes missing or too many."""
    count = 2 * (len(lattice.primes) - 1) * lattice.degree
    words = np.random.default_rng(1).integers(1, 1 << 39, count, dtype=np.uint64).tobytes()
    whole = framed(members(lattice, words, count))
    yield "SEAL's own form", whole
    ntt = lattice.scheme != "ckks"
    yield "the other transform", framed(members(lattice, words, count, ntt=ntt))
    yield "a scale of NaN", framed(members(lattice, words, count, scale=float("nan")))
    yield "a size of 0", framed(members(lattice, words, count, size=0))
    yield "nothing", b""
    yield "two bytes more", whole + b"xx"
    for at in range(113):
        for mask in (0x01, 0x80, 0xFF):
            changed = bytearray(whole)
            changed[at] ^= mask
            yield f"byte {at} of SEAL's head ^ {mask:#x}", bytes(changed)


def hostile(lattice: Any, honest: bytes) -> Iterator[tuple[str, bytes]]:
    """Bodies of a contribution that nobody honest sends. ``honest``: one that somebody does."""
    chance = random.Random(5)  # noqa: S311
    chunks = -(-(D + 1) // lattice.slots)
    for name, chunk in (*objects(lattice), *bombs(lattice)):
        yield f"{name}, in a list", pack([chunk] * chunks)
        if name.startswith(("the other", "a s", "two", "nothing", "zstd", "size", "300")):
            yield f"{name}, under our head", honest[:8] + chunk * chunks
    whole = next(objects(lattice))[1]
    for order in itertools.islice(itertools.product((whole, whole[:99], b""), repeat=chunks), 30):
        yield "whole, short and empty in one list", pack(list(order))
    for at in range(min(113, len(honest))):
        for mask in (0x01, 0x80, 0xFF):
            changed = bytearray(honest)
            changed[at] ^= mask
            yield f"byte {at} ^ {mask:#x}", bytes(changed)
    for length in (0, 1, 7, 8, 9, *(chance.randrange(10, len(honest)) for _ in range(10))):
        yield f"cut to {length} bytes", honest[:length]
    for more in (1, 2, 8, 64, len(honest)):
        yield f"{more} bytes more", honest + bytes(more)
    width = -(-lattice.primes[0] // 8)  # bytes of a residue
    prime = next(iter(seal.CoeffModulus.Create(lattice.degree, list(lattice.primes)))).value()
    for _ in range(50):
        at = 8 + width * chance.randrange((len(honest) - 8 - 64) // width // 4)
        for word in (prime - 1, prime, (1 << (8 * width)) - 1, chance.randrange(prime)):
            changed = bytearray(honest)
            changed[at : at + width] = word.to_bytes(width, "little")
            yield f"residue {word} at {at}", bytes(changed)


@dataclass
class Tally:
    """What came of the bodies of one channel."""

    tried: int = 0
    named: int = 0
    taken: int = 0
    closed: int = 0
    wrong: int = 0
    slowest: float = 0.0
    grown: float = 0.0


def grown_by(run: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and by how many MB its peak of memory is above what was held before."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = _memory("VmRSS")
    made = run()
    return made, _memory("VmHWM") - before


def _memory(what: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) for line in status if line.startswith(what)) / 1024


def fuzz(name: str, every: int = 1) -> tuple[Tally, list[str]]:
    """A whole round for every hostile body, or for each of so many; and what went wrong, in words.

    ``closed``: the liar's residues are residues, and what they decrypt to is no sum of bounded
    updates; nobody can be named for it, as for a client that encrypts garbage.
    """
    session, tally, faults = Session(CHANNELS[name]), Tally(), []
    honest, who = session.body(LIAR, session.plan()), client_party(LIAR)
    lattice = session.channel.scheme.lattice
    for what, body in itertools.islice(hostile(lattice, honest), 0, None, every):
        tally.tried += 1
        began = time.perf_counter()
        try:
            outcome, grown = grown_by(partial(session.play, {LIAR: (body,)}, session.plan()))
            tally.grown = max(tally.grown, grown)
        except Exception as error:
            faults.append(f"{what}: {type(error).__name__} out of the round: {error}")
            continue
        finally:
            tally.slowest = max(tally.slowest, time.perf_counter() - began)
        opened = outcome.opened
        if opened is None:
            aborts = " ".join(map(str, outcome.aborts.values()))
            tally.closed += 1
            if "not a sum of" not in aborts or not what.startswith(("residue", "byte")):
                faults.append(f"{what}: the round opened nothing: {aborts}")
        elif LIAR in opened.survivors:
            tally.taken += 1
        elif who in opened.excluded:
            tally.named += 1
        if opened is not None and LIAR not in opened.survivors and session.off(opened) > 3e-4:
            tally.wrong += 1
            faults.append(f"{what}: the sum of {opened.survivors} is off")
        if (
            opened is not None
            and LIAR in opened.survivors
            and not what.startswith(("residue", "byte"))
        ):
            faults.append(f"{what}: was taken")
    return tally, faults


def sums(name: str, count: int) -> int:
    """Of so many random sums under one key, how many decrypt to those of the plain numbers."""
    channel, chance = CHANNELS[name], np.random.default_rng(6)
    public, secret = channel.scheme.generate()
    right = 0
    for number in range(count):
        n, d = int(chance.integers(1, 9)), int(chance.integers(2, 9000))
        plan = RoundPlan(number, tuple(range(n)), d - 1, l2=1.0)
        exact = channel.scheme.lattice.scheme == "bfv"
        rows = chance.integers(-32767, 32768, (n, d)) if exact else chance.uniform(-1, 1, (n, d))
        parts = [(public if i % 2 else secret).encrypt(row, plan) for i, row in enumerate(rows)]
        got = secret.decrypt(public.add(parts, plan), plan, n)
        right += bool((np.abs(got - rows.sum(axis=0)) <= (0 if exact else 1e-3)).all())
    return right


def foreign_bytes(quick: bool) -> Iterator[Row]:
    """Hostile ciphertexts through whole rounds; random sums against plain integers."""
    for name in CHANNELS:
        tally, faults = fuzz(name, 10 if quick else 1)
        for fault in faults:
            say(f"{name}: {fault}")
        say(f"{name}: {tally}")
        case = f"fuzz-{name}"
        handled = float(tally.tried - len(faults))
        yield gain(case, "bodies tried", "handled as they must be", handled, tally.tried, 1)
        yield cost(case, "64 MB", "growth of the largest memory, MB", max(tally.grown, 0.1), 64, 1)
        yield cost(case, "1 s", "slowest round, s", tally.slowest, 1, 1)
        count = 50 if quick else 500
        yield gain(case, "random sums", "exact", sums(name, count), count, 1)
